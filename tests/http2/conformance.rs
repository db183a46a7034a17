//! What RFC 9113 says that an endpoint MUST do, row by row on raw frames. After each row, unless the
//! connection is over, it must be good for one more request.

use crate::config;
use crate::frames::*;
use crate::hpack::literals;
use crate::support::backend::Backend;
use crate::support::server::Server;
use Expect::{Answer, Broadly, Closed, Connection, Fine, Stream};

/// What becomes of a row.
#[derive(Debug)]
enum Expect {
    /// A connection error with this code.
    Connection(u32),
    /// A connection error that the RFC gives this code, or calls an error of the stream only, which
    /// may be taken for one of the connection (§5.4.1): the h2 crate says PROTOCOL_ERROR.
    Broadly(u32),
    /// The end of the connection, with or without a word.
    Closed,
    /// A stream error: that stream is reset with this code, others are not.
    Stream(u32, u32),
    /// The stream is answered with this status.
    Answer(u32, u16),
    /// Nothing: it is borne.
    Fine,
}

/// What is done in a row.
enum Do {
    /// Sends this.
    Send(Vec<u8>),
    /// Waits until this stream is answered.
    Await(u32),
}

struct Row {
    rule: &'static str,
    work: Vec<Do>,
    expect: Expect,
    /// It says its own preface.
    bare: bool,
}

fn row(rule: &'static str, expect: Expect, pieces: &[&[u8]]) -> Row {
    Row {
        rule,
        work: vec![Do::Send(pieces.concat())],
        expect,
        bare: false,
    }
}

impl Row {
    fn then(mut self, more: Do) -> Row {
        self.work.push(more);
        self
    }

    fn bare(mut self) -> Row {
        self.bare = true;
        self
    }
}

/// The stream on which a connection shows that it is still good.
const PROBE: u32 = 999;

