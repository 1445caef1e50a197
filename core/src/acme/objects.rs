//! The CA's objects (RFC 8555 §7.1, RFC 9773 §4.2), reduced to the fields that a client reads.

use alloc::string::String;
use alloc::vec::Vec;

use super::config::ChallengeKind;
use super::dates::parse_rfc3339;
use super::json::{Json, Part};
use super::names::NAMES_MAX;
use super::problem::{Problem, display};
use super::url::Url;

/// The most profiles that are remembered of a directory.
const PROFILES_MAX: usize = 32;
/// The most challenges of an authorization that are looked at.
const CHALLENGES_MAX: usize = 16;
/// The longest token.
const TOKEN_MAX: usize = 256;

/// A directory (RFC 8555 §7.1.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Directory {
    pub(super) new_nonce: Url,
    pub(super) new_account: Url,
    pub(super) new_order: Url,
    pub(super) key_change: Option<Url>,
    pub(super) renewal_info: Option<Url>,
    pub(super) profiles: Vec<String>,
    pub(super) needs_external_account: bool,
    pub(super) terms: Option<String>,
}

impl Directory {
    /// Reads a directory; all URLs must have the origin of `own`.
    pub(super) fn read(body: &[u8], own: &Url) -> Option<Self> {
        let json = Json::parse(body)?;
        let url = |name: &str| json.str(name).and_then(Url::parse).filter(|it| it.is_same_origin(own));
        let meta = json.get("meta");
        Some(Self {
            new_nonce: url("newNonce")?,
            new_account: url("newAccount")?,
            new_order: url("newOrder")?,
            key_change: url("keyChange"),
            renewal_info: url("renewalInfo"),
            profiles: meta.and_then(|it| it.get("profiles")).map(names_of).unwrap_or_default(),
            needs_external_account: meta.is_some_and(|it| it.is_true("externalAccountRequired")),
            terms: meta.and_then(|it| it.str("termsOfService")).map(|it| display(it, 300)),
        })
    }
}

fn names_of(profiles: Part<'_>) -> Vec<String> {
    profiles.names().take(PROFILES_MAX).map(|it| display(it, 64)).collect()
}

/// The state of an order (RFC 8555 §7.1.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OrderStatus {
    Pending,
    Ready,
    Processing,
    Valid,
    Invalid,
}

/// An order (RFC 8555 §7.1.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) status: OrderStatus,
    /// Seconds since 1970.
    pub(super) expires: Option<u64>,
    pub(super) authorizations: Vec<Url>,
    pub(super) finalize: Option<Url>,
    pub(super) certificate: Option<Url>,
    pub(super) error: Option<Problem>,
}

impl Order {
    pub(super) fn read(body: &[u8], own: &Url) -> Option<Self> {
        let json = Json::parse(body)?;
        let url = |text: &str| Url::parse(text).filter(|it| it.is_same_origin(own));
        let status = match json.str("status")? {
            "pending" => OrderStatus::Pending,
            "ready" => OrderStatus::Ready,
            "processing" => OrderStatus::Processing,
            "valid" => OrderStatus::Valid,
            "invalid" => OrderStatus::Invalid,
            _ => return None,
        };
        let mut authorizations = Vec::new();
        for it in json.root().list("authorizations").take(NAMES_MAX) {
            authorizations.push(it.as_str().and_then(url)?);
        }
        Some(Self {
            status,
            expires: json.str("expires").and_then(parse_rfc3339),
            authorizations,
            finalize: json.str("finalize").and_then(url),
            certificate: json.str("certificate").and_then(url),
            error: json.get("error").map(Problem::of),
        })
    }
}

/// The state of an authorization (RFC 8555 §7.1.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AuthorizationStatus {
    Pending,
    Valid,
    /// Invalid, deactivated, expired, revoked: it never becomes valid.
    Dead,
}

/// An authorization (RFC 8555 §7.1.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Authorization {
    pub(super) status: AuthorizationStatus,
    pub(super) name: String,
    /// The challenges of kinds that are known.
    pub(super) challenges: Vec<Offered>,
    /// The types of all challenges, for the log.
    pub(super) types: Vec<String>,
    /// Why it failed, if it did.
    pub(super) error: Option<Problem>,
}

/// A challenge (RFC 8555 §8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Offered {
    pub(super) kind: ChallengeKind,
    pub(super) url: Url,
    pub(super) token: String,
    /// Whether it is pending: it was not posted yet.
    pub(super) is_pending: bool,
}

impl Authorization {
    pub(super) fn read(body: &[u8], own: &Url) -> Option<Self> {
        let json = Json::parse(body)?;
        let status = match json.str("status")? {
            "pending" => AuthorizationStatus::Pending,
            "valid" => AuthorizationStatus::Valid,
            _ => AuthorizationStatus::Dead,
        };
        let challenges: Vec<Part<'_>> = json.root().list("challenges").take(CHALLENGES_MAX).collect();
        let errors = challenges.iter().find_map(|it| it.get("error")).map(Problem::of);
        Some(Self {
            status,
            name: json.get("identifier")?.str("value")?.to_ascii_lowercase(),
            challenges: challenges.iter().filter_map(|it| Offered::read(*it, own)).collect(),
            types: challenges.iter().filter_map(|it| it.str("type")).map(|it| display(it, 32)).collect(),
            error: errors,
        })
    }
}

impl Offered {
    /// `None` for kinds that are not known, and for a challenge without a token or a URL.
    fn read(part: Part<'_>, own: &Url) -> Option<Self> {
        let token = part.str("token")?;
        let is_token = (1..=TOKEN_MAX).contains(&token.len())
            && token.bytes().all(|it| it.is_ascii_alphanumeric() || matches!(it, b'-' | b'_'));
        Some(Self {
            kind: ChallengeKind::parse(part.str("type")?)?,
            url: part.str("url").and_then(Url::parse).filter(|it| it.is_same_origin(own))?,
            token: is_token.then(|| token.into())?,
            is_pending: part.str("status").is_none_or(|it| it == "pending"),
        })
    }
}

/// Renewal information (RFC 9773 §4.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RenewalInfo {
    /// Seconds since 1970.
    pub(super) start: u64,
    /// Seconds since 1970, after `start`.
    pub(super) end: u64,
    pub(super) explanation: Option<String>,
}

impl RenewalInfo {
    /// `None` also if the window does not end after it starts.
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        let json = Json::parse(body)?;
        let window = json.get("suggestedWindow")?;
        let start = window.str("start").and_then(parse_rfc3339)?;
        let end = window.str("end").and_then(parse_rfc3339).filter(|it| *it > start)?;
        Some(Self { start, end, explanation: json.str("explanationURL").map(|it| display(it, 300)) })
    }
}

/// The status of an account.
pub(super) fn is_account_valid(body: &[u8]) -> bool {
    Json::parse(body).is_some_and(|it| it.str("status").is_none_or(|it| it == "valid"))
}
