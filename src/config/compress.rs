//! `compress`: in which codings a service's responses may go out.

use super::diagnostics::Problems;
use super::read::{At, choice};
use crate::http::coding::Coding;

/// A word of `compress`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compress {
    Off,
    On,
    Only(Coding),
}

choice! {
    Compress = "\"on\", \"off\", or some of \"zstd\", \"br\" and \"gzip\"" {
        "on" => Compress::On,
        "off" => Compress::Off,
        "zstd" => Compress::Only(Coding::Zstd),
        "br" => Compress::Only(Coding::Brotli),
        "gzip" => Compress::Only(Coding::Gzip),
    }
    later []
}

/// Builds the codings of a service, the preferred one first; none: its responses go on as they are.
pub(super) fn build(raw: Option<&Vec<At<Compress>>>, problems: &mut Problems) -> Box<[Coding]> {
    let mut codings = Vec::new();
    let words = raw.map_or(&[][..], Vec::as_slice);
    for at in words {
        match at.value {
            Compress::On | Compress::Off if words.len() > 1 => {
                problems.error(at.span, "`on` and `off` stand alone");
            }
            Compress::On => codings.extend(Coding::ALL),
            Compress::Off => {}
            Compress::Only(coding) if codings.contains(&coding) => {
                problems.error(at.span, format!("`{}` is listed twice", coding.name()));
            }
            Compress::Only(coding) => codings.push(coding),
        }
    }
    codings.into()
}
