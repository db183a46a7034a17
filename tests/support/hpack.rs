//! HPACK (RFC 7541), apart from the product's: what is written are literals only, so that a test says
//! byte by byte what goes; what is read may be anything that an encoder writes.

use std::collections::VecDeque;

/// A field: name and value.
pub type Field = (Vec<u8>, Vec<u8>);

/// Fields as literals that nobody indexes, without Huffman coding (§6.2.2). Nothing is checked.
pub fn literals<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: &[(N, V)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        string(name.as_ref(), &mut out);
        string(value.as_ref(), &mut out);
    }
    out
}

/// A literal that is put into the dynamic table (§6.2.1).
pub fn indexed_literal(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = vec![0x40];
    string(name, &mut out);
    string(value, &mut out);
    out
}

/// §5.2, without Huffman coding.
fn string(text: &[u8], out: &mut Vec<u8>) {
    integer(text.len(), 7, 0, out);
    out.extend_from_slice(text);
}

/// §5.1.
pub fn integer(value: usize, bits: u32, flags: u8, out: &mut Vec<u8>) {
    let most = (1 << bits) - 1;
    if value < most {
        out.push(flags | value as u8);
        return;
    }
    out.push(flags | most as u8);
    let mut rest = value - most;
    while rest >= 128 {
        out.push(0x80 | (rest % 128) as u8);
        rest /= 128;
    }
    out.push(rest as u8);
}

/// Reads the heads of one direction of a connection.
#[derive(Debug)]
pub struct Decoder {
    table: VecDeque<Field>,
    size: usize,
    most: usize,
}

impl Default for Decoder {
    fn default() -> Decoder {
        Decoder {
            table: VecDeque::new(),
            size: 0,
            most: 4096,
        }
    }
}

impl Decoder {
    /// Reads one head.
    pub fn decode(&mut self, block: &[u8]) -> Result<Vec<Field>, String> {
        let mut at = block;
        let mut fields = Vec::new();
        while let Some(&first) = at.first() {
            if first & 0x80 != 0 {
                let index = take_integer(&mut at, 7)?;
                fields.push(self.entry(index)?);
            } else if first & 0xe0 == 0x20 {
                self.most = take_integer(&mut at, 5)?;
                self.evict();
            } else {
                let indexes = first & 0x40 != 0;
                let bits = if indexes { 6 } else { 4 };
                let name = match take_integer(&mut at, bits)? {
                    0 => take_string(&mut at)?,
                    index => self.entry(index)?.0,
                };
                let field = (name, take_string(&mut at)?);
                if indexes {
                    self.size += field.0.len() + field.1.len() + 32;
                    self.table.push_front(field.clone());
                    self.evict();
                }
                fields.push(field);
            }
        }
        Ok(fields)
    }

    fn entry(&self, index: usize) -> Result<Field, String> {
        if let Some((name, value)) = index.checked_sub(1).and_then(|at| STATIC.get(at)) {
            return Ok((name.as_bytes().to_vec(), value.as_bytes().to_vec()));
        }
        let dynamic = index.checked_sub(STATIC.len() + 1);
        let found = dynamic.and_then(|at| self.table.get(at));
        found.cloned().ok_or_else(|| format!("no entry {index}"))
    }

    fn evict(&mut self) {
        while self.size > self.most {
            let (name, value) = self.table.pop_back().expect("an empty table has no size");
            self.size -= name.len() + value.len() + 32;
        }
    }
}

fn take_integer(at: &mut &[u8], bits: u32) -> Result<usize, String> {
    let most = (1 << bits) - 1;
    let mut value = usize::from(take_byte(at)?) & most;
    if value < most {
        return Ok(value);
    }
    for shift in (0..28).step_by(7) {
        let byte = take_byte(at)?;
        value += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("an endless integer".into())
}

fn take_string(at: &mut &[u8]) -> Result<Vec<u8>, String> {
    let coded = at.first().is_some_and(|first| first & 0x80 != 0);
    let length = take_integer(at, 7)?;
    let text = at.get(..length).ok_or("a string that is cut short")?;
    *at = &at[length..];
    if coded {
        huffman(text)
    } else {
        Ok(text.to_vec())
    }
}

fn take_byte(at: &mut &[u8]) -> Result<u8, String> {
    let (&byte, rest) = at.split_first().ok_or("a head that is cut short")?;
    *at = rest;
    Ok(byte)
}

/// §5.2. The code is canonical: among codes of one length the symbols are in order.
fn huffman(text: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let (mut code, mut length) = (0_u32, 0);
    for byte in text {
        for bit in (0..8).rev() {
            code = code << 1 | u32::from(byte >> bit & 1);
            length += 1;
            if let Some(symbol) = symbol(code, length) {
                out.push(u8::try_from(symbol).map_err(|_| "the end of a string within it")?);
                (code, length) = (0, 0);
            } else if length > 30 {
                return Err("no symbol".into());
            }
        }
    }
    match length < 8 && code + 1 == 1 << length {
        true => Ok(out),
        false => Err("padding that is none".into()),
    }
}

/// The symbol of a code, if it is one.
fn symbol(code: u32, length: u8) -> Option<usize> {
    // The first code of each length follows the last one of the length before.
    let mut first = 0;
    for shorter in 1..length {
        let many = LENGTHS.iter().filter(|l| **l == shorter).count() as u32;
        first = (first + many) << 1;
    }
    let at = code.checked_sub(first)? as usize;
    let mut same = (0..LENGTHS.len()).filter(|s| LENGTHS[*s] == length);
    same.nth(at)
}

/// Bits of each symbol's code (appendix B); the last one is the end of a string.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28,
    28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11,
    10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8,
    15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5,
    6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7,
    7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23,
    23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21,
    23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25,
    26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26,
    28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

/// Appendix A.
const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// The examples of the RFC.
#[test]
fn the_decoder_reads_the_examples_of_the_rfc() {
    let unhex = |text: &str| data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap();
    let mut decoder = Decoder::default();
    let field = |n: &str, v: &str| (n.as_bytes().to_vec(), v.as_bytes().to_vec());
    for (rule, block, last) in [
        (
            "C.4.1",
            "828684418cf1e3c2e5f23a6ba0ab90f4ff",
            field(":authority", "www.example.com"),
        ),
        (
            "C.4.2",
            "828684be5886a8eb10649cbf",
            field("cache-control", "no-cache"),
        ),
        (
            "C.4.3",
            "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
            field("custom-key", "custom-value"),
        ),
    ] {
        let fields = decoder.decode(&unhex(block)).expect(rule);
        assert_eq!(fields.last(), Some(&last), "{rule}");
    }
    assert_eq!(decoder.size, 164);
}
