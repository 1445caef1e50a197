//! Targets and labels.

use rendezvous_core::http::head;
use rendezvous_core::http::response::{RegistrationOptions, write_connect};
use rendezvous_core::http::target::{Token, label, registration, rendezvous_parameter};

/// The bytes are a target, a host and a domain, a line each.
pub(crate) fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut lines = text.split('\n');
    let (target, host, domain) = (
        lines.next().unwrap_or_default(),
        lines.next().unwrap_or_default(),
        lines.next().unwrap_or_default(),
    );
    check_registration(target);
    check_parameter(target);
    check_label(host, domain);
}

fn check_registration(target: &str) {
    let Ok(registration) = registration(target) else { return };
    let folded = target.to_ascii_lowercase();
    assert!(folded.starts_with(&format!("uuid:{}?", registration.id)), "{target:?} names another");
    let (front, of_token) = match &registration.token {
        Token::Plain(digits) => ("response=", digits.to_vec()),
        Token::Bound { nonce, .. } => ("nonce=", nonce.to_vec()),
        Token::Challenged { challenge, .. } => ("challenge=", challenge.as_bytes().to_vec()),
    };
    let of_token = String::from_utf8(of_token).expect("digits, or letters");
    assert!(target.contains(&format!("{front}{of_token}")), "{target:?} holds another token");
    let mut connect = Vec::new();
    write_connect(
        &mut connect,
        registration.id,
        &registration.token,
        "relay",
        RegistrationOptions::default(),
    );
    let head = head::parse(&connect).expect("what an agent writes is a head");
    assert_eq!(rendezvous_core::http::target::registration(head.target), Ok(registration));
}

fn check_parameter(target: &str) {
    let query = target.split_once('?').map(|(_, query)| query).unwrap_or_default();
    let named = query.split('&').filter(|it| *it == "rendezvous" || it.starts_with("rendezvous=")).count();
    let Some(id) = rendezvous_parameter(target) else { return };
    assert_eq!(named, 1, "{target:?}");
    assert!(query.to_ascii_lowercase().contains(&format!("rendezvous={id}")), "{target:?} names another");
}

fn check_label(host: &str, domain: &str) {
    let Some(label) = label(host, domain) else { return };
    assert!(!label.is_empty() && !label.contains(['.', ':']), "{label:?}");
    let name = host.split(':').next().unwrap_or_default();
    let name = name.strip_suffix('.').unwrap_or(name);
    let domain = domain.strip_suffix('.').unwrap_or(domain);
    assert!(
        name.eq_ignore_ascii_case(&format!("{label}.{domain}")),
        "{host:?} is not {label:?} under {domain:?}"
    );
}
