//! Rules of RFC 9112 §6 and §7 by raw bytes.

use super::*;

#[test]
fn one_chunk_and_the_end_in_one_call() {
    let mut decoder = BodyDecoder::new(BodyFraming::Chunked, 100);
    let input = b"5;x=y\r\nhello\r\n0\r\nA: b\r\n\r\nrest";
    let decoded = decoder.decode(input).unwrap();
    assert_eq!(&input[decoded.data], b"hello");
    assert_eq!(&input[decoded.consumed..], b"rest");
    assert!(decoded.end);
    assert_eq!(decoder.trailers().len(), 1);
}
