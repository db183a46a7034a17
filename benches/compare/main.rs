//! Evenkeel beside its peers, on one core each.
//!
//! `cargo bench --profile dist --bench compare -- --help`

mod load;

use anyhow::Result;

fn main() -> Result<()> {
    // Cargo adds a word of its own.
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| word != "--bench")
        .collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["load", job] => load::generator(job),
        ["backend", addresses @ ..] => {
            let parsed: Result<Vec<_>, _> = addresses.iter().map(|text| text.parse()).collect();
            load::backend(&parsed?)
        }
        _ => Ok(()),
    }
}
