//! A hidden server's service that reports each request that was meant for another one.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crate::hidden::page_text;

/// Answers each request by its target, `/NAME/KIND`, as [`answer`] does; pipelined ones too.
pub(super) struct Service {
    pub(super) address: SocketAddr,
    misled: Arc<Mutex<Vec<String>>>,
}

impl Service {
    pub(super) fn start(name: char) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let misled = Arc::default();
        let service = Self { address, misled: Arc::clone(&misled) };
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let misled = Arc::clone(&misled);
                thread::spawn(move || {
                    let mut from = BufReader::new(&stream);
                    while serve(&mut from, &stream, name, &misled).is_some() {}
                });
            }
        });
        service
    }

    /// Checks that no request for another one arrived.
    pub(super) fn check(self) {
        let misled = self.misled.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(misled.is_empty(), "misled: {misled:#?}");
    }
}

/// Serves one request.
fn serve(from: &mut impl BufRead, mut to: &TcpStream, name: char, misled: &Mutex<Vec<String>>) -> Option<()> {
    let mut line = String::new();
    from.read_line(&mut line).ok().filter(|bytes| *bytes > 0)?;
    let mut words = line.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next().unwrap_or_default().to_owned());
    if !target.starts_with(&format!("/{name}/")) {
        misled.lock().unwrap_or_else(PoisonError::into_inner).push(line.clone());
    }
    let (mut length, mut chunked) = (0, false);
    loop {
        let mut field = String::new();
        from.read_line(&mut field).ok()?;
        let Some((key, value)) = field.trim_end().split_once(": ") else { break };
        match key.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().ok()?,
            "transfer-encoding" => chunked = true,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body).ok()?;
    if chunked {
        body = read_chunks(from)?;
    }
    to.write_all(&answer(name, &method, &target, &body)).ok()
}

fn read_chunks(from: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut size = String::new();
        from.read_line(&mut size).ok()?;
        let size = u64::from_str_radix(size.trim_end().split(';').next()?, 16).ok()?;
        from.take(size).read_to_end(&mut body).ok()?;
        if size > 0 {
            from.read_line(&mut String::new()).ok()?;
            continue;
        }
        let mut line = String::new();
        while from.read_line(&mut line).ok()? > 2 {
            line.clear();
        }
        return Some(body);
    }
}

/// The exact answer of the hidden server with this name.
pub(super) fn answer(name: char, method: &str, target: &str, body: &[u8]) -> Vec<u8> {
    let text = page_text(method, target, body);
    match target.rsplit('/').next().unwrap_or_default() {
        "204" => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
        // The length of a body that is not sent (RFC 9110 section 8.6).
        "304" => b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\n\r\n".to_vec(),
        "chunked" => chunked(name, &["one;", "two;", &text]),
        "chunked-megabyte" => chunked(name, &["y".repeat(1 << 20).as_str(), &text]),
        "megabyte" => plain(name, "z".repeat(1 << 20).as_bytes()),
        "interim" => {
            let interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n";
            [interim.as_slice(), &plain(name, text.as_bytes())].concat()
        }
        _ if method == "HEAD" => {
            let whole = plain(name, text.as_bytes());
            let head = whole.windows(4).position(|window| window == b"\r\n\r\n").expect("it has a head");
            whole[..head + 4].to_vec()
        }
        _ => plain(name, text.as_bytes()),
    }
}

/// The answer to a request of a test, whose body follows the head or is chunked.
pub(super) fn answer_to(request: &str) -> Vec<u8> {
    let (head, body) = request.split_once("\r\n\r\n").expect("a head");
    let mut words = head.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let name = target.chars().nth(1).expect("a name");
    let body = if head.contains("chunked\r\n") || head.ends_with("chunked") {
        read_chunks(&mut body.as_bytes()).expect("chunks")
    } else {
        body.as_bytes().to_vec()
    };
    answer(name, method, target, &body)
}

/// An answer with a length.
pub(super) fn plain(name: char, text: &[u8]) -> Vec<u8> {
    let mut answer =
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name} ", text.len() + 2).into_bytes();
    answer.extend_from_slice(text);
    answer
}

fn chunked(name: char, parts: &[&str]) -> Vec<u8> {
    let mut answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    let first = format!("{name} ");
    for part in [first.as_str()].iter().chain(parts) {
        answer.extend_from_slice(format!("{:X}\r\n{part}\r\n", part.len()).as_bytes());
    }
    answer.extend_from_slice(b"0\r\nX-Trailer: 1\r\n\r\n");
    answer
}
