//! Configurations as `key=value`, for the settings that differ from the default. One table serves for parsing and
//! writing.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use super::tokenizer::{SpanText, Tokenizer, number, span};
use crate::prefix::Prefix;
use crate::proxy_header::Version;
use crate::time::Span;
use crate::{agent, engine};

/// A configuration with a table of its settings.
pub(super) trait Settings: Clone + Default {
    fn slots(&mut self) -> Vec<(&'static str, Slot<'_>)>;
}

/// One setting.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Slot<'a> {
    Count(&'a mut u32),
    Time(&'a mut Span),
    /// `none`, or a time.
    MaybeTime(&'a mut Option<Span>),
    /// `yes` or `no`.
    Flag(&'a mut bool),
    /// `none`, or prefixes separated by commas.
    Prefixes(&'a mut Vec<Prefix>),
    /// `none`, `v1` or `v2`.
    MaybeVersion(&'a mut Option<Version>),
    /// `none`, or a word.
    MaybeWord(&'a mut Option<String>),
}

impl Settings for engine::Config {
    fn slots(&mut self) -> Vec<(&'static str, Slot<'_>)> {
        vec![
            ("domain", Slot::MaybeWord(&mut self.domain)),
            ("group", Slot::Flag(&mut self.group)),
            ("proxies", Slot::Prefixes(&mut self.proxies)),
            ("denied", Slot::Prefixes(&mut self.denied)),
            ("one-time-strict", Slot::Flag(&mut self.one_time_strict)),
            ("head-octets-max", Slot::Count(&mut self.head.head_bytes_max)),
            ("line-octets-max", Slot::Count(&mut self.head.line_bytes_max)),
            ("connections-max", Slot::Count(&mut self.connections_max)),
            ("connections-per-address-max", Slot::Count(&mut self.connections_per_address_max)),
            ("handshakes-max", Slot::Count(&mut self.handshakes_max)),
            ("heads-max", Slot::Count(&mut self.heads_max)),
            ("waiting-per-id-max", Slot::Count(&mut self.waiting_per_id_max)),
            ("pairs-per-id-max", Slot::Count(&mut self.pairs_per_id_max)),
            ("held-per-id-max", Slot::Count(&mut self.held_per_id_max)),
            ("tokens-per-id-max", Slot::Count(&mut self.tokens_per_id_max)),
            ("handshake", Slot::Time(&mut self.handshake)),
            ("head-timeout", Slot::Time(&mut self.head_timeout)),
            ("answer", Slot::Time(&mut self.answer)),
            ("hold", Slot::Time(&mut self.hold)),
            ("user-timeout", Slot::Time(&mut self.user_timeout)),
            ("half-closed", Slot::Time(&mut self.pair.half_closed)),
            ("idle", Slot::MaybeTime(&mut self.pair.idle)),
            ("check", Slot::Time(&mut self.pair.check)),
            ("silent", Slot::Time(&mut self.pair.silent)),
            ("hand-over", Slot::MaybeTime(&mut self.pair.hand_over)),
        ]
    }
}

impl Settings for agent::Config {
    fn slots(&mut self) -> Vec<(&'static str, Slot<'_>)> {
        vec![
            ("once", Slot::Flag(&mut self.once)),
            ("send-proxy", Slot::MaybeVersion(&mut self.send_proxy)),
            ("forwarded", Slot::Flag(&mut self.forwarded)),
            ("subject", Slot::Flag(&mut self.subject)),
            ("allow", Slot::Prefixes(&mut self.allow)),
            ("deny", Slot::Prefixes(&mut self.deny)),
            ("service-connections-max", Slot::Count(&mut self.service_connections_max)),
            ("head-octets-max", Slot::Count(&mut self.head.head_bytes_max)),
            ("line-octets-max", Slot::Count(&mut self.head.line_bytes_max)),
            ("head-timeout", Slot::Time(&mut self.head_timeout)),
            ("dial", Slot::Time(&mut self.deadlines.dial)),
            ("handshake", Slot::Time(&mut self.deadlines.handshake)),
            ("answer", Slot::Time(&mut self.deadlines.answer)),
            ("local-dial", Slot::Time(&mut self.local_dial)),
            ("user-timeout", Slot::Time(&mut self.user_timeout)),
            ("renew", Slot::MaybeTime(&mut self.renew)),
            ("retry-first", Slot::Time(&mut self.retry.first)),
            ("retry-refused", Slot::Time(&mut self.retry.first_refused)),
            ("retry-max", Slot::Time(&mut self.retry.max)),
            ("half-closed", Slot::Time(&mut self.pair.half_closed)),
            ("idle", Slot::MaybeTime(&mut self.pair.idle)),
            ("check", Slot::Time(&mut self.pair.check)),
            ("silent", Slot::Time(&mut self.pair.silent)),
        ]
    }
}

impl Slot<'_> {
    fn set(&mut self, value: &str) -> Option<()> {
        match self {
            Self::Count(count) => **count = number(value)?,
            Self::Time(time) => **time = span(value)?,
            Self::MaybeTime(time) => **time = if value == "none" { None } else { Some(span(value)?) },
            Self::Flag(flag) => {
                **flag = match value {
                    "yes" => true,
                    "no" => false,
                    _ => return None,
                }
            }
            Self::Prefixes(prefixes) => {
                let each = value.split(',').filter(|_| value != "none").map(|it| it.parse().ok());
                **prefixes = each.collect::<Option<_>>()?;
            }
            Self::MaybeVersion(version) => {
                **version = match value {
                    "none" => None,
                    "v1" => Some(Version::V1),
                    "v2" => Some(Version::V2),
                    _ => return None,
                }
            }
            Self::MaybeWord(word) => {
                let fits =
                    value.bytes().all(|it| it.is_ascii_alphanumeric() || matches!(it, b'-' | b'.' | b'_'));
                **word = if value == "none" { None } else { fits.then(|| Some(value.to_string()))? }
            }
        }
        Some(())
    }
}

impl fmt::Display for Slot<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Time(time) => write!(f, "{}", SpanText(**time)),
            Self::MaybeTime(Some(time)) => write!(f, "{}", SpanText(*time)),
            Self::Flag(flag) => f.write_str(if **flag { "yes" } else { "no" }),
            Self::MaybeVersion(Some(Version::V1)) => f.write_str("v1"),
            Self::MaybeVersion(Some(Version::V2)) => f.write_str("v2"),
            Self::MaybeWord(Some(word)) => f.write_str(word),
            Self::Prefixes(prefixes) if !prefixes.is_empty() => {
                let each: Vec<_> = prefixes.iter().map(ToString::to_string).collect();
                f.write_str(&each.join(","))
            }
            Self::MaybeTime(None) | Self::MaybeVersion(None) | Self::MaybeWord(None) | Self::Prefixes(_) => {
                f.write_str("none")
            }
        }
    }
}

/// Parses `key=value` for each setting that differs from the default.
pub(super) fn read<C: Settings>(tokenizer: &mut Tokenizer<'_>, config: &mut C) -> Result<(), String> {
    while let Some(word) = tokenizer.next() {
        let (key, value) = word.split_once('=').ok_or_else(|| format!("'{word}' is not key=value"))?;
        let mut slots = config.slots();
        let slot = slots.iter_mut().find(|(name, _)| *name == key);
        let (_, slot) = slot.ok_or_else(|| format!("there is no setting '{key}'"))?;
        slot.set(value).ok_or_else(|| format!("{key}: invalid value '{value}'"))?;
    }
    Ok(())
}

/// Writes what [`read`] parses, each with a leading space.
pub(super) fn write<C: Settings>(config: &C, out: &mut impl fmt::Write) -> fmt::Result {
    let (mut config, mut default) = (config.clone(), C::default());
    for ((key, value), (_, default)) in config.slots().iter().zip(default.slots()) {
        if *value != default {
            write!(out, " {key}={value}")?;
        }
    }
    Ok(())
}
