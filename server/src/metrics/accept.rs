//! Selects the format of a scrape (RFC 9110 §12.5.1).

use super::Format;

impl Format {
    /// The format that the sender of these `Accept` values prefers: OpenMetrics if it is named with a quality that is not
    /// lower than that of text, else Prometheus.
    #[must_use]
    pub fn preferred(accept: &[&[u8]]) -> Self {
        let (mut open_metrics, mut text) = (0, 0);
        for range in accept.iter().flat_map(|value| value.split(|&byte| byte == b',')) {
            let Some(range) = Range::parse(range) else { continue };
            match range.media_type.as_str() {
                // Version 0.0.1 is a draft, and later ones may differ.
                "application/openmetrics-text"
                    if matches!(range.version.as_deref(), None | Some("1.0.0")) =>
                {
                    open_metrics = range.quality.max(open_metrics);
                }
                "text/plain" | "text/*" | "*/*" => text = range.quality.max(text),
                _ => {}
            }
        }
        if open_metrics > 0 && open_metrics >= text { Self::OpenMetrics } else { Self::Prometheus }
    }
}

/// A media range.
struct Range {
    /// In lower case.
    media_type: String,
    version: Option<String>,
    /// In thousandths.
    quality: u16,
}

impl Range {
    fn parse(text: &[u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(text).ok()?.split(';').map(str::trim);
        let mut range =
            Self { media_type: parts.next()?.to_ascii_lowercase(), version: None, quality: 1_000 };
        for part in parts {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let value = value.trim().trim_matches('"');
            match name.trim().to_ascii_lowercase().as_str() {
                "version" => range.version = Some(value.to_owned()),
                "q" => range.quality = quality(value)?,
                _ => {}
            }
        }
        Some(range)
    }
}

/// Parses a quality with at most three digits after the point.
fn quality(text: &str) -> Option<u16> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 3 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let fraction: u16 = format!("{fraction:0<3}").parse().ok()?;
    match whole {
        "0" => Some(fraction),
        "1" if fraction == 0 => Some(1_000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preferred(accept: &str) -> Format {
        Format::preferred(&[accept.as_bytes()])
    }

    #[test]
    fn what_prometheus_sends_gets_openmetrics() {
        for accept in [
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            "Application/OpenMetrics-Text",
        ] {
            assert_eq!(preferred(accept), Format::OpenMetrics, "{accept}");
        }
    }

    #[test]
    fn everyone_else_gets_text() {
        for accept in [
            "",
            "*/*",
            "text/html, */*;q=0.8",
            "application/openmetrics-text;version=0.0.1",
            "application/openmetrics-text;version=2.0.0",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;q=0.4,text/plain;q=0.5",
            "application/openmetrics-text;q=2",
        ] {
            assert_eq!(preferred(accept), Format::Prometheus, "{accept}");
        }
        assert_eq!(Format::preferred(&[]), Format::Prometheus);
    }
}
