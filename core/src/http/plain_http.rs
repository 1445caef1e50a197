//! The response to a request in clear where clients are to use HTTPS.

use alloc::vec::Vec;

use super::accept::AnswerForm;
use super::diagnostic::PLAIN_HTTP;
use super::finder::Found;
use super::head::Head;
use super::reply::{Reply, Status, write_redirect};
use super::target::{RedirectPort, https_location};

/// The head that was found, if it is valid.
pub(crate) fn head_of(found: Found<'_>) -> Option<Head<'_>> {
    match found {
        Found::Complete(whole) => whole.parse().ok(),
        Found::Partial | Found::Refused(_) => None,
    }
}

/// Appends a redirect for GET and HEAD, and 400 for everything else. `bytes` begin with the head; `head` is `None` if they
/// are malformed.
pub(crate) fn write(bytes: &[u8], head: Option<&Head<'_>>, port: RedirectPort, wall: u64, out: &mut Vec<u8>) {
    let location = head.filter(|head| matches!(head.method, "GET" | "HEAD"));
    if let Some(location) = location.and_then(|head| https_location(head, port)) {
        return write_redirect(&location, wall, out);
    }
    let form = AnswerForm::of(bytes);
    let reply = Reply {
        status: Status::BadRequest400,
        diagnostic: PLAIN_HTTP,
        permanent: true,
        retry_after: None,
        close: true,
        head_request: form.is_head,
        form: form.form,
        challenge: None,
        token_challenge: None,
    };
    reply.write(wall, out);
}
