//! Results, as tables and as JSON.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::Failure;

/// A measured quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quantity {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
}

/// The part of the time in which the relay used the processor.
pub(crate) const BUSY: Quantity = Quantity { name: "busy", unit: "%" };

/// One quantity at one relay, a value for each round.
struct Series {
    relay: &'static str,
    quantity: Quantity,
    values: Vec<f64>,
}

struct Section {
    name: String,
    series: Vec<Series>,
}

/// All results so far.
pub(crate) struct Report {
    about: Vec<(String, String)>,
    sections: Vec<Section>,
    verbose: bool,
}

impl Report {
    pub(crate) fn new(about: Vec<(String, String)>, verbose: bool) -> Self {
        for (name, value) in &about {
            println!("{name:12} {value}");
        }
        Self { about, sections: Vec::new(), verbose }
    }

    /// Starts a scenario: later samples belong to it.
    pub(crate) fn begin(&mut self, name: &str) {
        self.sections.push(Section { name: name.to_owned(), series: Vec::new() });
    }

    /// Adds one value of the current round.
    pub(crate) fn sample(&mut self, relay: &'static str, quantity: Quantity, value: f64) {
        let section = self.sections.last_mut().expect("a scenario has begun");
        if self.verbose {
            println!("  {} {relay} {} {}", section.name, quantity.name, figure(value));
        }
        match section.series.iter_mut().find(|it| it.relay == relay && it.quantity == quantity) {
            Some(series) => series.values.push(value),
            None => section.series.push(Series { relay, quantity, values: vec![value] }),
        }
    }

    /// Prints the table of the last scenario.
    pub(crate) fn show(&self) {
        let section = self.sections.last().expect("a scenario has begun");
        println!("\n{}\n  {:29} {:15} {:>12} {:>25}  ratios", section.name, "", "", "median", "least – most");
        let mut shown: Vec<Quantity> = Vec::new();
        for quantity in section.series.iter().map(|it| it.quantity) {
            if shown.contains(&quantity) {
                continue;
            }
            shown.push(quantity);
            for series in section.series.iter().filter(|it| it.quantity == quantity) {
                println!("{}", section.row(series));
            }
        }
    }

    /// Writes everything as JSON, to a file or after the tables.
    pub(crate) fn write_json(&self, to: Option<&Path>) -> Result<(), Failure> {
        let about = self.about.iter().map(|(name, value)| format!("    {}: {}", quoted(name), quoted(value)));
        let results = self.sections.iter().flat_map(Section::json);
        let text = format!(
            "{{\n  \"about\": {{\n{}\n  }},\n  \"results\": [\n{}\n  ]\n}}\n",
            about.collect::<Vec<_>>().join(",\n"),
            results.collect::<Vec<_>>().join(",\n")
        );
        match to {
            Some(path) => {
                fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()).into())
            }
            None => {
                println!("\n{text}");
                Ok(())
            }
        }
    }
}

impl Section {
    fn row(&self, series: &Series) -> String {
        let Quantity { name, unit } = series.quantity;
        let (least, most) = series.range();
        let mut row = format!(
            "  {:29} {:15} {:>12} {:>25} ",
            format!("{name}, {unit}"),
            series.relay,
            figure(series.median()),
            format!("{} – {}", figure(least), figure(most))
        );
        for (relay, ratio) in self.ratios(series) {
            let _ = write!(row, " {ratio:.2}×{relay}");
        }
        row
    }

    /// The ratios of a series of the first relay to those of the others.
    fn ratios(&self, series: &Series) -> Vec<(&'static str, f64)> {
        let mut same = self.series.iter().filter(|it| it.quantity == series.quantity);
        if series.quantity == BUSY || !same.next().is_some_and(|first| std::ptr::eq(first, series)) {
            return Vec::new();
        }
        same.map(|other| {
            let ratios = series.values.iter().zip(&other.values).map(|(ours, theirs)| ours / theirs);
            (other.relay, median(ratios.collect()))
        })
        .collect()
    }

    fn json(&self) -> Vec<String> {
        self.series.iter().map(|series| self.json_of(series)).collect()
    }

    fn json_of(&self, series: &Series) -> String {
        let (least, most) = series.range();
        let values = series.values.iter().map(|value| number(*value)).collect::<Vec<_>>();
        let ratios = self.ratios(series).into_iter();
        let ratios = ratios.map(|(relay, ratio)| format!("{}: {}", quoted(relay), number(ratio)));
        format!(
            "    {{\"scenario\": {}, \"quantity\": {}, \"unit\": {}, \"relay\": {}, \"median\": {}, \
             \"least\": {}, \"most\": {}, \"ratios\": {{{}}}, \"rounds\": [{}]}}",
            quoted(&self.name),
            quoted(series.quantity.name),
            quoted(series.quantity.unit),
            quoted(series.relay),
            number(series.median()),
            number(least),
            number(most),
            ratios.collect::<Vec<_>>().join(", "),
            values.join(", ")
        )
    }
}

impl Series {
    fn median(&self) -> f64 {
        median(self.values.clone())
    }

    fn range(&self) -> (f64, f64) {
        let fold = |with: fn(f64, f64) -> f64| self.values.iter().copied().reduce(with).unwrap_or(f64::NAN);
        (fold(f64::min), fold(f64::max))
    }
}

/// The median.
pub(crate) fn median(values: Vec<f64>) -> f64 {
    quantile(values, 0.5)
}

/// The quantile, interpolated between two values.
pub(crate) fn quantile(mut values: Vec<f64>, part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let Some(last) = values.len().checked_sub(1) else {
        return f64::NAN;
    };
    let at = part * last as f64;
    let (low, high) = (values[at.floor() as usize], values[at.ceil() as usize]);
    low + (high - low) * at.fract()
}

/// A number with four significant digits.
fn figure(value: f64) -> String {
    let digits = match value.abs() {
        it if it >= 1000.0 => 0,
        it if it >= 100.0 => 1,
        it if it >= 10.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

/// JSON has no NaN.
fn number(value: f64) -> String {
    if value.is_finite() { format!("{value:.6}") } else { "null".to_owned() }
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            control if control < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            letter => out.push(letter),
        }
    }
    out.push('"');
    out
}
