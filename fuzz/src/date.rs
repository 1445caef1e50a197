//! Dates, against a calendar that counts year by year.

use rendezvous_core::http::date::{parse_date, write_date};

const LAST: u64 = 253_402_300_799;

pub(crate) fn run(bytes: &[u8]) {
    if let Some(wall) = parse_date(bytes) {
        assert_eq!(written(wall), bytes, "what is read is written the same");
        assert_eq!(counted(wall).as_bytes(), bytes);
    }
    let Some(number) = bytes.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)) else { return };
    let wall = if number >> 63 == 0 { number % (LAST + 1) } else { number };
    let text = written(wall);
    assert_eq!(parse_date(&text), Some(wall.min(LAST)));
    assert_eq!(text, counted(wall.min(LAST)).as_bytes());
    // With one byte changed it is another date or none.
    let (at, byte) = (usize::from(bytes[0]) % text.len(), bytes[bytes.len() - 1]);
    let mut other = text.clone();
    other[at] = byte;
    assert!(other == text || parse_date(&other) != Some(wall.min(LAST)));
}

fn written(wall: u64) -> Vec<u8> {
    let mut out = Vec::new();
    write_date(wall, &mut out);
    out
}

fn counted(wall: u64) -> String {
    const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
    const MONTHS: [(&str, u64); 12] = [
        ("Jan", 31),
        ("Feb", 28),
        ("Mar", 31),
        ("Apr", 30),
        ("May", 31),
        ("Jun", 30),
        ("Jul", 31),
        ("Aug", 31),
        ("Sep", 30),
        ("Oct", 31),
        ("Nov", 30),
        ("Dec", 31),
    ];
    let (mut days, second) = (wall / 86_400, wall % 86_400);
    // 1970 began on a Thursday.
    let weekday = DAYS[usize::try_from((days + 4) % 7).expect("below 7")];
    let leap = |year: u64| {
        u64::from(year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)))
    };
    let mut year = 1970;
    while days >= 365 + leap(year) {
        days -= 365 + leap(year);
        year += 1;
    }
    for (name, length) in MONTHS {
        let length = if name == "Feb" { length + leap(year) } else { length };
        if days < length {
            let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
            return format!(
                "{weekday}, {:02} {name} {year:04} {hour:02}:{minute:02}:{second:02} GMT",
                days + 1
            );
        }
        days -= length;
    }
    unreachable!("a year has twelve months")
}
