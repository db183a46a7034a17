//! How `top` looks: header, tree of services, events, keys; pure, from a [`Screen`] to a frame.
//!
//! What a colour says, a sign or a word says too; without colours everything is there.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Wrap};
use tokio::time::Instant;

use super::screen::{Command, Mode, Row, Screen, View};
use super::words::{
    bar, clock, fit, maybe, milliseconds, number, percent, reason, sign, span, spark,
};
use crate::admin::model::{Backend, Dns, Event, Sample, Service, Tier};

/// Are there colours? <https://no-color.org>.
#[derive(Debug, Clone, Copy)]
pub enum Palette {
    Colours,
    Plain,
}

impl Palette {
    fn style(self, colour: Color) -> Style {
        match self {
            Palette::Colours => Style::new().fg(colour),
            Palette::Plain => Style::new(),
        }
    }

    fn good(self) -> Style {
        self.style(Color::Green)
    }

    fn warn(self) -> Style {
        self.style(Color::Yellow)
    }

    fn bad(self) -> Style {
        self.style(Color::Red).add_modifier(Modifier::BOLD)
    }

    fn sea(self) -> Style {
        self.style(Color::Cyan)
    }

    fn state(self, state: &str) -> Style {
        match state {
            "up" => self.good(),
            "ejected" | "down" => self.bad(),
            "drained" => SOFT,
            _ => self.warn(),
        }
    }
}

/// What matters less.
const SOFT: Style = Style::new().add_modifier(Modifier::DIM);
const STRONG: Style = Style::new().add_modifier(Modifier::BOLD);

/// From so many columns on there is room for bars.
const WIDE: u16 = 100;

/// Draws all of it.
pub fn draw(frame: &mut Frame, screen: &Screen, palette: Palette, now: Instant) {
    let area = frame.area();
    let events = (area.height / 4).clamp(3, 12);
    let [head, tree, happened, foot] = Layout::vertical([
        Constraint::Length(3),
        Constraint::Min(1),
        Constraint::Length(events),
        Constraint::Length(1),
    ])
    .areas(area);
    match screen.view() {
        Some(view) => {
            draw_head(frame, head, view, screen, palette, now);
            draw_tree(frame, tree, screen, palette);
            draw_events(frame, happened, &view.events, palette);
        }
        None => {
            let words = screen.trouble.as_deref().unwrap_or("asking…");
            frame.render_widget(Paragraph::new(words).wrap(Wrap { trim: true }), head);
        }
    }
    draw_foot(frame, foot, screen, palette, now);
    match &screen.mode {
        Mode::Help => draw_help(frame, area),
        Mode::Confirm(command) => draw_question(frame, area, command),
        Mode::Weight { id, typed } => draw_box(
            frame,
            area,
            "Weight",
            &[
                format!("Of {id}: {typed}_"),
                String::new(),
                "0 to 65535; nothing takes an override back.".to_owned(),
                "Enter sets it, Esc does not.".to_owned(),
            ],
        ),
        Mode::Browse => {}
    }
}

// --- the header ---------------------------------------------------------------------------------

fn draw_head(
    frame: &mut Frame,
    area: Rect,
    view: &View,
    screen: &Screen,
    palette: Palette,
    now: Instant,
) {
    let status = &view.status;
    let state = match status.state.as_str() {
        "ready" => Span::styled("● ready", palette.good()),
        other => Span::styled(format!("▲ {other}"), palette.warn()),
    };
    let mut first = vec![
        Span::styled("evenkeel ", STRONG),
        Span::raw(status.version.clone()),
        Span::raw("  "),
        state,
        Span::raw(format!("  up {}", span(status.uptime_seconds))),
    ];
    if let Some(certificate) = &status.certificate {
        let left = match certificate.days_left < 0.0 {
            true => "expired".to_owned(),
            false => format!("{:.0}d", certificate.days_left.floor()),
        };
        let style = match certificate.days_left {
            ..7.0 => palette.bad(),
            7.0..21.0 => palette.warn(),
            _ => Style::new(),
        };
        first.push(Span::styled(format!("  cert {left}"), style));
    }
    if let Some(reload) = &status.configuration.last_reload {
        let style = match reload.outcome.as_str() {
            "refused" => palette.bad(),
            _ => Style::new(),
        };
        let words = format!("  reload {} {}", reload.outcome, clock(&reload.at));
        first.push(Span::styled(words, style));
    }
    if let Some(age) = screen.old(now) {
        let words = format!("  these data are {} old", span(age.as_secs_f64()));
        first.push(Span::styled(words, palette.bad()));
    } else if !status.unmet.is_empty() {
        let words = format!("  {}", status.unmet.join(", "));
        first.push(Span::styled(words, palette.warn()));
    }
    let samples = &status.history.samples;
    let second = match &status.sample {
        Some(sample) => figures(sample, samples, area.width, palette),
        None => Line::styled("no sample yet", SOFT),
    };
    let (name, rest) = columns(area.width);
    let heading = format!("  {:<name$} {rest}", "BACKEND");
    let third = Line::styled(heading, SOFT.add_modifier(Modifier::UNDERLINED));
    frame.render_widget(Paragraph::new(vec![Line::from(first), second, third]), area);
}

