//! Any text as a configuration, in each format, with a setting over it: it loads or says why, and
//! what loads routes.
#![no_main]

use evenkeel::config::{Format, Loader};
use evenkeel::router::Router;
use libfuzzer_sys::fuzz_target;

// T, Y or J for the format, the text, and after a NUL a setting.
fuzz_target!(|input: &str| {
    let (format, text) = match input.split_at_checked(1) {
        Some(("T", text)) => (Format::Toml, text),
        Some(("Y", text)) => (Format::Yaml, text),
        Some(("J", text)) => (Format::Json, text),
        _ => return,
    };
    let (text, flag) = text.split_once('\0').unwrap_or((text, ""));
    let mut loader = Loader::text(text, format);
    if !flag.is_empty() {
        loader = loader.set(flag);
    }
    match loader.load() {
        Ok(loaded) => {
            let router = Router::new(&loaded.config);
            // Each route is found by what it asks for, or by one that goes before it.
            for route in &loaded.config.routes {
                use evenkeel::config::HostPattern;
                let host = match &route.host {
                    HostPattern::Any => String::new(),
                    HostPattern::Exact(host) => host.to_string(),
                    HostPattern::Wildcard(suffix) => format!("x.{suffix}"),
                };
                use evenkeel::config::Wanted;
                let value = |wanted: &Wanted| match wanted {
                    Wanted::Value(text) | Wanted::Prefix(text) => Some(text.to_string()),
                    Wanted::Present => Some("x".to_owned()),
                    Wanted::Absent => None,
                };
                let conditions = &route.conditions;
                let mut fields = evenkeel::http::headers::Fields::default();
                for (name, wanted) in &conditions.headers {
                    if let Some(value) = value(wanted) {
                        fields.push(name.as_bytes(), value.as_bytes());
                    }
                }
                let escaped = |text: &str| -> String {
                    text.bytes().map(|b| format!("%{b:02x}")).collect()
                };
                let mut query = "?".to_owned();
                for (name, wanted) in &conditions.query {
                    if let Some(value) = value(wanted) {
                        query += &format!("{}={}&", escaped(name), escaped(&value));
                    }
                }
                let listener = route.listeners.first().copied().unwrap_or(0);
                let found = router.route(evenkeel::router::Request {
                    listener,
                    method: conditions.methods.first().map_or("GET", |m| m).as_bytes(),
                    host: &host,
                    path: route.path.as_bytes(),
                    query: query.as_bytes(),
                    fields: &fields,
                });
                assert!(found.is_some(), "{}", route.label);
            }
        }
        Err(diagnostic) => {
            assert!(!diagnostic.is_empty());
            // Drawing it must not panic either, whatever the places are.
            assert!(!diagnostic.to_string().is_empty());
        }
    }
});
