//! Responses.

use std::borrow::Cow;

use rendezvous_core::http::date;

/// A response.
pub struct Response<B> {
    /// The status code and the reason phrase.
    pub status: (u16, &'static str),
    /// The value of `Content-Type`.
    pub content_type: &'static str,
    /// Further field lines, each with CRLF.
    pub fields: Cow<'static, str>,
    /// The content.
    pub content: Content<B>,
}

/// The content of a response.
pub enum Content<B> {
    /// All of it.
    Whole(Cow<'static, [u8]>),
    /// Made in slices while it is sent.
    Sliced(B),
}

impl<B> Response<B> {
    /// A response with this text.
    #[must_use]
    pub fn text(status: (u16, &'static str), text: impl Into<Cow<'static, str>>) -> Self {
        let text = match text.into() {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        };
        Self {
            status,
            content_type: "text/plain; charset=utf-8",
            fields: Cow::Borrowed(""),
            content: Content::Whole(text),
        }
    }

    /// 200 with a body in slices.
    #[must_use]
    pub const fn sliced(content_type: &'static str, body: B) -> Self {
        Self { status: (200, "OK"), content_type, fields: Cow::Borrowed(""), content: Content::Sliced(body) }
    }

    /// 404.
    #[must_use]
    pub fn not_found() -> Self {
        Self::text((404, "Not Found"), "not found\n")
    }
}

/// How the end of a response is marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// By its length.
    Length(usize),
    /// By the last chunk (RFC 9112 §7.1).
    Chunked,
    /// By the end of the connection.
    Close,
}

/// Appends the head of a response.
pub(super) fn write_head<B>(
    response: &Response<B>,
    framing: Framing,
    keeps: bool,
    wall: u64,
    out: &mut Vec<u8>,
) {
    let (code, reason) = response.status;
    let mut text = |text: &str| out.extend_from_slice(text.as_bytes());
    text(&format!("HTTP/1.1 {code} {reason}\r\nContent-Type: {}\r\n", response.content_type));
    text("Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n");
    text(&response.fields);
    match framing {
        Framing::Length(bytes) => text(&format!("Content-Length: {bytes}\r\n")),
        Framing::Chunked => text("Transfer-Encoding: chunked\r\n"),
        Framing::Close => {}
    }
    if !keeps {
        text("Connection: close\r\n");
    }
    text("Date: ");
    date::write_date(wall, out);
    out.extend_from_slice(b"\r\n\r\n");
}
