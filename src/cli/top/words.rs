//! Numbers, times and states as `top` writes them: short, and of a width that does not jump.

/// Where nothing is known.
pub const NONE: &str = "-";

/// Three digits or so.
pub fn number(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{:.1}M", v / 1e6),
        v if v >= 1e4 => format!("{:.1}k", v / 1e3),
        v if v >= 100.0 || v.fract() == 0.0 => format!("{v:.0}"),
        v => format!("{v:.1}"),
    }
}

/// A number that may not be known.
pub fn maybe(value: Option<f64>) -> String {
    value.map_or_else(|| NONE.to_owned(), number)
}

/// A time of milliseconds.
pub fn milliseconds(value: Option<f64>) -> String {
    match value {
        None => NONE.to_owned(),
        Some(v) if v >= 1000.0 => format!("{:.1}s", v / 1000.0),
        Some(v) if v >= 100.0 => format!("{v:.0}ms"),
        Some(v) => format!("{v:.1}ms"),
    }
}

/// A share of 1.
pub fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| NONE.to_owned(), |share| format!("{:.1}%", share * 100.0))
}

/// A time of seconds, in at most two units.
pub fn span(seconds: f64) -> String {
    let s = seconds.max(0.0).round() as u64;
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m{:02}s", s / 60, s % 60),
        3600..86400 => format!("{}h{:02}m", s / 3600, s % 3600 / 60),
        _ => format!("{}d", s / 86400),
    }
}

/// The time of day of an RFC 3339 time, as it stands there: UTC.
pub fn clock(at: &str) -> &str {
    at.get(11..19).unwrap_or(at)
}

/// A sign for each state of a backend: they differ without colours too.
pub fn sign(state: &str) -> &'static str {
    match state {
        "up" => "●",
        "passed_over" => "▲",
        "ejected" => "✗",
        "trial" => "◐",
        "down" => "■",
        "drained" => "○",
        _ => "?",
    }
}

/// Why a backend is not up, in words.
pub fn reason(reason: &str) -> &str {
    match reason {
        "unchecked" => "not checked yet",
        "check_connect" => "check: cannot connect",
        "check_timeout" => "check: no answer in time",
        "check_answer" => "check: wrong answer",
        "failures" => "failures in a row",
        "success_rate" => "low success rate",
        "connect" => "connects fail",
        "by_hand" => "drained by hand",
        other => other,
    }
}

/// At most `width` characters, the last of them an ellipsis where something is cut off.
pub fn fit(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept = text.chars().take(width.saturating_sub(1));
    kept.chain((width > 0).then_some('…')).collect()
}

/// One bar for two shares, in cells: what is measured is full, what is configured and not reached
/// is shaded, what goes beyond shows behind a line.
pub fn bar(configured: f64, measured: f64, most: f64, width: usize) -> String {
    let cells = |share: f64| (share / most * width as f64).round() as usize;
    let (should, is) = (cells(configured).min(width), cells(measured).min(width));
    let cell = |at: usize| match at {
        at if at == should && is > should => '▌',
        at if at < is => '█',
        at if at < should => '░',
        _ => ' ',
    };
    (0..width).map(cell).collect()
}

/// The height of the latest values, from zero, one character each.
pub fn spark(values: &[f64], width: usize) -> String {
    const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let values = &values[values.len().saturating_sub(width)..];
    let most = values.iter().copied().fold(0.0, f64::max);
    let height = |value: f64| match most > 0.0 {
        true => HEIGHTS[((value / most * 7.0).round() as usize).min(7)],
        false => HEIGHTS[0],
    };
    values.iter().map(|value| height(*value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_short() {
        for (value, said) in [
            (0.0, "0"),
            (0.25, "0.2"),
            (7.0, "7"),
            (99.95, "100.0"),
            (412.4, "412"),
            (9999.0, "9999"),
            (65536.0, "65.5k"),
            (2.5e6, "2.5M"),
        ] {
            assert_eq!(number(value), said);
        }
        assert_eq!(milliseconds(Some(7.45)), "7.5ms");
        assert_eq!(milliseconds(Some(61000.0)), "61.0s");
        assert_eq!(percent(Some(0.333)), "33.3%");
        assert_eq!(percent(None), NONE);
    }

    #[test]
    fn spans_have_two_units_at_most() {
        for (seconds, said) in [
            (-1.0, "0s"),
            (59.4, "59s"),
            (61.0, "1m01s"),
            (7260.0, "2h01m"),
            (3.6e6, "41d"),
        ] {
            assert_eq!(span(seconds), said);
        }
    }

    #[test]
    fn what_is_cut_off_shows() {
        assert_eq!(fit("backend", 7), "backend");
        assert_eq!(fit("backend", 4), "bac…");
        assert_eq!(fit("backend", 0), "");
    }

    #[test]
    fn a_bar_shows_both_shares() {
        assert_eq!(bar(0.6, 0.6, 1.0, 10), "██████    ");
        assert_eq!(bar(0.6, 0.4, 1.0, 10), "████░░    ");
        assert_eq!(bar(0.4, 0.8, 1.0, 10), "████▌███  ");
        assert_eq!(bar(1.0, 0.0, 1.0, 4), "░░░░");
    }

    #[test]
    fn a_spark_shows_the_latest() {
        assert_eq!(spark(&[9.0, 0.0, 1.0, 2.0], 3), "▁▅█");
        assert_eq!(spark(&[0.0, 0.0], 3), "▁▁");
    }
}
