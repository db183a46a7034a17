//! An explanation for a person who is on call: what happens first, then why, in lines of 100 columns.

use std::fmt::Write as _;
use std::time::Duration;

use crate::admin::explain::answer::{Candidate, Explanation, Named};

/// Columns of a line.
const WIDTH: usize = 100;

/// Where the text of a row begins.
const INDENT: usize = 10;

/// Routes that lost, and backends, of which so many are shown.
const ROUTES: usize = 12;
const BACKENDS: usize = 40;

/// The whole text.
pub(super) fn written(explanation: &Explanation) -> String {
    let mut page = Page::default();
    let asked = &explanation.request;
    let from = asked
        .client
        .as_ref()
        .map(|client| format!(" from {client}"));
    page.line(&format!(
        "{} {}{}",
        asked.method,
        asked.url,
        from.unwrap_or_default()
    ));
    page.line("");
    page.row("", &explanation.outcome);
    page.line("");
    if let Some(listener) = &explanation.listener {
        page.row("listener", &format!("{}: {}", listener.name, listener.why));
    }
    routes(explanation, &mut page);
    if let Some(service) = &explanation.service {
        page.row("service", &service_line(service, explanation));
    }
    for preference in &explanation.preferences {
        let leads_to = match preference.leads_to.as_slice() {
            [] => String::new(),
            ids => format!(" leads to {}", ids.join(", then ")),
        };
        let text = format!("{}{leads_to}: {}", preference.of, preference.why);
        page.row(&preference.kind, &text);
    }
    tiers(explanation, &mut page);
    let mut label = "next";
    for next in &explanation.next {
        let why = match (&next.backend, next.priority) {
            (Some(backend), Some(priority)) => format!("{backend} (tier {priority}: {})", next.why),
            _ => next.why.clone(),
        };
        page.row(label, &format!("worker {}: {why}", next.worker));
        label = "";
    }
    backends(explanation, &mut page);
    page.0
}

fn routes(explanation: &Explanation, page: &mut Page) {
    let mut label = "route";
    if let Some(route) = &explanation.route {
        page.row(label, &format!("{}: {}", route.label, route.why));
        label = "";
    }
    // Those that match are the ones that somebody wonders about.
    let (matching, others): (Vec<_>, Vec<_>) =
        (explanation.routes_lost.iter()).partition(|route| route.why.starts_with("it matches"));
    let lost: Vec<&Named> = matching.into_iter().chain(others).collect();
    for route in lost.iter().take(ROUTES) {
        page.row(label, &format!("not {}: {}", route.label, route.why));
        label = "";
    }
    if lost.len() > ROUTES {
        page.row("", &format!("… and {} more (-o json)", lost.len() - ROUTES));
    }
}

fn service_line(service: &str, explanation: &Explanation) -> String {
    let mut text = service.to_owned();
    if let Some(strategy) = &explanation.strategy {
        let _ = write!(text, " ({strategy})");
    }
    if let Some(snapshot) = &explanation.snapshot {
        let age = snapshot.age_seconds.map(seconds);
        let age = age.map_or_else(|| "none yet".to_owned(), |age| format!("{age} old"));
        let _ = write!(text, ", snapshot {}, {age}", snapshot.number);
    }
    text
}

fn tiers(explanation: &Explanation, page: &mut Page) {
    let mut label = "tier";
    if let Some(tier) = &explanation.tier {
        page.row(label, &format!("{}: {}", tier.priority, tier.why));
        label = "";
    }
    if explanation.tiers.len() < 2 {
        return;
    }
    for tier in &explanation.tiers {
        let part = tier
            .part
            .map(|part| format!(", takes {:.1} %", part * 100.0));
        let text = format!(
            "{}: {} of {} can be picked{}",
            tier.priority,
            tier.pickable,
            tier.backends,
            part.unwrap_or_default()
        );
        page.row(label, &text);
        label = "";
    }
}

fn backends(explanation: &Explanation, page: &mut Page) {
    let all = &explanation.backends;
    if all.is_empty() && explanation.withdrawn.is_empty() {
        return;
    }
    page.line("");
    let by_chance = all.iter().any(|one| one.chance.is_some());
    let shown = &all[..all.len().min(BACKENDS)];
    let widest = shown.iter().map(|one| one.id.chars().count()).max();
    let widest = widest.unwrap_or_default().max("backend".len());
    let chance = if by_chance { "   chance" } else { "" };
    page.line(&format!(
        "  {:widest$} {:>6} {:>6} {:>8} {:>9}{chance}",
        "backend", "tier", "weight", "share", "in flight"
    ));
    for one in shown {
        page.line(&backend_line(one, widest, by_chance));
        if one.why != "it can be picked" {
            page.wrapped(&one.why, 6, 6);
        }
    }
    if all.len() > shown.len() {
        page.line(&format!(
            "  … and {} more (-o json)",
            all.len() - shown.len()
        ));
    }
    for gone in &explanation.withdrawn {
        let since = seconds(gone.since_seconds);
        let text = format!(
            "{}: withdrawn {since} ago, {} in flight",
            gone.id, gone.in_flight
        );
        page.wrapped(&text, 2, 6);
    }
}

/// A plus: it can be picked; a minus: it cannot.
fn backend_line(one: &Candidate, widest: usize, by_chance: bool) -> String {
    let sign = if one.pickable { '+' } else { '-' };
    let share = format!("{:.1} %", one.share * 100.0);
    let chance = match (by_chance, one.chance) {
        (false, _) => String::new(),
        (true, None) => format!("{:>9}", ""),
        (true, Some(chance)) => format!("{:>9}", format!("{:.1} %", chance * 100.0)),
    };
    let line = format!(
        "{sign} {:widest$} {:>6} {:>6} {share:>8} {:>9}{chance}",
        one.id, one.priority, one.weight, one.in_flight
    );
    line.trim_end().to_owned()
}

fn seconds(seconds: f64) -> String {
    match seconds {
        ..10.0 => format!("{seconds:.1} s"),
        _ => humantime::format_duration(Duration::from_secs(seconds as u64)).to_string(),
    }
}

/// Lines that are not too long.
#[derive(Debug, Default)]
struct Page(String);

impl Page {
    fn line(&mut self, text: &str) {
        self.0.push_str(text);
        self.0.push('\n');
    }

    /// A label, and what there is to say beside it.
    fn row(&mut self, label: &str, text: &str) {
        let first = format!("{label:INDENT$}");
        self.wrap(first, text, INDENT);
    }

    fn wrapped(&mut self, text: &str, first: usize, indent: usize) {
        self.wrap(" ".repeat(first), text, indent);
    }

    /// Words as long as there is room; one that is longer than a line has one to itself.
    fn wrap(&mut self, mut line: String, text: &str, indent: usize) {
        let mut fresh = true;
        for word in text.split(' ') {
            let room = WIDTH.saturating_sub(line.chars().count());
            if !fresh && word.chars().count() + 1 > room {
                self.line(line.trim_end());
                line = " ".repeat(indent);
                fresh = true;
            }
            if !fresh {
                line.push(' ');
            }
            line.push_str(word);
            fresh = false;
        }
        self.line(line.trim_end());
    }
}

#[cfg(test)]
mod tests;
