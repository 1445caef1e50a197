//! The line with an agent's configuration of direct connections.

use alloc::format;
use alloc::string::String;
use core::fmt;
use core::net::SocketAddr;

use super::tokenizer::{HostPortText, SpanText, Tokenizer, address, number, place, span};
use crate::acl::Policy;
use crate::dtcp::{Direct, Fingerprint};
use crate::machine::Listener;

/// Parses the text after `direct`.
pub(super) fn read(tokenizer: &mut Tokenizer<'_>) -> Result<Direct, String> {
    let certificate = tokenizer.keyed("certificate", |word| Fingerprint::parse(word.as_bytes()))?;
    let mut direct = Direct {
        hosts: Default::default(),
        listener: None,
        fingerprint: certificate,
        policy: Policy::default(),
        timeout: Direct::AWAITED,
    };
    while let Some(word) = tokenizer.next() {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        set(&mut direct, key, value).ok_or_else(|| {
            format!("'{word}' is none of listener= hosts= allow= own= patience=, or its value is invalid")
        })?;
    }
    Ok(direct)
}

fn set(direct: &mut Direct, key: &str, value: &str) -> Option<()> {
    match key {
        "listener" => direct.listener = Some(Listener(number(value)?)),
        "hosts" => direct.hosts = value.split(',').map(place).collect::<Option<_>>()?,
        "own" => direct.policy.own = value.split(',').map(address).collect::<Option<_>>()?,
        "patience" => direct.timeout = span(value)?,
        "allow" => {
            for kind in value.split(',') {
                let mut kinds = kinds(&mut direct.policy).into_iter();
                *kinds.find(|(name, _)| *name == kind)?.1 = true;
            }
        }
        _ => return None,
    }
    Some(())
}

/// Writes what [`read`] parses.
pub(super) fn write(direct: &Direct, out: &mut impl fmt::Write) -> fmt::Result {
    write!(out, "direct certificate={}", direct.fingerprint)?;
    if let Some(Listener(number)) = direct.listener {
        write!(out, " listener={number}")?;
    }
    let mut between = " hosts=";
    for host in &direct.hosts {
        write!(out, "{between}{}", HostPortText(host))?;
        between = ",";
    }
    let mut policy = direct.policy.clone();
    let mut between = " allow=";
    for (name, is) in kinds(&mut policy) {
        if *is {
            write!(out, "{between}{name}")?;
            between = ",";
        }
    }
    let mut between = " own=";
    for own in &direct.policy.own {
        let own: &SocketAddr = own;
        write!(out, "{between}{own}")?;
        between = ",";
    }
    if direct.timeout != Direct::AWAITED {
        write!(out, " patience={}", SpanText(direct.timeout))?;
    }
    writeln!(out)
}

fn kinds(policy: &mut Policy) -> [(&'static str, &mut bool); 5] {
    [
        ("loopback", &mut policy.loopback),
        ("link-local", &mut policy.link_local),
        ("private", &mut policy.private),
        ("shared", &mut policy.shared),
        ("names", &mut policy.names),
    ]
}
