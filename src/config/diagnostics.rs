//! What is wrong with a configuration, where, and what was probably meant.
//!
//! Reading collects [`Problem`]s instead of stopping at the first; a [`Diagnostic`] is all of
//! them together with the texts they point into, and draws each with its line and a caret.

use std::fmt;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::source::{Sources, Span};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The configuration is not used.
    Error,
    /// It is used, but somebody should look.
    Warning,
}

/// One thing that is wrong.
#[derive(Debug, Clone)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, in one line.
    pub title: String,
    /// Where, and what to say there; the first one is the place, the others explain it.
    pub places: Vec<(Span, String)>,
    /// What to do about it.
    pub help: Option<String>,
}

/// Collects problems while a configuration is read.
#[derive(Debug, Default)]
pub struct Problems(Vec<Problem>);

/// Problems with the texts they point into. Its `Display` is the whole report without colour.
#[derive(Debug, Clone, Default)]
pub struct Diagnostic {
    problems: Vec<Problem>,
    sources: Sources,
}

/// So many problems are drawn; a file of another format would otherwise fill the terminal.
const SHOWN: usize = 20;

/// Columns of a drawn line when the terminal's width is not known.
const WIDTH: usize = 120;

impl Problem {
    /// An error at a place.
    pub fn error(span: Span, title: impl Into<String>) -> Problem {
        Problem {
            severity: Severity::Error,
            title: title.into(),
            places: vec![(span, String::new())],
            help: None,
        }
    }

    /// A warning at a place.
    pub fn warning(span: Span, title: impl Into<String>) -> Problem {
        Problem {
            severity: Severity::Warning,
            ..Problem::error(span, title)
        }
    }

    /// Says something right at the caret.
    pub fn label(mut self, text: impl Into<String>) -> Problem {
        if let Some(first) = self.places.first_mut() {
            first.1 = text.into();
        }
        self
    }

    /// Points at a second place.
    pub fn and(mut self, span: Span, text: impl Into<String>) -> Problem {
        self.places.push((span, text.into()));
        self
    }

    /// Says what to do.
    pub fn help(mut self, text: impl Into<String>) -> Problem {
        self.help = Some(text.into());
        self
    }

    /// Labels with the nearest of `known`, if one is near enough to be what was meant.
    pub fn did_you_mean<'a>(self, word: &str, known: impl IntoIterator<Item = &'a str>) -> Problem {
        match nearest(word, known) {
            Some(meant) => self.label(format!("did you mean `{meant}`?")),
            None => self,
        }
    }
}

impl Problems {
    /// Adds one, unless it is there already: what is wrong in `[defaults]` is found by each service.
    pub fn push(&mut self, problem: Problem) {
        let known = |k: &Problem| k.title == problem.title && k.places == problem.places;
        if !self.0.iter().any(known) {
            self.0.push(problem);
        }
    }

    /// Adds an error with nothing more to say.
    pub fn error(&mut self, span: Span, title: impl Into<String>) {
        self.push(Problem::error(span, title));
    }

    /// How many there are so far.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// True if there is an error among them.
    pub fn any_error(&self) -> bool {
        self.0.iter().any(|p| p.severity == Severity::Error)
    }

    /// All of them in the order of their places.
    pub fn into_diagnostic(mut self, sources: Sources) -> Diagnostic {
        self.0.sort_by_key(|p| {
            (
                p.severity == Severity::Warning,
                p.places.first().map(|x| x.0),
            )
        });
        Diagnostic {
            problems: self.0,
            sources,
        }
    }
}

impl Diagnostic {
    /// A problem that has no place in a text.
    pub fn without_place(title: impl Into<String>, help: Option<String>) -> Diagnostic {
        Diagnostic {
            problems: vec![Problem {
                severity: Severity::Error,
                title: title.into(),
                places: Vec::new(),
                help,
            }],
            sources: Sources::default(),
        }
    }

    /// What was found, errors first, in the order of the text.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// True if nothing was found.
    pub fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// The report with colours, for a terminal.
    pub fn styled(&self) -> String {
        self.draw(&Renderer::styled().term_width(WIDTH))
    }

    /// Each problem in one line, for a log: place, what is wrong, what to do.
    pub fn one_by_one(&self) -> impl Iterator<Item = String> {
        self.problems.iter().map(|problem| {
            let place = problem.places.first().and_then(|(span, _)| {
                let source = self.sources.of(*span)?;
                let start = first_line(&source.text, *span).start;
                let line = source.text[..start].matches('\n').count() + 1;
                Some(format!("{}:{line}: ", source.name))
            });
            let label = problem.places.first().map(|(_, label)| label.as_str());
            let more: String = [label, problem.help.as_deref()]
                .into_iter()
                .flatten()
                .filter(|text| !text.is_empty())
                .map(|text| format!("; {text}"))
                .collect();
            printable(&format!(
                "{}{}{more}",
                place.unwrap_or_default(),
                problem.title
            ))
        })
    }

