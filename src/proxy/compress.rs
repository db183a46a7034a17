//! Responses that go out in a content coding of ours: which do, what their heads say then, and the
//! bodies on their way (RFC 9110 §8.4; zstd: RFC 8878, br: RFC 7932, gzip: RFC 1952).
//!
//! What a backend has sent so far goes on at once: after all that there is at a moment the coder is
//! flushed, so that events and slow pages arrive as they would without it. A body that breaks off has no
//! end in its coding either.

use std::fmt;
use std::io;
use std::sync::Arc;

use super::recode::Recode;
use super::source::{Lot, Piece, Source};
use crate::http::body::BodyFraming;
use crate::http::coding::{Coding, is_compressible};
use crate::http::h1::body::{BadBody, encode_chunk, encode_last_chunk};
use crate::http::head::{Method, ResponseHead, Version};
use crate::http::headers::{Fields, Known, list_members};
use crate::telemetry::metrics::{Compressing, Level, Shard};

/// What a client takes of what its service offers: `None`, nothing. Of responses that could be coded,
/// caches are told either way what they depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Negotiated {
    pub(super) coding: Option<Coding>,
    /// Its service.
    pub(super) service: usize,
}

/// Codes the body of one response.
pub(super) struct Compressor {
    encoder: Encoder,
    /// Counts it among those of its worker.
    _at_work: Counted,
    /// Counts what goes in and what comes out.
    counted: Option<Compressing>,
    /// What of the body lies in another framing, taken out of it.
    plain: Vec<u8>,
}

enum Encoder {
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
    /// It has said its last.
    Over,
}

/// How many compressors a worker has at work.
#[derive(Debug, Clone, Default)]
pub struct AtWork(Arc<Level>);

struct Counted(AtWork);

impl AtWork {
    /// Nobody is. A scrape sees it by `level`.
    pub fn seen_by(level: Arc<Level>) -> AtWork {
        AtWork(level)
    }

    /// One more, if there is room for it.
    fn enter(&self) -> Option<Counted> {
        (self.0.now() < AT_ONCE).then(|| {
            self.0.begin();
            Counted(self.clone())
        })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.end();
    }
}

/// Changes the head of a response that goes out in a coding, or that could; gives who codes its body,
/// if it has one. `framing`: of the body as it comes. To be called when all others have changed the head.
pub(super) fn begin(
    negotiated: Negotiated,
    (method, version): (Method, Version),
    response: &mut ResponseHead,
    framing: BodyFraming,
    (at_work, metrics): (&AtWork, &Shard),
) -> Option<Box<Compressor>> {
    if !could_be_coded(response) {
        return None;
    }
    vary(&mut response.fields);
    let coding = negotiated.coding?;
    let short = match framing {
        BodyFraming::Length(length) => length < LEAST,
        BodyFraming::None => method != Method::Head || length_of(&response.fields) < Some(LEAST),
        BodyFraming::Chunked | BodyFraming::UntilClose => false,
    };
    // HTTP/1.0 would have no other end than that of the connection.
    if short || matches!(version, Version::Http10) {
        return None;
    }
    if framing == BodyFraming::None {
        // RFC 9110 §9.3.2: as to a GET.
        describe(&mut response.fields, coding);
        return None;
    }
    let mut compressor = Compressor::new(coding, at_work.enter()?).ok()?;
    compressor.counted = metrics.compressing(negotiated.service, coding.name());
    describe(&mut response.fields, coding);
    Some(Box::new(compressor))
}

/// Is it the whole of something that becomes shorter, and is nobody against it?
fn could_be_coded(response: &ResponseHead) -> bool {
    let fields = &response.fields;
    let transforms = list_members(fields.named("Cache-Control"))
        .all(|directive| !directive.eq_ignore_ascii_case(b"no-transform"));
    matches!(response.status, 200..=203 | 207..=303 | 305..=599)
        && fields
            .first(Known::ContentType)
            .is_some_and(is_compressible)
        && fields.named("Content-Encoding").next().is_none()
        && fields.named("Content-Range").next().is_none()
        && transforms
}

fn length_of(fields: &Fields) -> Option<u64> {
    let length = std::str::from_utf8(fields.first(Known::ContentLength)?).ok()?;
    length.parse().ok()
}

/// What the response depends on (RFC 9110 §12.5.5).
fn vary(fields: &mut Fields) {
    let known = list_members(fields.named("Vary"))
        .any(|name| name == b"*" || name.eq_ignore_ascii_case(b"Accept-Encoding"));
    if !known {
        fields.push(b"Vary", b"Accept-Encoding");
    }
}

/// Describes the coded content in place of what it was.
fn describe(fields: &mut Fields, coding: Coding) {
    // Lengths and digests are those of other bytes (RFC 9530 §2, §3), and so are ranges.
    fields.retain(|field| {
        field.known != Known::ContentLength
            && !GONE
                .iter()
                .any(|name| field.name.eq_ignore_ascii_case(name.as_bytes()))
    });
    fields.push(b"Content-Encoding", coding.name().as_bytes());
    // RFC 9110 §8.8.3.3: another representation, equivalent at most.
    let strong = fields
        .named("ETag")
        .next()
        .filter(|tag| !tag.starts_with(b"W/"));
    if let Some(weak) = strong.map(|tag| [b"W/", tag].concat()) {
        fields.retain(|field| !field.name.eq_ignore_ascii_case(b"ETag"));
        fields.push(b"ETag", &weak);
    }
}

