//! The single values of the file: how each is written, and what is said when it is written
//! otherwise.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;

use serde_json::{Value, json};

use super::read::{Refusal, Scalar};
use super::{HashBy, schema};

impl Scalar for String {
    const EXPECTS: &'static str = "text";

    fn schema() -> Value {
        json!({ "type": "string", "minLength": 1 })
    }

    fn from_text(text: &str) -> Result<Self, Refusal> {
        if text.is_empty() {
            return Err(Refusal::because("this is empty"));
        }
        if text.chars().any(char::is_control) {
            return Err(Refusal::because("a control character in a text"));
        }
        Ok(text.to_owned())
    }

    fn from_integer(n: i64) -> Result<Self, Refusal> {
        Err(Refusal::kind().help(format!("put it in quotes: \"{n}\"")))
    }
}

impl Scalar for bool {
    const EXPECTS: &'static str = "true or false";

    fn schema() -> Value {
        json!({ "type": "boolean" })
    }

    fn from_text(_: &str) -> Result<Self, Refusal> {
        Err(Refusal::kind())
    }

    fn from_bool(b: bool) -> Result<Self, Refusal> {
        Ok(b)
    }

    fn from_word(word: &str) -> Result<Self, Refusal> {
        word.parse().map_err(|_| Refusal::kind())
    }
}

/// A whole number between two bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Within<const LEAST: u64, const MOST: u64>(pub u64);

impl<const LEAST: u64, const MOST: u64> Scalar for Within<LEAST, MOST> {
    const EXPECTS: &'static str = "a number";

    fn schema() -> Value {
        json!({ "type": "integer", "minimum": LEAST, "maximum": MOST })
    }

    fn from_text(text: &str) -> Result<Self, Refusal> {
        Err(match text.parse::<u64>() {
            Ok(n) => Refusal::kind().help(format!("write it without quotes: {n}")),
            Err(_) => Refusal::kind(),
        })
    }

    fn from_integer(n: i64) -> Result<Self, Refusal> {
        u64::try_from(n)
            .ok()
            .filter(|n| (LEAST..=MOST).contains(n))
            .map(Within)
            .ok_or_else(|| Refusal::because(format!("{n} is not between {LEAST} and {MOST}")))
    }

    fn from_word(word: &str) -> Result<Self, Refusal> {
        word.parse()
            .map_err(|_| Refusal::kind())
            .and_then(Self::from_integer)
    }
}

/// Longest duration that is accepted: 30 days. It keeps the arithmetic on deadlines away from
/// overflow, and a longer one is a mistake in the unit.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 60 * 60);

impl Scalar for Duration {
    const EXPECTS: &'static str = "a duration such as \"10s\" or \"500ms\"";

    fn schema() -> Value {
        schema::pattern(r"^\s*([0-9]+(\.[0-9]+)?\s*[a-zA-Zµ]+\s*)+$")
    }

    fn from_text(text: &str) -> Result<Self, Refusal> {
        let duration = humantime::parse_duration(text.trim()).map_err(|_| {
            match text.trim().parse::<u64>() {
                Ok(n) => Refusal::because(format!("`{n}` has no unit"))
                    .help(format!("write \"{n}s\" or \"{n}ms\"")),
                Err(_) => Refusal::kind(),
            }
        })?;
        if duration > LONGEST {
            return Err(Refusal::because("a duration is at most 30 days"));
        }
        Ok(duration)
    }

    fn from_integer(n: i64) -> Result<Self, Refusal> {
        Err(Refusal::because(format!("`{n}` has no unit"))
            .help(format!("write \"{n}s\" or \"{n}ms\"")))
    }
}

/// A [`Duration`] that is not zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Positive(pub Duration);

impl Scalar for Positive {
    const EXPECTS: &'static str = Duration::EXPECTS;

    fn schema() -> Value {
        Duration::schema()
    }

    fn from_text(text: &str) -> Result<Self, Refusal> {
        let duration = Duration::from_text(text)?;
        if duration.is_zero() {
            return Err(Refusal::because("this must be longer than nothing"));
        }
        Ok(Positive(duration))
    }

