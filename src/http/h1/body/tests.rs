//! Rules of RFC 9112 §6 and §7 by raw bytes, each sample fed at every split offset and byte by
//! byte.

use proptest::prelude::*;

use super::*;

/// What a reader of the whole body saw.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Body {
    data: Vec<u8>,
    trailers: Vec<(Vec<u8>, Vec<u8>)>,
    /// Bytes of the input that belong to the body; 0 after an error, when nobody can say.
    taken: usize,
    /// `None`: more input is needed.
    outcome: Option<Result<(), BadBody>>,
    closed: bool,
}

/// Feeds the input in pieces that end at the given offsets, as a reader of a socket does: what a
/// call leaves is there at the next one, with more behind it.
fn read(framing: BodyFraming, max_trailer_bytes: usize, input: &[u8], cuts: &[usize]) -> Body {
    let mut decoder = BodyDecoder::new(framing, max_trailer_bytes);
    let (mut data, mut taken, mut outcome) = (Vec::new(), 0, None);
    'read: for end in cuts.iter().copied().chain([input.len()]) {
        loop {
            let piece = &input[taken..end];
            match decoder.decode(piece) {
                Ok(decoded) => {
                    assert!(
                        decoded.data.end <= decoded.consumed && decoded.consumed <= piece.len()
                    );
                    assert_eq!(decoded.end, decoder.is_done());
                    data.extend_from_slice(&piece[decoded.data]);
                    taken += decoded.consumed;
                    if decoded.end {
                        outcome = Some(Ok(()));
                        break 'read;
                    }
                    if decoded.consumed == 0 {
                        break;
                    }
                }
                Err(bad) => {
                    assert_eq!(decoder.decode(b"0\r\n\r\n"), Err(bad), "an error stays");
                    assert!(!decoder.closed());
                    (outcome, taken) = (Some(Err(bad)), 0);
                    break 'read;
                }
            }
        }
    }
    Body {
        data,
        trailers: decoder
            .trailers()
            .iter()
            .map(|f| (f.name.to_vec(), f.value.to_vec()))
            .collect(),
        taken,
        outcome,
        closed: decoder.closed(),
    }
}

/// The body as read in one piece, once it is sure that it reads the same in any others.
fn read_in_all_ways(rule: &str, framing: BodyFraming, max: usize, input: &[u8]) -> Body {
    let whole = read(framing, max, input, &[]);
    for first in 0..=input.len() {
        assert_eq!(
            read(framing, max, input, &[first]),
            whole,
            "{rule}: cut at {first}"
        );
        if input.len() < 60 {
            for second in first..=input.len() {
                let cuts = [first, second];
                assert_eq!(
                    read(framing, max, input, &cuts),
                    whole,
                    "{rule}: cut at {cuts:?}"
                );
            }
        }
        // A part of it is a part of the same body, and no proper end.
        let part = read(framing, max, &input[..first], &[]);
        assert!(whole.data.starts_with(&part.data), "{rule}: only {first}");
        match part.outcome {
            None => assert!(
                !part.closed || framing == BodyFraming::UntilClose,
                "{rule}: {first}"
            ),
            same => assert_eq!(same, whole.outcome, "{rule}: only {first}"),
        }
    }
    let bytewise: Vec<usize> = (0..input.len()).collect();
    assert_eq!(
        read(framing, max, input, &bytewise),
        whole,
        "{rule}: byte by byte"
    );
    whole
}

const MAX_TRAILER: usize = 64;

