//! Counting frames: never a panic, and the same verdict on the same octets however they are split.
//! The first octet says how large the pieces are, the second how much time passes in all.

#![no_main]

use evenkeel::clock::Millis;
use evenkeel::http::h2::flood::Flood;
use libfuzzer_sys::fuzz_target;

const BEGUN: Millis = Millis(1000);

fuzz_target!(|input: &[u8]| {
    let [size, preface, octets @ ..] = input else {
        return;
    };
    let preface = usize::from(*preface);
    // So many that every allowance can be used up.
    let octets: Vec<u8> = octets.iter().copied().cycle().take(60_000).collect();
    if octets.is_empty() {
        return;
    }
    let mut whole = Flood::new(preface, BEGUN);
    let verdict = whole.look(&octets, BEGUN);
    let mut pieces = Flood::new(preface, BEGUN);
    let mut found = None;
    for piece in octets.chunks(usize::from(*size) + 1) {
        found = found.or(pieces.look(piece, BEGUN));
    }
    assert_eq!(found, verdict);
    // Both are as far as each other, whatever follows.
    whole.sent(5000);
    pieces.sent(5000);
    let later = Millis(BEGUN.0 + u64::from(*size) * 100);
    assert_eq!(whole.look(&octets, later), pieces.look(&octets, later));
});
