//! A first look at a message, in time proportional to its length, before anything is decoded.
//!
//! A name may end in a pointer to an earlier one (RFC 1035 section 4.1.4), and one that leads to
//! another pointer, and so on, takes a decoder thousands of steps for two octets. No encoder
//! writes such a thing. What this lets through costs at most a name's 255 octets per name.

use hickory_proto::op::OpCode;
use hickory_proto::rr::RecordType;

use super::message::HEADER;

/// May this be decoded? If not, it is malformed or an attack, which is the same to us.
pub(super) fn is_sound(message: &[u8]) -> bool {
    skim(message).is_some()
}

fn skim(message: &[u8]) -> Option<()> {
    let count = |section: usize| number(message, 4 + 2 * section).map(usize::from);
    let (questions, answers, authority) = (count(0)?, count(1)?, count(2)?);
    let additional = count(3)?;
    let op_code = OpCode::from_u8((message.get(2)? >> 3) & 0x0f);
    // A question has a signature and EDNS besides, and nothing else that we would look at.
    if op_code != OpCode::Update && (questions > 1 || answers + authority > 0 || additional > 2) {
        return None;
    }
    let mut at = HEADER;
    for _ in 0..questions {
        at = name(message, at)? + 4;
    }
    for _ in 0..answers + authority + additional {
        at = record(message, at)?;
    }
    (at <= message.len()).then_some(())
}

/// Where the record ends that begins at `at`.
fn record(message: &[u8], at: usize) -> Option<usize> {
    let fixed = name(message, at)?;
    let kind = RecordType::from(number(message, fixed)?);
    let length = usize::from(number(message, fixed + 8)?);
    let (data, end) = (fixed + 10, fixed + 10 + length);
    // Of a removal there may be none. Types that are not listed hold no names that are decoded,
    // or are not kept here, and then their data must not be decoded either.
    let names: &[usize] = match kind {
        _ if length == 0 => &[],
        RecordType::SRV => &[6],
        RecordType::CNAME | RecordType::PTR | RecordType::NS | RecordType::TSIG => &[0],
        RecordType::A | RecordType::AAAA | RecordType::TXT | RecordType::OPT => &[],
        _ => return None,
    };
    for offset in names {
        if name(message, data + offset)? > end {
            return None;
        }
    }
    (end <= message.len()).then_some(end)
}

/// Where the name ends that begins at `at`.
fn name(message: &[u8], mut at: usize) -> Option<usize> {
    let begin = at;
    loop {
        let length = usize::from(*message.get(at)?);
        match length {
            0 => return Some(at + 1),
            1..=63 => at += 1 + length,
            // A pointer: back, and to a label.
            0xc0.. => {
                let to = usize::from(number(message, at)? & 0x3fff);
                let label = usize::from(*message.get(to)?) < 0xc0;
                return (to < begin && to >= HEADER && label).then_some(at + 2);
            }
            _ => return None,
        }
        if at - begin > 255 {
            return None;
        }
    }
}

fn number(message: &[u8], at: usize) -> Option<u16> {
    let octets = message.get(at..at + 2)?;
    Some(u16::from_be_bytes([octets[0], octets[1]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUERY: [u8; HEADER] = [0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    const UPDATE: [u8; HEADER] = [0, 1, 0x28, 0, 0, 1, 0, 0, 0, 1, 0, 0];

    /// Header, the zone `t.`, then this.
    fn with(header: [u8; HEADER], rest: &[u8]) -> Vec<u8> {
        [&header[..], &[1, b't', 0, 0, 6, 0, 1], rest].concat()
    }

    #[test]
    fn names_and_pointers() {
        let removal = [0, 1, 0, 255, 0, 0, 0, 0, 0, 0];
        let srv = [0, 33, 0, 1, 0, 0, 0, 5, 0, 8, 0, 0, 0, 1, 0, 80];
        let table: [(&str, Vec<u8>, bool); 12] = [
            ("a question", with(QUERY, &[]), true),
            ("cut short", QUERY.to_vec(), false),
            (
                "a pointer to a label",
                with(UPDATE, &[&[0xc0, 12][..], &removal].concat()),
                true,
            ),
            (
                "after a label",
                with(UPDATE, &[&[1, b'a', 0xc0, 12][..], &removal].concat()),
                true,
            ),
            (
                "to itself",
                with(UPDATE, &[&[0xc0, 19][..], &removal].concat()),
                false,
            ),
            (
                "forward",
                with(UPDATE, &[&[0xc0, 30][..], &removal].concat()),
                false,
            ),
            (
                "into the header",
                with(UPDATE, &[&[0xc0, 4][..], &removal].concat()),
                false,
            ),
            (
                "to a pointer",
                with(
                    UPDATE,
                    &[&[1, b'a', 0xc0, 12][..], &srv, &[0xc0, 21]].concat(),
                ),
                false,
            ),
            (
                "a target",
                with(UPDATE, &[&[0xc0, 12][..], &srv, &[0xc0, 12]].concat()),
                true,
            ),
            (
                "a target beyond its data",
                with(UPDATE, &[&[0xc0, 12][..], &srv, &[1, b'a']].concat()),
                false,
            ),
            (
                "a label of 64",
                with(UPDATE, &[&[64][..], &[0; 80]].concat()),
                false,
            ),
            (
                "a record of a type with names that we do not know",
                with(
                    UPDATE,
                    &[
                        &[0xc0, 12][..],
                        &[0, 15, 0, 1, 0, 0, 0, 5, 0, 4, 0, 1, 0xc0, 12],
                    ]
                    .concat(),
                ),
                false,
            ),
        ];
        for (rule, message, sound) in table {
            assert_eq!(is_sound(&message), sound, "{rule}");
        }
        let mut answer_in_a_question = with(QUERY, &[]);
        answer_in_a_question[7] = 1;
        assert!(!is_sound(&answer_in_a_question));
        for length in 0..64 {
            for fill in 0..=255 {
                is_sound(&vec![fill; length]);
            }
        }
    }
}
