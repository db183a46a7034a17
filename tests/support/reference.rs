//! `docs/reference.md`: the tables of `src/config/keys.md`, with what the JSON Schema says that each key
//! takes, and a heading for each table that is inside of another one.

use serde_json::Value;

/// One row of the tables that are written by hand.
struct Row<'a> {
    key: &'a str,
    takes: &'a str,
    default: &'a str,
    meaning: &'a str,
}

/// The page, of what was written by hand and the schema of both kinds of files.
pub fn page(sources: &[(&str, &Value)]) -> String {
    let mut page = String::new();
    for (source, schema) in sources {
        let rows = rows(source);
        for part in parts(source) {
            match part {
                Part::Text(text) => {
                    page.push_str(text);
                    page.push('\n');
                }
                Part::Table(range) => table(&mut page, &rows, range, schema),
            }
        }
        page.push('\n');
    }
    page.truncate(page.trim_end().len());
    page.push('\n');
    page
}

/// A line to be kept as it is, or a table by the numbers of its rows.
enum Part<'a> {
    Text(&'a str),
    Table(std::ops::Range<usize>),
}

const HEAD: &str = "| key | takes | default | meaning |";

fn parts(source: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut row = 0;
    let mut lines = source.lines().peekable();
    while let Some(line) = lines.next() {
        if line != HEAD {
            parts.push(Part::Text(line));
            continue;
        }
        lines.next();
        let begin = row;
        while lines.next_if(|line| line.starts_with('|')).is_some() {
            row += 1;
        }
        parts.push(Part::Table(begin..row));
    }
    parts
}

fn rows(source: &str) -> Vec<Row<'_>> {
    let lines = source.lines().filter(|line| line.starts_with("| `"));
    lines
        .map(|line| {
            let cells: Vec<&str> = line[2..].split(" |").map(str::trim).collect();
            let [key, takes, default, meaning, ""] = cells[..] else {
                panic!("not four cells: {line}");
            };
            Row {
                key: key.trim_matches('`'),
                takes,
                default,
                meaning,
            }
        })
        .collect()
}

/// What stands in front of the last part of a key.
fn above(key: &str) -> &str {
    key.rsplit_once('.').map_or("", |(above, _)| above)
}

/// The rows of one section, the tables inside of it under headings of their own.
fn table(page: &mut String, rows: &[Row], range: std::ops::Range<usize>, schema: &Value) {
    let section = &rows[range];
    let mut tables: Vec<&str> = Vec::new();
    for row in section {
        if !tables.contains(&above(row.key)) {
            tables.push(above(row.key));
        }
    }
    for (number, name) in tables.iter().enumerate() {
        if number > 0 {
            page.push_str(&format!("\n### `{name}`\n\n"));
        }
        page.push_str(&format!("{HEAD}\n|---|---|---|---|\n"));
        for row in section.iter().filter(|row| above(row.key) == *name) {
            let found = find(schema, row.key).unwrap_or_else(|| panic!("`{}` is no key", row.key));
            let elsewhere = elsewhere(row.key).and_then(|key| rows.iter().find(|r| r.key == key));
            let meaning = match (row.meaning, elsewhere) {
                ("", Some(elsewhere)) => elsewhere.meaning,
                (meaning, _) => meaning,
            };
            let mut takes = takes(&found);
            let hint = match (row.takes, elsewhere) {
                ("", Some(elsewhere)) => elsewhere.takes,
                (hint, _) => hint,
            };
            if !hint.is_empty() {
                // What the schema knows better is not said twice.
                let range = hint.contains(" to ");
                assert!(
                    ["text", "table", " to "]
                        .iter()
                        .any(|word| takes.contains(word))
                        && !range,
                    "`{}`: the schema says {takes}, and src/config/keys.md {hint}",
                    row.key
                );
                takes = hint.to_owned();
            }
            let default = match row.default {
                "as `[defaults]`" => "as [`[defaults]`](#defaults)",
                "as `[dns]`" => "as [`[dns]`](#dns)",
                default => default,
            };
            let takes = linked(&takes, row.key, rows);
            page.push_str(&format!(
                "| `{}` | {takes} | {default} | {meaning} |\n",
                row.key
            ));
        }
    }
    let text = page.replace("|  |", "| |").replace("|  |", "| |");
    *page = text;
}

/// Where a key of a service is explained that has no words of its own.
fn elsewhere(key: &str) -> Option<String> {
    let key = key.strip_prefix("service.")?;
    Some(match key.starts_with("dns") {
        true => key.to_owned(),
        false => format!("defaults.{key}"),
    })
}

/// `takes` with its word for a table leading to the heading of that table.
fn linked(takes: &str, key: &str, rows: &[Row]) -> String {
    let has_rows = |key: &str| rows.iter().any(|row| above(row.key) == key);
    let Some(inside) = [Some(key.to_owned()), elsewhere(key)]
        .into_iter()
        .flatten()
        .find(|key| has_rows(key))
    else {
        return takes.to_owned();
    };
    let anchor: String = inside.chars().filter(|c| *c != '.').collect();
    for word in ["tables", "table"] {
        if let Some((before, after)) = takes.split_once(word) {
            return format!("{before}[{word}](#{anchor}){after}");
        }
    }
    panic!("`{key}` has keys, and {takes} says nothing of a table");
}