#[test]
fn chunked_bodies() {
    let long_extension = [b"1;".as_slice(), &[b'x'; 4095], b"\r\na\r\n0\r\n\r\n"].concat();
    let samples: &[(&str, &[u8], &[u8])] = &[
        ("9112 §7.1 no chunk", b"0\r\n\r\n", b""),
        ("9112 §7.1 one chunk", b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
        (
            "9112 §7.1 several chunks",
            b"1\r\na\r\n2\r\nbc\r\n3\r\ndef\r\n0\r\n\r\n",
            b"abcdef",
        ),
        (
            "9112 §7.1 upper case",
            b"A\r\n0123456789\r\n0\r\n\r\n",
            b"0123456789",
        ),
        (
            "9112 §7.1 lower case",
            b"b\r\n0123456789a\r\n0\r\n\r\n",
            b"0123456789a",
        ),
        (
            "9112 §7.1 two digits",
            b"10\r\n0123456789abcdef\r\n0\r\n\r\n",
            b"0123456789abcdef",
        ),
        (
            "9112 §7.1 leading zeros",
            b"0000000000000001\r\na\r\n0\r\n\r\n",
            b"a",
        ),
        (
            "9112 §7.1 a last chunk of many zeros",
            b"1\r\na\r\n0000000000000000\r\n\r\n",
            b"a",
        ),
        (
            "9112 §7.1 data that looks like framing",
            b"7\r\n0\r\n\r\n\r\n\r\n0\r\n\r\n",
            b"0\r\n\r\n\r\n",
        ),
        (
            "9112 §7.1 data of any bytes",
            b"4\r\n\0\r\xff\n\r\n0\r\n\r\n",
            b"\0\r\xff\n",
        ),
        ("9112 §7.1.1 an extension", b"1;a\r\nb\r\n0\r\n\r\n", b"b"),
        (
            "9112 §7.1.1 an extension with a value",
            b"1;a=b;c=\"d e\"\r\nb\r\n0;f\r\n\r\n",
            b"b",
        ),
        (
            "9112 §7.1.1 white space and obs-text in an extension",
            b"1; a\t=\xff\r\nb\r\n0\r\n\r\n",
            b"b",
        ),
        (
            "9112 §7.1.1 extensions of 4096 bytes",
            &long_extension,
            b"a",
        ),
    ];
    for (rule, input, data) in samples {
        for tail in [b"".as_slice(), b"0\r\n\r\n", b"GET / HTTP/1.1\r\n", b"\r\n"] {
            let body = read_in_all_ways(
                rule,
                BodyFraming::Chunked,
                MAX_TRAILER,
                &[input, tail].concat(),
            );
            assert_eq!(
                body.data.escape_ascii().to_string(),
                data.escape_ascii().to_string(),
                "{rule}"
            );
            assert_eq!(body.outcome, Some(Ok(())), "{rule}");
            assert_eq!(body.taken, input.len(), "{rule}: not a byte more");
            assert!(body.closed, "{rule}");
            if input.len() > 1000 {
                break;
            }
        }
    }
}

#[test]
fn broken_chunked_bodies() {
    let long_extension = [b"1;".as_slice(), &[b'x'; 4096], b"\r\na\r\n0\r\n\r\n"].concat();
    let long_trailer = [
        b"0\r\nA: ".as_slice(),
        &[b'x'; MAX_TRAILER - 4],
        b"\r\n\r\n",
    ]
    .concat();
    let samples: &[(&str, &[u8], &[u8])] = &[
        ("9112 §7.1 an empty size", b"\r\nhello\r\n0\r\n\r\n", b""),
        (
            "9112 §7.1 only an extension",
            b";a\r\nhello\r\n0\r\n\r\n",
            b"",
        ),
        (
            "9112 §7.1 an empty size for the last chunk",
            b"\r\n\r\n",
            b"",
        ),
        (
            "9112 §7.1 only an extension for the last chunk",
            b";a\r\n\r\n",
            b"",
        ),
        (
            "9112 §7.1 an empty size for the last chunk, later",
            b"1\r\na\r\n\r\n\r\n",
            b"a",
        ),
        (
            "9112 §7.1 a space before the size",
            b" 5\r\nhello\r\n0\r\n\r\n",
            b"",
        ),
        (
            "9112 §7.1 a tab before the size",
            b"\t5\r\nhello\r\n0\r\n\r\n",
            b"",
        ),
        (
            "9112 §7.1 a space after the size",
            b"5 \r\nhello\r\n0\r\n\r\n",
            b"",
        ),
        (
            "9112 §7.1 a tab after the size",
            b"5\t\r\nhello\r\n0\r\n\r\n",
            b"",
        ),
        (
            "9112 §7.1.1 white space before an extension",
            b"5 ;a\r\nhello\r\n0\r\n\r\n",
            b"",
        ),
        ("9112 §7.1 a space after the last size", b"0 \r\n\r\n", b""),
        ("9112 §7.1 a plus", b"+5\r\nhello\r\n0\r\n\r\n", b""),
        ("9112 §7.1 a minus", b"-5\r\nhello\r\n0\r\n\r\n", b""),
        ("9112 §7.1 a minus before 0", b"-0\r\n\r\n", b""),
        ("9112 §7.1 0x", b"0x5\r\nhello\r\n0\r\n\r\n", b""),
        ("9112 §7.1 0X0", b"0X0\r\n\r\n", b""),
        ("9112 §7.1 an underscore", b"1_0\r\nhello\r\n0\r\n\r\n", b""),
        (
            "9112 §7.1 a letter that is no digit",
            b"g\r\nhello\r\n0\r\n\r\n",
            b"",
        ),
        (
            "9112 §7.1 a letter after a digit",
            b"5h\r\nhello\r\n0\r\n\r\n",
            b"",
        ),
        ("9112 §7.1 a point", b"5.0\r\nhello\r\n0\r\n\r\n", b""),
        ("9112 §7.1 a comma", b"5,5\r\nhello\r\n0\r\n\r\n", b""),
        ("9112 §7.1 quotes", b"\"5\"\r\nhello\r\n0\r\n\r\n", b""),
        (
            "9112 §7.1 NUL after the size",
            b"5\0\r\nhello\r\n0\r\n\r\n",
            b"",
        ),
        (
            "9112 §7.1 a vertical tab after the size",
            b"5\x0b\r\nhello\r\n0\r\n\r\n",
            b"",
        ),
        (
            "9112 §7.1 a digit above ASCII",
            b"\xef\xbc\x95\r\nhello\r\n0\r\n\r\n",
            b"",
        ),
        (
            "9112 §7.1 17 digits",
            b"00000000000000005\r\nhello\r\n0\r\n\r\n",
            b"",
        ),
        (
            "9112 §7.1 2^64",
            b"10000000000000000\r\nhello\r\n0\r\n\r\n",
            b"",
        ),
        (
            "9112 §7.1 2^64 + 5",
            b"10000000000000005\r\nhello\r\n0\r\n\r\n",
            b"",
        ),
        ("9112 §7.1 17 zeros", b"00000000000000000\r\n\r\n", b""),
        (
            "9112 §2.2 bare LF after the size",
            b"5\nhello\r\n0\r\n\r\n",
            b"",
        ),
        (
            "9112 §2.2 bare CR after the size",
            b"5\rhello\r\n0\r\n\r\n",
            b"",
        ),
        (
            "9112 §2.2 CR CR LF after the size",
            b"5\r\r\nhello\r\n0\r\n\r\n",
            b"",
        ),
        (
            "9112 §2.2 bare LF in an extension",
            b"5;a\nhello\r\n0\r\n\r\n",
            b"",
        ),
        (
            "9112 §2.2 bare CR in an extension",
            b"5;a\rb\r\nhello\r\n0\r\n\r\n",
            b"",
        ),
        (
            "9112 §2.2 bare LF in a quoted extension",
            b"5;a=\"\n\"\r\nhello\r\n0\r\n\r\n",
            b"",
        ),
        (
            "9112 §7.1.1 NUL in an extension",
            b"5;\0\r\nhello\r\n0\r\n\r\n",
            b"",
        ),
        (
            "9112 §7.1.1 DEL in an extension",
            b"5;\x7f\r\nhello\r\n0\r\n\r\n",
            b"",
        ),
        ("9112 §7.1.1 extensions of 4097 bytes", &long_extension, b""),
        (
            "9112 §7.1 more data than said",
            b"4\r\nhello\r\n0\r\n\r\n",
            b"hell",
        ),
        (
            "9112 §7.1 less data than said",
            b"6\r\nhello\r\n0\r\n\r\n",
            b"hello\r",
        ),
        (
            "9112 §7.1 no line end after the data",
            b"5\r\nhello0\r\n\r\n",
            b"hello",
        ),
        (
            "9112 §2.2 bare LF after the data",
            b"5\r\nhello\n0\r\n\r\n",
            b"hello",
        ),
        (
            "9112 §2.2 bare CR after the data",
            b"5\r\nhello\r0\r\n\r\n",
            b"hello",
        ),
        (
            "9112 §7.1 two line ends after the data",
            b"5\r\nhello\r\n\r\n0\r\n\r\n",
            b"hello",
        ),
        (
            "9112 §7.1 garbage for a size, later",
            b"1\r\na\r\n1\r\nb\r\nx\r\n",
            b"ab",
        ),
        ("9112 §2.2 bare LF after the last chunk", b"0\n\r\n", b""),
        ("9112 §2.2 bare LF at the end", b"1\r\na\r\n0\r\n\n", b"a"),
        ("9112 §2.2 bare CR at the end", b"1\r\na\r\n0\r\n\rX", b"a"),
        (
            "9112 §7.1 a chunk for the end",
            b"1\r\na\r\n0\r\nGET / HTTP/1.1\r\n\r\n",
            b"a",
        ),
        (
            "9112 §5.1 a space before a trailer's colon",
            b"0\r\nA : b\r\n\r\n",
            b"",
        ),
        (
            "9112 §5.2 a folded trailer",
            b"0\r\nA: b\r\n c\r\n\r\n",
            b"",
        ),
        ("9112 §5 an empty trailer name", b"0\r\n: b\r\n\r\n", b""),
        ("9112 §5 a trailer without a colon", b"0\r\nab\r\n\r\n", b""),
        (
            "9110 §5.5 a control character in a trailer",
            b"0\r\nA: \x01\r\n\r\n",
            b"",
        ),
        ("9110 §5.5 NUL in a trailer, at once", b"0\r\nA: \0", b""),
        (
            "9112 §2.2 bare LF in a trailer, at once",
            b"0\r\nA: b\n",
            b"",
        ),
        (
            "9112 §2.2 bare CR in a trailer, at once",
            b"0\r\nA: b\rc",
            b"",
        ),
        (
            "9110 §6.5.1 broken, though it would be left out",
            b"0\r\nHost : b\r\n\r\n",
            b"",
        ),
        ("limits: a trailer section too large", &long_trailer, b""),
    ];
    for (rule, input, data) in samples {
        let body = read_in_all_ways(rule, BodyFraming::Chunked, MAX_TRAILER, input);
        assert!(matches!(body.outcome, Some(Err(_))), "{rule}: {body:?}");
        assert_eq!(
            body.data.escape_ascii().to_string(),
            data.escape_ascii().to_string(),
            "{rule}"
        );
    }
}

/// What may stand where a chunk's size ends.
#[test]
fn every_byte_after_a_size() {
    for byte in 0..=255u8 {
        let input = [b"1".as_slice(), &[byte], b"\r\n"].concat();
        let body = read(BodyFraming::Chunked, MAX_TRAILER, &input, &[]);
        let fits = byte.is_ascii_hexdigit() || byte == b';';
        assert_eq!(body.outcome.is_none(), fits, "{byte:#04x}");
    }
}

#[test]
fn a_size_that_fills_a_u64() {
    let input = b"ffffffffffffffff\r\nabc";
    let body = read_in_all_ways("9112 §7.1", BodyFraming::Chunked, MAX_TRAILER, input);
    assert_eq!(
        (body.data.as_slice(), body.outcome),
        (b"abc".as_slice(), None)
    );
}

#[test]
fn extensions_are_bounded_over_the_whole_body() {
    let chunk = [b"1;".as_slice(), &[b'x'; 99], b"\r\na\r\n"].concat();
    let body = read(BodyFraming::Chunked, MAX_TRAILER, &chunk.repeat(41), &[]);
    assert_eq!(body.data.len(), 40);
    assert_eq!(
        body.outcome,
        Some(Err(BadBody("chunk extensions too long")))
    );
}

#[test]
fn trailers() {
    let largest = [
        b"0\r\nA: ".as_slice(),
        &[b'x'; MAX_TRAILER - 5],
        b"\r\n\r\n",
    ]
    .concat();
    let samples: &[(&str, &[u8], &[&str])] = &[
        ("9112 §7.1.2 none", b"0\r\n\r\n", &[]),
        ("9112 §7.1.2 one", b"0\r\nDigest: x\r\n\r\n", &["Digest: x"]),
        (
            "9112 §7.1.2 order and repetition",
            b"0\r\nB: 1\r\nA:\r\nB:  2 \r\n\r\n",
            &["B: 1", "A: ", "B: 2"],
        ),
        (
            "grpc",
            b"0\r\ngrpc-status: 0\r\ngrpc-message: ok\r\n\r\n",
            &["grpc-status: 0", "grpc-message: ok"],
        ),
        (
            "9110 §6.5.1 no framing",
            b"0\r\nContent-Length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
            &[],
        ),
        (
            "9110 §6.5.1 no routing",
            b"0\r\nhost: b\r\nX: y\r\nForwarded: for=a\r\n\r\n",
            &["X: y"],
        ),
        (
            "9110 §6.5.1 no routing",
            b"0\r\nX-Forwarded-For: b\r\nX-Real-IP: c\r\n\r\n",
            &[],
        ),
        (
            "9110 §6.5.1 no authentication",
            b"0\r\nAuthorization: b\r\nCookie: c\r\nSet-Cookie: d\r\n\r\n",
            &[],
        ),
        (
            "9110 §6.5.1 no authentication by a client's certificate",
            b"0\r\nX-SSL-Client-Verify: SUCCESS\r\nclient-cert: :b:\r\nX: y\r\n\r\n",
            &["X: y"],
        ),
        (
            "9110 §6.5.1 no request modifiers",
            b"0\r\nIf-Match: b\r\nRange: c\r\nExpect: d\r\nTE: e\r\n\r\n",
            &[],
        ),
        (
            "9110 §6.5.1 no content format",
            b"0\r\nContent-Type: b\r\nContent-Encoding: c\r\n\r\n",
            &[],
        ),
        (
            "9110 §6.5.1 no response control",
            b"0\r\nCache-Control: b\r\nLocation: c\r\nVary: d\r\n\r\n",
            &[],
        ),
        (
            "9110 §7.6.1 no fields of one hop",
            b"0\r\nConnection: close\r\nTrailer: a\r\nUpgrade: b\r\n\r\n",
            &[],
        ),
        (
            "underscores",
            b"0\r\nX_Real_IP: b\r\nContent_Length: 1\r\n\r\n",
            &[],
        ),
        (
            "limits: as large as may be",
            &largest,
            &["A: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"],
        ),
    ];
    for (rule, input, expected) in samples {
        let body = read_in_all_ways(rule, BodyFraming::Chunked, MAX_TRAILER, input);
        let shown: Vec<String> = body
            .trailers
            .iter()
            .map(|(n, v)| format!("{}: {}", n.escape_ascii(), v.escape_ascii()))
            .collect();
        assert_eq!(&shown, expected, "{rule}");
        assert_eq!(
            (body.outcome, body.taken),
            (Some(Ok(())), input.len()),
            "{rule}"
        );
    }
    let empty = read_in_all_ways("no trailers allowed", BodyFraming::Chunked, 0, b"0\r\n\r\n");
    assert_eq!(empty.outcome, Some(Ok(())));
    let one = read_in_all_ways(
        "no trailers allowed",
        BodyFraming::Chunked,
        0,
        b"0\r\nA:\r\n\r\n",
    );
    assert!(matches!(one.outcome, Some(Err(_))));
}

#[test]
fn other_framings() {
    for (rule, framing, input, data, ended, closed) in [
        ("9112 §6.3 no body", BodyFraming::None, "", "", true, true),
        (
            "9112 §6.3 no body takes nothing",
            BodyFraming::None,
            "abc",
            "",
            true,
            true,
        ),
        (
            "9112 §6.2 length 0",
            BodyFraming::Length(0),
            "",
            "",
            true,
            true,
        ),
        (
            "9112 §6.2 length 0 takes nothing",
            BodyFraming::Length(0),
            "abc",
            "",
            true,
            true,
        ),
        (
            "9112 §6.2 length",
            BodyFraming::Length(3),
            "abc",
            "abc",
            true,
            true,
        ),
        (
            "9112 §6.2 length takes no more",
            BodyFraming::Length(3),
            "abcd",
            "abc",
            true,
            true,
        ),
        (
            "9112 §8 too short",
            BodyFraming::Length(3),
            "ab",
            "ab",
            false,
            false,
        ),
        (
            "9112 §8 nothing yet",
            BodyFraming::Length(3),
            "",
            "",
            false,
            false,
        ),
        (
            "9112 §6.2 the greatest length",
            BodyFraming::Length(u64::MAX),
            "abc",
            "abc",
            false,
            false,
        ),
        (
            "9112 §8 chunked, cut in the size",
            BodyFraming::Chunked,
            "3",
            "",
            false,
            false,
        ),
        (
            "9112 §8 chunked, cut in the data",
            BodyFraming::Chunked,
            "3\r\nab",
            "ab",
            false,
            false,
        ),
        (
            "9112 §8 chunked, cut after the data",
            BodyFraming::Chunked,
            "3\r\nabc",
            "abc",
            false,
            false,
        ),
        (
            "9112 §8 chunked, cut at the end",
            BodyFraming::Chunked,
            "0\r\n\r",
            "",
            false,
            false,
        ),
        (
            "9112 §8 until close",
            BodyFraming::UntilClose,
            "",
            "",
            false,
            true,
        ),
        (
            "9112 §8 until close takes all",
            BodyFraming::UntilClose,
            "a\r\n0",
            "a\r\n0",
            false,
            true,
        ),
    ] {
        let body = read_in_all_ways(rule, framing, MAX_TRAILER, input.as_bytes());
        assert_eq!(body.data, data.as_bytes(), "{rule}");
        assert_eq!(body.outcome, ended.then_some(Ok(())), "{rule}");
        assert_eq!(body.closed, closed, "{rule}");
        assert_eq!(
            BodyDecoder::new(framing, 0).is_done(),
            matches!(framing, BodyFraming::None | BodyFraming::Length(0))
        );
    }
}

#[test]
fn what_remains() {
    let mut decoder = BodyDecoder::new(BodyFraming::Length(5), 0);
    assert_eq!(decoder.remaining(), Some(5));
    decoder.decode(b"ab").unwrap();
    assert_eq!(decoder.remaining(), Some(3));
    decoder.decode(b"cdef").unwrap();
    assert_eq!(decoder.remaining(), Some(0));
    assert_eq!(BodyDecoder::new(BodyFraming::None, 0).remaining(), Some(0));
    assert_eq!(
        BodyDecoder::new(BodyFraming::UntilClose, 0).remaining(),
        None
    );
    assert_eq!(BodyDecoder::new(BodyFraming::Chunked, 0).remaining(), None);
}

/// Few calls: framing before and after a run of data goes with it.
#[test]
fn one_call_for_one_chunk() {
    let input = b"5;x=y\r\nhello\r\n0\r\nA: b\r\n\r\nrest";
    let decoded = BodyDecoder::new(BodyFraming::Chunked, 100).decode(input);
    assert_eq!(
        decoded,
        Ok(Decoded {
            consumed: input.len() - 4,
            data: 7..12,
            end: true
        })
    );
}

#[test]
fn chunks_as_written() {
    let mut out = Vec::new();
    encode_chunk(b"", &mut out);
    encode_chunk(b"hello", &mut out);
    encode_chunk(&[b'x'; 16], &mut out);
    let mut trailers = Fields::default();
    trailers.push(b"A", b"b");
    encode_last_chunk(&trailers, &mut out);
    encode_last_chunk(&Fields::default(), &mut out);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "5\r\nhello\r\n10\r\nxxxxxxxxxxxxxxxx\r\n0\r\nA: b\r\n\r\n0\r\n\r\n"
    );
}