    fn from_integer(n: i64) -> Result<Self, Refusal> {
        Duration::from_integer(n).map(Positive)
    }
}

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteSize(pub u64);

impl Scalar for ByteSize {
    const EXPECTS: &'static str = "a size such as \"32KiB\" or \"1MB\"";

    fn schema() -> Value {
        let text = schema::pattern(r"^\s*[0-9]+\s*([bB]|[kKmMgG]([iI]?[bB])?)?\s*$");
        schema::any(vec![text, json!({ "type": "integer", "minimum": 0 })])
    }

    fn from_text(text: &str) -> Result<Self, Refusal> {
        let text = text.trim();
        let digits = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let number: u64 = text[..digits].parse().map_err(|_| Refusal::kind())?;
        let unit: u64 = match text[digits..].trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "kb" => 1000,
            "kib" | "k" => 1 << 10,
            "mb" => 1000 * 1000,
            "mib" | "m" => 1 << 20,
            "gb" => 1000 * 1000 * 1000,
            "gib" | "g" => 1 << 30,
            _ => return Err(Refusal::kind()),
        };
        number
            .checked_mul(unit)
            .map(ByteSize)
            .ok_or_else(|| Refusal::because("this size is too large"))
    }

    fn from_integer(n: i64) -> Result<Self, Refusal> {
        u64::try_from(n).map(ByteSize).map_err(|_| Refusal::kind())
    }
}

/// [`ByteSize`], or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizeOrOff(pub Option<u64>);

impl Scalar for SizeOrOff {
    const EXPECTS: &'static str = "a size such as \"256MiB\", or \"off\"";

    fn schema() -> Value {
        or_off(ByteSize::schema())
    }

    fn from_text(text: &str) -> Result<Self, Refusal> {
        if text == "off" {
            return Ok(SizeOrOff(None));
        }
        ByteSize::from_text(text).map(|ByteSize(bytes)| SizeOrOff(Some(bytes)))
    }

    fn from_integer(n: i64) -> Result<Self, Refusal> {
        ByteSize::from_integer(n).map(|ByteSize(bytes)| SizeOrOff(Some(bytes)))
    }
}

/// A [`Positive`] duration, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PositiveOrOff(pub Option<Duration>);

impl Scalar for PositiveOrOff {
    const EXPECTS: &'static str = "a duration such as \"10s\" or \"500ms\", or \"off\"";

    fn schema() -> Value {
        or_off(Positive::schema())
    }

    fn from_text(text: &str) -> Result<Self, Refusal> {
        if text == "off" {
            return Ok(PositiveOrOff(None));
        }
        Positive::from_text(text).map(|Positive(time)| PositiveOrOff(Some(time)))
    }

    fn from_integer(n: i64) -> Result<Self, Refusal> {
        Positive::from_integer(n).map(|Positive(time)| PositiveOrOff(Some(time)))
    }
}

/// A whole number between two bounds, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WithinOrOff<const LEAST: u64, const MOST: u64>(pub Option<u64>);

impl<const LEAST: u64, const MOST: u64> Scalar for WithinOrOff<LEAST, MOST> {
    const EXPECTS: &'static str = "a number, or \"off\"";

    fn schema() -> Value {
        or_off(Within::<LEAST, MOST>::schema())
    }

    fn from_text(text: &str) -> Result<Self, Refusal> {
        if text == "off" {
            return Ok(WithinOrOff(None));
        }
        Within::<LEAST, MOST>::from_text(text).map(|Within(n)| WithinOrOff(Some(n)))
    }

    fn from_integer(n: i64) -> Result<Self, Refusal> {
        Within::<LEAST, MOST>::from_integer(n).map(|Within(n)| WithinOrOff(Some(n)))
    }

    fn from_word(word: &str) -> Result<Self, Refusal> {
        match word {
            "off" => Ok(WithinOrOff(None)),
            word => Within::<LEAST, MOST>::from_word(word).map(|Within(n)| WithinOrOff(Some(n))),
        }
    }
}

/// An address to listen on; `:8443` is every address of both families.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bind(pub SocketAddr);

