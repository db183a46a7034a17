//! Bodies in every framing, in one piece and cut in two anywhere.

use super::*;

/// What follows a body on its connection.
const NEXT: &[u8] = b"GET /next";

/// A body as it comes, and as it goes on when it comes whole.
const BODIES: [(&str, BodyFraming, Recode, &str, &str); 11] = {
    use BodyFraming::*;
    use Recode::*;
    [
        ("none", None, Direct, "", ""),
        ("of no length", Length(0), Direct, "", ""),
        ("of known length", Length(5), Direct, "hello", "hello"),
        ("until close", UntilClose, Direct, "hello", "hello"),
        (
            "until close, chunked",
            UntilClose,
            Chunk,
            "hello",
            "5\r\nhello\r\n",
        ),
        (
            "chunks",
            Chunked,
            Chunk,
            "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
            "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
        ),
        ("no chunk", Chunked, Chunk, "0\r\n\r\n", "0\r\n\r\n"),
        (
            "sizes in another way",
            Chunked,
            Chunk,
            "00A\r\n0123456789\r\n000\r\n\r\n",
            "a\r\n0123456789\r\n0\r\n\r\n",
        ),
        (
            "an extension",
            Chunked,
            Chunk,
            "1;x=y\r\na\r\n0;z\r\n\r\n",
            "1\r\na\r\n0\r\n\r\n",
        ),
        (
            "a trailer",
            Chunked,
            Chunk,
            "1\r\na\r\n0\r\nX-Sum: 9\r\n\r\n",
            "1\r\na\r\n0\r\nX-Sum: 9\r\n\r\n",
        ),
        (
            "chunks, bare",
            Chunked,
            Unchunk,
            "3\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 9\r\n\r\n",
            "abcde",
        ),
    ]
};

/// What went through.
#[derive(Debug, Default)]
struct Through {
    written: Vec<u8>,
    data: u64,
    used: usize,
}

/// A body that comes in these pieces, written on after each.
fn through<'a>(
    framing: BodyFraming,
    recode: Recode,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Through {
    let mut body = BodyDecoder::new(framing, TRAILERS);
    let (mut inbox, mut all) = (Vec::new(), Through::default());
    for piece in pieces {
        inbox.extend_from_slice(piece);
        loop {
            let mut out = Vec::new();
            let gathered = gather(&mut body, &inbox, recode, &mut out).expect("it is sound");
            all.written.extend_from_slice(&out);
            all.written.extend_from_slice(&inbox[gathered.direct]);
            all.data += gathered.data;
            all.used += gathered.used;
            inbox.drain(..gathered.used);
            if gathered.used == 0 {
                break;
            }
        }
    }
    all
}

/// What a receiver makes of what was written, wherever its chunks end.
#[derive(Debug, PartialEq)]
struct Meaning {
    data: Vec<u8>,
    trailers: Vec<(Vec<u8>, Vec<u8>)>,
    ended: bool,
}

fn meaning(written: &[u8], recode: Recode) -> Meaning {
    let framing = match recode {
        Recode::Chunk => BodyFraming::Chunked,
        Recode::Direct | Recode::Unchunk => BodyFraming::UntilClose,
    };
    let mut body = BodyDecoder::new(framing, TRAILERS);
    let (mut data, mut used) = (Vec::new(), 0);
    while used < written.len() {
        let piece = body.decode(&written[used..]).expect("it is sound");
        assert!(piece.consumed > 0, "something follows the end");
        data.extend_from_slice(&written[used..][piece.data]);
        used += piece.consumed;
    }
    let trailers = body.trailers().iter();
    Meaning {
        data,
        trailers: trailers
            .map(|field| (field.name.to_owned(), field.value.to_vec()))
            .collect(),
        ended: body.is_done(),
    }
}

#[test]
fn a_whole_body_goes_on_in_its_new_framing_and_nothing_behind_it_does() {
    for (rule, framing, recode, input, expected) in BODIES {
        let ends = framing != BodyFraming::UntilClose;
        let behind = if ends { NEXT } else { b"" };
        let sent = [input.as_bytes(), behind].concat();
        let went = through(framing, recode, [&*sent]);
        let texts = [&went.written, expected.as_bytes()].map(|all| all.escape_ascii().to_string());
        assert_eq!(texts[0], texts[1], "{rule}");
        let data = meaning(expected.as_bytes(), recode).data.len();
        assert_eq!((went.used, went.data), (input.len(), data as u64), "{rule}");
    }
}

#[test]
fn wherever_it_is_cut_it_means_the_same() {
    for (rule, framing, recode, input, expected) in BODIES {
        let expected = meaning(expected.as_bytes(), recode);
        for cut in 0..=input.len() {
            let (first, second) = input.as_bytes().split_at(cut);
            let went = through(framing, recode, [first, second]);
            let data = expected.data.len() as u64;
            assert_eq!(
                (went.used, went.data),
                (input.len(), data),
                "{rule}, cut at {cut}"
            );
            assert_eq!(
                meaning(&went.written, recode),
                expected,
                "{rule}, cut at {cut}"
            );
        }
    }
}

#[test]
fn a_body_is_whole_when_its_last_byte_is_there() {
    for (rule, framing, _, input, _) in BODIES {
        if framing == BodyFraming::UntilClose {
            assert_eq!(whole_body(framing, input.as_bytes()), None, "{rule}");
            continue;
        }
        for there in 0..input.len() {
            assert_eq!(
                whole_body(framing, &input.as_bytes()[..there]),
                None,
                "{rule}, {there} bytes"
            );
        }
        let sent = [input.as_bytes(), NEXT].concat();
        assert_eq!(whole_body(framing, &sent), Some(input.len()), "{rule}");
    }
    assert_eq!(
        whole_body(BodyFraming::Chunked, b"no size"),
        None,
        "it is broken"
    );
}

#[test]
fn a_short_body_goes_in_one_piece_with_its_head() {
    for (head, length, together) in [
        ("head", 1, true),
        ("head", JOINED, true),
        ("head", JOINED + 1, false),
        ("", 1, false),
    ] {
        let mut out = head.as_bytes().to_vec();
        let body = vec![b'b'; length];
        let apart = joined(&mut out, &body).len();
        let expected = if together {
            (head.len() + length, 0)
        } else {
            (head.len(), length)
        };
        assert_eq!((out.len(), apart), expected, "{head:?} and {length} bytes");
    }
}