/// The schema of a key.
fn find(schema: &Value, key: &str) -> Option<Value> {
    let (first, rest) = key
        .split_once('.')
        .map_or((key, None), |(f, r)| (f, Some(r)));
    let found = objects(schema)
        .into_iter()
        .find_map(|object| object["properties"].get(first).cloned())?;
    match rest {
        Some(rest) => find(&found, rest),
        None => Some(found),
    }
}

/// The tables that a value may be, or a list of which it may be.
fn objects(schema: &Value) -> Vec<&Value> {
    let own = schema.get("properties").map(|_| schema);
    let members = schema["anyOf"].as_array().into_iter().flatten();
    let inner = members.chain(schema.get("items")).flat_map(objects);
    own.into_iter().chain(inner).collect()
}

/// What a value has to be, in words.
pub fn takes(schema: &Value) -> String {
    let null = |schema: &&Value| schema["type"] != "null";
    let kinds: Vec<&Value> = match schema["anyOf"].as_array() {
        Some(members) => members.iter().filter(null).collect(),
        None => vec![schema],
    };
    let list = kinds.iter().find(|kind| is(kind, "array"));
    if let Some(list) = list {
        // One value stands for a list of one: what members are says all.
        let items = takes(&list["items"]);
        return match items == "table" {
            true => "tables".to_owned(),
            false => format!(
                "list of {}",
                items
                    .replace("address ", "addresses ")
                    .replace("addresses ranges", "address ranges")
            ),
        };
    }
    let words: Vec<String> = kinds.iter().filter_map(|kind| word(kind, &kinds)).collect();
    match words.split_last() {
        Some((last, others)) if last == "table" && !others.is_empty() => {
            format!("{} or a table", others.join(", "))
        }
        _ => words.join(", "),
    }
}

fn is(schema: &Value, kind: &str) -> bool {
    match &schema["type"] {
        Value::Array(kinds) => kinds.iter().any(|k| k == kind),
        other => other == kind,
    }
}

fn word(schema: &Value, beside: &[&Value]) -> Option<String> {
    if let Some(words) = schema["enum"].as_array() {
        let words = words.iter().filter(|word| !word.is_null());
        let words: Vec<String> = words.map(|word| format!("`{word}`")).collect();
        return Some(words.join(", "));
    }
    if let Some(value) = schema.get("const") {
        return Some(value.to_string());
    }
    if let Some(pattern) = schema["pattern"].as_str() {
        return Some(written(pattern).to_owned());
    }
    if is(schema, "boolean") {
        return Some("true, false".to_owned());
    }
    if is(schema, "object") {
        let pairs = schema["additionalProperties"].is_object();
        return Some(
            if pairs {
                "table of names and values"
            } else {
                "table"
            }
            .to_owned(),
        );
    }
    if is(schema, "integer") || is(schema, "number") {
        return match (schema.get("minimum"), schema.get("maximum")) {
            (Some(from), Some(to)) => {
                let plain = |n: &Value| n.to_string().trim_end_matches(".0").to_owned();
                Some(format!("{} to {}", plain(from), plain(to)))
            }
            // A size is a number of bytes, too.
            (Some(_), None) if beside.iter().any(|kind| kind.get("pattern").is_some()) => None,
            _ => panic!("a number without bounds: {schema}"),
        };
    }
    assert!(is(schema, "string"), "what is {schema}?");
    Some("text".to_owned())
}

/// What the schema's regular expressions stand for.
fn written(pattern: &str) -> &'static str {
    match pattern {
        r"^\s*([0-9]+(\.[0-9]+)?\s*[a-zA-Zµ]+\s*)+$" => "duration",
        r"^\s*[0-9]+\s*([bB]|[kKmMgG]([iI]?[bB])?)?\s*$" => "size",
        r"^[0-9a-fA-F:.]+(/[0-9]{1,3})?$" => "address ranges",
        r"^\s*[1-5](xx|[0-9]{2}(\s*-\s*[1-5][0-9]{2})?)\s*$" => "`\"502-504\"`, `\"5xx\"`",
        r"^([0-9.]+|\[[0-9a-fA-F:.%]+\]):[0-9]{1,5}$" => "address of a backend",
        r"^([0-9.]*|\[[0-9a-fA-F:.%]+\]):[0-9]{1,5}$" => "address to listen on",
        r"^\[?[0-9a-fA-F:.%]+\]?(:[0-9]{1,5})?$" => "address of a name server",
        "^/" => "path (of a URL)",
        "^[!-~]*$" => "a service's name",
        pattern if pattern.starts_with("^(address|path|(header|cookie)") => {
            "`\"address\"`, `\"path\"`, `\"header:NAME\"`, `\"cookie:NAME\"`"
        }
        pattern if pattern.starts_with("^(address|header:") => "`\"address\"`, `\"header:NAME\"`",
        pattern => panic!("tests/support/reference.rs does not know what {pattern} stands for"),
    }
}
