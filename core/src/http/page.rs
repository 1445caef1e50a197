//! The error page for browsers: what happened, and what the visitor can do about it.
//!
//! A page has no script, no link and no external resource. It reveals nothing that the JSON of the same response does
//! not.

use alloc::string::String;

use super::diagnostic;
use super::status::Status;

/// The content security policy: only the page's own style.
pub(super) const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HEAD: &str = "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
    <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
    <meta name=\"color-scheme\" content=\"light dark\">\n<title>";
const STYLE: &str = "</title>\n<style>\n\
    :root { color-scheme: light dark; }\n\
    body { font: 1.1em/1.5 system-ui, sans-serif; max-width: 34em; margin: 10vh auto; padding: 0 1.2em; \
    overflow-wrap: break-word; }\n\
    h1 { font-size: 1.5em; line-height: 1.25; }\n\
    .code { font-size: 0.8em; opacity: 0.75; }\n\
    </style>\n</head>\n<body>\n<main>\n<h1>";
const END: &str = "</main>\n</body>\n</html>\n";

/// The text of a page.
struct Words {
    title: &'static str,
    /// What happened.
    what: &'static str,
    /// What the visitor can do, a paragraph each.
    advice: &'static [&'static str],
}

/// Appends the page for an error with this status and this diagnostic.
pub(super) fn write(status: Status, diagnostic: &str, out: &mut String) {
    let Words { title, what, advice } = words(status, diagnostic);
    out.push_str(HEAD);
    escape(title, out);
    out.push_str(STYLE);
    escape(title, out);
    out.push_str("</h1>\n");
    for text in [what].iter().chain(advice) {
        out.push_str("<p>");
        escape(text, out);
        out.push_str("</p>\n");
    }
    out.push_str("<p class=\"code\">");
    escape(&alloc::format!("{} {}: {diagnostic}", status.code(), status.reason()), out);
    out.push_str("</p>\n");
    out.push_str(END);
}

