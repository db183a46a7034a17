//! The page in the older text format of Prometheus (0.0.4), for whoever does not ask for OpenMetrics:
//! `curl`, `promtool check metrics`, agents that know nothing else. Pure.
//!
//! The two differ in how a counter and an info are declared, and in the mark at the end.

/// Of the older format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// An OpenMetrics page in the older format.
pub fn classic(open_metrics: &str) -> String {
    let mut page = String::with_capacity(open_metrics.len() + open_metrics.len() / 32);
    let mut lines = open_metrics.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(comment) = line.strip_prefix("# ") else {
            page.push_str(line);
            page.push('\n');
            continue;
        };
        // A help text comes before the type that says what the family's name is to be.
        let mut words = comment.splitn(3, ' ');
        let (keyword, name, text) = (words.next(), words.next(), words.next());
        let kind = match keyword {
            Some("TYPE") => text,
            Some("HELP") => {
                let next = lines.peek().and_then(|line| line.strip_prefix("# TYPE "));
                next.and_then(|declared| declared.strip_prefix(name?)?.strip_prefix(' '))
            }
            // A unit, or the end.
            _ => continue,
        };
        let (ending, kind) = match kind {
            Some("counter") => ("_total", "counter"),
            Some("info") => ("_info", "gauge"),
            Some("unknown") => ("", "untyped"),
            other => ("", other.unwrap_or_default()),
        };
        let text = match keyword {
            Some("TYPE") => kind,
            _ => text.unwrap_or_default(),
        };
        let (keyword, name) = (keyword.unwrap_or_default(), name.unwrap_or_default());
        page.push_str(&format!("# {keyword} {name}{ending} {text}\n"));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declarations_name_what_is_below_them() {
        let open_metrics = "\
# HELP a Things that were done.
# TYPE a counter
a_total{x=\"# y\"} 1
# HELP b_seconds How long.
# TYPE b_seconds histogram
# UNIT b_seconds seconds
b_seconds_bucket{le=\"+Inf\"} 1
# TYPE c info
c_info{v=\"1\"} 1
# HELP d Now.
# TYPE d gauge
d 2
# EOF
";
        let expected = "\
# HELP a_total Things that were done.
# TYPE a_total counter
a_total{x=\"# y\"} 1
# HELP b_seconds How long.
# TYPE b_seconds histogram
b_seconds_bucket{le=\"+Inf\"} 1
# TYPE c_info gauge
c_info{v=\"1\"} 1
# HELP d Now.
# TYPE d gauge
d 2
";
        assert_eq!(classic(open_metrics), expected);
    }
}
