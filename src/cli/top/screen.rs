//! What `top` shows and what a key does to it: the latest answers, what is selected and unfolded, the
//! question that is open. No terminal and no socket here.

use std::collections::BTreeSet;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use tokio::time::{Duration, Instant};

use crate::admin::model::{Backend, Dns, Event, Service, Status, Tier};

/// What a look at the process found.
#[derive(Debug, Clone)]
pub struct View {
    pub status: Status,
    pub services: Vec<Service>,
    pub dns: Vec<Dns>,
    /// The latest, oldest first.
    pub events: Vec<Event>,
}

/// What is to be done with a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Drain(String),
    Undrain(String),
    /// `None` takes the override back.
    Weight(String, Option<u16>),
}

/// What a key leads to.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Nothing,
    Quit,
    Do(Command),
}

/// What can be selected. Backends that share an address differ by number and tier.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Service(String),
    Backend(String, u64, u16),
}

/// What the keys mean at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    Browse,
    Help,
    /// Yes or no.
    Confirm(Command),
    /// The digits of a new weight.
    Weight {
        id: String,
        typed: String,
    },
}

/// A line of the tree.
#[derive(Debug, Clone, Copy)]
pub enum Row<'a> {
    Service(&'a Service),
    Dns(&'a Service, Option<&'a Dns>),
    Tier(&'a Service, &'a Tier),
    Backend(&'a Tier, &'a Backend),
    /// Why a backend is not up.
    Reason(&'a Backend),
    /// What else there is to say of one that was unfolded.
    Detail(&'a Backend),
}

/// All of it.
#[derive(Debug)]
pub struct Screen {
    view: Option<View>,
    looked: Option<Instant>,
    /// Why the latest look failed.
    pub trouble: Option<String>,
    folded: BTreeSet<String>,
    unfolded: BTreeSet<Place>,
    selected: Option<Place>,
    pub mode: Mode,
    said: Option<(String, Instant)>,
}

/// What a command led to is shown for so long.
const SAID: Duration = Duration::from_secs(6);

/// What is older than that is called old: looks are a second apart.
const OLD: Duration = Duration::from_millis(3500);

impl Screen {
    /// Nothing is known yet.
    pub fn new() -> Screen {
        Screen {
            view: None,
            looked: None,
            trouble: None,
            folded: BTreeSet::new(),
            unfolded: BTreeSet::new(),
            selected: None,
            mode: Mode::Browse,
            said: None,
        }
    }

    /// Takes what a look found.
    pub fn take(&mut self, view: View, now: Instant) {
        self.view = Some(view);
        self.looked = Some(now);
        self.trouble = None;
        self.keep_selection();
    }

    /// Shows a sentence for a while.
    pub fn say(&mut self, words: String, now: Instant) {
        self.said = Some((words, now));
    }

    /// What is to be read at the bottom.
    pub fn said(&self, now: Instant) -> Option<&str> {
        let (words, at) = self.said.as_ref()?;
        (now - *at < SAID).then_some(words)
    }

    /// What is known.
    pub fn view(&self) -> Option<&View> {
        self.view.as_ref()
    }

    /// How old that is, if it is old.
    pub fn old(&self, now: Instant) -> Option<Duration> {
        let age = now - self.looked?;
        (age > OLD).then_some(age)
    }

    /// The tree, line by line.
    pub fn rows(&self) -> Vec<Row<'_>> {
        let mut rows = Vec::new();
        let Some(view) = &self.view else {
            return rows;
        };
        for service in &view.services {
            rows.push(Row::Service(service));
            if self.folded.contains(&service.name) {
                continue;
            }
            let name = service.discover.name.as_deref();
            let dns = view.dns.iter().find(|dns| {
                Some(dns.name.as_str()) == name && dns.services.contains(&service.name)
            });
            rows.push(Row::Dns(service, dns));
            for tier in &service.tiers {
                rows.push(Row::Tier(service, tier));
                for backend in &tier.backends {
                    rows.push(Row::Backend(tier, backend));
                    if backend.reason.is_some() {
                        rows.push(Row::Reason(backend));
                    }
                    if self.unfolded.contains(&place_of(backend)) {
                        rows.push(Row::Detail(backend));
                    }
                }
            }
        }
        rows
    }

    /// Is it this one that keys are about?
    pub fn is_selected(&self, row: &Row) -> bool {
        row.place().is_some() && row.place() == self.selected
    }

    /// Are the backends of this service hidden?
    pub fn is_folded(&self, service: &str) -> bool {
        self.folded.contains(service)
    }

    /// Does what a key says.
    pub fn press(&mut self, key: KeyEvent) -> Outcome {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => Outcome::Quit,
                _ => Outcome::Nothing,
            };
        }
        match std::mem::replace(&mut self.mode, Mode::Browse) {
            Mode::Browse => self.browse(key.code),
            // Any key closes it.
            Mode::Help => Outcome::Nothing,
            Mode::Confirm(command) => match key.code {
                KeyCode::Char('y' | 'Y') => Outcome::Do(command),
                KeyCode::Char('n' | 'N' | 'q') | KeyCode::Esc => Outcome::Nothing,
                _ => self.ask(Mode::Confirm(command)),
            },
            Mode::Weight { id, typed } => self.weigh(id, typed, key.code),
        }
    }

    fn browse(&mut self, key: KeyCode) -> Outcome {
        match key {
            KeyCode::Char('q') | KeyCode::Esc => return Outcome::Quit,
            KeyCode::Char('?' | 'h') => self.mode = Mode::Help,
            KeyCode::Up | KeyCode::Char('k') => self.step(-1),
            KeyCode::Down | KeyCode::Char('j') => self.step(1),
            KeyCode::PageUp => self.step(-10),
            KeyCode::PageDown => self.step(10),
            KeyCode::Home | KeyCode::Char('g') => self.step(isize::MIN),
            KeyCode::End | KeyCode::Char('G') => self.step(isize::MAX),
            KeyCode::Enter | KeyCode::Char(' ') => self.unfold(),
            KeyCode::Char('d') => {
                if let Some(backend) = self.backend() {
                    let id = backend.id.clone();
                    self.mode = Mode::Confirm(match backend.drained {
                        true => Command::Undrain(id),
                        false => Command::Drain(id),
                    });
                }
            }
            KeyCode::Char('w') => {
                if let Some(backend) = self.backend() {
                    let id = backend.id.clone();
                    let typed = String::new();
                    self.mode = Mode::Weight { id, typed };
                }
            }
            _ => {}
        }
        Outcome::Nothing
    }

    fn weigh(&mut self, id: String, mut typed: String, key: KeyCode) -> Outcome {
        match key {
            KeyCode::Esc => return Outcome::Nothing,
            KeyCode::Enter if typed.is_empty() => return Outcome::Do(Command::Weight(id, None)),
            KeyCode::Enter => {
                // It is nothing but digits: what does not fit is too large.
                if let Ok(weight) = typed.parse() {
                    return Outcome::Do(Command::Weight(id, Some(weight)));
                }
                typed.clear();
            }
            KeyCode::Backspace => drop(typed.pop()),
            KeyCode::Char(digit @ '0'..='9') if typed.len() < 5 => typed.push(digit),
            _ => {}
        }
        self.ask(Mode::Weight { id, typed })
    }

    fn ask(&mut self, mode: Mode) -> Outcome {
        self.mode = mode;
        Outcome::Nothing
    }

    /// The backend that is selected.
    fn backend(&self) -> Option<&Backend> {
        self.rows().into_iter().find_map(|row| match row {
            Row::Backend(_, backend) if self.is_selected(&row) => Some(backend),
            _ => None,
        })
    }

    fn unfold(&mut self) {
        match self.selected.clone() {
            Some(Place::Service(name)) => toggle(&mut self.folded, name),
            Some(backend) => toggle(&mut self.unfolded, backend),
            None => {}
        }
    }

    fn step(&mut self, by: isize) {
        let places: Vec<Place> = self.rows().iter().filter_map(Row::place).collect();
        let now = places
            .iter()
            .position(|p| Some(p) == self.selected.as_ref());
        let next = now.map_or(0, |at| {
            at.saturating_add_signed(by)
                .min(places.len().saturating_sub(1))
        });
        self.selected = places.get(next).cloned();
    }

    /// Who is gone is not selected any more: the first takes its place. What was unfolded of it is
    /// forgotten.
    fn keep_selection(&mut self) {
        let places: Vec<Place> = self.rows().iter().filter_map(Row::place).collect();
        let is_there = |place: &Place| places.contains(place);
        if !self.selected.as_ref().is_some_and(is_there) {
            self.selected = places.first().cloned();
        }
        if let Some(view) = &self.view {
            let of = |service: &Service| {
                let tiers = service.tiers.iter();
                let backends = tiers.flat_map(|tier| tier.backends.iter().map(place_of));
                backends.collect::<Vec<_>>()
            };
            let all: BTreeSet<Place> = view.services.iter().flat_map(of).collect();
            self.unfolded.retain(|place| all.contains(place));
            let named = |name: &String| view.services.iter().any(|s| s.name == *name);
            self.folded.retain(named);
        }
    }
}

impl Row<'_> {
    /// What is selected with it, if that can be.
    pub fn place(&self) -> Option<Place> {
        match self {
            Row::Service(service) => Some(Place::Service(service.name.clone())),
            Row::Backend(_, backend) => Some(place_of(backend)),
            Row::Dns(..) | Row::Tier(..) | Row::Reason(_) | Row::Detail(_) => None,
        }
    }
}

fn place_of(backend: &Backend) -> Place {
    Place::Backend(backend.id.clone(), backend.number, backend.priority)
}

/// Takes it out of the set, or puts it in.
fn toggle<T: Ord>(set: &mut BTreeSet<T>, what: T) {
    if !set.remove(&what) {
        set.insert(what);
    }
}
