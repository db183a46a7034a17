//! How `top` looks: header, tree of services, events, keys; pure, from a [`Screen`] to a frame.
//!
//! `draw/tree.rs` is the tree, `draw/boxes.rs` what is asked and said in front of all.
//!
//! What a colour says, a sign or a word says too; without colours everything is there.

mod boxes;
mod tree;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Wrap};
use tokio::time::Instant;

use self::boxes::{draw_help, draw_question, draw_weight};
use self::tree::{columns, draw_tree};
use super::screen::{Mode, Screen, View};
use super::words::{clock, milliseconds, number, span, spark};
use crate::admin::model::{Event, Sample};

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
        Mode::Weight { id, typed } => draw_weight(frame, area, id, typed),
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
