//! The control socket in the relay's state folder, private to its owner. It serves the same documents as `--metrics`,
//! by HTTP.

use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

use crate::socket_file;

/// Its name in the state folder.
pub const NAME: &str = "control.sock";
/// How long to wait for each part of an answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Limit of a document, in bytes.
const DOCUMENT_MAX: u64 = 256 << 20;

/// Reads a document of the relay of a state folder.
///
/// # Errors
/// No relay with a control socket runs with this folder, it does not respond, or it has no such document.
pub fn get(folder: &Path, path: &str) -> io::Result<String> {
    ask(folder, &format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n"))
}

/// Makes a change at the relay of a state folder, and returns its answer.
///
/// # Errors
/// Those of [`get`]; the relay refuses the change.
pub fn post(folder: &Path, path: &str, body: &str) -> io::Result<String> {
    let length = body.len();
    let fields =
        format!("Content-Type: application/json\r\nX-Rendezvous: change\r\nContent-Length: {length}");
    ask(folder, &format!("POST {path} HTTP/1.0\r\nHost: localhost\r\n{fields}\r\n\r\n{body}"))
}

fn ask(folder: &Path, request: &str) -> io::Result<String> {
    let mut socket = socket_file::connect(&folder.join(NAME), TIMEOUT)?;
    // In HTTP/1.0 the document ends with the connection.
    socket.write_all(request.as_bytes())?;
    let mut text = String::new();
    socket.take(DOCUMENT_MAX).read_to_string(&mut text)?;
    let bad = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    let (head, document) = text.split_once("\r\n\r\n").ok_or_else(|| bad("the answer is incomplete"))?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status != "200" {
        let why = document.lines().next().unwrap_or_default();
        return Err(bad(&format!("the relay's answer is {status}: {why}")));
    }
    Ok(document.to_owned())
}
