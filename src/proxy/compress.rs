//! Responses that go out in a content coding of ours: which do, what their heads say then, and the
//! bodies on their way (RFC 9110 §8.4; zstd: RFC 8878, br: RFC 7932, gzip: RFC 1952).
//!
//! What a backend has sent so far goes on at once: after all that there is at a moment the coder is
//! flushed, so that events and slow pages arrive as they would without it. A body that breaks off has no
//! end in its coding either.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::rc::Rc;

use super::limits::coders::{Coded, CoderPlace};
use super::peer::Peer;
use super::recode::Recode;
use super::source::{Lot, Piece, Source};
use super::worker::{Crowd, Worker};
use crate::http::body::BodyFraming;
use crate::http::coding::{Coding, is_compressible, is_sequence};
use crate::http::h1::body::{BadBody, encode_chunk, encode_last_chunk};
use crate::http::head::{Method, RequestHead, ResponseHead, Version};
use crate::http::headers::{Fields, Known, list_members};
use crate::telemetry::metrics::Compressing;

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
    /// Counts it among those at work.
    _place: Place,
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

/// A place among the coders of the process, of the client's connection and of the worker.
struct Place {
    _of_process: CoderPlace,
    of_connection: Option<Rc<Cell<usize>>>,
    crowd: Rc<Crowd>,
}

impl Place {
    /// `None`: there is none.
    fn take(worker: &Worker, peer: &Peer, coded: Coded) -> Option<Place> {
        let others = peer.coding.as_ref().map_or(0, |coding| coding.get());
        if others >= AT_ONCE_FOR_ONE {
            return None;
        }
        let of_process = worker.shared.limits.coder(coded)?;
        if let Some(coding) = &peer.coding {
            coding.set(others + 1);
        }
        worker.crowd.coders.rise();
        Some(Place {
            _of_process: of_process,
            of_connection: peer.coding.clone(),
            crowd: Rc::clone(&worker.crowd),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.crowd.coders.fall();
        if let Some(coding) = &self.of_connection {
            coding.set(coding.get() - 1);
        }
    }
}

/// Changes the head of a response that goes out in a coding, or that could; gives who codes its body,
/// if it has one. It is the response to `request`, as the backend was sent it, of a client at `peer`;
/// `framing`: of the body as it comes. To be called when all others have changed the head.
pub(super) fn begin(
    negotiated: Negotiated,
    (request, peer): (&RequestHead, &Peer),
    response: &mut ResponseHead,
    framing: BodyFraming,
    worker: &Worker,
) -> Option<Box<Compressor>> {
    if !may_be_coded(response) {
        return None;
    }
    vary(&mut response.fields);
    let fields = &response.fields;
    // HTTP/1.0 would have no other end than that of the connection.
    let coding = negotiated
        .coding
        .filter(|_| !is_part(response) && !matches!(request.version, Version::Http10))?;
    let said = || length_of(fields).is_some_and(|length| length < LEAST);
    match framing {
        BodyFraming::Length(..LEAST) => return None,
        // RFC 9110 §15.4.5: as of the response with the content that the client has.
        BodyFraming::None if response.status == 304 => {
            if !said() && !has_as_it_is(&request.fields, fields) {
                unsay(&mut response.fields);
            }
            return None;
        }
        // RFC 9110 §9.3.2: as to a GET, whose length need not be known.
        BodyFraming::None => {
            if request.method == Method::Head && !said() {
                describe(&mut response.fields, coding);
            }
            return None;
        }
        BodyFraming::Length(_) | BodyFraming::Chunked | BodyFraming::UntilClose => {}
    }
    let coded = match fields.first(Known::ContentType).is_some_and(is_sequence) {
        true => Coded::Sequence,
        false => Coded::Content,
    };
    let place = Place::take(worker, peer, coded)?;
    let mut compressor = Compressor::new(coding, place).ok()?;
    compressor.counted = worker
        .metrics
        .compressing(negotiated.service, coding.name());
    describe(&mut response.fields, coding);
    Some(Box::new(compressor))
}

/// Does it speak of something that becomes shorter, and is nobody against it? What a 304 speaks of need
/// not be said there.
fn may_be_coded(response: &ResponseHead) -> bool {
    let fields = &response.fields;
    let content_type = fields.first(Known::ContentType);
    // RFC 9110 §15.3.5, §15.3.6: no content at all.
    !matches!(response.status, 204 | 205)
        && content_type.map_or(response.status == 304, is_compressible)
        && fields.named("Content-Encoding").next().is_none()
        && !forbids_transforming(fields)
}

/// RFC 9111 §5.2.1.6, §5.2.2.6.
pub(super) fn forbids_transforming(fields: &Fields) -> bool {
    list_members(fields.named("Cache-Control"))
        .any(|directive| directive.eq_ignore_ascii_case(b"no-transform"))
}

/// Parts are of the content as it is: what was coded has none (RFC 9110 §14).
fn is_part(response: &ResponseHead) -> bool {
    response.status == 206 || response.fields.named("Content-Range").next().is_some()
}

/// Does the client have what a response speaks of as it is, by the tag that it named?
fn has_as_it_is(request: &Fields, response: &Fields) -> bool {
    let tag = response.named("ETag").next();
    list_members(request.named("If-None-Match")).any(|known| Some(known) == tag)
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
    unsay(fields);
    fields.push(b"Content-Encoding", coding.name().as_bytes());
}

/// Takes back what is true only of the content as it was.
fn unsay(fields: &mut Fields) {
    // Lengths and digests are those of other bytes (RFC 9530 §2, §3), and so are ranges.
    fields.retain(|field| {
        field.known != Known::ContentLength
            && !GONE
                .iter()
                .any(|name| field.name.eq_ignore_ascii_case(name.as_bytes()))
    });
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

/// What a backend says behind a body that is not true of its coding: digests and tags of other bytes.
/// Nobody weakens a tag there.
pub(super) const UNTRUE_BEHIND: [&str; 5] = [
    "Content-Digest",
    "Content-MD5",
    "Digest",
    "ETag",
    "Repr-Digest",
];

impl Compressor {
    fn new(coding: Coding, place: Place) -> io::Result<Compressor> {
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
            _place: place,
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

/// So many responses on one connection are coded at once, others go out as they are: it must not take
/// the places of all others.
const AT_ONCE_FOR_ONE: usize = 8;

/// Binary logarithm of how far a coder looks back, in bytes: more would cost memory on both sides.
const WINDOW: u32 = 18;

/// Levels for what is coded as it is asked for, not once for all.
const ZSTD_LEVEL: i32 = 3;
const BROTLI_QUALITY: u32 = 4;
const GZIP_LEVEL: u32 = 5;

/// Room that the brotli coder writes into before it hands on.
const STEP: usize = 4096;