const GONE: [&str; 5] = [
    "Accept-Ranges",
    "Content-Digest",
    "Content-MD5",
    "Digest",
    "Repr-Digest",
];

impl Compressor {
    fn new(coding: Coding, at_work: Counted) -> io::Result<Compressor> {
        let encoder = match coding {
            Coding::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
                encoder.window_log(WINDOW)?;
                Encoder::Zstd(encoder)
            }
            Coding::Brotli => {
                let writer =
                    brotli::CompressorWriter::new(Vec::new(), STEP, BROTLI_QUALITY, WINDOW);
                Encoder::Brotli(Box::new(writer))
            }
            Coding::Gzip => {
                let level = flate2::Compression::new(GZIP_LEVEL);
                Encoder::Gzip(flate2::write::GzEncoder::new(Vec::new(), level))
            }
        };
        Ok(Compressor {
            encoder,
            _at_work: at_work,
            counted: None,
            plain: Vec::new(),
        })
    }

    /// Takes all there is of a body at the moment, codes it and appends it to `out`: with its framing,
    /// and the trailers behind the last, where the client is to have it `chunked`. The bytes of data in
    /// the lot are those that go out.
    pub(super) fn gather(
        &mut self,
        source: &mut Source<'_>,
        framing: BodyFraming,
        chunked: bool,
        out: &mut Vec<u8>,
    ) -> Result<Lot, BadBody> {
        let bare = match (&*source, framing) {
            (Source::H1 { .. }, BodyFraming::Chunked) => Recode::Unchunk,
            _ => Recode::Direct,
        };
        let Compressor {
            encoder,
            plain,
            counted,
            ..
        } = self;
        plain.clear();
        let lot = source.gather(bare, plain, None)?;
        let is_done = source.is_done();
        let piece = source.piece(&lot);
        let direct: &[u8] = match &piece {
            Piece::Lent(direct) => direct,
            Piece::Owned(direct) => direct,
        };
        let coded = encoder.code([plain, direct], is_done);
        // To memory nothing fails that could be written there.
        let coded = coded.map_err(|_| BadBody("it cannot be compressed"))?;
        if let Some(counted) = counted {
            counted.add(plain.len() + direct.len(), coded.len());
        }
        match chunked {
            true => {
                encode_chunk(&coded, out);
                if is_done {
                    let none = Fields::default();
                    encode_last_chunk(source.trailers().unwrap_or(&none), out);
                }
            }
            false => out.extend_from_slice(&coded),
        }
        Ok(lot.into_coded(coded.len()))
    }
}

impl Encoder {
    /// Codes these, one behind the other, so far that whoever decodes it has all of them; if they are
    /// the last, to its end.
    fn code(&mut self, parts: [&[u8]; 2], is_done: bool) -> io::Result<Vec<u8>> {
        let any = parts.iter().any(|part| !part.is_empty());
        let writer: &mut dyn io::Write = match self {
            Encoder::Zstd(encoder) => encoder,
            Encoder::Brotli(writer) => writer,
            Encoder::Gzip(encoder) => encoder,
            Encoder::Over => return Ok(Vec::new()),
        };
        parts.iter().try_for_each(|part| writer.write_all(part))?;
        if is_done {
            return match std::mem::replace(self, Encoder::Over) {
                Encoder::Zstd(encoder) => encoder.finish(),
                Encoder::Brotli(writer) => Ok(writer.into_inner()),
                Encoder::Gzip(encoder) => encoder.finish(),
                Encoder::Over => Ok(Vec::new()),
            };
        }
        if any {
            writer.flush()?;
        }
        Ok(std::mem::take(match self {
            Encoder::Zstd(encoder) => encoder.get_mut(),
            Encoder::Brotli(writer) => writer.get_mut(),
            Encoder::Gzip(encoder) => encoder.get_mut(),
            Encoder::Over => return Ok(Vec::new()),
        }))
    }
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressor").finish_non_exhaustive()
    }
}

/// A shorter body is not coded: it fits into a packet either way.
const LEAST: u64 = 1024;

/// Where a worker has so many at work, further responses go out as they are: each takes 0.3 to 1.5 MiB.
pub const AT_ONCE: usize = 128;

/// Binary logarithm of how far a coder looks back, in bytes: more would cost memory on both sides.
const WINDOW: u32 = 18;

/// Levels for what is coded as it is asked for, not once for all.
const ZSTD_LEVEL: i32 = 3;
const BROTLI_QUALITY: u32 = 4;
const GZIP_LEVEL: u32 = 5;

/// Room that the brotli coder writes into before it hands on.
const STEP: usize = 4096;
