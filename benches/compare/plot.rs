//! The plot: a panel per scenario, a bar per proxy, as long as what it takes beside Evenkeel.

use std::fmt::Write as _;

use crate::peers::Peer;
use crate::report::{Cell, Row};
use crate::rounds::Outcome;
use crate::statistics::Verdict;

// All lengths are pixels.
const COLUMNS: usize = 3;
const PANEL: f64 = 350.0;
const GAP: f64 = 28.0;
const MARGIN: f64 = 24.0;
const HEAD: f64 = 62.0;
const TITLE: f64 = 44.0;
const BAR: f64 = 15.0;
const STEP: f64 = 21.0;
const NAMES: f64 = 68.0;
/// Room for the number behind the longest bar.
const NUMBERS: f64 = 62.0;

/// Longer bars are cut off, and say so: one slow proxy should not make all others look alike.
const MOST: f64 = 4.0;

const OURS: &str = "#0b6e99";
const THEIRS: &str = "#b4bec8";
/// Takes less than Evenkeel.
const BETTER: &str = "#d9822b";
const INK: &str = "#1f2933";
const FAINT: &str = "#66727e";

/// Draws all scenarios that have figures.
pub fn svg<'a>(rows: impl Iterator<Item = &'a Row>) -> String {
    let rows: Vec<&Row> = rows.collect();
    let bars = rows.iter().map(|row| row.cells.len()).max().unwrap_or(0);
    let panel = TITLE + bars as f64 * STEP + GAP;
    let columns = COLUMNS.min(rows.len().max(1));
    let width = 2.0 * MARGIN + columns as f64 * (PANEL + GAP) - GAP;
    let height = HEAD + rows.len().div_ceil(columns) as f64 * panel + MARGIN;
    let mut out = String::new();
    put(
        &mut out,
        format_args!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" font-family="system-ui, sans-serif" font-size="12" fill="{INK}">"#
        ),
    );
    put(
        &mut out,
        format_args!(r##"<rect width="100%" height="100%" fill="#ffffff"/>"##),
    );
    words(
        &mut out,
        MARGIN,
        30.0,
        "font-size=\"18\" font-weight=\"600\"",
        "What a proxy takes, beside Evenkeel (= 1; shorter is better)",
    );
    words(
        &mut out,
        MARGIN,
        50.0,
        &format!("fill=\"{FAINT}\""),
        "Medians of ratios paired by round. Orange: takes less than Evenkeel. \u{2248}: level (under 10 %). ?: undecided (not the same way in all rounds).",
    );
    for (number, row) in rows.iter().enumerate() {
        let x = MARGIN + (number % columns) as f64 * (PANEL + GAP);
        let y = HEAD + (number / columns) as f64 * panel;
        draw(&mut out, row, x, y);
    }
    out.push_str("</svg>\n");
    out
}

fn draw(out: &mut String, row: &Row, x: f64, y: f64) {
    let scenario = &row.scenario;
    words(
        out,
        x,
        y + 18.0,
        "font-weight=\"600\" font-size=\"13\"",
        scenario.name,
    );
    words(
        out,
        x,
        y + 34.0,
        &format!("fill=\"{FAINT}\" font-size=\"11\""),
        scenario.figure.title(),
    );
    let unit = (PANEL - NAMES - NUMBERS) / MOST;
    let zero = x + NAMES;
    let top = y + TITLE;
    for (place, cell) in row.cells.iter().enumerate() {
        let y = top + place as f64 * STEP;
        let peer = cell.column.peer;
        let weight = if peer == Peer::Evenkeel {
            "font-weight=\"600\""
        } else {
            ""
        };
        words(out, x, y + 12.0, weight, peer.title());
        let Some(length) = length(cell) else {
            let why = match cell.column.outcome {
                Outcome::Failed(_) => "failed",
                _ => "\u{2013}",
            };
            words(out, zero + 4.0, y + 12.0, &format!("fill=\"{FAINT}\""), why);
            continue;
        };
        let long = length.min(MOST) * unit;
        let colour = match (peer, cell.verdict) {
            (Peer::Evenkeel, _) => OURS,
            (_, Some(Verdict::Behind)) => BETTER,
            _ => THEIRS,
        };
        put(
            out,
            format_args!(
                r#"<rect x="{zero:.1}" y="{y:.1}" width="{long:.1}" height="{BAR}" rx="2" fill="{colour}"/>"#
            ),
        );
        if length > MOST {
            // A slanted gap near the end: the bar goes on.
            let (a, b) = (zero + long - 16.0, y + BAR);
            put(
                out,
                format_args!(
                    r##"<path d="M{:.1} {b:.1} l6 -{BAR} h4 l-6 {BAR} z" fill="#ffffff"/>"##,
                    a
                ),
            );
        }
        let number = match (peer, cell.verdict) {
            (Peer::Evenkeel, _) => cell.number(),
            (_, Some(Verdict::Level)) => format!("\u{2248} {length:.2}"),
            (_, Some(Verdict::Undecided)) => format!("{length:.2} ?"),
            _ => format!("{length:.2}"),
        };
        words(out, zero + long + 5.0, y + 12.0, "", &number);
    }
    // The line that Evenkeel reaches.
    let (one, bottom) = (
        zero + unit,
        top + row.cells.len() as f64 * STEP - STEP + BAR,
    );
    put(
        out,
        format_args!(
            r#"<line x1="{one:.1}" y1="{:.1}" x2="{one:.1}" y2="{:.1}" stroke="{OURS}" stroke-dasharray="2 3"/>"#,
            top - 3.0,
            bottom + 3.0
        ),
    );
}

/// Of Evenkeel's; `None` where there is no number.
fn length(cell: &Cell) -> Option<f64> {
    match cell.column.peer {
        Peer::Evenkeel => cell.value.map(|_| 1.0),
        _ => cell.ratio.map(|ratio| ratio.median),
    }
}

/// `text` is ours: it holds nothing that XML would take for markup.
fn words(out: &mut String, x: f64, y: f64, style: &str, text: &str) {
    put(
        out,
        format_args!(r#"<text x="{x:.1}" y="{y:.1}" {style}>{text}</text>"#),
    );
}

fn put(out: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{line}");
}
