//! Reads answers: status, framing, length. Keeps nothing but an unfinished head.

use anyhow::{Context, Result, bail};

use super::body::Body;

/// The answer to one request, as far as it has come.
#[derive(Debug, Default)]
pub struct Answer {
    /// The beginning of a head whose end has not come yet.
    head: Vec<u8>,
    /// What is left of the body; `None` until the head was read.
    body: Option<Body>,
    /// Content so far.
    content: u64,
    /// Whether the connection may be used again.
    reusable: bool,
}

/// An answer of status 200 whose end was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answered {
    /// Length of its content.
    pub content: u64,
    /// Whether the peer keeps the connection open.
    pub reusable: bool,
}

impl Answer {
    /// Forgets the answer so that the next one can come; keeps the memory.
    pub fn reset(&mut self) {
        self.head.clear();
        self.body = None;
        self.content = 0;
    }

    /// Takes bytes that came. An error: not an answer that counts.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Option<Answered>> {
        if let Some(body) = &mut self.body {
            let fed = body.feed(bytes)?;
            self.content += fed.content;
            return self.end(bytes.len() - fed.taken);
        }
        if self.head.is_empty() {
            return self.head_and_rest(bytes);
        }
        let mut head = std::mem::take(&mut self.head);
        head.extend_from_slice(bytes);
        let answered = self.head_and_rest(&head);
        if self.head.is_empty() {
            // Its memory serves the next answer that comes in pieces.
            head.clear();
            self.head = head;
        }
        answered
    }

    /// The peer closed.
    pub fn close(&mut self) -> Result<Answered> {
        match self.body {
            Some(Body::UntilClose) => Ok(Answered {
                content: self.content,
                reusable: false,
            }),
            Some(_) => bail!("closed after {} bytes of body", self.content),
            None if self.head.is_empty() => bail!("closed without an answer"),
            None => bail!("closed within the head of the answer"),
        }
    }

    /// Bytes that certainly belong to the body, whatever they are.
    pub fn skippable(&self) -> u64 {
        match self.body {
            Some(Body::Length(left)) => left,
            Some(Body::UntilClose) => u64::MAX,
            _ => 0,
        }
    }

    /// Takes as many bytes without a look at them, at most [`Answer::skippable`].
    pub fn skip(&mut self, count: usize) -> Result<Option<Answered>> {
        if let Some(Body::Length(left)) = &mut self.body {
            *left -= count as u64;
        }
        self.content += count as u64;
        self.end(0)
    }

    fn end(&self, stray: usize) -> Result<Option<Answered>> {
        if !self.body.is_some_and(|body| body.is_over()) {
            return Ok(None);
        }
        if stray > 0 {
            bail!("{stray} bytes behind the end of the answer");
        }
        Ok(Some(Answered {
            content: self.content,
            reusable: self.reusable,
        }))
    }

    fn head_and_rest(&mut self, bytes: &[u8]) -> Result<Option<Answered>> {
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut response = httparse::Response::new(&mut fields);
        let httparse::Status::Complete(end) = response
            .parse(bytes)
            .context("the answer is not HTTP/1.1")?
        else {
            if bytes.len() > MAX_HEAD {
                bail!("the head of the answer does not end");
            }
            self.head.extend_from_slice(bytes);
            return Ok(None);
        };
        let code = response.code.context("an answer without a status")?;
        if (100..200).contains(&code) && code != 101 {
            return self.head_and_rest(&bytes[end..]);
        }
        if code != 200 {
            bail!("status {code}");
        }
        let mut body = Body::UntilClose;
        self.reusable = response.version == Some(1);
        for field in response.headers.iter() {
            if field.name.eq_ignore_ascii_case("content-length") {
                let length = std::str::from_utf8(field.value)?;
                body = Body::Length(length.parse().context("not a Content-Length")?);
            } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
                body = Body::CHUNKED;
            } else if field.name.eq_ignore_ascii_case("connection") {
                self.reusable = !field.value.eq_ignore_ascii_case(b"close");
            }
        }
        self.reusable &= body != Body::UntilClose;
        let fed = body.feed(&bytes[end..])?;
        self.content = fed.content;
        self.body = Some(body);
        self.end(bytes.len() - end - fed.taken)
    }
}

/// More than any peer sends.
const MAX_FIELDS: usize = 64;

/// Bytes; more than any peer sends.
const MAX_HEAD: usize = 64 << 10;
