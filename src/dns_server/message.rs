//! Writing an answer so that it fits: exact sizes, glue by whole names, truncation.
//!
//! hickory-proto reads messages and writes their parts. The whole is put together here because
//! its encoder stops compressing names after some hundred records, which takes a third of a large
//! service's room, and cuts sections off in the middle. RFC 1035 section 4.1, RFC 2181 section 9.

use std::collections::HashMap;

use hickory_proto::op::{Edns, Header, HeaderCounts, Metadata, Query};
use hickory_proto::rr::{Name, RData, Record};
use hickory_proto::serialize::binary::BinEncodable;

use super::records::octets;

/// An answer before it is written.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) metadata: Metadata,
    pub(super) queries: Vec<Query>,
    pub(super) answers: Vec<Record>,
    pub(super) authority: Vec<Record>,
    /// Left out where it does not fit.
    pub(super) glue: Vec<Record>,
    pub(super) edns: Option<Edns>,
}

/// What is written so far.
#[derive(Debug, Default)]
struct Writer {
    octets: Vec<u8>,
    /// Where names begin that were written in full.
    names: HashMap<Name, u16>,
}

impl Outgoing {
    /// Writes it in at most `room` octets. Glue that does not fit is left out without a word (RFC
    /// 2181 section 9); if anything else does not, nothing but the question is given, and that
    /// there is more to be had over TCP. `None`: it cannot be written at all.
    pub(super) fn write(&mut self, room: usize) -> Option<Vec<u8>> {
        let edns = self.edns.as_ref().map(|edns| {
            let mut edns = edns.clone();
            edns.set_rcode_high(self.metadata.response_code.high());
            Record::from(&edns).to_bytes()
        });
        let edns = edns.transpose().ok()?.unwrap_or_default();
        let room = room.saturating_sub(edns.len());
        let mut writer = Writer::default();
        writer.octets.resize(HEADER, 0);
        for query in &self.queries {
            writer.question(query)?;
        }
        let questions = writer.octets.len();
        let sections = self.answers.iter().chain(&self.authority);
        sections.for_each(|record| writer.record(record));
        let mut glue = 0;
        if self.metadata.truncation || writer.octets.len() > room {
            self.metadata.truncation = true;
            self.answers.clear();
            self.authority.clear();
            writer.octets.truncate(questions);
        } else {
            for of_one in self.glue.chunk_by(|a, b| a.name == b.name) {
                let before = writer.octets.len();
                of_one.iter().for_each(|record| writer.record(record));
                if writer.octets.len() > room {
                    writer.octets.truncate(before);
                    break;
                }
                glue += of_one.len();
            }
        }
        writer.octets.extend_from_slice(&edns);
        let header = Header {
            metadata: self.metadata,
            counts: HeaderCounts {
                queries: count(self.queries.len())?,
                answers: count(self.answers.len())?,
                authorities: count(self.authority.len())?,
                additionals: count(glue + usize::from(self.edns.is_some()))?,
            },
        };
        writer.octets[..HEADER].copy_from_slice(&header.to_bytes().ok()?);
        Some(writer.octets)
    }
}

impl Writer {
    fn question(&mut self, query: &Query) -> Option<()> {
        self.remember(query.name().to_lowercase(), self.octets.len());
        self.octets.extend_from_slice(&query.to_bytes().ok()?);
        Some(())
    }

    fn record(&mut self, record: &Record) {
        match self.names.get(&record.name) {
            Some(at) => self.number(0xc000 | at),
            None => {
                self.remember(record.name.clone(), self.octets.len());
                // What cannot be written as a name was never read as one.
                let name = record.name.to_bytes().unwrap_or_else(|_| vec![0]);
                self.octets.extend_from_slice(&name);
            }
        }
        self.number(record.record_type().into());
        self.number(record.dns_class.into());
        self.octets.extend_from_slice(&record.ttl.to_be_bytes());
        let data = octets(&record.data);
        self.number(u16::try_from(data.len()).unwrap_or(u16::MAX));
        if let RData::SRV(srv) = &record.data {
            // Priority, weight and port come before it. Glue is called by it.
            self.remember(srv.target.clone(), self.octets.len() + 6);
        }
        self.octets.extend_from_slice(&data);
    }

    fn number(&mut self, number: u16) {
        self.octets.extend_from_slice(&number.to_be_bytes());
    }

    fn remember(&mut self, name: Name, at: usize) {
        if let Ok(at) = u16::try_from(at)
            && at < REACH
            && !name.is_root()
        {
            self.names.entry(name).or_insert(at);
        }
    }
}

/// Appends a record to the additional section of a whole message, as TSIG wants it.
pub(super) fn append<R: hickory_proto::rr::RecordData>(
    message: &mut Vec<u8>,
    record: &Record<R>,
) -> Option<()> {
    let count: [u8; 2] = message.get(10..12)?.try_into().ok()?;
    let count = u16::from_be_bytes(count).checked_add(1)?;
    message[10..12].copy_from_slice(&count.to_be_bytes());
    message.extend_from_slice(&record.to_bytes().ok()?);
    Some(())
}

fn count(records: usize) -> Option<u16> {
    u16::try_from(records).ok()
}

/// Of every message.
pub(super) const HEADER: usize = 12;

/// Offsets that a pointer can hold (RFC 1035 section 4.1.4).
const REACH: u16 = 0x4000;
