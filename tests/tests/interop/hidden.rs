//! Local services that are hidden behind an agent.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use sha2::{Digest, Sha256};

use crate::program::PATIENCE;

/// The SHA-256 of some bytes, in hex.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Incompressible bytes without repetitions; the same for the same seed.
pub(crate) fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(bytes + 8);
    while out.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(bytes);
    out
}

/// Reads as many bytes as expected, and compares them.
pub(crate) fn expect(from: &mut impl Read, wanted: &[u8]) {
    let mut got = vec![0; wanted.len()];
    from.read_exact(&mut got).expect("what was sent arrives");
    assert!(got == wanted, "what was sent arrives as it was");
}

/// Sends this many bytes each way at once, to the end of both sides.
pub(crate) fn both_ways(mut to: impl Write + Send, mut from: impl Read, mut hidden: TcpStream, bytes: usize) {
    let (up, down) = (noise(8, bytes), noise(9, bytes));
    let (mut up_there, mut down_there) = (Vec::new(), Vec::new());
    let mut hidden_reads = hidden.try_clone().expect("a descriptor more");
    thread::scope(|scope| {
        scope.spawn(|| {
            to.write_all(&up).expect("can write");
            drop(to);
        });
        scope.spawn(|| {
            hidden.write_all(&down).expect("can write");
            hidden.shutdown(Shutdown::Write).expect("it is open");
        });
        scope.spawn(|| hidden_reads.read_to_end(&mut up_there).expect("a clean end"));
        from.read_to_end(&mut down_there).expect("a clean end");
    });
    assert_eq!(sha256(&up_there), sha256(&up), "up");
    assert_eq!(sha256(&down_there), sha256(&down), "down");
}

/// A service whose connections the test controls.
pub(crate) struct Raw {
    pub(crate) address: SocketAddr,
    accepted: Mutex<Receiver<TcpStream>>,
}

impl Raw {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let (to, accepted) = channel();
        thread::spawn(move || while listener.accept().is_ok_and(|(stream, _)| to.send(stream).is_ok()) {});
        Self { address, accepted: Mutex::new(accepted) }
    }

    /// Whether there is no connection to accept.
    pub(crate) fn is_idle(&self) -> bool {
        let accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(accepted.try_recv(), Err(TryRecvError::Empty))
    }

    /// Accepts the next connection.
    pub(crate) fn accept(&self) -> TcpStream {
        let accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        let stream = accepted.recv_timeout(PATIENCE).expect("the agent connects to the service");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        stream.set_nodelay(true).expect("it is TCP");
        stream
    }
}

/// Reads up to the blank line and not one byte further.
pub(crate) fn read_head(from: &mut impl Read) -> Vec<u8> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match from.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            other => panic!("{other:?} in the head after {:?}", String::from_utf8_lossy(&head)),
        }
    }
    head
}

/// Starts a small HTTP server. It answers `METHOD TARGET BYTES SHA256-OF-BODY` to each request of a connection.
pub(crate) fn page() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    page_on(listener)
}

/// As [`page`], on a listener of the test's.
pub(crate) fn page_on(listener: TcpListener) -> SocketAddr {
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            thread::spawn(move || while serve_one(&stream).is_some_and(|again| again) {});
        }
    });
    address
}

/// The answer of [`page`] to a request.
pub(crate) fn page_text(method: &str, target: &str, body: &[u8]) -> String {
    format!("{method} {target} {} {}\n", body.len(), sha256(body))
}

/// Serves one request. Returns whether another may come. `BufReader` may hold bytes after it, so clients must not
/// pipeline.
fn serve_one(stream: &TcpStream) -> Option<bool> {
    let mut from = BufReader::new(stream);
    let mut line = String::new();
    from.read_line(&mut line).ok().filter(|bytes| *bytes > 0)?;
    let mut words = line.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    // An HTTP/1.0 client reads to the end of the connection.
    let is_old = words.next()?.trim_end() == "HTTP/1.0";
    let (mut length, mut chunked, mut expects, mut close) = (0, false, false, is_old);
    loop {
        let mut field = String::new();
        from.read_line(&mut field).ok()?;
        if field.trim_end().is_empty() {
            break;
        }
        let (name, value) = field.split_once(':')?;
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().ok()?,
            "transfer-encoding" => chunked = value.eq_ignore_ascii_case("chunked"),
            "expect" => expects = true,
            "connection" => close = value.eq_ignore_ascii_case("close"),
            _ => {}
        }
    }
    let mut to = stream;
    if expects {
        to.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").ok()?;
    }
    let mut body = Vec::new();
    if chunked {
        read_chunks(&mut from, &mut body)?;
    } else {
        body.resize(length, 0);
        from.read_exact(&mut body).ok()?;
    }
    let text = page_text(&method, &target, &body);
    let connection = if close { "Connection: close\r\n" } else { "" };
    let shown = if method == "HEAD" { "" } else { &text };
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n{connection}\r\n{shown}",
        text.len()
    );
    to.write_all(answer.as_bytes()).ok()?;
    Some(!close)
}

fn read_chunks(from: &mut impl BufRead, body: &mut Vec<u8>) -> Option<()> {
    loop {
        let mut size = String::new();
        from.read_line(&mut size).ok()?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        let start = body.len();
        body.resize(start + size, 0);
        from.read_exact(&mut body[start..]).ok()?;
        let mut end = String::new();
        from.read_line(&mut end).ok()?;
        if size == 0 {
            return Some(());
        }
    }
}
