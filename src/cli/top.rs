//! `evenkeel top`: the dashboard for a terminal, by `docker exec -it` for example.
//!
//! `top/feed.rs` asks the process once a second and carries commands out, in a thread of its own;
//! `top/screen.rs` is what is shown and what keys do to it; `top/draw.rs` is how that looks. Here is the
//! loop between them, and the terminal, which is given back as it was, however this ends.

mod draw;
mod feed;
mod screen;
#[cfg(test)]
mod tests;
mod words;

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::sync::mpsc::TryRecvError;
use std::time::Duration;

use anyhow::{Context as _, bail};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use tokio::time::Instant;

use draw::Palette;
use feed::{Feed, Update};
use screen::{Outcome, Screen};

/// Until what came is shown, and until a signal is obeyed.
const TURN: Duration = Duration::from_millis(100);

/// Arguments of `top`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Keys: arrows select, Enter unfolds, d drains a backend (and takes that back), w sets its weight,
? shows all of them, q ends. In a container: docker exec -it NAME evenkeel top
Without colours where NO_COLOR is set.")]
pub struct Args {
    #[command(flatten)]
    instance: super::instance::InstanceOptions,
}

/// Shows it until somebody has seen enough.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    if !std::io::stdout().is_terminal() {
        bail!("top needs a terminal (docker exec -it); `evenkeel status` prints the same once");
    }
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let palette = match plain {
        true => Palette::Plain,
        false => Palette::Colours,
    };
    let feed = Feed::start(args.instance.find()?)?;
    // It also has a panic give the terminal back, before it says what happened.
    let mut terminal = ratatui::try_init().context("this terminal cannot be used")?;
    let ended = show(&mut terminal, &feed, palette);
    ratatui::restore();
    ended?;
    Ok(ExitCode::SUCCESS)
}

fn show(terminal: &mut DefaultTerminal, feed: &Feed, palette: Palette) -> anyhow::Result<()> {
    let mut screen = Screen::new();
    loop {
        loop {
            match feed.updates.try_recv() {
                Ok(Update::Looked(view)) => screen.take(*view, Instant::now()),
                Ok(Update::Failed(trouble)) => screen.trouble = Some(trouble),
                Ok(Update::Done(words)) => screen.say(words, Instant::now()),
                Ok(Update::Ended) => return Ok(()),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => bail!("nobody asks the process any more"),
            }
        }
        terminal.draw(|frame| draw::draw(frame, &screen, palette, Instant::now()))?;
        // Keys that came together are drawn together.
        let mut wait = TURN;
        while event::poll(wait)? {
            wait = Duration::ZERO;
            let Event::Key(key) = event::read()? else {
                continue;
            };
            if key.kind == KeyEventKind::Release {
                continue;
            }
            match screen.press(key) {
                Outcome::Nothing => {}
                Outcome::Quit => return Ok(()),
                Outcome::Do(command) => {
                    if !feed.order(command) {
                        screen.say("still busy with the last one".to_owned(), Instant::now());
                    }
                }
            }
        }
    }
}
