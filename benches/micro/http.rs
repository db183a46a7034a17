//! Heads and bodies.

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use evenkeel::http::body::{BodyFraming, request_framing, response_framing};
use evenkeel::http::h1::body::BodyDecoder;
use evenkeel::http::h1::encode::{self, ConnectionField};
use evenkeel::http::h1::parse::{self, HeadLimits};
use evenkeel::http::head::{Method, RequestHead, ResponseHead};
use evenkeel::proxy::forward::{self, Hop};

const LIMITS: HeadLimits = HeadLimits {
    bytes: 32 * 1024,
    fields: 100,
};

/// What a backend's head is bounded by.
const RESPONSE_LIMITS: HeadLimits = HeadLimits {
    bytes: 60 * 1024,
    fields: 256,
};

const SMALL: &str = "GET /index.html HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n";

/// Twenty fields, as a browser sends them.
const BROWSER: &str = "GET /shop/items/4711?sort=price&page=3 HTTP/1.1\r\n\
    Host: shop.example\r\n\
    Connection: keep-alive\r\n\
    Cache-Control: max-age=0\r\n\
    sec-ch-ua: \"Chromium\";v=\"130\", \"Google Chrome\";v=\"130\", \"Not?A_Brand\";v=\"99\"\r\n\
    sec-ch-ua-mobile: ?0\r\n\
    sec-ch-ua-platform: \"Linux\"\r\n\
    DNT: 1\r\n\
    Upgrade-Insecure-Requests: 1\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8\r\n\
    Sec-Fetch-Site: same-origin\r\n\
    Sec-Fetch-Mode: navigate\r\n\
    Sec-Fetch-User: ?1\r\n\
    Sec-Fetch-Dest: document\r\n\
    Referer: https://shop.example/shop/items?sort=price&page=2\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\n\
    Cookie: session=4bf92f3577b34da6a3ce929d0e0e4736; theme=dark; consent=2026-01-01\r\n\
    If-None-Match: \"5f3c-61a2b3c4d5e6f\"\r\n\
    Priority: u=0, i\r\n\r\n";

const RESPONSE: &str = "HTTP/1.1 200 OK\r\n\
    Server: nginx/1.26.2\r\n\
    Date: Sat, 21 Nov 2026 12:00:00 GMT\r\n\
    Content-Type: text/html; charset=utf-8\r\n\
    Content-Length: 128\r\n\
    Last-Modified: Fri, 20 Nov 2026 08:00:00 GMT\r\n\
    ETag: \"5f3c-61a2b3c4d5e6f\"\r\n\
    Cache-Control: max-age=60\r\n\
    Accept-Ranges: bytes\r\n\r\n";

const REQUESTS: [(&str, &str); 2] = [("curl", SMALL), ("browser", BROWSER)];

fn request(name: &str) -> &'static [u8] {
    let found = REQUESTS.iter().find(|(known, _)| *known == name);
    found.expect("it is one of them").1.as_bytes()
}

fn parsed(raw: &[u8], head: &mut RequestHead) {
    let n = parse::request_head(raw, LIMITS, head).expect("nothing is wrong with it");
    assert_eq!(n, Some(raw.len()));
}

#[divan::bench(args = ["curl", "browser"])]
fn parse_request(bencher: Bencher<'_, '_>, name: &str) {
    let raw = request(name);
    let mut head = RequestHead::default();
    parsed(raw, &mut head);
    let expected = if name == "browser" { 19 } else { 2 };
    assert_eq!(head.fields.len(), expected, "all but Host");
    bencher.bench_local(|| parse::request_head(black_box(raw), LIMITS, &mut head));
}

/// All that is done to a request's head.
#[divan::bench(args = ["curl", "browser"])]
fn parse_rewrite_encode_request(bencher: Bencher<'_, '_>, name: &str) {
    let raw = request(name);
    let mut head = RequestHead::default();
    let mut out = Vec::new();
    let hop = Hop {
        client: "192.0.2.7",
        address: "192.0.2.7".parse().expect("it is an address"),
        secure: true,
        trusted: false,
        underscores: false,
        forwarded: false,
        certificate: None,
    };
    let mut run = || {
        parsed(black_box(raw), &mut head);
        let framing = request_framing(&head).expect("nothing is wrong with it");
        forward::rewrite_request(&mut head, hop, [b'0'; 32]);
        out.clear();
        encode::request_head(&head, framing, ConnectionField::None, &mut out);
        out.len()
    };
    assert!(run() > raw.len());
    bencher.bench_local(run);
}

#[divan::bench]
fn parse_response(bencher: Bencher<'_, '_>) {
    let mut head = ResponseHead::default();
    let raw = RESPONSE.as_bytes();
    let n = parse::response_head(raw, RESPONSE_LIMITS, &mut head);
    assert_eq!(n, Ok(Some(raw.len())));
    bencher.bench_local(|| parse::response_head(black_box(raw), RESPONSE_LIMITS, &mut head));
}

/// All that is done to a response's head.
#[divan::bench]
fn parse_rewrite_encode_response(bencher: Bencher<'_, '_>) {
    let raw = RESPONSE.as_bytes();
    let mut head = ResponseHead::default();
    let mut out = Vec::new();
    let mut run = || {
        let n = parse::response_head(black_box(raw), RESPONSE_LIMITS, &mut head);
        assert_eq!(n, Ok(Some(raw.len())));
        let framing = response_framing(Method::Get, &head).expect("nothing is wrong with it");
        forward::rewrite_response(&mut head);
        out.clear();
        encode::response_head(&head, framing, ConnectionField::None, &mut out);
        out.len()
    };
    assert_eq!(run(), raw.len());
    bencher.bench_local(run);
}

/// 64 KiB of data in chunks of that size.
#[divan::bench(args = [16, 1024, 16 * 1024])]
fn decode_chunks(bencher: Bencher<'_, '_>, size: usize) {
    const DATA: usize = 64 * 1024;
    let chunk = format!("{size:x}\r\n{}\r\n", "x".repeat(size));
    let raw = format!("{}0\r\n\r\n", chunk.repeat(DATA / size)).into_bytes();
    let run = || {
        let mut decoder = BodyDecoder::new(BodyFraming::Chunked, 1024);
        let (mut rest, mut data) = (black_box(&*raw), 0);
        loop {
            let decoded = decoder.decode(rest).expect("nothing is wrong with it");
            data += decoded.data.len();
            rest = &rest[decoded.consumed..];
            if decoded.end {
                return data;
            }
        }
    };
    assert_eq!(run(), DATA);
    bencher.counter(BytesCount::new(DATA)).bench_local(run);
}
