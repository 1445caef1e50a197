//! The form of an error response that a client prefers (RFC 9110 §12.5.1).

use rendezvous_core::http::accept::Form::{self, Html, Json};

fn preferred(fields: &str) -> Form {
    Form::preferred(format!("GET / HTTP/1.1\r\nHost: relay\r\n{fields}\r\n\r\n").as_bytes())
}

#[track_caller]
fn all_prefer(form: Form, values: &[&str]) {
    for value in values {
        assert_eq!(preferred(&format!("Accept: {value}")), form, "{value}");
    }
}

#[test]
fn browsers_prefer_a_page() {
    all_prefer(
        Html,
        &[
            // Firefox, Chromium, Safari, lynx, w3m.
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8,application/signed-exchange;v=b3;q=0.7",
            "text/html, text/plain, text/sgml, text/css, application/xhtml+xml, */*;q=0.01",
            "text/html, text/*;q=0.5, image/*, application/*",
            // Internet Explorer.
            "text/html, application/xhtml+xml, */*",
        ],
    );
}

#[test]
fn programs_get_json() {
    assert_eq!(preferred("X: y"), Json);
    all_prefer(
        Json,
        &[
            "*/*",
            "",
            "application/json",
            "application/json, text/plain, */*",
            "text/html, application/json",
            "image/avif,image/webp,*/*;q=0.8",
            "text/plain",
            "text/xhtml",
            "text/htmlx",
        ],
    );
}

#[test]
fn the_quality_decides_and_the_most_specific_range_has_it() {
    all_prefer(
        Html,
        &[
            "text/html",
            "TEXT/HTML",
            "text/*",
            "text/html;q=0.001",
            "application/json;q=0.8, text/html;q=0.9",
            "application/json; q=0.899 ,\ttext/html ; Q=0.9",
            "*/*;q=0.1, text/html;q=0.2",
            "application/*;q=0, */*",
            "application/json;q=0, */*",
            "text/html;q=1.000, application/json;q=0.999",
            "text/html;charset=utf-8",
            "text/html; charset=\"UTF-8\";q=0.5",
            "text/html;q=0.5;level=1",
            ", text/html ,,",
        ],
    );
    all_prefer(
        Json,
        &[
            "text/html;q=0",
            "text/html;q=0.000",
            "text/html;q=0, */*",
            "text/html;q=0.5, application/json",
            "text/*;q=0.5, text/html;q=0.1, application/json;q=0.3",
            "text/*;q=0.1, */*;q=0.2",
        ],
    );
}

#[test]
fn a_range_that_is_malformed_or_of_another_page_does_not_count() {
    all_prefer(
        Json,
        &[
            "text",
            "text/html;level=1",
            "text/html;q=2",
            "text/html;q=1.001",
            "text/html;q=0.1234",
            "text/html;q=",
            "text/html;q=-1",
            "text/html;q=.5",
            "text/html;q",
            "x/y;a=\"text/html, text/html\"",
            "x/y;a=\"\\\", text/html\"",
        ],
    );
    all_prefer(Html, &["x/y;a=\",\", text/html", "text/html;q=2, text/html;q=0.5"]);
}

#[test]
fn several_fields_are_one_list() {
    assert_eq!(preferred("Accept: application/json\r\naccept: text/html;q=0.5"), Json);
    assert_eq!(preferred("ACCEPT: application/json;q=0.4\r\nAccept:text/html;q=0.5"), Html);
    assert_eq!(preferred("X-Accept: text/html\r\nAccepts: text/html"), Json);
}

#[test]
fn an_incomplete_head_counts_up_to_its_last_complete_line() {
    let head = b"\r\nGET / HTTP/1.1\r\nAccept: text/html\r\nCookie: aaaa";
    assert_eq!(Form::preferred(head), Html);
    assert_eq!(Form::preferred(b"GET / HTTP/1.1\r\nAccept: text/html"), Json);
    assert_eq!(Form::preferred(b"Accept: text/html\r\n\r\n"), Json, "the first line is no field");
    assert_eq!(Form::preferred(b"GET / HTTP/1.1\r\n\r\nAccept: text/html\r\n"), Json, "that is the body");
    assert_eq!(
        Form::preferred(b"GET / HTTP/1.1\nAccept: text/html\n"),
        Html,
        "refused, but a page all the same"
    );
    assert_eq!(Form::preferred(b""), Json);
}
