//! Boxes in front of all: keys, questions, a weight as it is typed.

use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::text::Line;
use ratatui::widgets::{Block, Clear, Paragraph};

use super::super::screen::Command;

pub(super) fn draw_help(frame: &mut Frame, area: Rect) {
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

pub(super) fn draw_question(frame: &mut Frame, area: Rect, command: &Command) {
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

pub(super) fn draw_weight(frame: &mut Frame, area: Rect, id: &str, typed: &str) {
    let lines = [
        format!("Of {id}: {typed}_"),
        String::new(),
        "0 to 65535; nothing takes an override back.".to_owned(),
        "Enter sets it, Esc does not.".to_owned(),
    ];
    draw_box(frame, area, "Weight", &lines);
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
