//! A reader of protobuf's wire format (protobuf.dev/programming-guides/encoding), enough for OTLP.

/// A value, as it lies there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    /// `VARINT`, `I64`, `I32`.
    Number(u64),
    /// `LEN`.
    Bytes(Vec<u8>),
}

impl Field {
    pub fn message(&self) -> Vec<(u64, Field)> {
        read(self.bytes())
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.bytes().to_vec()).expect("it is text")
    }

    pub fn hex(&self) -> String {
        let digits = self.bytes().iter().map(|byte| format!("{byte:02x}"));
        digits.collect()
    }

    pub fn number(&self) -> u64 {
        match self {
            Field::Number(number) => *number,
            Field::Bytes(bytes) => panic!("no number: {bytes:?}"),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Field::Bytes(bytes) => bytes,
            Field::Number(number) => panic!("a number: {number}"),
        }
    }
}

/// The fields of a message, each with its number.
pub fn read(mut bytes: &[u8]) -> Vec<(u64, Field)> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let field = match tag & 7 {
            0 => Field::Number(varint(&mut bytes)),
            1 => Field::Number(fixed(&mut bytes, 8)),
            2 => {
                let length = varint(&mut bytes) as usize;
                Field::Bytes(taken(&mut bytes, length).to_vec())
            }
            5 => Field::Number(fixed(&mut bytes, 4)),
            other => panic!("wire type {other}"),
        };
        fields.push((tag >> 3, field));
    }
    fields
}

/// All fields of that number.
pub fn all(fields: &[(u64, Field)], number: u64) -> impl Iterator<Item = &Field> {
    let found = fields.iter().filter(move |(known, _)| *known == number);
    found.map(|(_, field)| field)
}

/// The first of them.
pub fn find(fields: &[(u64, Field)], number: u64) -> Option<&Field> {
    all(fields, number).next()
}

/// The only one.
pub fn one(fields: &[(u64, Field)], number: u64) -> &Field {
    let mut found = all(fields, number);
    let field = found.next().expect("it is there");
    assert_eq!(found.next(), None, "once only");
    field
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = taken(bytes, 1)[0];
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return number;
        }
    }
    panic!("a number without an end");
}

fn fixed(bytes: &mut &[u8], length: usize) -> u64 {
    let bytes = taken(bytes, length).iter().rev();
    bytes.fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn taken<'a>(bytes: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(length);
    *bytes = rest;
    taken
}
