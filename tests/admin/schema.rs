//! `docs/openapi.json`, and whether a value is as it says. As much of JSON Schema as that file uses;
//! stricter in one thing: what is not described must not be there.

use std::collections::BTreeSet;

use serde_json::Value;

pub struct Contract(Value);

impl Contract {
    pub fn read() -> Contract {
        let text = std::fs::read_to_string("docs/openapi.json").expect("it is in the repository");
        Contract(serde_json::from_str(&text).expect("it is JSON"))
    }

    /// Method and path of each operation.
    pub fn operations(&self) -> BTreeSet<(String, String)> {
        let paths = self.0["paths"].as_object().expect("there are paths");
        let operations = paths.iter().flat_map(|(path, operations)| {
            let methods = operations.as_object().expect("there are operations").keys();
            methods.map(move |method| (method.to_ascii_uppercase(), path.clone()))
        });
        operations.collect()
    }

    pub fn schema(&self, name: &str) -> &Value {
        &self.0["components"]["schemas"][name]
    }

    /// Panics unless the answer to that operation may be so.
    pub fn check(&self, method: &str, path: &str, status: u16, value: &Value) {
        let operation = &self.0["paths"][path][method.to_ascii_lowercase()];
        let response = self.resolved(&operation["responses"][status.to_string()]);
        let schema = &response["content"]["application/json"]["schema"];
        // What any request may be answered with is said once, in the introduction.
        let schema = match (schema.is_null(), status) {
            (true, 400 | 403 | 405 | 408 | 414 | 429 | 431 | 503) => self.schema("Error"),
            _ => schema,
        };
        assert!(
            !schema.is_null(),
            "{method} {path}: {status} is not described"
        );
        self.compare(schema, value, &format!("{method} {path} {status}"));
    }

    pub fn check_as(&self, name: &str, value: &Value) {
        self.compare(self.schema(name), value, name);
    }

    fn resolved<'v>(&'v self, value: &'v Value) -> &'v Value {
        let Some(reference) = value["$ref"].as_str() else {
            return value;
        };
        let pointer = reference.strip_prefix('#').expect("it is in this file");
        self.0
            .pointer(pointer)
            .expect("what is referred to is there")
    }

    fn compare(&self, schema: &Value, value: &Value, at: &str) {
        let wrong = self.wrong(self.resolved(schema), value, at);
        assert!(
            wrong.is_none(),
            "{}\nin {value:#}",
            wrong.unwrap_or_default()
        );
    }

    /// What is wrong with it, if anything is.
    fn wrong(&self, schema: &Value, value: &Value, at: &str) -> Option<String> {
        let schema = self.resolved(schema);
        if let Some(any) = schema["anyOf"].as_array() {
            let wrongs: Vec<_> = any.iter().map(|one| self.wrong(one, value, at)).collect();
            return match wrongs.iter().any(Option::is_none) {
                true => None,
                false => wrongs.into_iter().next().flatten(),
            };
        }
        let types: Vec<&str> = match &schema["type"] {
            Value::String(one) => vec![one],
            Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
            other => panic!("{at}: the file says no type: {other}"),
        };
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(n) if n.is_u64() || n.is_i64() => "integer",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        let fits = types.contains(&kind) || (kind == "integer" && types.contains(&"number"));
        if !fits {
            return Some(format!("{at}: {kind} where {types:?} are expected"));
        }
        if let Some(words) = schema["enum"].as_array()
            && !words.contains(value)
        {
            return Some(format!("{at}: {value} is none of {words:?}"));
        }
        match value {
            Value::Number(number) => {
                let (number, bound) = (number.as_f64()?, |name: &str| schema[name].as_f64());
                let low = bound("minimum").is_some_and(|least| number < least);
                let high = bound("maximum").is_some_and(|most| number > most);
                (low || high).then(|| format!("{at}: {number} is out of bounds"))
            }
            Value::String(text) if schema["format"] == "date-time" => {
                let parsed = humantime::parse_rfc3339(text);
                parsed.err().map(|error| format!("{at}: {text}: {error}"))
            }
            Value::Array(items) => {
                let items = items.iter().enumerate();
                let mut items = items
                    .map(|(n, item)| self.wrong(&schema["items"], item, &format!("{at}[{n}]")));
                items.find_map(|wrong| wrong)
            }
            Value::Object(fields) => {
                let Some(properties) = schema["properties"].as_object() else {
                    // A free one.
                    return None;
                };
                let required = schema["required"].as_array().into_iter().flatten();
                let missing = required
                    .filter_map(Value::as_str)
                    .find(|name| !fields.contains_key(*name));
                if let Some(name) = missing {
                    return Some(format!("{at}: no `{name}`"));
                }
                let mut fields = fields.iter();
                fields.find_map(|(name, value)| match properties.get(name) {
                    Some(property) => self.wrong(property, value, &format!("{at}.{name}")),
                    None => Some(format!("{at}: `{name}` is not described")),
                })
            }
            _ => None,
        }
    }
}

#[test]
fn what_is_wrong_is_found() {
    let contract = Contract::read();
    let right = serde_json::json!({ "error": { "code": "not_found", "message": "x" } });
    let wrong = |value: &Value| contract.wrong(contract.schema("Error"), value, "x");
    assert_eq!(wrong(&right), None);
    for (pointer, value) in [
        ("/error", Value::Null),
        ("/error/code", "other".into()),
        ("/error/message", 1.into()),
        ("/error", serde_json::json!({ "code": "not_found" })),
        (
            "/error",
            serde_json::json!({ "code": "not_found", "message": "", "more": 1 }),
        ),
    ] {
        let mut broken = right.clone();
        *broken.pointer_mut(pointer).expect("it is there") = value;
        assert!(wrong(&broken).is_some(), "{broken}");
    }
    let check = serde_json::json!({ "at": "yesterday", "passed": true, "reason": null });
    assert!(
        contract
            .wrong(contract.schema("Check"), &check, "x")
            .is_some()
    );
}
