//! Metrics in the text formats of Prometheus (0.0.4) and OpenMetrics (1.0.0).
//!
//! The values of labels are fixed texts or names that the operator chose, so the number of series is bounded, and no peer
//! chooses any of them. A scrape is written in slices, so that many series do not delay the event loop.

use std::fmt::{Display, Write as _};

use rendezvous_core::engine::{BOUNDS, Histogram};

mod accept;
pub mod agent;
pub mod process;
pub mod relay;

/// A text format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text, version 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The value of `Content-Type`.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The type of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only increases. The names of its samples end in `_total`.
    Counter,
    /// Increases and decreases.
    Gauge,
    /// Times by buckets.
    Histogram,
    /// Texts as labels. The names of its samples end in `_info`.
    Info,
}

/// A family of metrics.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// Its name without the suffix of [`Kind`].
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// What it is, in one line without backslashes and quotes.
    pub help: &'static str,
}

/// A family being written.
pub struct Samples<'a> {
    family: &'a Family,
    out: &'a mut String,
}

impl Family {
    /// A counter.
    #[must_use]
    pub const fn counter(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: Kind::Counter, help }
    }

    /// A gauge.
    #[must_use]
    pub const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: Kind::Gauge, help }
    }

    const fn suffix(&self) -> &'static str {
        match self.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        }
    }

    /// Writes the lines in front of the samples. All samples of a family follow them, without others in between.
    pub fn begin<'a>(&'a self, format: Format, out: &'a mut String) -> Samples<'a> {
        let suffix = if format == Format::Prometheus { self.suffix() } else { "" };
        let kind = match (self.kind, format) {
            (Kind::Counter, _) => "counter",
            (Kind::Info, Format::OpenMetrics) => "info",
            (Kind::Gauge, _) | (Kind::Info, Format::Prometheus) => "gauge",
            (Kind::Histogram, _) => "histogram",
        };
        let (name, help) = (self.name, self.help);
        let _ = write!(out, "# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}\n");
        self.samples(out)
    }

    /// Continues to write samples.
    pub fn samples<'a>(&'a self, out: &'a mut String) -> Samples<'a> {
        Samples { family: self, out }
    }
}

impl Samples<'_> {
    /// Writes one sample.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.line(self.family.suffix(), labels, value);
    }

    /// Writes the samples of a histogram.
    pub fn histogram(&mut self, histogram: &Histogram) {
        let counts = histogram.cumulative();
        for (bound, count) in BOUNDS.iter().zip(counts) {
            self.line("_bucket", &[("le", &float(bound.0))], count);
        }
        let all = counts[BOUNDS.len()];
        self.line("_bucket", &[("le", "+Inf")], all);
        self.line("_count", &[], all);
        self.line("_sum", &[], float(histogram.sum().0));
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        let out = &mut *self.out;
        out.push_str(self.family.name);
        out.push_str(suffix);
        for (place, (label, value)) in labels.iter().enumerate() {
            out.push(if place == 0 { '{' } else { ',' });
            out.push_str(label);
            out.push_str("=\"");
            escape(value, out);
            out.push('"');
        }
        out.push_str(if labels.is_empty() { " " } else { "} " });
        let _ = writeln!(out, "{value}");
    }
}

/// Appends the value of a label. Both formats have these three escapes.
fn escape(value: &str, out: &mut String) {
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
}

/// Microseconds as seconds, with a decimal point, as OpenMetrics requires it of bounds.
#[must_use]
pub fn float(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    let short = text.trim_end_matches('0');
    if short.ends_with('.') { format!("{short}0") } else { short.to_owned() }
}

/// A family with samples of each row, such as each hidden server.
pub struct PerRow<R> {
    /// The family.
    pub family: Family,
    /// Writes the samples of one row.
    pub write: fn(&R, &mut Samples<'_>),
}

/// One scrape: what is written first, and families of rows, which are written in slices.
#[derive(Debug)]
pub struct Scrape<R: 'static> {
    format: Format,
    first: String,
    per_row: &'static [PerRow<R>],
    rows: Vec<R>,
    /// The family that is written next, and its next row.
    at: (usize, usize),
}

impl<R> std::fmt::Debug for PerRow<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.family.fmt(f)
    }
}