/// Bytes that get past a size line often.
fn chunked_like() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"3\r\nabc\r\n".to_vec()),
        Just(b"2;x\r\na\r\r\n".to_vec()),
        Just(b"0\r\n".to_vec()),
        Just(b"A: b\r\n".to_vec()),
        Just(b"\r\n".to_vec()),
        prop::collection::vec(any::<u8>(), 0..3),
        prop::collection::vec(prop::sample::select(b"0123af;\r\n :x".as_slice()), 0..5),
    ];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

fn cuts(most: usize) -> impl Strategy<Value = Vec<prop::sample::Index>> {
    prop::collection::vec(any::<prop::sample::Index>(), 0..most)
}

fn offsets(cuts: &[prop::sample::Index], length: usize) -> Vec<usize> {
    let mut offsets: Vec<usize> = cuts.iter().map(|c| c.index(length + 1)).collect();
    offsets.sort_unstable();
    offsets
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_is_encoded_is_decoded(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6),
        values in prop::collection::vec("[!-~]([ !-~]{0,8}[!-~])?", 0..4),
        tail in prop::collection::vec(any::<u8>(), 0..8),
        at in cuts(12),
    ) {
        let mut trailers = Fields::default();
        for value in &values {
            trailers.push(b"X-Sum", value.as_bytes());
        }
        let mut input = Vec::new();
        for chunk in &chunks {
            encode_chunk(chunk, &mut input);
        }
        encode_last_chunk(&trailers, &mut input);
        let length = input.len();
        input.extend_from_slice(&tail);

        let body = read(BodyFraming::Chunked, 1000, &input, &offsets(&at, input.len()));
        prop_assert_eq!(body.outcome, Some(Ok(())));
        prop_assert_eq!(body.data, chunks.concat());
        prop_assert_eq!(body.taken, length);
        let read_values: Vec<_> = body.trailers.into_iter().map(|(_, value)| value).collect();
        prop_assert_eq!(read_values, values.into_iter().map(String::into_bytes).collect::<Vec<_>>());
    }

    #[test]
    fn any_bytes_read_the_same_however_they_are_cut(input in chunked_like(), at in cuts(12)) {
        let whole = read(BodyFraming::Chunked, 20, &input, &[]);
        let bytewise: Vec<usize> = (0..input.len()).collect();
        prop_assert_eq!(&read(BodyFraming::Chunked, 20, &input, &bytewise), &whole);
        prop_assert_eq!(&read(BodyFraming::Chunked, 20, &input, &offsets(&at, input.len())), &whole);
    }
}
