//! Content negotiation: whether a client prefers an error page to JSON (RFC 9110 §12.5.1).

use super::syntax::trim;

/// The form of an error response's body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// `application/json`: for programs, and the default.
    #[default]
    Json,
    /// `text/html`: for browsers.
    Html,
}

/// What the request's head determines about an error response.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AnswerForm {
    /// Whether it is a HEAD, so that the response has no body.
    pub(crate) is_head: bool,
    /// The form of its body.
    pub(crate) form: Form,
}

impl AnswerForm {
    /// Reads a head, which may be incomplete or malformed.
    pub(crate) fn of(head: &[u8]) -> Self {
        let line = head.strip_prefix(b"\r\n").unwrap_or(head);
        Self { is_head: line.starts_with(b"HEAD "), form: Form::preferred(head) }
    }
}

impl Form {
    /// The form that the sender of this request prefers: HTML if its `Accept` gives `text/html` a higher quality than
    /// `application/json`. If both are equal, the one that is named more specifically.
    ///
    /// `head` need not be complete or valid, so that a browser whose cookies are too large gets a page as well. Only
    /// complete lines count.
    #[must_use]
    pub fn preferred(head: &[u8]) -> Self {
        let lines = head.strip_prefix(b"\r\n").unwrap_or(head).split_inclusive(|&byte| byte == b'\n');
        let fields = lines.skip(1).take_while(|line| !matches!(line, [b'\n'] | [b'\r', b'\n']));
        let (mut html, mut json) = (Best::default(), Best::default());
        for line in fields.filter(|line| line.ends_with(b"\n")) {
            for range in accepted(line).into_iter().flat_map(Items::of_list).filter_map(Range::parse) {
                html.consider(&range, b"text", b"html");
                json.consider(&range, b"application", b"json");
            }
        }
        if html > json && html.quality > 0 { Self::Html } else { Self::Json }
    }
}

/// The value of an `Accept` line.
fn accepted(line: &[u8]) -> Option<&[u8]> {
    const NAME: &[u8] = b"Accept:";
    let (name, value) = line.split_at_checked(NAME.len())?;
    name.eq_ignore_ascii_case(NAME).then_some(value.trim_ascii_end())
}

/// The quality of one media type, by the most specific range that matches it.
#[derive(Default, PartialEq, Eq, PartialOrd, Ord)]
struct Best {
    /// The quality in thousandths.
    quality: u16,
    specificity: u8,
}

impl Best {
    fn consider(&mut self, range: &Range<'_>, kind: &[u8], subtype: &[u8]) {
        let specificity = match (range.kind, range.subtype) {
            (b"*", b"*") => 1,
            (it, b"*") if it.eq_ignore_ascii_case(kind) => 2,
            (it, sub) if it.eq_ignore_ascii_case(kind) && sub.eq_ignore_ascii_case(subtype) => 3,
            _ => return,
        };
        if specificity > self.specificity {
            *self = Self { specificity, quality: range.quality };
        } else if specificity == self.specificity {
            self.quality = self.quality.max(range.quality);
        }
    }
}

/// One media range without parameters, or with the charset that the pages have.
struct Range<'a> {
    kind: &'a [u8],
    subtype: &'a [u8],
    quality: u16,
}

impl<'a> Range<'a> {
    /// Returns `None` for anything that is not a media range, and for one with parameters that the pages do not have.
    fn parse(text: &'a [u8]) -> Option<Self> {
        let mut parts = Items { rest: Some(text), separator: b';' };
        let name = trim(parts.next()?);
        let slash = name.iter().position(|&byte| byte == b'/')?;
        let mut range = Self { kind: &name[..slash], subtype: &name[slash + 1..], quality: 1_000 };
        for part in parts {
            let equals = part.iter().position(|&byte| byte == b'=')?;
            let (key, value) = (trim(&part[..equals]), trim(&part[equals + 1..]));
            if key.eq_ignore_ascii_case(b"q") {
                range.quality = quality(value)?;
                // Older versions of HTTP have extensions after the weight.
                break;
            }
            let value = value.strip_prefix(b"\"").and_then(|it| it.strip_suffix(b"\"")).unwrap_or(value);
            if !(key.eq_ignore_ascii_case(b"charset") && value.eq_ignore_ascii_case(b"utf-8")) {
                return None;
            }
        }
        Some(range)
    }
}

/// A weight in thousandths: `0` or `1`, and up to three decimals (RFC 9110 §12.4.2).
fn quality(text: &[u8]) -> Option<u16> {
    let (whole, decimals) = match text {
        [whole @ (b'0' | b'1')] => (whole, &[][..]),
        [whole @ (b'0' | b'1'), b'.', decimals @ ..] if decimals.len() <= 3 => (whole, decimals),
        _ => return None,
    };
    let mut value = u16::from(whole - b'0');
    for place in 0..3 {
        let digit = decimals.get(place).copied().unwrap_or(b'0');
        value = value * 10 + u16::from(digit.is_ascii_digit().then(|| digit - b'0')?);
    }
    (value <= 1_000).then_some(value)
}

/// The parts of a text between separators that are not in quoted strings.
struct Items<'a> {
    rest: Option<&'a [u8]>,
    separator: u8,
}

impl<'a> Items<'a> {
    fn of_list(value: &'a [u8]) -> Self {
        Self { rest: Some(value), separator: b',' }
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let text = self.rest.take()?;
        let (mut is_quoted, mut is_escaped) = (false, false);
        let end = text.iter().position(|&byte| {
            let is_end = byte == self.separator && !is_quoted;
            is_quoted ^= byte == b'"' && !is_escaped;
            is_escaped = is_quoted && byte == b'\\' && !is_escaped;
            is_end
        });
        let Some(end) = end else { return Some(text) };
        self.rest = text.get(end + 1..);
        text.get(..end)
    }
}
