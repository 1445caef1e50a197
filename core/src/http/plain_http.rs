//! The response to a request in clear where clients are to use HTTPS.

use alloc::vec::Vec;

use super::accept::AnswerForm;
use super::diagnostic::PLAIN_HTTP;
use super::finder::Found;
use super::head::Head;
use super::reply::{Reply, Status, write_redirect};
use super::target::{RedirectPort, https_location};

/// The bytes of a head that was found in `bytes`. All of them, if it is incomplete or malformed.
pub(crate) fn head_of(found: Found, bytes: &[u8]) -> &[u8] {
    match found {
        Found::Complete(len) => bytes.get(..len).unwrap_or_default(),
        Found::Partial | Found::Refused(_) => bytes,
    }
}

/// Appends a redirect for GET and HEAD, and 400 for everything else. `bytes` are those of the head, and `head` is what they
/// mean; `None` if they are malformed.
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