    fn draw(&self, renderer: &Renderer) -> String {
        let mut report: Vec<String> = self
            .problems
            .iter()
            .take(SHOWN)
            .map(|p| renderer.render(&[self.group(p)]))
            .collect();
        if let Some(more) = self.problems.len().checked_sub(SHOWN).filter(|n| *n > 0) {
            report.push(format!("… and {more} more"));
        }
        report.join("\n\n")
    }

    fn group<'a>(&'a self, problem: &'a Problem) -> Group<'a> {
        let level = match problem.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = printable(&problem.title);
        let mut group = Group::with_title(level.primary_title(title));
        let mut kind = AnnotationKind::Primary;
        // One snippet per source, in the order in which the places name them.
        let mut open: Option<(u32, Snippet<'a, annotate_snippets::Annotation<'a>>)> = None;
        for (span, label) in &problem.places {
            let Some(source) = self.sources.of(*span) else {
                continue;
            };
            let annotation = kind
                .span(first_line(&source.text, *span))
                .label((!label.is_empty()).then(|| std::borrow::Cow::from(printable(label))));
            kind = AnnotationKind::Context;
            open = Some(match open.take() {
                Some((id, snippet)) if id == span.source => (id, snippet.annotation(annotation)),
                previous => {
                    if let Some((_, snippet)) = previous {
                        group = group.element(snippet);
                    }
                    let snippet = Snippet::source(&source.text).path(&source.name);
                    (span.source, snippet.annotation(annotation))
                }
            });
        }
        if let Some((_, snippet)) = open {
            group = group.element(snippet);
        }
        if let Some(help) = &problem.help {
            group = group.element(Level::HELP.message(printable(help)));
        }
        group
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.draw(&Renderer::plain().term_width(WIDTH)))
    }
}

impl std::error::Error for Diagnostic {}

/// `text` with control characters escaped: it quotes what somebody wrote, and ends on a terminal.
fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    // Characters that turn the direction of writing, and the like.
    annotate_snippets::normalize_untrusted_str(&safe)
}

/// The part of `span` on its first line: a table spans many, and one caret says enough. Both ends
/// are put on character boundaries inside the text.
fn first_line(text: &str, span: Span) -> std::ops::Range<usize> {
    let start = text.floor_char_boundary(span.start as usize);
    let end = text.ceil_char_boundary((span.end as usize).max(start));
    let line = text[start..end]
        .find(['\n', '\r'])
        .map_or(end, |at| start + at);
    start..line
}

/// The word among `known` that `word` was probably meant to be.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    known
        .into_iter()
        .map(|k| (strsim::damerau_levenshtein(&word, &k.to_lowercase()), k))
        // A third of the letters may be wrong; more than that is another word.
        .filter(|(distance, k)| {
            *distance <= k.chars().count().max(word.chars().count()).div_ceil(3)
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, k)| k)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_allows_a_third_of_the_letters() {
        let known = ["listener", "service", "route", "dns"];
        for (word, meant) in [
            ("lisener", Some("listener")),
            ("Service", Some("service")),
            ("rotue", Some("route")),
            ("dsn", Some("dns")),
            ("backend", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known), meant, "{word}");
        }
    }

    #[test]
    fn in_a_log_a_problem_is_one_line() {
        let mut sources = Sources::default();
        let span = sources.add("x.toml", "a = 1\nb = 2\n", std::path::Path::new(""));
        let mut problems = Problems::default();
        problems.push(
            Problem::error(span.part(6..7), "wrong\n")
                .label("here")
                .help("mend it"),
        );
        let lines: Vec<_> = problems.into_diagnostic(sources).one_by_one().collect();
        assert_eq!(lines, ["x.toml:2: wrong\\n; here; mend it"]);
    }

    #[test]
    fn spans_outside_the_text_are_drawn_at_its_end() {
        let mut sources = Sources::default();
        let span = sources.add("x.toml", "a = \"é\"", std::path::Path::new(""));
        for range in [0..0, 5..6, 6..100, 90..100] {
            let mut problems = Problems::default();
            problems.error(span.part(range), "wrong");
            let text = problems.into_diagnostic(sources.clone()).to_string();
            assert!(text.contains("x.toml:1"), "{text}");
        }
    }
}
