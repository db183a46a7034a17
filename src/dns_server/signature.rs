//! Who sent a message, by its TSIG record, and the signature of the answer (RFC 8945, the
//! server's side). What somebody may do is not decided here.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hickory_proto::op::Message;
use hickory_proto::rr::rdata::TSIG;
use hickory_proto::rr::rdata::tsig::{TsigError, make_tsig_record};

use super::key::{Key, VerifyError};
use super::message::append;

/// What the TSIG record of a request says.
pub(super) enum Sender {
    /// There is none.
    Anonymous,
    /// It holds: from somebody who has this key, just now.
    Known {
        /// Place of the key among those that were given.
        nth: usize,
        /// For the answer.
        signing: Signing,
    },
    /// It does not hold (section 5.2): NOTAUTH, with this in the answer.
    Unproven { why: &'static str, signing: Signing },
}

/// What goes under an answer.
pub(super) struct Signing {
    /// `None`: the answer carries no MAC (sections 5.2.1 and 5.2.2).
    key: Option<Key>,
    /// Of the request.
    tsig: TSIG,
    key_name: hickory_proto::rr::Name,
    error: Option<TsigError>,
    /// Our clock, in seconds since 1970.
    now: u64,
}

impl Sender {
    /// Looks at `message`, whose octets as they came are `octets`.
    pub(super) fn of(octets: &[u8], message: &Message, keys: &[Key], now: u64) -> Sender {
        let Some(record) = &message.signature else {
            return Sender::Anonymous;
        };
        let unproven = |key: Option<Key>, error, why| Sender::Unproven {
            why,
            signing: Signing {
                key,
                tsig: record.data.clone(),
                key_name: record.name.clone(),
                error: Some(error),
                now,
            },
        };
        let same =
            |key: &Key| *key.name() == record.name && *key.algorithm() == record.data.algorithm;
        let Some(nth) = keys.iter().position(same) else {
            return unproven(None, TsigError::BadKey, "the key is not known here");
        };
        let key = &keys[nth];
        let tsig = match key.verify(octets, None) {
            Ok(tsig) => tsig,
            Err(VerifyError::OtherKey) => {
                return unproven(None, TsigError::BadKey, "the key is not known here");
            }
            Err(_) => return unproven(None, TsigError::BadSig, "the signature is wrong"),
        };
        // Section 5.2.3. A sender that allows for more than we do gets what we allow for.
        let fudge = u64::from(tsig.fudge).min(MAX_FUDGE.as_secs());
        if now.abs_diff(tsig.time) > fudge {
            let why = "it was signed too long ago, or the clocks differ";
            return unproven(Some(key.clone()), TsigError::BadTime, why);
        }
        Sender::Known {
            nth,
            signing: Signing {
                key: Some(key.clone()),
                tsig,
                key_name: record.name.clone(),
                error: None,
                now,
            },
        }
    }
}

impl Signing {
    /// The MAC of the request: no two different requests have the same.
    pub(super) fn request_mac(&self) -> &[u8] {
        &self.tsig.mac
    }

    /// For how long the same message would still be believed.
    pub(super) fn holds_for(&self) -> Duration {
        let fudge = u64::from(self.tsig.fudge).min(MAX_FUDGE.as_secs());
        // One more for the second that is cut off.
        let until = self.tsig.time.saturating_add(fudge + 1);
        Duration::from_secs(until.saturating_sub(self.now))
    }

    /// Octets that the record adds to an answer, at most.
    pub(super) fn room(&self) -> usize {
        // Names are at most a dot longer on the wire; then type, class, TTL and length, the fixed
        // fields, the server's time, and the longest MAC.
        let names = self.key_name.len() + self.tsig.algorithm.to_name().len() + 4;
        names + 10 + 16 + 6 + 64
    }

    /// Puts the TSIG record under a whole answer (section 5.3). `None`: it cannot be made.
    pub(super) fn sign(&self, answer: &mut Vec<u8>) -> Option<()> {
        let (time, other) = match self.error {
            // Section 5.2.3: so that the sender learns by how much its clock is off.
            Some(TsigError::BadTime) => (self.tsig.time, self.now.to_be_bytes()[2..].to_vec()),
            _ => (self.now, Vec::new()),
        };
        let id = u16::from_be_bytes([*answer.first()?, *answer.get(1)?]);
        let stub = TSIG::new(
            self.tsig.algorithm.clone(),
            time,
            self.tsig.fudge,
            Vec::new(),
            id,
            self.error,
            other,
        );
        let signed = match &self.key {
            None => stub,
            Some(key) => {
                let signer = key.signer();
                let signed = signer
                    .encode_response_tbs(&self.tsig.mac, answer, &stub)
                    .ok()?;
                let mac = signer.sign(&signed).ok()?;
                stub.set_mac(mac)
            }
        };
        append(answer, &make_tsig_record(self.key_name.clone(), signed))
    }
}

/// Seconds since 1970 by the system's clock; only signatures are compared with it.
pub(super) fn unix_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// By how much clocks may differ at most (RFC 8945 section 10 recommends five minutes).
const MAX_FUDGE: Duration = Duration::from_secs(300);
