//! The page.

use std::borrow::Cow;

use data_encoding::BASE64;
use sha2::{Digest, Sha256};

use super::response::{Content, Response};

/// The page, with its style and its script.
const PAGE: &str = include_str!("page.html");

/// Answers with the page. Its policy allows nothing but its own style and script, by their hashes, and the documents of
/// this server.
#[must_use]
pub fn respond<B>() -> Response<B> {
    let policy = format!(
        "Content-Security-Policy: default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\nX-Frame-Options: DENY\r\n\
         Cross-Origin-Opener-Policy: same-origin\r\nCross-Origin-Resource-Policy: same-origin\r\n",
        hash_of("<script>", "</script>"),
        hash_of("<style>", "</style>")
    );
    Response {
        status: (200, "OK"),
        content_type: "text/html; charset=utf-8",
        fields: Cow::Owned(policy),
        content: Content::Whole(Cow::Borrowed(PAGE.as_bytes())),
    }
}

/// The source expression of the element between these tags (Content Security Policy Level 3 §2.3.1).
fn hash_of(begin: &str, end: &str) -> String {
    let inside = PAGE.split_once(begin).and_then(|(_, rest)| rest.split_once(end));
    let text = inside.map_or("", |(text, _)| text);
    format!("sha256-{}", BASE64.encode(&Sha256::digest(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_small_and_alone() {
        assert!(PAGE.len() < 30_000, "{}", PAGE.len());
        for forbidden in
            ["innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", " style=", " onclick="]
        {
            assert!(!PAGE.contains(forbidden), "{forbidden}");
        }
        // The namespace of SVG is a name, not an address.
        assert_eq!(PAGE.matches("http").count(), 1);
        assert_eq!((PAGE.matches("<script>").count(), PAGE.matches("<style>").count()), (1, 1));
    }

    #[test]
    fn its_policy_has_the_hashes_of_its_script_and_style() {
        let Response { fields, .. } = respond::<()>();
        assert!(fields.contains("default-src 'none'; script-src 'sha256-"));
        assert_ne!(hash_of("<script>", "</script>"), hash_of("<style>", "</style>"));
        assert!(!fields.contains("unsafe") && fields.lines().all(|line| !line.is_empty()));
    }
}
