//! Responses, as agent and connector parse them.

use rendezvous_core::http::head::{Finder, Limits};
use rendezvous_core::http::response::{Response, ResponseError, parse_response, parse_status};

pub(crate) fn run(bytes: &[u8]) {
    for limits in [Limits::default(), Limits { head_bytes_max: 200, line_bytes_max: 60 }] {
        let mut finder = Finder::default();
        let whole = parse_response(bytes, &mut finder, &limits);
        assert_eq!(bytewise(bytes, &limits), whole, "byte by byte");
        match whole {
            Ok(Some(response)) => {
                assert!(response.len <= bytes.len() && response.len <= limits.head_bytes_max as usize);
                assert!((100..=999).contains(&response.status));
                let head = &bytes[..response.len];
                assert_eq!(parse_status(head), Some(response.status));
                let text: String = head.iter().map(|&byte| char::from(byte).to_ascii_lowercase()).collect();
                assert!(!response.upgrade_octet_stream || text.contains("octet-stream"));
                assert!(!response.upgrade_sealed_stream || text.contains("octet-stream+tls"));
                assert!(response.content_length.is_none_or(|it| text.contains(&it.to_string())));
                assert!(response.retry_after.is_none_or(|it| text.contains(&it.to_string())));
            }
            Ok(None) => {}
            Err(error) => assert!(!error.why().is_empty()),
        }
    }
}

fn bytewise(bytes: &[u8], limits: &Limits) -> Result<Option<Response>, ResponseError> {
    let mut finder = Finder::default();
    let all = (0..=bytes.len()).map(|len| parse_response(&bytes[..len], &mut finder, limits));
    all.into_iter().find(|found| *found != Ok(None)).unwrap_or(Ok(None))
}
