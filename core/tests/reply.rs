//! The responses that relay and agent generate, and the dates in them.

use rendezvous_core::http::accept::Form;
use rendezvous_core::http::date::{parse_date, write_date};
use rendezvous_core::http::head::Limits;
use rendezvous_core::http::reply::{ACCEPTED, Reply, Status, Switching, write_switching};
use rendezvous_core::http::response::{Response, parse_response};

/// Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110 §5.6.7.
const WALL: u64 = 784_111_777;

const NOT_FOUND: Reply = Reply {
    status: Status::NotFound404,
    diagnostic: "no such hidden server",
    permanent: false,
    retry_after: None,
    close: true,
    head_request: false,
    form: Form::Json,
    challenge: None,
    token_challenge: None,
};

const ALL: [Status; 16] = [
    Status::SwitchingProtocols101,
    Status::Ok200,
    Status::BadRequest400,
    Status::Unauthorized401,
    Status::Forbidden403,
    Status::NotFound404,
    Status::ProxyAuthRequired407,
    Status::Timeout408,
    Status::Conflict409,
    Status::UriTooLong414,
    Status::Misdirected421,
    Status::TooManyRequests429,
    Status::HeadTooLarge431,
    Status::BadGateway502,
    Status::Unavailable503,
    Status::VersionNotSupported505,
];

fn text(reply: &Reply) -> String {
    let mut out = Vec::new();
    reply.write(WALL, &mut out);
    String::from_utf8(out).unwrap()
}

fn date(wall: u64) -> String {
    let mut out = Vec::new();
    write_date(wall, &mut out);
    String::from_utf8(out).unwrap()
}

fn read(bytes: &[u8]) -> Response {
    parse_response(bytes, &mut Default::default(), &Limits::default()).unwrap().unwrap()
}

#[test]
fn an_error_has_date_type_length_and_a_body_that_says_why() {
    assert_eq!(
        text(&NOT_FOUND),
        "HTTP/1.1 404 Not Found\r\n\
         Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
         Content-Type: application/json\r\n\
         Content-Length: 67\r\n\
         Cache-Control: no-store\r\n\
         Vary: Accept\r\n\
         Connection: close\r\n\
         \r\n\
         {\"error\":{\"permanent\":false,\"diagnostic\":\"no such hidden server\"}}\n"
    );
}

#[test]
fn the_challenge_is_there_when_it_is_asked_for() {
    let reply = Reply {
        status: Status::Unauthorized401,
        challenge: Some(([0x01; 16], [0x02; 16])),
        close: false,
        ..NOT_FOUND
    };
    let head = text(&reply).split("\r\n\r\n").next().unwrap().to_owned();
    assert!(head.starts_with("HTTP/1.1 401 Unauthorized\r\n"), "{head}");
    assert!(
        head.contains(
            "\r\nWWW-Authenticate: Digest realm=\"rendezvous\", qop=\"auth, auth-int\", \
             nonce=\"01010101010101010101010101010101\", opaque=\"02020202020202020202020202020202\""
        ),
        "{head}"
    );
    assert!(!text(&NOT_FOUND).contains("WWW-Authenticate"));
}

#[test]
fn a_connection_that_stays_open_is_not_told_to_close() {
    assert!(!text(&Reply { close: false, ..NOT_FOUND }).contains("Connection"));
}

#[test]
fn retry_after_is_in_seconds() {
    let reply = text(&Reply { status: Status::Unavailable503, retry_after: Some(7), ..NOT_FOUND });
    assert!(reply.contains("\r\nRetry-After: 7\r\n"), "{reply}");
    assert!(!text(&NOT_FOUND).contains("Retry-After"));
}

#[test]
fn a_permanent_error_says_so() {
    let reply = text(&Reply { permanent: true, ..NOT_FOUND });
    assert!(
        reply.ends_with("{\"error\":{\"permanent\":true,\"diagnostic\":\"no such hidden server\"}}\n"),
        "{reply}"
    );
}

#[test]
fn a_browser_gets_a_page_that_loads_nothing_and_says_what_the_json_says() {
    for status in ALL.into_iter().filter(|it| it.code() >= 400) {
        let reply = Reply { status, form: Form::Html, ..NOT_FOUND };
        let whole = text(&reply);
        let (head, page) = whole.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("\r\nContent-Type: text/html; charset=utf-8\r\n"), "{head}");
        assert!(
            head.contains("\r\nContent-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; "),
            "{head}"
        );
        assert!(head.contains("\r\nVary: Accept\r\n"), "{head}");
        assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", page.len())), "{head}");
        assert!(
            page.starts_with("<!DOCTYPE html>\n<html lang=\"en\">\n") && page.ends_with("</html>\n"),
            "{page}"
        );
        let last_line =
            format!("<p class=\"code\">{} {}: no such hidden server</p>", status.code(), status.reason());
        assert!(page.contains(&last_line), "{page}");
        for loads in ["http:", "https:", "<script", "<link", "<img", "url(", "@import", "href", "src="] {
            assert!(!page.contains(loads), "{loads}: {page}");
        }
        assert_eq!(page.matches("<p").count(), page.matches("</p>").count());
        assert!(page.len() < 2_500, "{}", page.len());
    }
}

