//! The tree: each service with its DNS line, its tiers and their backends, a line each.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::super::screen::{Row, Screen};
use super::super::words::{bar, clock, fit, maybe, milliseconds, percent, reason, sign, span};
use super::{Palette, SOFT, STRONG};
use crate::admin::model::{Backend, Dns, Service, Tier};

/// From so many columns on there is room for bars.
const WIDE: u16 = 100;

/// The width of a backend's name, and the heading of what stands behind it.
pub(super) fn columns(width: u16) -> (usize, String) {
    let bar = match width >= WIDE {
        true => format!("{:BAR$} ", ""),
        false => String::new(),
    };
    let rest = format!(
        "{:<13}{bar}{:>7}{:>7}{:>7}{:>7}{:>8}",
        "STATE", "SHARE", "IS", "WEIGHT", "FLIGHT", "REQ/S"
    );
    let name = usize::from(width).saturating_sub(rest.chars().count() + 3);
    (name.max(8), rest)
}

/// Cells of a bar.
const BAR: usize = 16;

pub(super) fn draw_tree(frame: &mut Frame, area: Rect, screen: &Screen, palette: Palette) {
    let rows = screen.rows();
    if rows.is_empty() {
        frame.render_widget(Paragraph::new("There is no service."), area);
        return;
    }
    // The one that is selected is always seen, with what belongs to it below.
    let height = usize::from(area.height);
    let selected = rows.iter().position(|row| screen.is_selected(row));
    let wanted = selected.unwrap_or(0);
    let below = (height / 3).min(3);
    let first = (wanted + below + 1).saturating_sub(height);
    let first = first.min(rows.len().saturating_sub(height));
    let lines = rows.iter().skip(first).take(height).map(|row| {
        let line = row_line(row, screen, area.width, palette);
        match screen.is_selected(row) {
            true => line.style(Style::new().add_modifier(Modifier::REVERSED)),
            false => line,
        }
    });
    let lines: Vec<Line> = lines.collect();
    frame.render_widget(Paragraph::new(lines), area);
}

fn row_line<'a>(row: &Row<'a>, screen: &Screen, width: u16, palette: Palette) -> Line<'a> {
    match row {
        Row::Service(service) => service_line(service, screen.is_folded(&service.name), palette),
        Row::Dns(service, dns) => dns_line(service, *dns, palette),
        Row::Tier(service, tier) => tier_line(service, tier, palette),
        Row::Backend(tier, backend) => backend_line(tier, backend, width, palette),
        Row::Reason(backend) => reason_line(backend, palette),
        Row::Detail(backend) => detail_line(backend),
    }
}

fn service_line<'a>(service: &Service, folded: bool, palette: Palette) -> Line<'a> {
    let healthy = match service.healthy < service.total || service.total == 0 {
        true => palette.warn(),
        false => palette.good(),
    };
    let waiting = service.queue.as_ref().map_or(0, |queue| queue.waiting);
    let mut line = vec![
        Span::raw(if folded { "▸ " } else { "▾ " }),
        Span::styled(service.name.clone(), STRONG),
        Span::styled(format!("  {}", service.strategy), SOFT),
        Span::styled(
            format!("  {}/{} up", service.healthy, service.total),
            healthy,
        ),
        Span::raw(format!(
            "  {} req/s  p50 {}  p99 {}  {} in flight",
            maybe(service.requests_per_second),
            milliseconds(service.p50_ms),
            milliseconds(service.p99_ms),
            service.in_flight,
        )),
    ];
    if waiting > 0 {
        line.push(Span::styled(format!("  {waiting} wait"), palette.warn()));
    }
    Line::from(line)
}

fn dns_line<'a>(service: &Service, dns: Option<&Dns>, palette: Palette) -> Line<'a> {
    let Some(dns) = dns else {
        let words = match service.discover.name.as_deref() {
            Some(name) => format!("  dns {name}"),
            None => "  static".to_owned(),
        };
        return Line::styled(words, SOFT);
    };
    let mut words = format!("  {} {}", dns.kind, dns.name);
    for (name, seconds) in [
        (", answer old", dns.age_seconds),
        (", ttl left", dns.ttl_left_seconds),
    ] {
        if let Some(seconds) = seconds {
            words.push_str(&format!("{name} {}", span(seconds)));
        }
    }
    if let Some(server) = &dns.server {
        words.push_str(&format!(", {server}"));
    }
    let mut line = Vec::new();
    if dns.stale {
        let since = dns.stale_seconds.map(span).unwrap_or_default();
        line.push(Span::styled(format!("  ▲ STALE {since}"), palette.bad()));
    }
    if dns.held_back.is_some() {
        line.push(Span::styled("  ▲ HELD BACK", palette.warn()));
    }
    line.push(Span::styled(words, SOFT));
    Line::from(line)
}

