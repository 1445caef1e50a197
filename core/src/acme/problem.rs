//! Problem documents (RFC 7807, RFC 8555 §6.7), and texts of a CA for the log.

use alloc::format;
use alloc::string::String;
use core::fmt::Write;

use super::json::{Json, Part};

/// The longest text of a CA in an event, in characters.
const TEXT_MAX: usize = 2_000;
/// The longest single field in it.
const FIELD_MAX: usize = 600;
/// The most subproblems that are shown.
const SUBPROBLEMS_MAX: usize = 8;

/// The types of problems that the client handles specially (RFC 8555 §6.7, RFC 9773 §7.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    AccountDoesNotExist,
    BadNonce,
    OrderNotReady,
    RateLimited,
    ServerInternal,
    Unauthorized,
    UserActionRequired,
    Other,
}

/// A problem of the CA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) kind: Kind,
    /// Whether it is a problem document at all.
    pub(super) is_document: bool,
    /// All of it, for the log.
    pub(super) text: String,
}

impl Problem {
    /// Reads the body of a response that is an error. `links` are those of the response.
    pub(super) fn read(status: u16, body: &[u8], links: &[String]) -> Self {
        let mut problem = match Json::parse(body) {
            Some(json) if json.str("type").is_some() || json.str("detail").is_some() => Self::of(json.root()),
            _ => {
                let start =
                    String::from_utf8_lossy(body.get(..FIELD_MAX.min(body.len())).unwrap_or_default());
                let start = start.trim();
                let text =
                    if start.is_empty() { String::new() } else { format!(": {}", display(start, FIELD_MAX)) };
                Self { kind: Kind::Other, is_document: false, text: format!("no problem document{text}") }
            }
        };
        let _ = write!(problem.text, " (HTTP {status})");
        for link in links.iter().take(2) {
            let _ = write!(problem.text, " <{}>", display(link, FIELD_MAX));
        }
        problem
    }

    /// Reads a problem in an order, an authorization or a challenge.
    pub(super) fn of(part: Part<'_>) -> Self {
        let mut text = String::new();
        summary(part, &mut text);
        for sub in part.list("subproblems").take(SUBPROBLEMS_MAX) {
            text.push_str(" [");
            if let Some(name) = sub.get("identifier").and_then(|it| it.str("value")) {
                let _ = write!(text, "{}: ", display(name, FIELD_MAX));
            }
            summary(sub, &mut text);
            text.push(']');
        }
        if let Some(instance) = part.str("instance") {
            let _ = write!(text, " <{}>", display(instance, FIELD_MAX));
        }
        // Each piece is escaped already.
        let text = if text.chars().count() > TEXT_MAX {
            text.chars().take(TEXT_MAX).chain(['…']).collect()
        } else {
            text
        };
        Self { kind: kind(part.str("type").unwrap_or_default()), is_document: true, text }
    }
}

fn summary(part: Part<'_>, text: &mut String) {
    let kind = part.str("type").unwrap_or("about:blank");
    text.push_str(&display(kind.strip_prefix(PREFIX).unwrap_or(kind), FIELD_MAX));
    if let Some(detail) = part.str("detail").or_else(|| part.str("title")) {
        let _ = write!(text, ": {}", display(detail, FIELD_MAX));
    }
}

const PREFIX: &str = "urn:ietf:params:acme:error:";

fn kind(text: &str) -> Kind {
    match text.strip_prefix(PREFIX) {
        Some("accountDoesNotExist") => Kind::AccountDoesNotExist,
        Some("badNonce") => Kind::BadNonce,
        Some("orderNotReady") => Kind::OrderNotReady,
        Some("rateLimited") => Kind::RateLimited,
        Some("serverInternal") => Kind::ServerInternal,
        Some("unauthorized") => Kind::Unauthorized,
        Some("userActionRequired") => Kind::UserActionRequired,
        _ => Kind::Other,
    }
}

/// A text of the CA for a log line: at most `max` characters, with control characters escaped. Double quotes become
/// single ones, because the log puts double quotes around the text.
pub(super) fn display(text: &str, max: usize) -> String {
    let mut out = String::new();
    for (at, it) in text.chars().enumerate() {
        if at == max {
            out.push('…');
            break;
        }
        match it {
            '"' => out.push('\''),
            '\\' => out.extend(it.escape_default()),
            it if it.is_control() || is_format(it) => out.extend(it.escape_default()),
            it => out.push(it),
        }
    }
    out
}

/// Characters that change the direction of text, or are invisible.
const fn is_format(it: char) -> bool {
    matches!(it, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_shown_with_its_subproblems_and_links() {
        let body = br#"{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too \"many\"\u001b[0m","status":429,
            "subproblems":[{"type":"urn:ietf:params:acme:error:caa","detail":"no","identifier":{"type":"dns","value":"a.example"}},{}],
            "instance":"https://ca.example/unpause"}"#;
        let problem = Problem::read(429, body, &["https://ca.example/docs".into()]);
        assert_eq!(problem.kind, Kind::RateLimited);
        assert_eq!(
            problem.text,
            "rateLimited: too 'many'\\u{1b}[0m [a.example: caa: no] [about:blank] <https://ca.example/unpause> \
             (HTTP 429) <https://ca.example/docs>"
        );
    }

    #[test]
    fn a_body_that_is_no_problem_is_shown_in_part() {
        let problem = Problem::read(502, b"<html>\r\n<b>Bad Gateway</b>", &[]);
        assert_eq!(problem.kind, Kind::Other);
        assert_eq!(problem.text, "no problem document: <html>\\r\\n<b>Bad Gateway</b> (HTTP 502)");
        assert_eq!(Problem::read(500, b"", &[]).text, "no problem document (HTTP 500)");
        let long = format!(
            r#"{{"detail":"{}","subproblems":[{}]}}"#,
            "x".repeat(9_000),
            "{\"detail\":\"y\"},".repeat(50) + "{}"
        );
        assert!(Problem::read(400, long.as_bytes(), &[]).text.chars().count() < TEXT_MAX + 40);
    }
}
