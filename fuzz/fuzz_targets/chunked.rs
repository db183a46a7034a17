//! A chunked body: never a panic; the same body however it is cut; what was read can be written
//! and read again.
//!
//! The input's first byte says how many of the next bytes are lengths of pieces; the rest is the
//! body, and whatever comes after it.

#![no_main]

use evenkeel::http::body::BodyFraming;
use evenkeel::http::h1::body::{BodyDecoder, encode_chunk, encode_last_chunk};
use evenkeel::http::headers::Fields;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&count, rest)) = input.split_first() else {
        return;
    };
    let (lengths, body) = rest.split_at(rest.len().min(usize::from(count % 16)));
    let whole = read(body, TRAILER_BYTES, [body.len()]);
    assert_eq!(
        whole,
        read(body, TRAILER_BYTES, lengths.iter().map(|n| usize::from(*n)))
    );
    assert_eq!(
        whole,
        read(body, TRAILER_BYTES, std::iter::repeat_n(1, body.len()))
    );

    if let Outcome::End { .. } = whole.outcome {
        let mut again = Vec::new();
        for piece in whole.data.chunks(7) {
            encode_chunk(piece, &mut again);
        }
        let mut trailers = Fields::default();
        for (name, value) in &whole.trailers {
            trailers.push(name, value);
        }
        encode_last_chunk(&trailers, &mut again);
        let taken = again.len();
        again.extend_from_slice(b"0\r\n\r\n");
        // A space is added after each colon.
        let second = read(&again, 2 * TRAILER_BYTES, [again.len()]);
        assert_eq!(second.outcome, Outcome::End { taken });
        assert_eq!((second.data, second.trailers), (whole.data, whole.trailers));
    }
});

const TRAILER_BYTES: usize = 256;

#[derive(Debug, PartialEq, Eq)]
struct Body {
    data: Vec<u8>,
    trailers: Vec<(Vec<u8>, Vec<u8>)>,
    outcome: Outcome,
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Partial,
    End { taken: usize },
    Broken(&'static str),
}

/// Feeds pieces of the given lengths, then all that is left.
fn read(input: &[u8], max_trailer_bytes: usize, lengths: impl IntoIterator<Item = usize>) -> Body {
    let mut decoder = BodyDecoder::new(BodyFraming::Chunked, max_trailer_bytes);
    let (mut data, mut taken, mut there) = (Vec::new(), 0, 0);
    let mut outcome = Outcome::Partial;
    'read: for length in lengths.into_iter().chain([input.len()]) {
        there = input.len().min(there + length);
        loop {
            match decoder.decode(&input[taken..there]) {
                Ok(decoded) => {
                    data.extend_from_slice(&input[taken..there][decoded.data]);
                    taken += decoded.consumed;
                    if decoded.end {
                        outcome = Outcome::End { taken };
                        break 'read;
                    }
                    if decoded.consumed == 0 {
                        break;
                    }
                }
                Err(bad) => {
                    outcome = Outcome::Broken(bad.0);
                    break 'read;
                }
            }
        }
    }
    let trailers = decoder.trailers().iter();
    Body {
        data,
        trailers: trailers
            .map(|f| (f.name.to_vec(), f.value.to_vec()))
            .collect(),
        outcome,
    }
}
