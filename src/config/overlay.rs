//! What the environment and the flags change in the tree, before it is read.
//!
//! `--set service.web.strategy=cycle` and `EVENKEEL_SERVICE__WEB__STRATEGY=cycle` say the same. A
//! member of a list is called by its number or, where it has one, by its name.

use toml::de::DeValue;

use super::diagnostics::{Problem, Problems, nearest};
use super::read::{Key, Read};
use super::source::{Sources, Span};
use super::tree::{Entry, Node, Value, from_toml};
use super::{raw, tree};

/// What variables of ours start with.
pub(super) const PREFIX: &str = "EVENKEEL_";

/// Variables that are ours and are no setting; the second one is `server::FRONT`.
const NOT_SETTINGS: &[&str] = &["EVENKEEL_CONFIG", "EVENKEEL_FRONT"];

/// One step of a dotted path.
struct Step {
    text: String,
    span: Span,
}

/// Applies one `key=value` of the command line.
pub fn set(root: &mut Node, flag: &str, sources: &mut Sources, problems: &mut Problems) {
    let whole = sources.add("--set", flag, std::path::Path::new(""));
    let Some(equals) = flag.find('=') else {
        problems.push(
            Problem::error(whole, "expected key=value").help("for example --set log.level=debug"),
        );
        return;
    };
    let mut steps = Vec::new();
    let mut at = 0;
    // A name with dots in it stands in quotes: service."a.b".strategy
    let mut quoted = false;
    let dotted = flag[..equals].split(|c| {
        quoted ^= c == '"';
        c == '.' && !quoted
    });
    for text in dotted {
        steps.push(Step {
            text: text.trim().trim_matches('"').to_owned(),
            span: whole.part(at..at + text.len()),
        });
        at += text.len() + 1;
    }
    if let Some(empty) = steps.iter().find(|s| s.text.is_empty()) {
        problems.push(
            Problem::error(empty.span, "a key is empty").help("for example --set log.level=debug"),
        );
        return;
    }
    let value = value(
        &flag[equals + 1..],
        whole.part(equals + 1..flag.len()),
        problems,
    );
    if let Some(value) = value {
        put(root, &steps, value, Names::Exact, problems);
    }
}

/// Puts what a flag of its own gives, as a word, at a path.
pub fn argument(root: &mut Node, path: &[String], text: &str, span: Span, problems: &mut Problems) {
    let steps: Vec<Step> = path
        .iter()
        .map(|step| Step {
            text: step.clone(),
            span,
        })
        .collect();
    let value = Value::Word(text.to_owned());
    put(root, &steps, Node { span, value }, Names::Exact, problems);
}

/// Applies the variables that start with `EVENKEEL_`.
///
/// Only those with `__` in them, or with the name of a plain key of the top, are taken as
/// settings: Kubernetes gives each container `EVENKEEL_PORT_8443_TCP` and the like when a Service
/// is called `evenkeel`, and those must not stop it from starting.
pub fn environment(
    root: &mut Node,
    variables: &[(String, String)],
    sources: &mut Sources,
    problems: &mut Problems,
) {
    let mut variables: Vec<_> = variables
        .iter()
        .filter(|(name, _)| name.starts_with(PREFIX) && !NOT_SETTINGS.contains(&name.as_str()))
        .collect();
    variables.sort();
    for (name, text) in variables {
        let path = &name[PREFIX.len()..];
        let top = path.to_ascii_lowercase();
        let plain = |key: &&Key| (key.keys)().is_empty() && key.name == top;
        if !path.contains("__") && raw::File::keys().iter().find(plain).is_none() {
            if let Some(meant) = near_setting(&top) {
                let whole = sources.add("environment", format!("{name}={text}"), "".as_ref());
                problems.push(
                    Problem::warning(whole.part(0..name.len()), "this variable is not a setting")
                        .label(format!("did you mean `{PREFIX}{meant}`?")),
                );
            }
            continue;
        }
        let whole = sources.add("environment", format!("{name}={text}"), "".as_ref());
        let mut at = PREFIX.len();
        let mut steps = Vec::new();
        for part in path.split("__") {
            steps.push(Step {
                text: part.to_ascii_lowercase(),
                span: whole.part(at..at + part.len()),
            });
            at += part.len() + 2;
        }
        let span = whole.part(name.len() + 1..name.len() + 1 + text.len());
        if let Some(value) = value(text, span, problems) {
            put(root, &steps, value, Names::Loose, problems);
        }
    }
}