fn run(server: &Server, rows: Vec<Row>) {
    let mut wrong = Vec::new();
    for row in rows {
        let mut peer = Peer::mute(server.address());
        if !row.bare {
            peer.send(PREFACE).send(settings(&[]));
        }
        for work in &row.work {
            match work {
                Do::Send(bytes) => {
                    peer.send(bytes);
                }
                Do::Await(stream) => {
                    peer.over(*stream);
                }
            }
        }
        if let Answer(stream, _) | Stream(stream, _) = row.expect {
            peer.over(stream);
        }
        if !matches!(row.expect, Closed) {
            peer.send(get(PROBE, "/probe"));
        }
        let probe = peer.over(PROBE).status();
        let resets: Vec<_> = peer
            .came
            .iter()
            .filter_map(|(stream, came)| Some((*stream, came.reset?)))
            .collect();
        let error = peer.goaway.map(|(code, _)| code).filter(|c| *c != NO_ERROR);
        let survived = probe == Some(200) && error.is_none();
        let good = match row.expect {
            Connection(code) => error == Some(code) && probe.is_none(),
            Broadly(code) => {
                error.is_some_and(|e| e == code || e == PROTOCOL_ERROR) && probe.is_none()
            }
            Closed => peer.closed && probe.is_none(),
            Stream(stream, code) => survived && resets == [(stream, code)],
            Answer(stream, status) => {
                let came = &peer.came[&stream];
                survived && came.status() == Some(status) && came.ended
            }
            Fine => survived && resets.is_empty(),
        };
        if !good {
            wrong.push(format!(
                "{}: wanted {:?}, but error {error:?}, resets {resets:?}, probe {probe:?}, \
                 answers {:?}",
                row.rule,
                row.expect,
                peer.came
                    .iter()
                    .map(|(s, c)| (*s, c.status()))
                    .collect::<Vec<_>>()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn bench() -> (Server, Backend) {
    let backend = Backend::start("b");
    let server = Server::in_process(&config("http", &[backend.address], "", ""));
    (server, backend)
}

/// A POST whose body is still to come.
fn post(stream: u32) -> Vec<u8> {
    headers(stream, 0, &request("POST", "/"))
}

/// A request with one more field.
fn with(name: &str, value: &str) -> Vec<u8> {
    let mut fields = request("GET", "/").to_vec();
    fields.push((name, value));
    headers(1, END_STREAM, &fields)
}

/// A request of these fields.
fn of(fields: &[(&str, &str)]) -> Vec<u8> {
    headers(1, END_STREAM, fields)
}

#[test]
fn frames_are_as_the_rfc_wants_them() {
    let (server, _backend) = bench();
    let ping = frame(PING, 0, 0, [7; 8]);
    let block = literals(&request("GET", "/"));
    let (half, rest) = block.split_at(9);
    let huge = vec![0; 16_385];
    let (preface, none) = (PREFACE, settings(&[]));
    run(
        &server,
        vec![
            row(
                "§3.4 a preface that is none",
                Closed,
                &[b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"],
            )
            .bare(),
            row("§3.4 a preface alone", Fine, &[preface, &none]).bare(),
            row(
                "§3.4 the first frame is not SETTINGS",
                Connection(PROTOCOL_ERROR),
                &[preface, &ping, &none],
            )
            .bare(),
            row(
                "§4.1 an unknown type",
                Fine,
                &[&frame(0xee, 0xff, 1, [1, 2, 3])],
            ),
            row(
                "§4.1 an unknown type on the connection",
                Fine,
                &[&frame(0x42, 0, 0, [0; 300])],
            ),
            row(
                "§4.1 the reserved bit is ignored",
                Fine,
                &[&frame(PING, 0, 0x8000_0000, [7; 8])],
            ),
            row(
                "§4.1 unknown flags are ignored",
                Fine,
                &[&frame(PING, 0xfe, 0, [7; 8])],
            ),
            row(
                "§4.2 DATA over SETTINGS_MAX_FRAME_SIZE",
                Connection(FRAME_SIZE_ERROR),
                &[&post(1), &frame(DATA, 1, 1, &huge)],
            ),
            row(
                "§4.2 HEADERS over SETTINGS_MAX_FRAME_SIZE",
                Connection(FRAME_SIZE_ERROR),
                &[&frame(HEADERS, 5, 1, &huge)],
            ),
            row(
                "§4.3 an index that is not there",
                Broadly(COMPRESSION_ERROR),
                &[&frame(HEADERS, 5, 1, [0xfe])],
            ),
            row(
                "§4.3 the index 0",
                Broadly(COMPRESSION_ERROR),
                &[&frame(HEADERS, 5, 1, [0x80])],
            ),
            row(
                "§4.3 a string that is cut short",
                Broadly(COMPRESSION_ERROR),
                &[&frame(HEADERS, 5, 1, [0, 9, b'a'])],
            ),
            row(
                "§4.3 Huffman code that ends in its end",
                Broadly(COMPRESSION_ERROR),
                &[&frame(
                    HEADERS,
                    5,
                    1,
                    [0, 0x84, 0xff, 0xff, 0xff, 0xff, 1, b'a'],
                )],
            ),
            row(
                "§4.3, RFC 7541 §4.2 a table larger than was allowed",
                Broadly(COMPRESSION_ERROR),
                &[&frame(HEADERS, 5, 1, [0x3f, 0xff, 0xff, 0x03])],
            ),
            row(
                "§4.3 a head in pieces",
                Answer(1, 200),
                &[
                    &frame(HEADERS, 1, 1, half),
                    &frame(CONTINUATION, 4, 1, rest),
                ],
            ),
            row(
                "§4.3 an empty piece",
                Answer(1, 200),
                &[
                    &frame(HEADERS, 1, 1, []),
                    &frame(CONTINUATION, 0, 1, &block),
                    &frame(CONTINUATION, 4, 1, []),
                ],
            ),
            row(
                "§5.1 idle: DATA",
                Connection(PROTOCOL_ERROR),
                &[&frame(DATA, 1, 1, b"a")],
            ),
            row(
                "§5.1 idle: RST_STREAM",
                Connection(PROTOCOL_ERROR),
                &[&reset(1, CANCEL)],
            ),
            row(
                "§5.1 idle: WINDOW_UPDATE",
                Connection(PROTOCOL_ERROR),
                &[&window(1, 9)],
            ),
            row(
                "§5.1 idle: PRIORITY",
                Fine,
                &[&frame(PRIORITY, 0, 1, [0, 0, 0, 0, 9])],
            ),
            row(
                "§5.1 idle: CONTINUATION",
                Connection(PROTOCOL_ERROR),
                &[&frame(CONTINUATION, 4, 1, &block)],
            ),
            row(
                "§5.1 half-closed: DATA",
                Broadly(STREAM_CLOSED),
                &[&get(1, "/"), &frame(DATA, 1, 1, b"a")],
            ),
            row(
                "§5.1 half-closed: HEADERS",
                Broadly(STREAM_CLOSED),
                &[&get(1, "/"), &headers(1, 1, &[("a", "b")])],
            ),
            row(
                "§5.1 half-closed: WINDOW_UPDATE",
                Answer(1, 200),
                &[&get(1, "/"), &window(1, 9)],
            ),
            row(
                "§5.1 half-closed: PRIORITY",
                Answer(1, 200),
                &[&get(1, "/"), &frame(PRIORITY, 0, 1, [0, 0, 0, 0, 9])],
            ),
            row(
                "§5.1 half-closed: RST_STREAM",
                Fine,
                &[&get(1, "/"), &reset(1, CANCEL)],
            ),
            row(
                "§5.1 closed: DATA after its end",
                Stream(1, STREAM_CLOSED),
                &[&get(1, "/")],
            )
            .then(Do::Await(1))
            .then(Do::Send(frame(DATA, 1, 1, b"a"))),
            row(
                "§5.1 closed: HEADERS after its end",
                Broadly(STREAM_CLOSED),
                &[&get(1, "/")],
            )
            .then(Do::Await(1))
            .then(Do::Send(get(1, "/"))),
            row(
                "§5.1 closed: WINDOW_UPDATE after its end",
                Fine,
                &[&get(1, "/")],
            )
            .then(Do::Await(1))
            .then(Do::Send(window(1, 9))),
            row(
                "§5.1 closed: RST_STREAM after its end",
                Fine,
                &[&get(1, "/")],
            )
            .then(Do::Await(1))
            .then(Do::Send(reset(1, CANCEL))),
            row("§5.1 closed: PRIORITY after its end", Fine, &[&get(1, "/")])
                .then(Do::Await(1))
                .then(Do::Send(frame(PRIORITY, 0, 1, [0, 0, 0, 0, 9]))),
            row(
                "§5.1.1 an even stream",
                Connection(PROTOCOL_ERROR),
                &[&get(2, "/")],
            ),
            row(
                "§5.1.1 the stream 0",
                Connection(PROTOCOL_ERROR),
                &[&get(0, "/")],
            ),
            row(
                "§5.1.1 a stream that goes back",
                Connection(PROTOCOL_ERROR),
                &[&get(5, "/"), &get(3, "/")],
            ),
            row(
                "§5.1.1 a stream that was left out is closed",
                Stream(3, STREAM_CLOSED),
                &[&get(5, "/"), &frame(DATA, 1, 3, b"a")],
            ),
            row(
                "§6.1 DATA on the stream 0",
                Connection(PROTOCOL_ERROR),
                &[&frame(DATA, 1, 0, b"a")],
            ),
            row(
                "§6.1 padding as long as the payload",
                Connection(PROTOCOL_ERROR),
                &[&post(1), &frame(DATA, PADDED | 1, 1, [5, 0, 0, 0, 0])],
            ),
            row(
                "§6.1 padding without its length",
                Broadly(FRAME_SIZE_ERROR),
                &[&post(1), &frame(DATA, PADDED | 1, 1, [])],
            ),
            row(
                "§6.1 padding",
                Answer(1, 200),
                &[&post(1), &frame(DATA, PADDED | 1, 1, [3, b'a', 0, 0, 0])],
            ),
            row(
                "§6.2 HEADERS with padding as long as the payload",
                Connection(PROTOCOL_ERROR),
                &[&frame(HEADERS, PADDED | 5, 1, [9, 0, 0, 0])],
            ),
            row(
                "§6.2 HEADERS with padding",
                Answer(1, 200),
                &[&frame(
                    HEADERS,
                    PADDED | 5,
                    1,
                    [&[2][..], &block, &[0, 0]].concat(),
                )],
            ),
            row(
                "§6.2 HEADERS with a priority",
                Answer(1, 200),
                &[&frame(
                    HEADERS,
                    WITH_PRIORITY | 5,
                    1,
                    [&[0, 0, 0, 0, 9][..], &block].concat(),
                )],
            ),
            row(
                "§6.2 HEADERS that depend on themselves",
                Stream(1, PROTOCOL_ERROR),
                &[&frame(
                    HEADERS,
                    WITH_PRIORITY | 5,
                    1,
                    [&[0, 0, 0, 1, 9][..], &block].concat(),
                )],
            ),
            row(
                "§6.2 a head that another frame interrupts",
                Connection(PROTOCOL_ERROR),
                &[&frame(HEADERS, 1, 1, half), &ping],
            ),
            row(
                "§6.2 a head that an unknown frame interrupts",
                Connection(PROTOCOL_ERROR),
                &[&frame(HEADERS, 1, 1, half), &frame(0xee, 0, 1, [])],
            ),
            row(
                "§6.2 a head that another head interrupts",
                Connection(PROTOCOL_ERROR),
                &[&frame(HEADERS, 1, 1, half), &get(3, "/")],
            ),
            row(
                "§6.3 PRIORITY on the stream 0",
                Connection(PROTOCOL_ERROR),
                &[&frame(PRIORITY, 0, 0, [0, 0, 0, 0, 9])],
            ),
            row(
                "§6.3 PRIORITY of four octets",
                Broadly(FRAME_SIZE_ERROR),
                &[&get(1, "/"), &frame(PRIORITY, 0, 1, [0; 4])],
            ),
            row(
                "§6.4 RST_STREAM on the stream 0",
                Connection(PROTOCOL_ERROR),
                &[&reset(0, CANCEL)],
            ),
            row(
                "§6.4 RST_STREAM of five octets",
                Broadly(FRAME_SIZE_ERROR),
                &[&get(1, "/"), &frame(RST_STREAM, 0, 1, [0; 5])],
            ),
            row(
                "§6.5 SETTINGS on a stream",
                Connection(PROTOCOL_ERROR),
                &[&frame(SETTINGS, 0, 1, [])],
            ),
            row(
                "§6.5 an acknowledgement with a payload",
                Broadly(FRAME_SIZE_ERROR),
                &[&frame(SETTINGS, ACK, 0, [0; 6])],
            ),
            row(
                "§6.5 SETTINGS of seven octets",
                Broadly(FRAME_SIZE_ERROR),
                &[&frame(SETTINGS, 0, 0, [0; 7])],
            ),
            row(
                "§6.5.2 ENABLE_PUSH of 2",
                Connection(PROTOCOL_ERROR),
                &[&settings(&[(2, 2)])],
            ),
            row(
                "§6.5.2 INITIAL_WINDOW_SIZE over 2^31-1",
                Broadly(FLOW_CONTROL_ERROR),
                &[&settings(&[(4, 0x8000_0000)])],
            ),
            row(
                "§6.5.2 MAX_FRAME_SIZE under 2^14",
                Connection(PROTOCOL_ERROR),
                &[&settings(&[(5, 16_383)])],
            ),
            row(
                "§6.5.2 MAX_FRAME_SIZE over 2^24-1",
                Connection(PROTOCOL_ERROR),
                &[&settings(&[(5, 16_777_216)])],
            ),
            row(
                "§6.5.2 an unknown setting",
                Fine,
                &[&settings(&[(0xee, 7)])],
            ),
            row(
                "RFC 8441 §3 ENABLE_CONNECT_PROTOCOL of 2",
                Connection(PROTOCOL_ERROR),
                &[&settings(&[(8, 2)])],
            ),
            row(
                "§6.6 PUSH_PROMISE from a client",
                Connection(PROTOCOL_ERROR),
                &[
                    &get(1, "/"),
                    &frame(PUSH_PROMISE, 4, 1, [&[0, 0, 0, 2][..], &block].concat()),
                ],
            ),
            row(
                "§6.7 PING on a stream",
                Connection(PROTOCOL_ERROR),
                &[&frame(PING, 0, 1, [0; 8])],
            ),
            row(
                "§6.7 PING of seven octets",
                Broadly(FRAME_SIZE_ERROR),
                &[&frame(PING, 0, 0, [0; 7])],
            ),
            row(
                "§6.7 an answer to no PING",
                Fine,
                &[&frame(PING, ACK, 0, [0; 8])],
            ),
            row(
                "§6.8 GOAWAY on a stream",
                Connection(PROTOCOL_ERROR),
                &[&frame(GOAWAY, 0, 1, [0; 8])],
            ),
            row(
                "§6.8 GOAWAY of seven octets",
                Broadly(FRAME_SIZE_ERROR),
                &[&frame(GOAWAY, 0, 0, [0; 7])],
            ),
            row(
                "§6.9 WINDOW_UPDATE by 0 of the connection",
                Connection(PROTOCOL_ERROR),
                &[&window(0, 0)],
            ),
            row(
                "§6.9 WINDOW_UPDATE by 0 of a stream",
                Broadly(PROTOCOL_ERROR),
                &[&post(1), &window(1, 0)],
            ),
            row(
                "§6.9 WINDOW_UPDATE of three octets",
                Broadly(FRAME_SIZE_ERROR),
                &[&frame(WINDOW_UPDATE, 0, 0, [0; 3])],
            ),
            row(
                "§6.9.1 the connection's window over 2^31-1",
                Connection(FLOW_CONTROL_ERROR),
                &[&window(0, 0x7fff_ffff)],
            ),
            row(
                "§6.9.1 a stream's window over 2^31-1",
                Stream(1, FLOW_CONTROL_ERROR),
                &[&post(1), &window(1, 0x7fff_ffff)],
            ),
            row(
                "§6.9.2 settings that take a stream's window over 2^31-1",
                Connection(FLOW_CONTROL_ERROR),
                &[
                    &post(1),
                    &window(1, 0x7fff_0000),
                    &settings(&[(4, 0x7fff_ffff)]),
                ],
            ),
            row(
                "§6.10 CONTINUATION on the stream 0",
                Connection(PROTOCOL_ERROR),
                &[
                    &frame(HEADERS, 1, 1, half),
                    &frame(CONTINUATION, 4, 0, rest),
                ],
            ),
            row(
                "§6.10 CONTINUATION of another stream",
                Connection(PROTOCOL_ERROR),
                &[
                    &frame(HEADERS, 1, 1, half),
                    &frame(CONTINUATION, 4, 3, rest),
                ],
            ),
            row(
                "§6.10 CONTINUATION after a whole head",
                Connection(PROTOCOL_ERROR),
                &[&post(1), &frame(CONTINUATION, 4, 1, rest)],
            ),
            row(
                "§8.1 a second head without an end",
                Stream(1, PROTOCOL_ERROR),
                &[&post(1), &headers(1, 0, &[("a", "b")])],
            ),
            row(
                "§8.1 a pseudo-field among trailers goes no further",
                Answer(1, 200),
                &[&post(1), &headers(1, 1, &[(":path", "/")])],
            ),
            row(
                "§8.1 trailers",
                Answer(1, 200),
                &[
                    &post(1),
                    &frame(DATA, 0, 1, b"a"),
                    &headers(1, 1, &[("a", "b")]),
                ],
            ),
        ],
    );
}

#[test]
fn messages_are_as_the_rfc_wants_them() {
    let (server, _backend) = bench();
    let [method, scheme, authority, path] = request("GET", "/");
    let length = |n: &str, flags: u8| {
        let mut fields = request("POST", "/").to_vec();
        fields.push(("content-length", n));
        headers(1, flags, &fields)
    };
    let refused = || Stream(1, PROTOCOL_ERROR);
    run(
        &server,
        vec![
            row(
                "§8.1.1 less content than content-length says",
                refused(),
                &[&length("3", 0), &frame(DATA, 1, 1, b"ab")],
            ),
            row(
                "§8.1.1 more content than content-length says",
                refused(),
                &[&length("3", 0), &frame(DATA, 1, 1, b"abcd")],
            ),
            row(
                "§8.1.1 none where content-length says some",
                refused(),
                &[&length("3", END_STREAM)],
            ),
            row(
                "§8.1.1 none where content-length says none",
                Answer(1, 200),
                &[&length("0", END_STREAM)],
            ),
            row(
                "§8.1.1 all of it",
                Answer(1, 200),
                &[&length("3", 0), &frame(DATA, 1, 1, b"abc")],
            ),
            row(
                "§8.2.1 a name in upper case",
                Broadly(PROTOCOL_ERROR),
                &[&with("X-A", "b")],
            ),
            row(
                "§8.2.1 a space in a name",
                Broadly(PROTOCOL_ERROR),
                &[&with("x a", "b")],
            ),
            row(
                "§8.2.1 a colon in a name",
                Broadly(PROTOCOL_ERROR),
                &[&with("x:a", "b")],
            ),
            row(
                "§8.2.1 CR and LF in a name",
                Broadly(PROTOCOL_ERROR),
                &[&with("x\r\na", "b")],
            ),
            row(
                "§8.2.1 NUL in a name",
                Broadly(PROTOCOL_ERROR),
                &[&with("x\0a", "b")],
            ),
            row(
                "§8.2.1 an octet over 0x7e in a name",
                Broadly(PROTOCOL_ERROR),
                &[&with("x\u{e9}", "b")],
            ),
            row("§8.2.1 no name", Broadly(PROTOCOL_ERROR), &[&with("", "b")]),
            row(
                "§8.2.1 CR in a value",
                Broadly(PROTOCOL_ERROR),
                &[&with("x", "a\rb")],
            ),
            row(
                "§8.2.1 LF in a value",
                Broadly(PROTOCOL_ERROR),
                &[&with("x", "a\nb")],
            ),
            row(
                "§8.2.1 NUL in a value",
                Broadly(PROTOCOL_ERROR),
                &[&with("x", "a\0b")],
            ),
            row(
                "§8.2.1 a space in front of a value",
                Answer(1, 400),
                &[&with("x", " a")],
            ),
            row(
                "§8.2.1 a tab behind a value",
                Answer(1, 400),
                &[&with("x", "a\t")],
            ),
            row(
                "§8.2.1 a space within a value",
                Answer(1, 200),
                &[&with("x", "a b")],
            ),
            row("§8.2.1 no value", Answer(1, 200), &[&with("x", "")]),
            row("§8.2.2 connection", refused(), &[&with("connection", "x")]),
            row(
                "§8.2.2 keep-alive",
                refused(),
                &[&with("keep-alive", "timeout=5")],
            ),
            row(
                "§8.2.2 proxy-connection",
                refused(),
                &[&with("proxy-connection", "close")],
            ),
            row(
                "§8.2.2 transfer-encoding",
                refused(),
                &[&with("transfer-encoding", "chunked")],
            ),
            row(
                "§8.2.2 upgrade",
                refused(),
                &[&with("upgrade", "websocket")],
            ),
            row("§8.2.2 te: gzip", refused(), &[&with("te", "gzip")]),
            row(
                "§8.2.2 te: trailers",
                Answer(1, 200),
                &[&with("te", "trailers")],
            ),
            row(
                "§8.3 an unknown pseudo-field",
                Broadly(PROTOCOL_ERROR),
                &[&of(&[method, scheme, authority, path, (":a", "b")])],
            ),
            row(
                "§8.3 a pseudo-field of responses",
                refused(),
                &[&of(&[method, scheme, authority, path, (":status", "200")])],
            ),
            row(
                "§8.3 a pseudo-field behind a field",
                refused(),
                &[&of(&[method, scheme, path, ("a", "b"), authority])],
            ),
            row(
                "§8.3.1 :method twice",
                refused(),
                &[&of(&[method, method, scheme, authority, path])],
            ),
            row(
                "§8.3.1 :path twice",
                refused(),
                &[&of(&[method, scheme, authority, path, path])],
            ),
            row(
                "§8.3.1 :scheme twice",
                refused(),
                &[&of(&[method, scheme, scheme, authority, path])],
            ),
            row(
                "§8.3.1 :authority twice",
                refused(),
                &[&of(&[method, scheme, authority, authority, path])],
            ),
            row(
                "§8.3.1 no :method",
                refused(),
                &[&of(&[scheme, authority, path])],
            ),
            row(
                "§8.3.1 no :scheme",
                refused(),
                &[&of(&[method, authority, path])],
            ),
            row(
                "§8.3.1 no :path",
                refused(),
                &[&of(&[method, scheme, authority])],
            ),
            row(
                "§8.3.1 an empty :path",
                refused(),
                &[&of(&[method, scheme, authority, (":path", "")])],
            ),
            row(
                "§8.3.1 neither :authority nor Host",
                Answer(1, 400),
                &[&of(&[method, scheme, path])],
            ),
            row(
                "§8.3.1 Host alone",
                Answer(1, 200),
                &[&of(&[method, scheme, path, ("host", "a.test")])],
            ),
            row(
                "§8.3.1 Host that says the same",
                Answer(1, 200),
                &[&with("host", "a.test")],
            ),
            row(
                "§8.3.1 Host that says otherwise",
                Answer(1, 400),
                &[&with("host", "b.test")],
            ),
            row(
                "§8.5 CONNECT",
                Answer(1, 405),
                &[&of(&[(":method", "CONNECT"), (":authority", "a.test:443")])],
            ),
            row(
                "§8.5 CONNECT with :path",
                refused(),
                &[&of(&[(":method", "CONNECT"), scheme, authority, path])],
            ),
        ],
    );
}
