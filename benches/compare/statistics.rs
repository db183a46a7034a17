//! Medians, spreads, and whether a difference may be called one.

use serde::Serialize;

/// Several rounds of one figure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

/// A peer beside Evenkeel, where less is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Under 10 %.
    Level,
    /// More, but not the same way in all rounds.
    Undecided,
    /// Evenkeel takes less.
    Ahead,
    /// The peer takes less.
    Behind,
}

/// Differences below this are not differences: what such a machine wavers by.
const LEVEL: f64 = 0.10;

impl Spread {
    /// Of at least one value.
    pub fn of(values: &[f64]) -> Option<Spread> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = match sorted.len() % 2 {
            1 => sorted[middle],
            _ => (sorted[middle - 1] + sorted[middle]) / 2.0,
        };
        Some(Spread {
            median,
            least,
            most,
        })
    }

    /// Of peer over Evenkeel, each round by itself: what disturbed both is divided out.
    pub fn of_ratios(peer: &[f64], ours: &[f64]) -> Option<Spread> {
        let pairs = peer.iter().zip(ours).filter(|(_, ours)| **ours > 0.0);
        let ratios: Vec<f64> = pairs.map(|(peer, ours)| peer / ours).collect();
        Spread::of(&ratios)
    }

    /// Reads it as a ratio of peer over Evenkeel.
    pub fn verdict(&self) -> Verdict {
        // A ratio of 0.9 is as far as its inverse.
        let distance = self.median.max(1.0 / self.median) - 1.0;
        let crosses = self.least <= 1.0 && self.most >= 1.0;
        match (distance < LEVEL, crosses, self.median > 1.0) {
            (true, ..) => Verdict::Level,
            (false, true, _) => Verdict::Undecided,
            (false, false, true) => Verdict::Ahead,
            (false, false, false) => Verdict::Behind,
        }
    }
}
