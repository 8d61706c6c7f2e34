//! The two dialects in which metrics are scraped, and the choice between them.
//!
//! The registry writes OpenMetrics 1.0. The older text format of Prometheus (0.0.4) is made from that, line by line:
//! there the metadata of a counter carries the name of its samples (`_total`), there are no units and no end mark, and
//! quotes in HELP stand as they are.

/// A dialect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `application/openmetrics-text; version=1.0.0`.
    OpenMetrics,
    /// `text/plain; version=0.0.4`.
    Text,
}

impl Dialect {
    /// The dialect that an `Accept` header prefers (RFC 9110, section 12.5.1); text where it does not say.
    #[must_use]
    pub fn accepted(accept: &str) -> Self {
        let (mut open_metrics, mut text) = (0.0, 0.0);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let quality = parts
                .filter_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok())
                .next()
                .unwrap_or(1.0);
            match kind.as_str() {
                "application/openmetrics-text" => open_metrics = quality.max(open_metrics),
                "text/plain" => text = quality.max(text),
                _ => {}
            }
        }
        if open_metrics > 0.0 && open_metrics >= text {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }

    /// The `Content-Type` of its bodies.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// A body in this dialect, made from OpenMetrics text.
    #[must_use]
    pub fn body(self, open_metrics: String) -> String {
        match self {
            Self::OpenMetrics => open_metrics,
            Self::Text => text(&open_metrics),
        }
    }
}

/// The Prometheus text format of what OpenMetrics says.
fn text(open_metrics: &str) -> String {
    let mut out = String::with_capacity(open_metrics.len() + open_metrics.len() / 16);
    // HELP comes first, and its name depends on the type, which comes second.
    let mut help: Option<(&str, &str)> = None;
    let mut push = |parts: &[&str]| {
        parts.iter().for_each(|part| out.push_str(part));
        out.push('\n');
    };
    for line in open_metrics.lines() {
        let Some(comment) = line.strip_prefix("# ") else {
            push(&[line]);
            continue;
        };
        let mut words = comment.splitn(3, ' ');
        let (what, name, rest) = (words.next(), words.next(), words.next());
        match (what, name, rest) {
            (Some("HELP"), Some(name), rest) => help = Some((name, rest.unwrap_or_default())),
            (Some("TYPE"), Some(name), Some(kind)) => {
                let (suffix, kind) = match kind {
                    "counter" => ("_total", "counter"),
                    "info" => ("_info", "gauge"),
                    "unknown" => ("", "untyped"),
                    other => ("", other),
                };
                if let Some((of, text)) = help.take()
                    && of == name
                {
                    push(&["# HELP ", name, suffix, " ", &text.replace("\\\"", "\"")]);
                }
                push(&["# TYPE ", name, suffix, " ", kind]);
            }
            // Units and the end mark are of OpenMetrics only.
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dialect_is_the_one_that_is_preferred() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,\
                          application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, dialect) in [
            (prometheus, Dialect::OpenMetrics),
            ("", Dialect::Text),
            ("*/*", Dialect::Text),
            ("text/plain", Dialect::Text),
            (
                "text/plain;version=0.0.4;q=0.9, application/openmetrics-text;q=0.1",
                Dialect::Text,
            ),
            ("Application/OpenMetrics-Text", Dialect::OpenMetrics),
            ("application/openmetrics-text;q=0", Dialect::Text),
            ("text/html,application/xhtml+xml,*/*;q=0.8", Dialect::Text),
        ] {
            assert_eq!(Dialect::accepted(accept), dialect, "{accept}");
        }
    }

    #[test]
    fn text_names_counters_by_their_samples() {
        let open_metrics = "# HELP varve_rpc Calls, \\\"all\\\".\n# TYPE varve_rpc counter\n\
            varve_rpc_total{code=\"OK\"} 3\n\
            # HELP varve_wait_seconds Time.\n# TYPE varve_wait_seconds histogram\n# UNIT varve_wait_seconds seconds\n\
            varve_wait_seconds_sum 1.5\n# TYPE up unknown\nup 1\n# EOF\n";
        let expected = "# HELP varve_rpc_total Calls, \"all\".\n# TYPE varve_rpc_total counter\n\
            varve_rpc_total{code=\"OK\"} 3\n\
            # HELP varve_wait_seconds Time.\n# TYPE varve_wait_seconds histogram\n\
            varve_wait_seconds_sum 1.5\n# TYPE up untyped\nup 1\n";
        assert_eq!(Dialect::Text.body(open_metrics.to_owned()), expected);
        assert_eq!(
            Dialect::OpenMetrics.body(open_metrics.to_owned()),
            open_metrics
        );
    }
}
