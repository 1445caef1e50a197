//! `Date` fields in IMF-fixdate, the only form that is generated (RFC 9110 §5.6.7).

use alloc::format;
use alloc::vec::Vec;

const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const DAY_SECS: u64 = 86_400;
/// 9999-12-31T23:59:59Z, since the form has a four-digit year.
const LAST: u64 = 253_402_300_799;

/// Appends a date such as `Sun, 06 Nov 1994 08:49:37 GMT`. `wall` is in seconds since 1970. Times after the year 9999
/// are written as its last second.
pub fn write_date(wall: u64, out: &mut Vec<u8>) {
    let wall = wall.min(LAST);
    let (days, second) = (wall / DAY_SECS, wall % DAY_SECS);
    let (year, month, day) = civil(days);
    let text = format!(
        "{}, {day:02} {} {year:04} {:02}:{:02}:{:02} GMT",
        // Both indices are below the length of their table.
        DAYS[(days % 7) as usize],
        MONTHS[month as usize],
        second / 3_600,
        second / 60 % 60,
        second % 60,
    );
    out.extend_from_slice(text.as_bytes());
}

/// Parses a date in exactly the form of [`write_date`], to seconds since 1970. Returns `None` for the two obsolete
/// forms, for days that do not exist or have another weekday, for leap seconds, and for times before 1970.
#[must_use]
pub fn parse_date(text: &[u8]) -> Option<u64> {
    let text = core::str::from_utf8(text).ok()?;
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<u64>().ok();
    let name = text.get(8..11)?;
    let month = (0..).zip(MONTHS).find(|(_, it)| *it == name).map(|(at, _)| at)?;
    let days = days_since_1970(number(12, 16)?, month, number(5, 7)?)?;
    let wall = days * DAY_SECS + number(17, 19)? * 3_600 + number(20, 22)? * 60 + number(23, 25)?;
    // Writing the date again verifies all its spaces, colons and names.
    let mut again = Vec::new();
    write_date(wall, &mut again);
    (again == text.as_bytes()).then_some(wall)
}

/// Year, month (0 to 11) and day (from 1) of a number of days since 1970-01-01.
pub const fn civil(days: u64) -> (u64, u64, u64) {
    // Years that begin in March, so that the leap day is a year's last, counted from 0000-03-01 in eras of 400 years.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let since_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * since_march + 2) / 5 + 1;
    let month = (since_march + 2) % 12;
    let year = era * 400 + year_of_era + if month < 2 { 1 } else { 0 };
    (year, month, day)
}

/// The inverse of [`civil`]; `None` before 1970. `month` is 0 to 11, `day` is from 1. Whether the day exists is not
/// checked.
#[must_use]
pub fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    let year = if month < 2 { year.checked_sub(1)? } else { year };
    let since_march = (month + 10) % 12;
    let of_year = (153 * since_march + 2) / 5 + day.checked_sub(1)?;
    let of_era = year % 400 * 365 + year % 400 / 4 - year % 400 / 100 + of_year;
    (year / 400 * 146_097 + of_era).checked_sub(719_468)
}