impl Scalar for Bind {
    const EXPECTS: &'static str =
        "an address and port such as \":8443\", \"127.0.0.1:8443\" or \"[::1]:8443\"";

    fn schema() -> Value {
        schema::pattern(r"^([0-9.]*|\[[0-9a-fA-F:.%]+\]):[0-9]{1,5}$")
    }

    fn from_text(text: &str) -> Result<Self, Refusal> {
        let every = |port: &str| {
            port.parse::<u16>()
                .ok()
                .map(|port| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))
        };
        if let Some(address) = text.strip_prefix(':').and_then(every) {
            return Ok(Bind(address));
        }
        text.parse().map(Bind).map_err(|_| {
            if every(text).is_some() {
                Refusal::kind().help(format!("write \":{text}\""))
            } else if text.parse::<IpAddr>().is_ok() {
                Refusal::because(format!("`{text}` has no port"))
            } else if let Some(port) = text.strip_prefix("localhost:") {
                Refusal::kind().help(format!("write \"127.0.0.1:{port}\""))
            } else if let Some(port) = text.strip_prefix("*:") {
                Refusal::kind().help(format!("write \":{port}\""))
            } else {
                Refusal::kind()
            }
        })
    }

    fn from_integer(n: i64) -> Result<Self, Refusal> {
        Err(Refusal::kind().help(format!("write \":{n}\"")))
    }
}

/// [`Bind`], or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BindOrOff(pub Option<SocketAddr>);

impl Scalar for BindOrOff {
    const EXPECTS: &'static str = "an address and port such as \"127.0.0.1:9902\", or \"off\"";

    fn schema() -> Value {
        or_off(Bind::schema())
    }

    fn from_text(text: &str) -> Result<Self, Refusal> {
        if text == "off" {
            return Ok(BindOrOff(None));
        }
        Bind::from_text(text).map(|Bind(address)| BindOrOff(Some(address)))
    }

    fn from_integer(n: i64) -> Result<Self, Refusal> {
        Bind::from_integer(n).map(|Bind(address)| BindOrOff(Some(address)))
    }
}

/// An address to connect to: no name, no port 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connect(pub SocketAddr);

impl Scalar for Connect {
    const EXPECTS: &'static str = "an address and port such as \"10.0.0.7:8080\"";

    fn schema() -> Value {
        schema::pattern(r"^([0-9.]+|\[[0-9a-fA-F:.%]+\]):[0-9]{1,5}$")
    }

    fn from_text(text: &str) -> Result<Self, Refusal> {
        let address: SocketAddr = text.parse().map_err(|_| {
            let name = text.rsplit_once(':').map(|(name, _)| name);
            if text.parse::<IpAddr>().is_ok() {
                Refusal::because(format!("`{text}` has no port"))
            } else if name.is_some_and(|n| super::names::check(n.as_bytes()).is_ok()) {
                Refusal::kind().help("a name is looked up with { a = \"name\", port = 8080 } in a file, a://name:8080 as --to")
            } else {
                Refusal::kind()
            }
        })?;
        if address.port() == 0 {
            return Err(Refusal::because("port 0 cannot be connected to"));
        }
        if address.ip().is_unspecified() || address.ip().is_multicast() {
            return Err(Refusal::because(format!(
                "`{}` is not the address of one machine",
                address.ip()
            )));
        }
        Ok(Connect(address))
    }
}

/// A name server: an address, and port 53 unless it says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NameServer(pub SocketAddr);

impl Scalar for NameServer {
    const EXPECTS: &'static str =
        "the address of a name server such as \"10.0.0.2\" or \"127.0.0.1:8600\"";

    fn schema() -> Value {
        schema::pattern(r"^\[?[0-9a-fA-F:.%]+\]?(:[0-9]{1,5})?$")
    }

    fn from_text(text: &str) -> Result<Self, Refusal> {
        let bare = text
            .strip_prefix('[')
            .and_then(|t| t.strip_suffix(']'))
            .unwrap_or(text);
        match bare.parse::<IpAddr>() {
            Ok(ip) => Ok(NameServer(SocketAddr::new(ip, 53))),
            Err(_) => text
                .parse::<SocketAddr>()
                .ok()
                .filter(|address| address.port() != 0)
                .map(NameServer)
                .ok_or_else(Refusal::kind),
        }
    }
}

