//! What a query asks for: as much of PromQL as it takes to find the names in it.

use std::collections::BTreeSet;

/// The names in a query.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Each metric, with the labels that its selector compares.
    pub metrics: Vec<(String, Vec<String>)>,
    /// Labels in `by`, `without`, `on`, `ignoring`, `group_left`, `group_right`.
    pub grouping: BTreeSet<String>,
    /// Labels that the query makes itself.
    pub made: BTreeSet<String>,
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Name(String),
    Text(String),
    Mark(char),
}

/// Words that stand where a metric could.
const WORDS: [&str; 6] = ["and", "or", "unless", "bool", "offset", "inf"];
/// Before a list of labels.
const BEFORE_LABELS: [&str; 6] = [
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
];
/// Functions whose first text is the name of a label that they make.
const MAKERS: [&str; 3] = ["count_values", "label_replace", "label_join"];

/// Finds the names in a query that Prometheus takes.
pub fn names(query: &str) -> Names {
    let tokens = tokens(query);
    let mut names = Names::default();
    let mut at = 0;
    let mut makes = false;
    while let Some(token) = tokens.get(at) {
        at += 1;
        let next = tokens.get(at);
        let name = match token {
            Token::Text(text) if makes => {
                names.made.insert(text.clone());
                makes = false;
                continue;
            }
            Token::Name(name) => name,
            _ => continue,
        };
        if BEFORE_LABELS.contains(&name.as_str()) {
            while tokens.get(at).is_some_and(|t| *t != Token::Mark(')')) {
                if let Token::Name(label) = &tokens[at] {
                    names.grouping.insert(label.clone());
                }
                at += 1;
            }
            continue;
        }
        let grouped =
            matches!(next, Some(Token::Name(word)) if BEFORE_LABELS.contains(&word.as_str()));
        if grouped || next == Some(&Token::Mark('(')) {
            makes |= MAKERS.contains(&name.as_str());
            continue;
        }
        if WORDS.contains(&name.as_str()) {
            continue;
        }
        let mut labels = Vec::new();
        if next == Some(&Token::Mark('{')) {
            while tokens.get(at).is_some_and(|t| *t != Token::Mark('}')) {
                if let Token::Name(label) = &tokens[at] {
                    labels.push(label.clone());
                }
                at += 1;
            }
        }
        names.metrics.push((name.clone(), labels));
    }
    names
}

/// Numbers and durations are left out.
fn tokens(query: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = query.chars().peekable();
    let begins = |c: char| c.is_ascii_alphabetic() || c == '_' || c == ':';
    let goes_on = move |c: &char| begins(*c) || c.is_ascii_digit();
    while let Some(c) = rest.next() {
        match c {
            '"' | '\'' => {
                let mut text = String::new();
                while let Some(inner) = rest.next().filter(|&inner| inner != c) {
                    text.push(inner);
                    if inner == '\\' {
                        text.extend(rest.next());
                    }
                }
                tokens.push(Token::Text(text));
            }
            c if c.is_ascii_digit() => while rest.next_if(|c| goes_on(c) || *c == '.').is_some() {},
            c if begins(c) => {
                let mut name = String::from(c);
                while let Some(c) = rest.next_if(goes_on) {
                    name.push(c);
                }
                tokens.push(Token::Name(name));
            }
            c if c.is_whitespace() => {}
            c => tokens.push(Token::Mark(c)),
        }
    }
    tokens
}

#[test]
fn names_are_found_wherever_they_stand() {
    let set = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect::<BTreeSet<_>>();
    let found = names(
        "sum by (a, le) (rate(one_total{x=~\"y|z{}\", w!='v'}[5m])) / on (b) group_left () two:rate5m \
         and three == 1e3 or count_values by (c) (\"tier\", four and five{} > 0.5) unless vector(1)",
    );
    let metric = |name: &str, labels: &[&str]| {
        let labels = labels.iter().map(|&label| label.to_owned()).collect();
        (name.to_owned(), labels)
    };
    assert_eq!(
        found.metrics,
        [
            metric("one_total", &["x", "w"]),
            metric("two:rate5m", &[]),
            metric("three", &[]),
            metric("four", &[]),
            metric("five", &[]),
        ]
    );
    assert_eq!(found.grouping, set(&["a", "b", "c", "le"]));
    assert_eq!(found.made, set(&["tier"]));
}
