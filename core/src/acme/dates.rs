//! Dates of JSON (RFC 3339), and `Retry-After` (RFC 9110 §10.2.3).

use crate::http::date::{civil, days_since_1970, parse_date};

/// Reads an RFC 3339 date in seconds since 1970; fractions are cut off. `None` for anything else, and before 1970.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    let digits = |from: usize, to: usize| {
        let digits = bytes.get(from..to)?;
        digits
            .iter()
            .try_fold(0_u64, |value, it| it.is_ascii_digit().then(|| value * 10 + u64::from(it - b'0')))
    };
    let is = |at: usize, expected: &[u8]| bytes.get(at).is_some_and(|it| expected.contains(it));
    if !(is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":")) {
        return None;
    }
    let (year, month, day) = (digits(0, 4)?, digits(5, 7)?, digits(8, 10)?);
    let days = days_since_1970(year, month.checked_sub(1).filter(|it| *it < 12)?, day)?;
    // A day that does not exist becomes a day of the next month.
    if civil(days) != (year, month - 1, day) {
        return None;
    }
    let (hour, minute, second) = (digits(11, 13)?, digits(14, 16)?, digits(17, 19)?);
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut at = 19;
    if is(at, b".,") {
        let fraction = bytes[at + 1..].iter().take_while(|it| it.is_ascii_digit()).count();
        if fraction == 0 {
            return None;
        }
        at += 1 + fraction;
    }
    let local = days * 86_400 + hour * 3_600 + minute * 60 + second;
    match bytes.get(at)? {
        b'Z' | b'z' if bytes.len() == at + 1 => Some(local),
        sign @ (b'+' | b'-') if bytes.len() == at + 6 && is(at + 3, b":") => {
            let (hours, minutes) = (digits(at + 1, at + 3)?, digits(at + 4, at + 6)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let offset = hours * 3_600 + minutes * 60;
            if *sign == b'+' { local.checked_sub(offset) } else { Some(local + offset) }
        }
        _ => None,
    }
}

/// The value of a `Retry-After` field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryAfter {
    /// That many seconds from now.
    Seconds(u64),
    /// Not before this time, in seconds since 1970.
    Date(u64),
}

impl RetryAfter {
    /// Reads the value of the field. `None` if it is neither a number nor a date.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        let text = core::str::from_utf8(value).ok()?.trim();
        if !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit()) {
            return Some(Self::Seconds(text.parse().unwrap_or(u64::MAX)));
        }
        parse_date(text.as_bytes()).map(Self::Date)
    }

    /// How many seconds that is from `wall` on.
    #[must_use]
    pub const fn seconds(self, wall: u64) -> u64 {
        match self {
            Self::Seconds(seconds) => seconds,
            Self::Date(date) => date.saturating_sub(wall),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_rfc_3339_are_read_and_what_is_none_is_refused() {
        const AT: u64 = 1_700_000_000;
        for same in [
            "2023-11-14T22:13:20Z",
            "2023-11-14t22:13:20.123456789z",
            "2023-11-15T00:13:20+02:00",
            "2023-11-14T16:43:20-05:30",
        ] {
            assert_eq!(parse_rfc3339(same), Some(AT), "{same}");
        }
        assert_eq!(parse_rfc3339("2024-02-29T00:00:00Z"), Some(1_709_164_800));
        assert_eq!(parse_rfc3339("9999-12-31T23:59:60Z"), Some(253_402_300_800));
        for wrong in [
            "",
            "2023-11-14",
            "2023-02-29T00:00:00Z",
            "2023-13-01T00:00:00Z",
            "2023-00-01T00:00:00Z",
            "2023-01-00T00:00:00Z",
            "2023-11-14T24:00:00Z",
            "2023-11-14T22:13:20",
            "2023-11-14T22:13:20.Z",
            "2023-11-14T22:13:20Zx",
            "2023-11-14T22:13:20+2:00",
            "+023-11-14T22:13:20Z",
            "1969-12-31T23:59:59Z",
            "2023-11-14T22:13:2üZ",
        ] {
            assert_eq!(parse_rfc3339(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let seconds = |text: &str| RetryAfter::parse(text.as_bytes()).map(|it| it.seconds(784_111_777));
        assert_eq!(seconds("120"), Some(120));
        assert_eq!(seconds(" 0 "), Some(0));
        assert_eq!(seconds("99999999999999999999999"), Some(u64::MAX));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:50:37 GMT"), Some(60));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0), "past");
        for wrong in ["", "soon", "-1", "1.5", "+1"] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }
}