#[test]
fn a_page_escapes_its_text() {
    let reply = Reply { diagnostic: "<b> & 'c'", form: Form::Html, ..NOT_FOUND };
    assert!(text(&reply).contains("404 Not Found: &lt;b&gt; &amp; &#39;c&#39;</p>"));
}

#[test]
fn a_page_has_words_of_its_own_for_each_cause() {
    let title = |status, diagnostic| {
        let reply = text(&Reply { status, diagnostic, form: Form::Html, ..NOT_FOUND });
        reply.split_once("<h1>").unwrap().1.split_once("</h1>").unwrap().0.to_owned()
    };
    for (status, diagnostic, expected) in [
        (
            Status::Unauthorized401,
            "the ID of the hidden server is asked for as user name",
            "Which server do you want to reach?",
        ),
        (Status::BadRequest400, "malformed Authorization", "The user name could not be read"),
        (Status::BadRequest400, "no Host", "The request was refused"),
        (Status::NotFound404, "no hidden server waits under this ID", "This server is not connected"),
        (Status::Unavailable503, "the hidden server is offline", "The server is offline"),
        (Status::Unavailable503, "all connections of the hidden server are taken", "The server is busy"),
        (Status::Unavailable503, "the relay is full", "The relay is full"),
        (Status::Unavailable503, "the relay is shutting down", "The relay is restarting"),
        (Status::BadGateway502, "the hidden server's connection failed", "The server did not answer"),
        (Status::BadGateway502, "the hidden server has no HTTP service", "There is no page here"),
        (
            Status::BadGateway502,
            "the hidden server's local service cannot be reached",
            "The service on the server does not answer",
        ),
    ] {
        assert_eq!(title(status, diagnostic), expected, "{diagnostic}");
    }
}

#[test]
fn a_connector_is_told_that_a_hidden_server_is_offline() {
    let reply = |diagnostic| {
        read(text(&Reply { status: Status::Unavailable503, diagnostic, ..NOT_FOUND }).as_bytes())
    };
    assert!(reply("the hidden server is offline").is_offline);
    assert!(!reply("all connections of the hidden server are taken").is_offline);
}

#[test]
fn a_head_request_gets_the_same_fields_and_no_body() {
    let (head, body) = {
        let whole = text(&NOT_FOUND);
        let at = whole.find("\r\n\r\n").unwrap() + 4;
        (whole[..at].to_owned(), whole[at..].to_owned())
    };
    assert!(!body.is_empty());
    assert_eq!(text(&Reply { head_request: true, ..NOT_FOUND }), head);
}

#[test]
fn every_error_reads_back_with_its_own_length() {
    for status in ALL.into_iter().filter(|it| it.code() >= 400) {
        let reply = Reply { status, retry_after: Some(30), ..NOT_FOUND };
        let bytes = text(&reply).into_bytes();
        let response = read(&bytes);
        assert_eq!(response.status, status.code());
        assert_eq!(response.date, Some(WALL));
        assert_eq!(response.retry_after, Some(30));
        assert_eq!(response.content_length, Some((bytes.len() - response.len) as u64));
    }
}

#[test]
fn statuses_have_the_codes_in_their_names() {
    for status in ALL {
        let name = format!("{status:?}");
        assert!(name.ends_with(&status.code().to_string()), "{name} {}", status.code());
    }
}

