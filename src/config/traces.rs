//! `[traces]`: where spans go, and of which requests.
//!
//! Only a build with the feature `otel` can export them; any other refuses the table, because taking it
//! and doing nothing would be worse.

use http::Uri;
use serde_json::{Value, json};

use super::diagnostics::{Problem, Problems};
use super::read::{At, Refusal, Scalar, table};

/// Where spans go, and of which requests.
#[derive(Debug, Clone, PartialEq)]
pub struct Traces {
    /// `http://` or `https://` address of the collector, without `/v1/traces`; `None`: as the
    /// environment says, else this machine.
    pub endpoint: Option<Box<str>>,
    /// Share of the requests that are recorded where nobody has decided yet: 0 to 1.
    pub ratio: f64,
}

impl Default for Traces {
    /// All requests, to where the environment says.
    fn default() -> Self {
        Traces {
            endpoint: None,
            ratio: 1.0,
        }
    }
}

table! {
    /// `[traces]`
    pub(super) struct TracesTable = "[traces]" {
        "endpoint" => endpoint: At<String>,
        "ratio" => ratio: At<Ratio>,
    }
    later []
}

/// A share of something.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ratio(pub f64);

impl Scalar for Ratio {
    const EXPECTS: &'static str = "a number from 0 to 1";

    fn schema() -> Value {
        json!({ "type": "number", "minimum": 0, "maximum": 1 })
    }

    fn from_text(_: &str) -> Result<Self, Refusal> {
        Err(Refusal::kind())
    }

    fn from_integer(n: i64) -> Result<Self, Refusal> {
        Self::from_fraction(n as f64)
    }

    fn from_fraction(x: f64) -> Result<Self, Refusal> {
        match (0.0..=1.0).contains(&x) {
            true => Ok(Ratio(x)),
            false => Err(Refusal::because(format!("{x} is not between 0 and 1"))),
        }
    }

    fn from_word(word: &str) -> Result<Self, Refusal> {
        let ratio = word.parse().map_err(|_| Refusal::kind())?;
        Self::from_fraction(ratio)
    }
}

pub(super) fn build(raw: &TracesTable, problems: &mut Problems) -> Traces {
    if !cfg!(feature = "otel") {
        let title = "this build does not export traces";
        problems.push(Problem::error(raw.span, title).help(
            "one with the feature has it: cargo build --release --features otel; \
             `traceparent` is passed on by every build",
        ));
    }
    if let Some(at) = &raw.endpoint
        && !is_endpoint(&at.value)
    {
        let title = format!("`{}` is not the address of a collector", at.value);
        problems.push(
            Problem::error(at.span, title)
                .help("OTLP over HTTP, such as \"http://127.0.0.1:4318\"; /v1/traces is appended"),
        );
    }
    Traces {
        endpoint: raw.endpoint.as_ref().map(|at| at.value.as_str().into()),
        ratio: raw.ratio.as_ref().map_or(1.0, |at| at.value.0),
    }
}

fn is_endpoint(text: &str) -> bool {
    let Ok(uri) = text.parse::<Uri>() else {
        return false;
    };
    let has_host = uri.authority().is_some_and(|a| !a.host().is_empty());
    matches!(uri.scheme_str(), Some("http" | "https")) && has_host && uri.query().is_none()
}

#[cfg(test)]
mod tests {
    use crate::config::{Traces, from_toml_str};

    fn load(traces: &str) -> Result<Option<Traces>, String> {
        let loaded = from_toml_str(&format!(
            r#"
            {traces}
            [[listener]]
            address = "127.0.0.1:0"
            protocol = "http"
            [[service]]
            name = "a"
            discover = {{ static = "127.0.0.1:1" }}
            [[route]]
            service = "a"
            "#
        ));
        let config = loaded.map_err(|diagnostic| diagnostic.to_string())?;
        Ok(config.traces)
    }

    #[test]
    fn only_a_build_with_the_feature_takes_it() {
        assert_eq!(load(""), Ok(None));
        let written = "traces = { endpoint = \"http://[::1]:4318\", ratio = 0.25 }";
        let taken = load(written);
        if cfg!(feature = "otel") {
            let endpoint = Some("http://[::1]:4318".into());
            let ratio = 0.25;
            assert_eq!(taken, Ok(Some(Traces { endpoint, ratio })));
            assert_eq!(load("traces = {}"), Ok(Some(Traces::default())));
            return;
        }
        let refused = taken.unwrap_err();
        for said in ["this build does not export traces", "--features otel"] {
            assert!(refused.contains(said), "{refused}");
        }
    }

    #[test]
    fn what_is_no_collector_and_no_share_is_refused() {
        for (key, said) in [
            (
                "endpoint = \"localhost:4318\"",
                "is not the address of a collector",
            ),
            (
                "endpoint = \"grpc://a:4317\"",
                "is not the address of a collector",
            ),
            (
                "endpoint = \"http://a/?b\"",
                "is not the address of a collector",
            ),
            ("ratio = 1.5", "1.5 is not between 0 and 1"),
            ("ratio = \"all\"", "is not a number from 0 to 1"),
        ] {
            let refused = load(&format!("traces = {{ {key} }}")).unwrap_err();
            assert!(refused.contains(said), "{refused}");
        }
    }
}