/// The setting that `EVENKEEL_LOG_LEVEL` was meant to be.
fn near_setting(top: &str) -> Option<String> {
    raw::File::keys().iter().find_map(|key| {
        let rest = top.strip_prefix(key.name)?.strip_prefix('_')?;
        let inner = (key.keys)().iter().find(|k| k.name == rest)?;
        Some(format!("{}__{}", key.name, inner.name).to_ascii_uppercase())
    })
}

/// A list or a table is written as in TOML; all else is a word whose type the key decides.
fn value(text: &str, span: Span, problems: &mut Problems) -> Option<Node> {
    if !text.starts_with(['[', '{', '"', '\'']) {
        let value = Value::Word(text.to_owned());
        return Some(Node { span, value });
    }
    match DeValue::parse(text) {
        Ok(value) => Some(from_toml(value.get_ref(), span, span)),
        Err(error) => {
            let place = error.span().map_or(span, |range| span.part(range));
            problems.error(place, error.message());
            None
        }
    }
}

/// How names of list members are compared.
#[derive(Clone, Copy)]
enum Names {
    Exact,
    /// A variable's name has no lower case and few signs: `WEB_1` is `web-1`.
    Loose,
}

impl Names {
    fn equal(self, step: &str, name: &str) -> bool {
        match self {
            Names::Exact => step == name,
            Names::Loose => {
                let plain = |c: char| match c {
                    '-' | '.' | ':' => '_',
                    c => c.to_ascii_lowercase(),
                };
                step.chars().map(plain).eq(name.chars().map(plain))
            }
        }
    }
}

fn put(mut node: &mut Node, steps: &[Step], value: Node, names: Names, problems: &mut Problems) {
    for step in steps {
        if let Value::Null = node.value {
            node.span = step.span;
            node.value = match step.text.parse::<usize>() {
                Ok(_) => Value::List(Vec::new()),
                Err(_) => Value::Table(Vec::new()),
            };
        }
        let next = match &mut node.value {
            Value::Table(entries) => member_of_table(entries, step),
            Value::List(items) => match member_of_list(items, step, names) {
                Ok(item) => item,
                Err(problem) => return problems.push(*problem),
            },
            other => {
                let kind = other.kind();
                return problems.error(
                    step.span,
                    format!("what is set here is {kind}, without keys"),
                );
            }
        };
        node = next;
    }
    *node = value;
}

fn member_of_table<'a>(entries: &'a mut Vec<Entry>, step: &Step) -> &'a mut Node {
    let index = match entries.iter().position(|e| e.key == step.text) {
        Some(index) => index,
        None => {
            entries.push(Entry {
                key: step.text.clone(),
                key_span: step.span,
                value: tree::Node {
                    span: step.span,
                    value: Value::Null,
                },
            });
            entries.len() - 1
        }
    };
    &mut entries[index].value
}

fn member_of_list<'a>(
    items: &'a mut Vec<Node>,
    step: &Step,
    names: Names,
) -> Result<&'a mut Node, Box<Problem>> {
    let name_of = |item: &Node| match &item.value {
        Value::Table(entries) => {
            entries
                .iter()
                .find(|e| e.key == "name")
                .and_then(|e| match &e.value.value {
                    Value::Text(name) | Value::Word(name) => Some(name.clone()),
                    _ => None,
                })
        }
        _ => None,
    };
    let called: Vec<Option<String>> = items.iter().map(name_of).collect();
    let by_name = called
        .iter()
        .position(|name| name.as_deref().is_some_and(|n| names.equal(&step.text, n)));
    let index = match (by_name, step.text.parse::<usize>()) {
        (Some(index), _) => index,
        (None, Ok(index)) if index < items.len() => index,
        (None, Ok(index)) if index == items.len() => {
            items.push(Node {
                span: step.span,
                value: Value::Null,
            });
            index
        }
        (None, Ok(_)) => {
            let title = format!("this list has {} members, counted from 0", items.len());
            return Err(Box::new(Problem::error(step.span, title)));
        }
        (None, Err(_)) => {
            let title = format!("nothing here is called `{}`", step.text);
            let known = called.iter().flatten().map(String::as_str);
            let problem = Problem::error(step.span, title);
            return Err(Box::new(match nearest(&step.text, known.clone()) {
                Some(_) => problem.did_you_mean(&step.text, known),
                None => problem.help("a member of a list is called by its name or by its number"),
            }));
        }
    };
    Ok(&mut items[index])
}
