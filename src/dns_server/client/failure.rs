//! What can go wrong with a server, in words for whoever has to mend it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::Name;
use hickory_proto::rr::rdata::tsig::TsigError;

use crate::dns_server::key::VerifyError;

/// Why an update was not carried out, as far as is known, or a question not answered.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Nothing came back.
    #[error("{server} does not answer")]
    Silence {
        /// Who was asked.
        server: SocketAddr,
    },
    /// The transport failed; over UDP, most often because nothing listens there.
    #[error("{server} cannot be reached: {source}")]
    Network {
        /// Who was asked.
        server: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Something came back that says "done", but not from somebody who has the key.
    #[error("{server} says that it is done, but cannot be believed: {source}")]
    Unbelievable {
        /// Who was asked.
        server: SocketAddr,
        /// What is wrong with the signature.
        source: VerifyError,
    },
    /// The server did not do it.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// A question was answered with an error.
    #[error("{} from {server}", code_name(*code))]
    Code {
        /// Who was asked.
        server: SocketAddr,
        /// The error.
        code: ResponseCode,
    },
    /// The server has no zone for the name.
    #[error("{server} has no zone that holds {name} ({})", code_name(*code))]
    NoZone {
        /// Who was asked.
        server: SocketAddr,
        /// The name.
        name: Name,
        /// The last error it answered, or NOERROR.
        code: ResponseCode,
    },
    /// The message would be larger than messages can be.
    #[error("the update does not fit into a message")]
    Unsendable,
}

/// A server's "no" to an update.
#[derive(Debug)]
pub struct Refusal {
    /// The error of the message.
    pub code: ResponseCode,
    /// The error of the signature (RFC 8945 section 3).
    pub tsig: Option<TsigError>,
    /// With BADTIME, how far the clocks are apart.
    pub clocks_differ: Option<Duration>,
    /// Who said it.
    pub server: SocketAddr,
    /// What was to be changed.
    pub zone: Name,
    /// With which key.
    pub key: Name,
    /// And its algorithm.
    pub algorithm: String,
}

impl Failure {
    /// A short name for the kind of failure.
    pub fn label(&self) -> &'static str {
        match self {
            Failure::Silence { .. } => "silence",
            Failure::Network { .. } => "network",
            Failure::Unbelievable { .. } => "unbelievable",
            Failure::Refused(refusal) => refusal.label(),
            Failure::Code { code, .. } => code_name(*code),
            Failure::NoZone { .. } => "no zone",
            Failure::Unsendable => "unsendable",
        }
    }

    /// The server has decided, and would decide the same again. SERVFAIL is no decision, and a
    /// condition may hold later.
    pub fn is_final(&self) -> bool {
        let decided = |code| code != ResponseCode::ServFail;
        matches!(self, Failure::Refused(refusal) if decided(refusal.code)) && !self.is_condition()
    }

    /// The update's condition did not hold (RFC 2136 section 3.2).
    pub fn is_condition(&self) -> bool {
        let condition = [ResponseCode::NXRRSet, ResponseCode::YXRRSet];
        matches!(self, Failure::Refused(refusal) if condition.contains(&refusal.code))
    }

    /// No sign of life: another address of the server may do better.
    pub fn is_silence(&self) -> bool {
        matches!(self, Failure::Silence { .. } | Failure::Network { .. })
    }
}

impl Refusal {
    /// The error by which a server means it: the signature's, if there is one.
    fn label(&self) -> &'static str {
        match self.tsig {
            Some(TsigError::BadSig) => "BADSIG",
            Some(TsigError::BadKey) => "BADKEY",
            Some(TsigError::BadTime) => "BADTIME",
            Some(TsigError::BadTrunc) => "BADTRUNC",
            Some(TsigError::Unknown(_)) | None => code_name(self.code),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Refusal {
            server, zone, key, ..
        } = self;
        let mut key = key.clone();
        key.set_fqdn(false);
        write!(f, "{}: ", self.label())?;
        match (self.tsig, self.code) {
            (Some(TsigError::BadSig), _) => {
                write!(f, "{server} has another secret for the key \"{key}\"")
            }
            (Some(TsigError::BadKey), _) => {
                let algorithm = &self.algorithm;
                write!(f, "{server} does not know the key \"{key}\" ({algorithm})")?;
                // Knot's way to say REFUSED.
                f.write_str(", or not for these names")
            }
            (Some(TsigError::BadTime), _) => match self.clocks_differ {
                Some(apart) => {
                    let apart = humantime::format_duration(apart);
                    write!(f, "the clocks here and at {server} differ by {apart}")
                }
                None => write!(f, "the clocks here and at {server} differ by minutes"),
            },
            (_, ResponseCode::Refused) => write!(
                f,
                "the key \"{key}\" may not change these names of {zone} at {server}"
            ),
            (_, ResponseCode::NotAuth) => {
                write!(f, "{server} is not authoritative for {zone}, or ")?;
                write!(f, "the key \"{key}\" may not change it")
            }
            (_, ResponseCode::NotZone) => {
                write!(f, "for {server} one of the names lies outside of {zone}")
            }
            (_, ResponseCode::NotImp) => write!(f, "{server} takes no updates"),
            (_, ResponseCode::FormErr) => write!(f, "{server} does not understand the update"),
            (_, ResponseCode::ServFail) => write!(f, "{server} could not carry it out"),
            (_, ResponseCode::NXRRSet | ResponseCode::YXRRSet) => {
                write!(f, "{server} has other records than it should have")
            }
            _ => write!(f, "{server} did not do it"),
        }
    }
}

/// As the registry of DNS parameters writes it.
fn code_name(code: ResponseCode) -> &'static str {
    match code {
        ResponseCode::NoError => "NOERROR",
        ResponseCode::FormErr => "FORMERR",
        ResponseCode::ServFail => "SERVFAIL",
        ResponseCode::NXDomain => "NXDOMAIN",
        ResponseCode::NotImp => "NOTIMP",
        ResponseCode::Refused => "REFUSED",
        ResponseCode::YXDomain => "YXDOMAIN",
        ResponseCode::YXRRSet => "YXRRSET",
        ResponseCode::NXRRSet => "NXRRSET",
        ResponseCode::NotAuth => "NOTAUTH",
        ResponseCode::NotZone => "NOTZONE",
        ResponseCode::BADVERS | ResponseCode::BADSIG => "BADVERS",
        _ => "an unknown error",
    }
}