impl<R> Scrape<R> {
    /// A scrape of these families. `first` has whole families in `format`.
    #[must_use]
    pub const fn new(format: Format, first: String, per_row: &'static [PerRow<R>], rows: Vec<R>) -> Self {
        Self { format, first, per_row, rows, at: (0, 0) }
    }

    /// The format.
    #[must_use]
    pub const fn format(&self) -> Format {
        self.format
    }

    /// Appends the next slice: lines until `out` has `enough` bytes. Returns whether more follow.
    pub fn next(&mut self, out: &mut String, enough: usize) -> bool {
        if !self.first.is_empty() {
            out.push_str(&std::mem::take(&mut self.first));
        }
        while let Some(of) = self.per_row.get(self.at.0) {
            if out.len() >= enough {
                return true;
            }
            let mut samples =
                if self.at.1 == 0 { of.family.begin(self.format, out) } else { of.family.samples(out) };
            while let Some(row) = self.rows.get(self.at.1) {
                (of.write)(row, &mut samples);
                self.at.1 += 1;
                if samples.out.len() >= enough {
                    break;
                }
            }
            if self.at.1 < self.rows.len() {
                return true;
            }
            self.at = (self.at.0 + 1, 0);
        }
        if self.format == Format::OpenMetrics {
            out.push_str("# EOF\n");
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use rendezvous_core::time::Span;

    use super::*;

    const FAMILY: Family = Family::counter("x_bytes", "Bytes.");
    const PER_ROW: &[PerRow<String>] = &[PerRow {
        family: FAMILY,
        write: |row, samples| samples.sample(&[("id", row), ("direction", "in")], 7),
    }];

    fn whole(format: Format, rows: &[&str], enough: usize) -> (String, usize) {
        let rows = rows.iter().map(|&row| row.to_owned()).collect();
        let mut scrape = Scrape::new(format, "first 1\n".to_owned(), PER_ROW, rows);
        let (mut text, mut slices) = (String::new(), 1);
        loop {
            let mut slice = String::new();
            let more = scrape.next(&mut slice, enough);
            text.push_str(&slice);
            if !more {
                return (text, slices);
            }
            slices += 1;
        }
    }

    #[test]
    fn a_counter_has_its_suffix_in_the_type_of_prometheus_alone() {
        let samples = "x_bytes_total{id=\"a\",direction=\"in\"} 7\n";
        assert_eq!(
            whole(Format::Prometheus, &["a"], 1_000).0,
            format!("first 1\n# HELP x_bytes_total Bytes.\n# TYPE x_bytes_total counter\n{samples}")
        );
        assert_eq!(
            whole(Format::OpenMetrics, &["a"], 1_000).0,
            format!("first 1\n# HELP x_bytes Bytes.\n# TYPE x_bytes counter\n{samples}# EOF\n")
        );
    }

    #[test]
    fn slices_of_any_length_are_the_same_text() {
        let rows = ["a", "b\"\\\n", "c", "d"];
        let (text, _) = whole(Format::OpenMetrics, &rows, usize::MAX);
        assert!(text.contains(r#"{id="b\"\\\n",direction="in"} 7"#), "{text}");
        for enough in [1, 100, 150] {
            let (sliced, slices) = whole(Format::OpenMetrics, &rows, enough);
            assert_eq!(sliced, text);
            assert!(slices > 1);
        }
    }

    #[test]
    fn a_histogram_has_all_buckets_and_bounds_with_a_point() {
        let mut histogram = Histogram::default();
        histogram.add(Span::from_millis(2_000));
        let family = Family { name: "x_seconds", kind: Kind::Histogram, help: "Times." };
        let mut text = String::new();
        family.begin(Format::OpenMetrics, &mut text).histogram(&histogram);
        assert!(text.contains("x_seconds_bucket{le=\"0.001\"} 0\n"), "{text}");
        assert!(text.contains("x_seconds_bucket{le=\"1.0\"} 0\nx_seconds_bucket{le=\"2.5\"} 1\n"), "{text}");
        assert!(text.ends_with("{le=\"+Inf\"} 1\nx_seconds_count 1\nx_seconds_sum 2.0\n"), "{text}");
    }
}