fn figures<'a>(sample: &Sample, samples: &[Sample], width: u16, palette: Palette) -> Line<'a> {
    let rates: Vec<f64> = samples.iter().map(|s| s.requests_per_second).collect();
    let room = usize::from(width.saturating_sub(70)).min(60);
    let mut line = vec![
        Span::raw("req/s "),
        Span::styled(number(sample.requests_per_second), STRONG),
    ];
    if room > 4 {
        line.push(Span::styled(
            format!(" {}", spark(&rates, room)),
            palette.sea(),
        ));
    }
    let mut figure = |name: &str, value: String, style: Style| {
        line.push(Span::raw(format!("  {name} ")));
        line.push(Span::styled(value, style));
    };
    figure("p50", milliseconds(sample.p50_ms), STRONG);
    figure("p99", milliseconds(sample.p99_ms), STRONG);
    let errors = match sample.errors_per_second > 0.0 {
        true => palette.bad(),
        false => STRONG,
    };
    figure("5xx/s", number(sample.errors_per_second), errors);
    figure("flight", sample.in_flight.to_string(), STRONG);
    figure("conns", sample.open_connections.to_string(), STRONG);
    let healthy = match sample.healthy < sample.backends {
        true => palette.warn().add_modifier(Modifier::BOLD),
        false => STRONG,
    };
    figure(
        "up",
        format!("{}/{}", sample.healthy, sample.backends),
        healthy,
    );
    Line::from(line)
}

// --- the tree -----------------------------------------------------------------------------------

/// The width of a backend's name, and the heading of what stands behind it.
fn columns(width: u16) -> (usize, String) {
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

fn draw_tree(frame: &mut Frame, area: Rect, screen: &Screen, palette: Palette) {
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
    let serves_above = service
        .tiers
        .iter()
        .any(|other| other.serving && other.priority < tier.priority);
    let (word, style) = match (tier.serving, serves_above) {
        (true, _) => ("serving", palette.good()),
        (false, true) => ("standby", SOFT),
        (false, false) => ("nobody can serve", palette.warn()),
    };
    Line::from(vec![
        Span::raw(format!("  tier {} ", tier.priority)),
        Span::styled(word, style),
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

// --- events and keys ----------------------------------------------------------------------------

fn draw_events(frame: &mut Frame, area: Rect, events: &[Event], palette: Palette) {
    let shown = usize::from(area.height).saturating_sub(1);
    let mut lines = vec![Line::styled(
        format!(
            "{:<w$}",
            "  EVENTS, newest first (UTC)",
            w = usize::from(area.width)
        ),
        SOFT.add_modifier(Modifier::UNDERLINED),
    )];
    for event in events.iter().rev().take(shown) {
        let style = match event.severity.as_str() {
            "warning" => palette.bad(),
            _ => STRONG,
        };
        let kind = event.kind.replace('_', " ");
        let whose = event.backend.as_deref().or(event.service.as_deref());
        let whose = whose.map(|whose| format!(" {whose}")).unwrap_or_default();
        lines.push(Line::from(vec![
            Span::styled(format!("  {} ", clock(&event.at)), SOFT),
            Span::styled(kind, style),
            Span::raw(format!("{whose}: {}", event.text)),
        ]));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

fn draw_foot(frame: &mut Frame, area: Rect, screen: &Screen, palette: Palette, now: Instant) {
    let line = match (screen.said(now), &screen.trouble) {
        (Some(words), _) => Line::styled(format!(" {words}"), palette.warn()),
        (None, Some(trouble)) => Line::styled(format!(" ▲ {trouble}"), palette.bad()),
        (None, None) => Line::styled(
            " q quit  ↑↓ select  ⏎ unfold  d drain  w weight  ? help",
            SOFT,
        ),
    };
    frame.render_widget(Paragraph::new(line), area);
}

fn draw_help(frame: &mut Frame, area: Rect) {
    let lines = [
        "↑ ↓ k j   select a service or a backend",
        "PgUp PgDn Home End   further",
        "Enter     fold a service, unfold a backend",
        "d         drain a backend, or take that back; asks first",
        "w         set its weight by hand, or take that back",
        "q Esc     end",
        "",
        "● up  ▲ passed over  ✗ ejected  ◐ on trial  ■ down  ○ drained",
        "SHARE is by weight, IS what it got in the last 60 s",
        "a weight with ! was set by hand",
    ];
    draw_box(frame, area, "Keys", &lines.map(str::to_owned));
}

fn draw_question(frame: &mut Frame, area: Rect, command: &Command) {
    let (title, lines) = match command {
        Command::Drain(id) => (
            "Drain",
            vec![
                format!("Give {id} no new request?"),
                "It finishes what it has; the others of its tier take its part.".to_owned(),
            ],
        ),
        Command::Undrain(id) => ("Undrain", vec![format!("Let {id} be picked again?")]),
        Command::Weight(id, _) => ("Weight", vec![format!("Change the weight of {id}?")]),
    };
    let keys = [String::new(), "y yes   n no".to_owned()];
    draw_box(frame, area, title, &[lines, keys.to_vec()].concat());
}

fn draw_box(frame: &mut Frame, area: Rect, title: &str, lines: &[String]) {
    let width = lines.iter().map(|line| line.chars().count()).max();
    let width = (width.unwrap_or(0) as u16 + 4).min(area.width);
    let height = (lines.len() as u16 + 2).min(area.height);
    let place = area.centered(Constraint::Length(width), Constraint::Length(height));
    let block = Block::bordered().title(format!(" {title} "));
    let text: Vec<Line> = lines
        .iter()
        .map(|line| Line::raw(format!(" {line}")))
        .collect();
    frame.render_widget(Clear, place);
    frame.render_widget(Paragraph::new(text).block(block), place);
}
