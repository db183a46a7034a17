//! A reader of HTTP/1.1 messages that has nothing in common with the product's: it keeps the raw
//! bytes, and says `Err` where the bytes are not what a strict peer would have sent.

use std::fmt;

/// One message, taken apart.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// Request line or status line.
    pub first_line: String,
    /// Names in lower case, in order.
    pub fields: Vec<(String, String)>,
    /// The content, without its framing.
    pub body: Vec<u8>,
    /// Trailer fields of a chunked body.
    pub trailers: Vec<(String, String)>,
    /// Its head as it came, final empty line included.
    pub head: Vec<u8>,
    /// All its bytes as they came.
    pub raw: Vec<u8>,
}

/// What is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A request.
    Request,
    /// A response to any method but HEAD.
    Response,
    /// A response to HEAD.
    ResponseToHead,
}

/// Reads one message off the front of `input`. `Ok(None)`: it is not whole yet. `ended`: nothing
/// more will come.
pub fn message(input: &[u8], kind: Kind, ended: bool) -> Result<Option<Message>, String> {
    let Some(head_end) = find(input, b"\r\n\r\n").map(|at| at + 4) else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(&input[..head_end - 4]).into_owned();
    let mut lines = text.split("\r\n");
    let first_line = lines.next().unwrap_or_default().to_owned();
    let fields = lines.map(field).collect::<Result<Vec<_>, _>>()?;
    let values = |name: &str| -> Vec<&str> {
        let named = fields.iter().filter(|(n, _)| n == name);
        named.map(|(_, value)| value.as_str()).collect()
    };
    let lengths = values("content-length");
    let codings = values("transfer-encoding");
    if lengths.len() > 1 || codings.len() > 1 || (lengths.len() == 1 && codings.len() == 1) {
        return Err(format!("framed twice: {text:?}"));
    }
    let status = match kind {
        Kind::Request => 0,
        _ => status_of(&first_line)?,
    };
    let bodiless = kind == Kind::ResponseToHead || matches!(status, 100..=199 | 204 | 304);
    let rest = &input[head_end..];
    let (body, trailers, used) = if bodiless {
        (Vec::new(), Vec::new(), 0)
    } else if let [coding] = codings[..] {
        if coding != "chunked" {
            return Err(format!("transfer coding {coding:?}"));
        }
        match chunked(rest)? {
            Some(found) => found,
            None => return Ok(None),
        }
    } else if let [length] = lengths[..] {
        let length: usize = length.parse().map_err(|_| format!("length {length:?}"))?;
        if rest.len() < length {
            return Ok(None);
        }
        (rest[..length].to_vec(), Vec::new(), length)
    } else if kind == Kind::Request {
        (Vec::new(), Vec::new(), 0)
    } else if ended {
        (rest.to_vec(), Vec::new(), rest.len())
    } else {
        return Ok(None);
    };
    Ok(Some(Message {
        first_line,
        fields,
        body,
        trailers,
        head: input[..head_end].to_vec(),
        raw: input[..head_end + used].to_vec(),
    }))
}

impl Message {
    /// Status code of a response; panics for a request.
    pub fn status(&self) -> u16 {
        status_of(&self.first_line).expect("it was read as a response")
    }

    /// Value of the first field of that name (lower case).
    pub fn field(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The content as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Method of a request.
    pub fn method(&self) -> &str {
        self.first_line.split(' ').next().unwrap_or_default()
    }

    /// Target of a request.
    pub fn target(&self) -> &str {
        self.first_line.split(' ').nth(1).unwrap_or_default()
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.raw))
    }
}

fn status_of(line: &str) -> Result<u16, String> {
    let digits = line
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3));
    digits
        .and_then(|d| d.parse().ok())
        .ok_or_else(|| format!("status line {line:?}"))
}

fn field(line: &str) -> Result<(String, String), String> {
    let (name, value) = line
        .split_once(':')
        .ok_or_else(|| format!("field line {line:?}"))?;
    if name.is_empty() || name.contains([' ', '\t']) || value.contains('\r') {
        return Err(format!("field line {line:?}"));
    }
    Ok((name.to_ascii_lowercase(), value.trim().to_owned()))
}

/// Content, trailers and length of a chunked body.
type Chunked = (Vec<u8>, Vec<(String, String)>, usize);

fn chunked(input: &[u8]) -> Result<Option<Chunked>, String> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let Some(length) = find(&input[at..], b"\r\n") else {
            return Ok(None);
        };
        let line = String::from_utf8_lossy(&input[at..at + length]).into_owned();
        let size = usize::from_str_radix(&line, 16).map_err(|_| format!("chunk size {line:?}"))?;
        at += length + 2;
        if size == 0 {
            break;
        }
        let Some(data) = input.get(at..at + size + 2) else {
            return Ok(None);
        };
        if !data.ends_with(b"\r\n") {
            return Err("no CRLF after a chunk".into());
        }
        body.extend_from_slice(&data[..size]);
        at += size + 2;
    }
    let mut trailers = Vec::new();
    loop {
        let Some(length) = find(&input[at..], b"\r\n") else {
            return Ok(None);
        };
        let line = String::from_utf8_lossy(&input[at..at + length]).into_owned();
        at += length + 2;
        if line.is_empty() {
            return Ok(Some((body, trailers, at)));
        }
        trailers.push(field(&line)?);
    }
}

/// Offset of `needle` in `hay`.
pub fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).position(|w| w == needle)
}
