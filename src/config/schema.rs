//! JSON Schema of the files, for editors: made of the same tables that read them, so it cannot say
//! otherwise. What each key means is taken from `keys.md`.
//!
//! Draft 7, since that is what editors know; nothing is referred to, for the same reason. It knows
//! how values are written and which keys there are. What depends on more than one value is for
//! `evenkeel check`.

use serde_json::{Map, Value, json};

/// That of a whole file; the documentation has its keys in tables.
pub(super) fn whole(title: &str, mut schema: Value, documentation: &str) -> Value {
    describe(&mut schema, "", &Meanings::of(documentation));
    schema["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    schema["title"] = json!(title);
    schema
}

/// A table with these keys and no others.
pub(super) fn table(
    keys: impl IntoIterator<Item = (&'static str, Value)>,
    required: &[&str],
) -> Value {
    let keys: Map<String, Value> = keys
        .into_iter()
        .map(|(key, value)| match required.contains(&key) {
            true => (key.to_owned(), value),
            false => (key.to_owned(), or_nothing(value)),
        })
        .collect();
    let mut table = json!({
        "type": "object",
        "properties": keys,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        table["required"] = json!(required);
    }
    table
}

/// A table whose keys are the user's own words.
pub(super) fn pairs(value: Value) -> Value {
    json!({ "type": "object", "additionalProperties": value })
}

/// A list, or one value that stands for a list of one.
pub(super) fn list(member: Value) -> Value {
    any(vec![
        member.clone(),
        json!({ "type": "array", "items": member }),
    ])
}

/// One of these words.
pub(super) fn words(words: &[&str]) -> Value {
    json!({ "enum": words })
}

/// Text that this regular expression finds something in.
pub(super) fn pattern(pattern: &str) -> Value {
    json!({ "type": "string", "pattern": pattern })
}

/// One of these.
pub(super) fn any(of: Vec<Value>) -> Value {
    let flat: Vec<Value> = of
        .into_iter()
        .flat_map(|schema| match schema {
            Value::Object(mut object) if object.contains_key("anyOf") => {
                match object.remove("anyOf") {
                    Some(Value::Array(members)) => members,
                    _ => Vec::new(),
                }
            }
            schema => vec![schema],
        })
        .collect();
    json!({ "anyOf": flat })
}

/// The same, or nothing, as YAML and JSON can say it: the same as leaving the key out.
fn or_nothing(mut schema: Value) -> Value {
    if let Some(Value::Array(members)) = schema.get_mut("anyOf") {
        members.push(json!({ "type": "null" }));
    } else if let Some(Value::Array(words)) = schema.get_mut("enum") {
        words.push(Value::Null);
    } else if let Some(kind) = schema.get("type").cloned() {
        schema["type"] = json!([kind, "null"]);
    }
    schema
}

/// Puts what the documentation says beside each key.
fn describe(schema: &mut Value, above: &str, meanings: &Meanings) {
    match schema {
        Value::Array(members) => {
            for member in members {
                describe(member, above, meanings);
            }
        }
        Value::Object(object) => {
            if let Some(Value::Object(keys)) = object.get_mut("properties") {
                for (key, value) in keys {
                    let path = format!("{above}{key}");
                    describe(value, &format!("{path}."), meanings);
                    if let Some(meaning) = meanings.of_key(&path) {
                        value["description"] = json!(meaning);
                    }
                }
            }
            for inner in ["anyOf", "items"] {
                if let Some(inner) = object.get_mut(inner) {
                    describe(inner, above, meanings);
                }
            }
        }
        _ => {}
    }
}

/// The rows of the documentation's tables of keys.
struct Meanings<'a>(Vec<Row<'a>>);

/// One row, such as `| key | takes | default | meaning |`; the first row of a table says.
struct Row<'a> {
    key: &'a str,
    default: &'a str,
    meaning: &'a str,
}

impl<'a> Meanings<'a> {
    fn of(documentation: &'a str) -> Meanings<'a> {
        let mut columns = (0, 0);
        let rows = documentation.lines().filter_map(|line| {
            let cells: Vec<&str> = line
                .strip_prefix("| ")?
                .split(" |")
                .map(str::trim)
                .collect();
            if cells[0] == "key" {
                let column = |name| cells.iter().position(|cell| *cell == name);
                columns = (column("default")?, column("meaning")?);
                return None;
            }
            let key = cells[0].strip_prefix('`')?.strip_suffix('`')?;
            let (default, meaning) = (cells.get(columns.0)?, cells.get(columns.1)?);
            Some(Row {
                key,
                default,
                meaning,
            })
        });
        Meanings(rows.collect())
    }

    fn row(&self, key: &str) -> Option<&Row<'a>> {
        self.0.iter().find(|row| row.key == key)
    }

    /// What a key means. A service's keys that are explained elsewhere are looked up there.
    fn of_key(&self, path: &str) -> Option<String> {
        let elsewhere = path.strip_prefix("service.").and_then(|key| {
            let own = key.starts_with("dns.").then(|| key.to_owned());
            own.or_else(|| Some(format!("defaults.{key}")))
        });
        let elsewhere = elsewhere.as_deref().and_then(|key| self.row(key));
        let (own, elsewhere) = (self.row(path).or(elsewhere)?, elsewhere);
        let explained = [Some(own), elsewhere].into_iter().flatten();
        let meaning = explained
            .map(|row| row.meaning)
            .find(|text| !text.is_empty());
        let default = match own.default {
            "" | "required" => String::new(),
            default => format!("Default: {}.", plain(default)),
        };
        let text = [
            meaning.map(|text| format!("{}.", plain(text))),
            Some(default),
        ];
        let text: Vec<String> = text
            .into_iter()
            .flatten()
            .filter(|t| !t.is_empty())
            .collect();
        (!text.is_empty()).then(|| text.join(" "))
    }
}

/// Markdown without its links, and without the full stop.
fn plain(markdown: &str) -> String {
    let mut text = String::new();
    let mut rest = markdown;
    while let Some((before, link)) = rest.split_once('[') {
        text.push_str(before);
        match link
            .split_once("](")
            .and_then(|(label, rest)| Some((label, rest.split_once(')')?.1)))
        {
            // A list such as `["websocket"]` is no link.
            Some((label, after)) if !label.contains(']') => {
                text.push_str(label);
                rest = after;
            }
            _ => {
                text.push('[');
                rest = link;
            }
        }
    }
    text.push_str(rest);
    text.trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::{CONFIGURATION_KEYS, ZONE_KEYS, json_schema, zone_json_schema};

    #[test]
    fn links_are_left_out_and_lists_are_not() {
        let text = "a ([how](x.md#y)), `[\"b\"]` and [c](d).";
        assert_eq!(plain(text), "a (how), `[\"b\"]` and c");
    }

    /// `visit` gets each table of a schema with the path of its keys.
    fn tables(schema: &Value, above: &str, visit: &mut impl FnMut(&Value, &str)) {
        if let Some(keys) = schema.get("properties").and_then(Value::as_object) {
            visit(schema, above);
            for (key, value) in keys {
                tables(value, &format!("{above}{key}."), visit);
            }
        }
        for member in schema
            .get("anyOf")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            tables(member, above, visit);
        }
        if let Some(items) = schema.get("items") {
            tables(items, above, visit);
        }
    }

    /// What the tables call required, the documentation does.
    #[test]
    fn what_is_required_is_said() {
        for (schema, page) in [
            (json_schema(), CONFIGURATION_KEYS),
            (zone_json_schema(), ZONE_KEYS),
        ] {
            let meanings = Meanings::of(page);
            let mut looked_at = 0;
            tables(&schema, "", &mut |table, above| {
                let required = table.get("required").and_then(Value::as_array);
                let required =
                    |key: &str| required.is_some_and(|keys| keys.iter().any(|k| k == key));
                for key in table["properties"].as_object().expect("a table").keys() {
                    let path = format!("{above}{key}");
                    let Some(row) = meanings.row(&path) else {
                        continue;
                    };
                    let said = matches!(row.default, "required" | "at least one");
                    // What is explained elsewhere is called required there.
                    if !row.default.is_empty() {
                        assert_eq!(required(key), said, "{path}");
                        looked_at += 1;
                    }
                }
            });
            assert!(looked_at > 10, "{looked_at} keys");
        }
    }

    /// A key whose meaning is left to another row gets that one's.
    #[test]
    fn keys_say_what_they_mean() {
        let schema = json_schema();
        let of = |table: &str, key: &str| {
            let mut found = Vec::new();
            tables(&schema, "", &mut |schema, above| {
                let key = schema["properties"].get(key).filter(|_| above == table);
                found.extend(
                    key.and_then(|key| key["description"].as_str())
                        .map(str::to_owned),
                );
            });
            found.dedup();
            found
        };
        assert_eq!(
            of("probe.", "address"),
            ["`/livez`, `/readyz`, `/metrics`. Default: `\"127.0.0.1:9902\"`."]
        );
        assert_eq!(
            of("service.", "max_body"),
            ["a larger request body is a 413. Default: as `[defaults]`."]
        );
        assert_eq!(of("service.dns.", "min_ttl"), of("dns.", "min_ttl"));
        assert_eq!(of("service.discover.static.", "priority").len(), 1);
    }
}
