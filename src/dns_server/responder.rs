//! Questions off the wire, answers onto it: sizes, EDNS (RFC 6891), truncation (RFC 2181).
//!
//! Runs inside hickory-server, which reads, parses and writes the messages.

use hickory_proto::op::{
    DEFAULT_MAX_PAYLOAD_LEN, Edns, HeaderCounts, Message, Metadata, OpCode, ResponseCode,
};
use hickory_proto::rr::{DNSClass, Name, Record};
use hickory_server::net::runtime::Time;
use hickory_server::net::xfer::Protocol;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;

use super::records::Answer;
use super::zone::Zone;

/// What a client without EDNS can take over UDP (RFC 1035 section 4.2.1).
const CLASSIC_PAYLOAD: u16 = 512;

/// Answers from a zone.
pub(super) struct Responder {
    zone: Zone,
}

impl Responder {
    pub(super) fn new(zone: Zone) -> Responder {
        Responder { zone }
    }

    fn answer(&self, request: &Request) -> Answer {
        let refuse = |code| Answer {
            code,
            ..Answer::default()
        };
        if request.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
            return refuse(ResponseCode::BADVERS);
        }
        if request.metadata.op_code != OpCode::Query {
            return refuse(ResponseCode::NotImp);
        }
        let Ok(info) = request.request_info() else {
            return refuse(ResponseCode::FormErr);
        };
        if info.query.query_class() != DNSClass::IN {
            return refuse(ResponseCode::Refused);
        }
        let name = Name::from(info.query.name());
        self.zone.answer(&name, info.query.query_type())
    }
}

#[async_trait::async_trait]
impl RequestHandler for Responder {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut response: R,
    ) -> ResponseInfo {
        let mut answer = self.answer(request);
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = answer.code;
        metadata.authoritative = answer.authoritative;
        let edns = request.edns.as_ref().map(|theirs| {
            let payload = theirs.max_payload().min(DEFAULT_MAX_PAYLOAD_LEN);
            let mut ours = Edns::new();
            ours.set_max_payload(payload.max(CLASSIC_PAYLOAD));
            ours
        });
        if request.protocol() == Protocol::Udp {
            let limit = edns.as_ref().map_or(CLASSIC_PAYLOAD, Edns::max_payload);
            leave_glue_out(&mut answer, request, edns.as_ref(), limit.into());
        }
        let mut builder = MessageResponseBuilder::from_message_request(request);
        if let Some(edns) = &edns {
            builder.edns(edns);
        }
        let message = builder.build(metadata, &answer.answers, [], &answer.soa, &answer.glue);
        match response.send_response(message).await {
            Ok(info) => info,
            Err(error) => {
                tracing::debug!(%error, "dns server: an answer could not be sent");
                failed(request)
            }
        }
    }
}

/// Glue that does not fit is left out without a word: only an answer section that was cut
/// deserves the truncation bit (RFC 2181 section 9).
fn leave_glue_out(answer: &mut Answer, request: &Request, edns: Option<&Edns>, limit: usize) {
    let mut message = Message::response(0, OpCode::Query);
    if let Ok(info) = request.request_info() {
        message.add_query(info.query.original().clone());
    }
    if let Some(edns) = edns {
        message.set_edns(edns.clone());
    }
    message.insert_answers(answer.answers.clone());
    message.insert_authorities(answer.soa.clone());
    let size = |message: &Message| message.to_vec().map_or(usize::MAX, |bytes| bytes.len());
    let mut room = limit.saturating_sub(size(&message));
    // Whole sets only, uncompressed sizes: an estimate that is never too small.
    let mut kept: Vec<Record> = Vec::new();
    for record in &answer.glue {
        let needs = record.name.len() + GLUE_RECORD;
        let Some(left) = room.checked_sub(needs) else {
            kept.retain(|other| other.name != record.name);
            break;
        };
        room = left;
        kept.push(record.clone());
    }
    answer.glue = kept;
}

/// Type, class, TTL, length and the longer of the two kinds of address.
const GLUE_RECORD: usize = 2 + 2 + 4 + 2 + 16;

fn failed(request: &Request) -> ResponseInfo {
    let mut metadata = Metadata::response_from_request(&request.metadata);
    metadata.response_code = ResponseCode::ServFail;
    ResponseInfo::from(hickory_proto::op::Header {
        metadata,
        counts: HeaderCounts::default(),
    })
}