/// `spill`: the factor, if there is one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spill(pub Option<f64>);

impl Scalar for Spill {
    const EXPECTS: &'static str = "true, false or a number from 1 on";

    fn schema() -> Value {
        let factor = json!({ "type": "number", "minimum": 1, "maximum": MOST_SPILL });
        schema::any(vec![bool::schema(), factor])
    }

    fn from_text(_: &str) -> Result<Self, Refusal> {
        Err(Refusal::kind())
    }

    fn from_integer(n: i64) -> Result<Self, Refusal> {
        Self::from_fraction(n as f64)
    }

    fn from_fraction(x: f64) -> Result<Self, Refusal> {
        match (1.0..=MOST_SPILL).contains(&x) {
            true => Ok(Spill(Some(x))),
            false => Err(
                Refusal::because(format!("{x} is not between 1 and {MOST_SPILL}")).help(
                    "1 passes on whatever part of a tier is gone, 1.4 nothing until 29 % are",
                ),
            ),
        }
    }

    fn from_bool(b: bool) -> Result<Self, Refusal> {
        Ok(Spill(b.then_some(USUAL_SPILL)))
    }

    fn from_word(word: &str) -> Result<Self, Refusal> {
        match (word.parse(), word.parse()) {
            (Ok(b), _) => Self::from_bool(b),
            (_, Ok(x)) => Self::from_fraction(x),
            _ => Err(Refusal::kind()),
        }
    }
}

/// The factor of `spill = true`: Envoy's default overprovisioning.
const USUAL_SPILL: f64 = 1.4;

/// With a hundredth of a tier left, a larger one would be strict priority.
const MOST_SPILL: f64 = 100.0;

/// The word `off` besides.
fn or_off(schema: Value) -> Value {
    schema::any(vec![schema, schema::words(&["off"])])
}

/// RFC 9110 §5.6.2 `token`, as a regular expression of JSON Schema.
pub(super) const TOKEN: &str = "[!#$%&'*+.^_`|~0-9A-Za-z-]+";

/// RFC 9110 §5.6.2 `tchar`.
pub(super) fn is_token_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

impl Scalar for HashBy {
    const EXPECTS: &'static str = "\"address\", \"path\", \"header:NAME\" or \"cookie:NAME\"";

    fn schema() -> Value {
        schema::pattern(&format!("^(address|path|(header|cookie):{TOKEN})$"))
    }

    fn from_text(text: &str) -> Result<Self, Refusal> {
        let name = |name: &str, what| match name.bytes().all(is_token_byte) && !name.is_empty() {
            true => Ok(name.into()),
            false => Err(Refusal::because(format!(
                "`{name}` is not the name of a {what}"
            ))),
        };
        match text.split_once(':') {
            Some(("header", field)) => name(field, "field").map(HashBy::Header),
            Some(("cookie", cookie)) => name(cookie, "cookie").map(HashBy::Cookie),
            None if text == "address" => Ok(HashBy::Address),
            None if text == "path" => Ok(HashBy::Path),
            None if text == "header" || text == "cookie" => {
                Err(Refusal::kind().help(format!("write \"{text}:NAME\"")))
            }
            _ => Err(Refusal::kind()),
        }
    }
}

impl Scalar for IpNet {
    const EXPECTS: &'static str = "an address range such as \"10.0.0.0/8\"";

    fn schema() -> Value {
        schema::pattern(r"^[0-9a-fA-F:.]+(/[0-9]{1,3})?$")
    }

    fn from_text(text: &str) -> Result<Self, Refusal> {
        text.parse::<IpNet>()
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
            .map(|net| net.trunc())
            .map_err(|_| match super::names::check(text.as_bytes()) {
                Ok(()) => Refusal::kind().help("names are not looked up here: write addresses"),
                Err(_) => Refusal::kind(),
            })
    }
}
