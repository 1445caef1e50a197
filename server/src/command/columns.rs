//! Tables on the console.

use std::fmt::Write as _;

use crate::escape::Shown;

/// Appends an empty line and rows with aligned columns.
pub(super) fn columns<const N: usize>(rows: &[[String; N]], text: &mut String) {
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or_default();
    let widths: [usize; N] = std::array::from_fn(width);
    text.push('\n');
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
}

/// A text of others, with escapes.
pub(super) fn shown(text: &str) -> String {
    Shown(text).to_string()
}

/// Formats seconds in the two largest units.
pub(super) fn span(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, ..) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

/// Formats a number of bytes with three or more digits.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let step = (count.ilog2() / 10).clamp(1, 6);
    let tenths = (u128::from(count) * 10) >> (10 * step);
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[step as usize - 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_and_bytes_are_for_reading() {
        assert_eq!([0, 59, 61, 3_700, 90_000].map(span), ["0s", "59s", "1m 1s", "1h 1m", "1d 1h"]);
        assert_eq!(
            [0, 1023, 1024, 1536, 50 << 20, u64::MAX].map(bytes),
            ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "50.0 MiB", "15.9 EiB"]
        );
    }
}