#[test]
fn statuses_have_the_reasons_of_their_registry() {
    let reasons = ALL.map(Status::reason).join(", ");
    assert_eq!(
        reasons,
        "Switching Protocols, OK, Bad Request, Unauthorized, Forbidden, Not Found, \
         Proxy Authentication Required, Request Timeout, Conflict, URI Too Long, \
         Misdirected Request, Too Many Requests, Request Header Fields Too Large, Bad Gateway, Service Unavailable, HTTP Version Not Supported"
    );
}

#[test]
fn a_hidden_server_is_accepted_with_nothing_but_a_status_line() {
    assert_eq!(ACCEPTED, b"HTTP/1.1 200 OK\r\n\r\n");
}

#[test]
fn an_agent_switches_with_the_fields_of_the_request() {
    let mut text = Vec::new();
    write_switching(&mut text, Switching::Relayed);
    let response = read(&text);
    assert_eq!((response.status, response.len), (101, text.len()));
    assert!(response.upgrade_octet_stream);
}

#[test]
fn dates_are_written_as_imf_fixdate() {
    for (wall, expected) in [
        (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
        (86_399, "Thu, 01 Jan 1970 23:59:59 GMT"),
        (WALL, "Sun, 06 Nov 1994 08:49:37 GMT"),
        (951_782_399, "Mon, 28 Feb 2000 23:59:59 GMT"),
        (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
        (951_868_800, "Wed, 01 Mar 2000 00:00:00 GMT"),
        (1_709_164_800, "Thu, 29 Feb 2024 00:00:00 GMT"),
        (1_735_689_599, "Tue, 31 Dec 2024 23:59:59 GMT"),
        (2_147_483_648, "Tue, 19 Jan 2038 03:14:08 GMT"),
        (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
        (253_402_300_799, "Fri, 31 Dec 9999 23:59:59 GMT"),
    ] {
        assert_eq!(date(wall), expected);
        assert_eq!(parse_date(expected.as_bytes()), Some(wall), "{expected}");
    }
}

#[test]
fn a_clock_past_the_year_9999_does_not_break_the_form() {
    assert_eq!(date(253_402_300_800), "Fri, 31 Dec 9999 23:59:59 GMT");
    assert_eq!(date(u64::MAX), "Fri, 31 Dec 9999 23:59:59 GMT");
}

#[test]
fn every_day_of_800_years_is_read_as_it_was_written() {
    let mut last = String::new();
    for day in 0..292_194 {
        let wall = day * 86_400 + day % 86_400;
        let written = date(wall);
        assert_eq!(parse_date(written.as_bytes()), Some(wall), "{written}");
        assert_ne!(written[..16], last);
        last = written[..16].to_owned();
    }
}

#[test]
fn anything_but_an_imf_fixdate_is_no_date() {
    for text in [
        "",
        "0",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "Mon, 06 Nov 1994 08:49:37 GMT",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun, 06 nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 GMT ",
        " Sun, 06 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08-49-37 GMT",
        "Sun, 06 Nov 1994 +8:49:37 GMT",
        "Sun, 00 Nov 1994 08:49:37 GMT",
        "Mon, 31 Nov 1994 08:49:37 GMT",
        "Wed, 29 Feb 1995 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:49:37 GMT",
        "Sun, 06 Nov 1994 08:60:37 GMT",
        "Sun, 06 Nov 1994 08:49:60 GMT",
        "Wed, 31 Dec 1969 23:59:59 GMT",
        "Sat, 01 Jan 0000 00:00:00 GMT",
        "Sun, 06 Nov 19é4 08:49:37 GMT",
    ] {
        assert_eq!(parse_date(text.as_bytes()), None, "{text}");
    }
    assert_eq!(parse_date(&[0xff; 29]), None);
}

#[test]
#[cfg(debug_assertions)]
fn a_diagnostic_that_would_need_an_escape_is_a_mistake_of_ours() {
    for diagnostic in ["say \"no\"", "a\\b", "line\nline"] {
        let reply = Reply { diagnostic, ..NOT_FOUND };
        assert!(std::panic::catch_unwind(|| text(&reply)).is_err(), "{diagnostic:?}");
    }
}
