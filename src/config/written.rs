//! The configuration as it was written, for whoever asks what is in effect: the file with what the
//! environment and flags changed, without secrets.
//!
//! Secrets are always files, so what a configuration holds of them is what it matches or sends in
//! header fields, and what somebody wrote into a URL.

use std::path::PathBuf;

use serde_json::{Map, Number, Value as Json};

use super::tree::{Node, Value};

/// What stands in place of a secret.
pub(super) const REDACTED: &str = "redacted";

/// Words in the name of a header field that make its value a secret.
const SECRET: &[&str] = &[
    "authorization",
    "cookie",
    "token",
    "secret",
    "password",
    "key",
    "session",
];

/// Where the configuration came from, and what it was.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Written {
    /// The file; `None`: a text, or flags.
    pub file: Option<PathBuf>,
    /// Its keys, an object.
    pub tree: Json,
}

/// The tree without secrets.
pub(super) fn redacted(root: &Node) -> Json {
    json(root, Within::Keys)
}

/// What the names in a table are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Within {
    /// Keys of ours.
    Keys,
    /// Names of header fields.
    Fields,
}

fn json(node: &Node, within: Within) -> Json {
    match &node.value {
        Value::Null | Value::Other(_) => Json::Null,
        Value::Bool(truth) => Json::Bool(*truth),
        Value::Integer(n) => Json::Number((*n).into()),
        Value::Fraction(n) => Number::from_f64(*n).map_or(Json::Null, Json::Number),
        Value::Text(text) | Value::Word(text) => Json::String(without_userinfo(text)),
        Value::List(list) => list.iter().map(|node| json(node, within)).collect(),
        Value::Table(entries) => {
            let mut object = Map::new();
            for entry in entries {
                // `set` and `add` are those of `request_headers` and `response_headers`.
                let inner = match entry.key.as_str() {
                    "headers" | "query" | "set" | "add" => Within::Fields,
                    _ => Within::Keys,
                };
                let value = match within == Within::Fields && is_secret(&entry.key) {
                    true => Json::String(REDACTED.to_owned()),
                    false => json(&entry.value, inner),
                };
                object.insert(entry.key.clone(), value);
            }
            Json::Object(object)
        }
    }
}

/// Is the value of a header field of that name one?
pub(super) fn is_secret(field: &str) -> bool {
    let field = field.to_ascii_lowercase();
    SECRET.iter().any(|word| field.contains(word))
}

/// `https://user:password@host` without what stands before the `@`.
fn without_userinfo(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => format!("{scheme}://{REDACTED}{}", &rest[at..]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Format, Loader};

    #[test]
    fn what_is_written_is_shown_with_flags_over_it_and_without_secrets() {
        let text = r#"
            listener = [{ address = "127.0.0.1:0", protocol = "http" }]
            service = [{ name = "a", discover = { static = ["10.0.0.7:80"] } }]
            [[route]]
            service = "a"
            headers = { "X-Api-Key" = "s3cret", "X-Version" = "2" }
            query = { token = { prefix = "s3cret" } }
            request_headers = { set = { Authorization = "s3cret" }, add = { Cookie = "s3cret" } }
        "#;
        let loader = Loader::text(text, Format::Toml).set("log.level=debug");
        let written = loader.load().expect("it loads").config.written;
        assert_eq!(written.file, None);
        let tree = &written.tree;
        assert_eq!(tree["log"]["level"], "debug");
        assert_eq!(tree["service"][0]["name"], "a");
        let headers = &tree["route"][0]["headers"];
        assert_eq!(headers["X-Version"], "2");
        assert_eq!(headers["X-Api-Key"], REDACTED);
        assert!(!tree.to_string().contains("s3cret"));
    }

    #[test]
    fn a_url_is_shown_without_who_asks() {
        for (written, shown) in [
            ("https://me:pw@example/x@y", "https://redacted@example/x@y"),
            ("https://example/x@y", "https://example/x@y"),
            ("me@example", "me@example"),
        ] {
            assert_eq!(without_userinfo(written), shown);
        }
    }
}
