//! Heads that implementations are known to parse differently, and mutations of them.

use crate::hidden::noise;

/// Request lines.
const LINES: &[&str] = &[
    "GET / HTTP/1.1",
    "GET / HTTP/1.0",
    "GET /a?b=c#d HTTP/1.1",
    "GET /\"<>\\^`{|} HTTP/1.1",
    "GET /a b HTTP/1.1",
    "GET  / HTTP/1.1",
    "GET / HTTP/1.1 ",
    "GET\t/\tHTTP/1.1",
    "GET /\u{e9} HTTP/1.1",
    "GET /%zz%00 HTTP/1.1",
    "GET / HTTP/2.0",
    "GET / HTTP/0.9",
    "GET / HTTP/1.2",
    "GET / HTTP/11.1",
    "GET / http/1.1",
    "GET /",
    "GET",
    "get / HTTP/1.1",
    "GE(T / HTTP/1.1",
    "GET http://a/b HTTP/1.1",
    "GET http://b/ HTTP/1.1",
    "GET HTTP://A:80 HTTP/1.0",
    "GET http://user@a/ HTTP/1.1",
    "GET https://[::1]:8443/?q HTTP/1.1",
    "GET a:80 HTTP/1.1",
    "GET a HTTP/1.1",
    "GET * HTTP/1.1",
    "OPTIONS * HTTP/1.1",
    "OPTIONS * HTTP/1.0",
    "HEAD / HTTP/1.1",
    "POST / HTTP/1.1",
    "PUT //double/../dot HTTP/1.1",
    "M-SEARCH / HTTP/1.1",
    "PRI * HTTP/2.0",
    "CONNECT uuid:2f402f80-da50-41e1-9b23-0123456789ab?response=12345678 HTTP/1.1",
    "CONNECT example.com:443 HTTP/1.1",
    "CONNECT example.com:443 HTTP/1.0",
];

/// Fields, beside `Host: a` or alone.
const FIELDS: &[&str] = &[
    "",
    "Content-Length: 5",
    "Content-Length: 0",
    "Content-Length: 005",
    "Content-Length: +5",
    "Content-Length: -5",
    "Content-Length: 0x5",
    "Content-Length: 5 5",
    "Content-Length: 5, 5",
    "Content-Length: 5, 6",
    "Content-Length:",
    "Content-Length: 18446744073709551615",
    "Content-Length: 18446744073709551616",
    "Content-Length: 5\r\nContent-Length: 5",
    "Content-Length: 5\r\ncontent-length: 6",
    "Content-Length: 5\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nContent-Length: 5",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: Chunked",
    "Transfer-Encoding: chunked, chunked",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: identity",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding: \u{b}chunked",
    "Transfer-Encoding:",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding : chunked",
    "Transfer-Encoding\t: chunked",
    "Transfer-Encoding:\r\n chunked",
    "Transfer_Encoding: chunked",
    "Host: a",
    "Host: b",
    "host:a",
    "Host: a, b",
    "Host: a b",
    "Host: a:b",
    "Host: a:99999",
    "Host: user@a",
    "Host:",
    "Authorization: Basic eDp5",
    "Authorization:",
    "Authorization: Basic eDp5\r\nauthorization: Basic eTp4",
    "Authorization: Digest username=\"x\",\r\n realm=\"y\"",
    "Expect: 100-continue",
    "Expect: 42",
    "Connection: close",
    "Connection: upgrade\r\nUpgrade: websocket",
    "X: 1\r\n folded",
    "X: 1\r\n\tfolded",
    " X: 1",
    "X : 1",
    ": 1",
    "X",
    "X\u{e9}: 1",
    "X: \u{e9}",
    "X: a\0b",
    "X: a\u{1}b",
    "X: a\u{7f}b",
    "X: a\u{b}b",
    "X: a\tb \t",
    "X: a\rb",
    "X: a\r\r",
    "X: a\nY: b",
    "X: a\r\n\nY: b",
    "X[]: 1",
    "X: \"unclosed",
];

/// Ends of heads, and bytes before or after them.
const ENDS: &[(&str, &str)] = &[
    ("", "\r\n"),
    ("", ""),
    ("", "\n"),
    ("", "\r"),
    ("", "\r\n\r\n"),
    ("", "\r\nGET / HTTP/1.1\r\n\r\n"),
    ("\r\n", "\r\n"),
    ("\r\n\r\n", "\r\n"),
    ("\n", "\r\n"),
    ("\r", "\r\n"),
    (" ", "\r\n"),
    ("\0", "\r\n"),
    ("\u{16}\u{3}\u{1}", "\r\n"),
    ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\r\n"),
];

/// Every line with every end; every field after the lines of a client, a hidden server and an old client; and some long
/// heads.
pub(super) fn table() -> Vec<Vec<u8>> {
    let mut heads = Vec::new();
    for line in LINES {
        heads.push(format!("{line}\r\nHost: a\r\n\r\n"));
        heads.push(format!("{line}\r\n\r\n"));
        heads.push(format!("{line}\nHost: a\n\n"));
    }
    for (front, back) in ENDS {
        heads.push(format!("{front}GET / HTTP/1.1\r\nHost: a\r\n{back}"));
        heads.push(format!("{front}CONNECT uuid:x HTTP/1.1\r\n{back}"));
    }
    let lines = [
        "POST / HTTP/1.1\r\nHost: a",
        "GET / HTTP/1.0",
        "CONNECT uuid:x HTTP/1.1\r\nHost: a",
        "GET / HTTP/1.1",
    ];
    for line in lines {
        heads.extend(
            FIELDS.iter().filter(|field| !field.is_empty()).map(|field| format!("{line}\r\n{field}\r\n\r\n")),
        );
    }
    let long = |count: usize| "x".repeat(count);
    heads.push(format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", long(8_000)));
    heads.push(format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", long(9_000)));
    heads.push(format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", long(16_000)));
    heads.push(format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", long(17_000)));
    heads.push(format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: 1\r\n".repeat(99)));
    heads.push(format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: 1\r\n".repeat(100)));
    // One byte for each character: those above ASCII are not UTF-8 on the wire.
    heads
        .iter()
        .map(|head| head.chars().map(|it| u8::try_from(u32::from(it)).expect("a byte")).collect())
        .collect()
}

/// Applies up to three mutations to one of the heads, determined by the seed.
pub(super) fn mutate(heads: &[Vec<u8>], seed: u64) -> Vec<u8> {
    const BYTES: &[u8] = b"\r\n\r\n\t :,;\0\x0b\x7f\x80\xe9aA0/?#[]%HT\"\\";
    let mut rng = noise(seed, 64).into_iter();
    let mut roll = |sides: usize| {
        let pair = [rng.next(), rng.next()].map(Option::unwrap_or_default);
        usize::from(u16::from_le_bytes(pair)) % sides.max(1)
    };
    let mut head = heads[roll(heads.len())].clone();
    // The long ones mostly repeat one byte.
    head.truncate(1_000);
    for _ in 0..=roll(3) {
        let at = roll(head.len() + 1);
        match roll(5) {
            0 => head.insert(at, BYTES[roll(BYTES.len())]),
            1 if at < head.len() => drop(head.remove(at)),
            2 if at < head.len() => head[at] = BYTES[roll(BYTES.len())],
            3 => {
                let other = &heads[roll(heads.len())];
                let from = roll(other.len().min(200));
                let part = other[from..(from + roll(40)).min(other.len())].to_vec();
                head.splice(at..at, part);
            }
            _ => {
                let to = (at + roll(12)).min(head.len());
                head.extend_from_within(at..to);
            }
        }
    }
    head
}
