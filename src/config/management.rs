//! Where a running instance can be asked: `[admin]` and `[probe]`, read apart from all the rest.
//!
//! Whoever runs goes on by what it has read at its start or at the last reload that it took. A mistake
//! that the file has since then, in a route say, must not hide it from `HEALTHCHECK`, from a preStop
//! hook or from whoever wants to see what is going on. So this takes what it can get: two tables, of a
//! file that need not be right otherwise.

use std::net::SocketAddr;
use std::path::Path;

use super::diagnostics::Problems;
use super::load::Loader;
use super::read::Read as _;
use super::source::{Files, Sources, Span};
use super::tree::{self, Format, Node, Value};
use super::{Admin, build, overlay, raw};

/// Where the process that a configuration started can be asked.
#[derive(Debug, Clone)]
pub struct Management {
    /// Its control listener and socket.
    pub admin: Admin,
    /// Its probe listener; `None`: it has none.
    pub probe: Option<SocketAddr>,
    /// The file could not be read, or its syntax or one of these tables is wrong: what is above may be
    /// the default instead of what the process has.
    pub guessed: bool,
}

/// The tables that are read.
const TABLES: [&str; 2] = ["admin", "probe"];

/// A configuration has a listener at least. This one is nobody's (RFC 5737), so it is in nobody's way.
const LISTENER: &str = "listener = [{ address = \"192.0.2.1:1\", protocol = \"http\" }]";

impl Loader {
    /// The two tables that say where the process can be asked, whatever is wrong with the rest.
    pub fn management(mut self) -> Management {
        self.variables.retain(|(name, _)| {
            let path = name.strip_prefix(overlay::PREFIX);
            let table = path.and_then(|path| path.split_once("__"));
            table.is_some_and(|(table, _)| is_ours(&table.to_ascii_lowercase()))
        });
        self.flags.retain(|flag| {
            flag.split_once('.')
                .is_some_and(|(table, _)| is_ours(table))
        });

        let mut sources = Sources::default();
        let mut problems = Problems::default();
        let written = self.root(parse_what_matters, &mut sources, &mut problems);
        let whole = matches!(written, Ok(Some(_))) && !problems.any_error();
        let written = written.ok().flatten();
        if let Some((admin, probe)) = self.tables(written, &mut sources) {
            return Management {
                admin,
                probe,
                guessed: !whole,
            };
        }
        // One of them is wrong: what the environment says alone, else the defaults.
        let (admin, probe) = self
            .tables(None, &mut sources)
            .or_else(|| Loader::default().tables(None, &mut sources))
            .expect("the defaults are right");
        Management {
            admin,
            probe,
            guessed: true,
        }
    }

    /// `[admin]` and `[probe]` of what was written, with environment and flags over them. `None`: there
    /// is a mistake in them.
    fn tables(
        &self,
        written: Option<Node>,
        sources: &mut Sources,
    ) -> Option<(Admin, Option<SocketAddr>)> {
        let mut problems = Problems::default();
        let whole = sources.add("defaults", LISTENER, Path::new(""));
        let mut root = tree::parse(Format::Toml, LISTENER, whole, &mut problems)?;
        if let Value::Table(entries) = &mut root.value
            && let Some(Value::Table(written)) = written.map(|node| node.value)
        {
            entries.extend(written.into_iter().filter(|entry| is_ours(&entry.key)));
        }
        overlay::environment(&mut root, &self.variables, sources, &mut problems);
        for flag in &self.flags {
            overlay::set(&mut root, flag, sources, &mut problems);
        }
        let file = raw::File::read(&root, &mut problems)?;
        let config = build::build(file, Files::Trusted, sources, &mut problems);
        (!problems.any_error()).then_some((config.admin, config.probe))
    }
}

/// All of a text, or, where its syntax is wrong somewhere and it is TOML, the two tables.
fn parse_what_matters(
    format: Format,
    text: &str,
    whole: Span,
    problems: &mut Problems,
) -> Option<Node> {
    let root = tree::parse(format, text, whole, problems);
    if root.is_some() || format != Format::Toml {
        return root;
    }
    // Blanks in place of the rest, so that what is where stays as it is.
    let mut within = false;
    let kept: String = text
        .split_inclusive('\n')
        .map(|line| {
            if let Some(header) = line.trim_start().strip_prefix('[') {
                let table = header.split_once(']').map_or("", |(table, _)| table.trim());
                within = is_ours(table);
            }
            match within {
                true => line.to_owned(),
                false => " ".repeat(line.len() - 1) + "\n",
            }
        })
        .collect();
    tree::parse(format, &kept, whole, &mut Problems::default())
}

fn is_ours(table: &str) -> bool {
    TABLES.contains(&table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Place;

    /// Admin, probe, and whether they are a guess; of a TOML text with these variables over it.
    fn found(text: &str, variables: &[(&str, &str)]) -> (Place<SocketAddr>, String, bool) {
        let variables = variables.iter();
        let loader = Loader::text(text, Format::Toml)
            .environment(variables.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
            .set("admin.token_file=t")
            .set("log.level=nonsense");
        let found = loader.management();
        let probe = found.probe.map_or("none".to_owned(), |at| at.to_string());
        (found.admin.address, probe, found.guessed)
    }

    #[test]
    fn what_is_wrong_elsewhere_hides_nothing() {
        let admin = "[admin]\naddress = \"127.0.0.1:1\"\n";
        let probe = "[probe]\naddress = \"0.0.0.0:2\"\n";
        let at = Place::At("127.0.0.1:1".parse().unwrap());
        let usual = "127.0.0.1:9902".to_owned();
        for (name, text, variables, expected) in [
            (
                "no listener, an unknown key",
                format!("nonsense = 1\n{admin}{probe}"),
                &[][..],
                (at.clone(), "0.0.0.0:2".to_owned(), false),
            ),
            (
                "a syntax error before and after them",
                format!("[[listener\n{admin}{probe}[[route]\nx = \n"),
                &[],
                (at.clone(), "0.0.0.0:2".to_owned(), true),
            ),
            (
                "the environment goes over it",
                format!("[[route\n{probe}"),
                &[
                    ("EVENKEEL_PROBE__ADDRESS", "off"),
                    ("EVENKEEL_WORKERS", "none"),
                ],
                (Place::Usual, "none".to_owned(), true),
            ),
            (
                "a mistake in one of them: the environment alone",
                format!("{admin}[probe]\naddress = \"here\"\n"),
                &[("EVENKEEL_ADMIN__ADDRESS", "off")],
                (Place::Off, usual.clone(), true),
            ),
            (
                "a mistake in the environment: the defaults",
                String::new(),
                &[("EVENKEEL_PROBE__ADDRESS", "there")],
                (Place::Usual, usual.clone(), true),
            ),
            (
                "nothing said",
                String::new(),
                &[],
                (Place::Usual, usual.clone(), false),
            ),
        ] {
            assert_eq!(found(&text, variables), expected, "{name}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_a_guess() {
        assert!(Loader::file("/nowhere/evenkeel.toml").management().guessed);
        assert!(!Loader::default().management().guessed, "nobody named one");
    }
}