fn words(status: Status, diagnostic: &str) -> Words {
    let (title, what, advice): (_, _, &'static [&'static str]) = match (status, diagnostic) {
        (Status::Unauthorized401, diagnostic::ASK) => (
            "Which server do you want to reach?",
            "Several servers can be reached at this address. The user name that your browser asks for chooses one.",
            &[
                "Reload this page. As user name, type the ID of the server: 36 characters, such as \
                 123e4567-e89b-12d3-a456-426614174000. If the server has a short name at this address, that works \
                 too. The password can be anything.",
                "If your browser asks again at once, there was a typing mistake. The person who runs the server can \
                 tell you its ID.",
            ],
        ),
        (Status::Unauthorized401, _) => (
            "A password is needed",
            "This server asks for a user name and a password.",
            &["Reload this page and type them. The person who runs the server can tell you both."],
        ),
        (Status::Forbidden403, diagnostic::ADDRESS) => (
            "Your network is not allowed",
            "This server takes no visitors from the network that you are in.",
            &["Ask the person who runs the server."],
        ),
        (Status::Forbidden403, diagnostic::DENIED) => (
            "Your network is not allowed",
            "The relay connects nobody with this server from the network that you are in.",
            &["Ask the person who runs the server."],
        ),
        (Status::Forbidden403, diagnostic::DISABLED) => (
            "The server is disabled",
            "The operator of the relay has disabled this server.",
            &["Ask the person who runs the server."],
        ),
        (Status::Misdirected421, diagnostic::GROUP_CLIENT) => (
            "Use the server's own address",
            "This is one of several relays. Each server is reached at its own host name only, and not by a user name.",
            &["Ask the person who runs the server for its address: it begins with the name of the server."],
        ),
        (Status::Unavailable503, diagnostic::QUOTA) => (
            "The server has used up its quota",
            "The server may transfer no more data this month.",
            &["Try again next month, or tell the person who runs the server."],
        ),
        (Status::BadRequest400, diagnostic::CREDENTIALS) => (
            "The user name could not be read",
            "Your browser or program sent a user name in a form that cannot be read without doubt.",
            &[
                "Open a private window and try again. As user name, type the ID of the server and nothing else.",
            ],
        ),
        (Status::BadRequest400, diagnostic::PLAIN_HTTP) => (
            "This address needs https",
            "The request came without encryption, and this port takes encrypted requests alone.",
            &["Put https:// in front of the address."],
        ),
        (_, diagnostic::END_TO_END) => (
            "This server needs another address",
            "The server encrypts everything itself, so it cannot be reached by a user name at this address.",
            &[
                "Open the server's own address, which begins with its name: https://NAME.RELAY. The person who runs the \
                 server can tell you the name.",
                "If you are at that address already, reload the page. If that does not help, close the browser and open \
                 it again.",
            ],
        ),
        (Status::NotFound404, _) => (
            "This server is not connected",
            "No server with this ID or name is connected here at the moment. It may be switched off or offline, or \
             the ID or name may be mistyped.",
            &[
                "Check the address. If you typed a user name, open a private window and type it again: your browser \
                 remembers it until it is closed.",
                "If both are right, try again later, or ask the person who runs the server.",
            ],
        ),
        (Status::Timeout408, _) => (
            "The request took too long",
            "The request did not arrive in time.",
            &["Check your connection to the internet and try again."],
        ),
        (Status::UriTooLong414, _) => (
            "The address is too long",
            "The address of the page is longer than this relay accepts.",
            &["If you followed a link, tell the person who made it."],
        ),
        (Status::Misdirected421, _) => (
            "The name and the ID do not belong together",
            "The address names one server, and the ID names another.",
            &["Use the address without a name, or the ID of the server that the address names."],
        ),
        (Status::TooManyRequests429, _) => {
            ("Too many failures", "Too many attempts failed.", &["Wait a minute and try again."])
        }
        (Status::HeadTooLarge431, _) => (
            "The request is too large",
            "Your browser sends more with each request than this relay accepts. Mostly these are cookies.",
            &["Delete the cookies of this site and try again."],
        ),
        (Status::BadGateway502, diagnostic::NO_SERVICE) => (
            "There is no page here",
            "The server is connected, but it offers no web pages.",
            &["Ask the person who runs the server how to reach it."],
        ),
        (Status::BadGateway502, diagnostic::SERVICE_UNREACHABLE) => (
            "The service on the server does not answer",
            "The server is connected, but the program on it that should answer is not running or does not respond.",
            &["Try again later, or tell the person who runs the server."],
        ),
        (Status::BadGateway502, _) => (
            "The server did not answer",
            "The connection to the server broke before it answered.",
            &["Reload the page. If that does not help, tell the person who runs the server."],
        ),
        (Status::Unavailable503, diagnostic::OFFLINE) => (
            "The server is offline",
            "The server was connected a short time ago and is not connected now. It may be restarting.",
            &["Try again in a few seconds. If that does not help, tell the person who runs the server."],
        ),
        (Status::Unavailable503, diagnostic::STOPPING) => (
            "The relay is restarting",
            "The relay that connects you with the server is shutting down or restarting.",
            &["Try again in a few seconds."],
        ),
        (Status::Unavailable503, diagnostic::FULL) => (
            "The relay is full",
            "The relay that connects you with the server has no room for more connections.",
            &["Try again in a few minutes."],
        ),
        (Status::Unavailable503, _) => (
            "The server is busy",
            "All connections to the server are in use.",
            &["Try again in a few seconds."],
        ),
        (Status::VersionNotSupported505, _) => (
            "This version of HTTP is not supported",
            "Your browser or program uses a version of HTTP that this relay does not know.",
            &["Use HTTP/1.1."],
        ),
        _ => (
            "The request was refused",
            "The relay could not accept the request. The last line says why.",
            &["Check the address and try again."],
        ),
    };
    Words { title, what, advice }
}

/// Appends text with HTML's special characters escaped.
fn escape(text: &str, out: &mut String) {
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(letter),
        }
    }
}