fn tier_line<'a>(service: &Service, tier: &Tier, palette: Palette) -> Line<'a> {
    let serves = |other: &Tier| other.serving && !other.last_resort;
    let (words, style) = match (tier.last_resort, tier.serving) {
        (true, _) => (
            "nobody can serve; tried all the same".to_owned(),
            palette.warn(),
        ),
        (false, true) if tier.part < 1.0 => (
            format!("serving {} of requests", percent(Some(tier.part))),
            palette.good(),
        ),
        (false, true) => ("serving".to_owned(), palette.good()),
        (false, false) if service.tiers.iter().any(serves) => ("standby".to_owned(), SOFT),
        (false, false) => ("nobody can serve".to_owned(), palette.warn()),
    };
    Line::from(vec![
        Span::raw(format!("  tier {} ", tier.priority)),
        Span::styled(words, style),
    ])
}

fn backend_line<'a>(tier: &Tier, backend: &Backend, width: u16, palette: Palette) -> Line<'a> {
    let (name, _) = columns(width);
    let style = palette.state(&backend.state);
    let share = &backend.share;
    let mut line = vec![
        Span::raw("  "),
        Span::styled(sign(&backend.state), style),
        Span::raw(format!(
            " {:<w$} ",
            fit(&name_of(backend), name - 2),
            w = name - 2
        )),
        Span::styled(format!("{:<13}", fit(word(&backend.state), 12)), style),
    ];
    if width >= WIDE {
        let shares = tier.backends.iter().map(|b| &b.share);
        let most = shares.fold(0.01, |most: f64, s| {
            most.max(s.configured).max(s.measured.unwrap_or(0.0))
        });
        let measured = share.measured.unwrap_or(0.0);
        let cells = bar(share.configured, measured, most, BAR);
        line.push(Span::styled(format!("{cells} "), palette.sea()));
    }
    let weight = match backend.weight.r#override {
        Some(weight) => format!("{weight}!"),
        None => backend.weight.effective.to_string(),
    };
    line.push(Span::raw(format!(
        "{:>7}{:>7}{:>7}{:>7}{:>8}",
        percent(Some(share.configured)),
        percent(share.measured),
        weight,
        backend.in_flight,
        maybe(backend.requests_per_second),
    )));
    Line::from(line)
}

fn word(state: &str) -> &str {
    match state {
        "passed_over" => "passed over",
        other => other,
    }
}

/// The first label of its target, and its address.
fn name_of(backend: &Backend) -> String {
    let is_address = backend.target == backend.address
        || backend.target.contains(':')
        || backend.target.parse::<std::net::IpAddr>().is_ok();
    match backend.target.split('.').next() {
        Some(label) if !is_address => format!("{label} {}", backend.address),
        _ => backend.address.clone(),
    }
}

fn reason_line<'a>(backend: &Backend, palette: Palette) -> Line<'a> {
    let code = backend.reason.as_deref().unwrap_or_default();
    let detail = backend.detail.as_deref().unwrap_or_default();
    // Its latest event, without what the line says already.
    let said = format!("{} is {}: ", backend.address, word(&backend.state));
    let detail = detail.strip_prefix(&said).unwrap_or(detail);
    let detail = detail.strip_prefix(code).unwrap_or(detail);
    let detail = detail.trim_start_matches([',', ' ']);
    // There is no more to say of what somebody did by hand.
    let mut words = match detail.is_empty() || backend.drained {
        true => format!("      {}", reason(code)),
        false => format!("      {}: {detail}", reason(code)),
    };
    if let Some(seconds) = backend.out_for_seconds {
        words.push_str(&format!("; for another {}", span(seconds)));
    }
    Line::styled(words, palette.state(&backend.state))
}

fn detail_line<'a>(backend: &Backend) -> Line<'a> {
    let check = match &backend.last_check {
        None => "no check".to_owned(),
        Some(check) if check.passed => format!("check passed {}", clock(&check.at)),
        Some(check) => {
            let why = check.reason.as_deref().map_or("check failed", reason);
            format!("{why} {}", clock(&check.at))
        }
    };
    let words = format!(
        "      {}; {check}, {} failed ever; ejected {} times; {} requests; weight in DNS {}",
        backend.target,
        backend.check_failures,
        backend.ejections.failures + backend.ejections.success_rate,
        backend.requests,
        backend.weight.srv,
    );
    Line::styled(words, SOFT)
}
