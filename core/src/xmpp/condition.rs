//! Conditions of stanza errors (RFC 6120 §8.3, XEP-0086) and of stream errors (RFC 6120 §4.9).

use alloc::string::String;

use super::element::Element;

/// The namespace of stanza errors' conditions (RFC 6120 §8.3.2).
pub const STANZAS: &str = "urn:ietf:params:xml:ns:xmpp-stanzas";
/// The namespace of stream errors' conditions (RFC 6120 §4.9.2).
pub const STREAMS: &str = "urn:ietf:params:xml:ns:xmpp-streams";

/// Why an IQ is refused: all conditions of RFC 6120 §8.3.3, with their numbers in XEP-0086.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// 400 bad-request.
    BadRequest,
    /// 401 not-authorized.
    NotAuthorized,
    /// 403 forbidden.
    Forbidden,
    /// 404 item-not-found.
    ItemNotFound,
    /// 405 not-allowed.
    NotAllowed,
    /// 406 not-acceptable.
    NotAcceptable,
    /// 406 policy-violation, which XEP-0086 does not have. The number alone is read as [`Condition::NotAcceptable`].
    PolicyViolation,
    /// 407 registration-required.
    RegistrationRequired,
    /// 409 conflict.
    Conflict,
    /// 500 internal-server-error.
    InternalServerError,
    /// 500 resource-constraint. The number alone is read as [`Condition::InternalServerError`].
    ResourceConstraint,
    /// 501 feature-not-implemented.
    FeatureNotImplemented,
    /// 503 service-unavailable.
    ServiceUnavailable,
    /// 504 remote-server-timeout.
    RemoteServerTimeout,
    /// 302 redirect. The number alone is read as this one.
    Redirect,
    /// 302 gone.
    Gone,
    /// 400 jid-malformed. The number alone is read as [`Condition::BadRequest`].
    JidMalformed,
    /// 400 unexpected-request. The number alone is read as [`Condition::BadRequest`].
    UnexpectedRequest,
    /// 404 recipient-unavailable. The number alone is read as [`Condition::ItemNotFound`].
    RecipientUnavailable,
    /// 404 remote-server-not-found: there is no such domain. The number alone is read as [`Condition::ItemNotFound`].
    RemoteServerNotFound,
    /// 407 subscription-required. The number alone is read as [`Condition::RegistrationRequired`].
    SubscriptionRequired,
    /// 500 undefined-condition, and all others.
    Undefined,
}

/// Every condition with its name, number and type. A number is looked up in this order.
const CONDITIONS: &[(Condition, &str, u16, &str)] = &[
    (Condition::BadRequest, "bad-request", 400, "modify"),
    (Condition::NotAuthorized, "not-authorized", 401, "auth"),
    (Condition::Forbidden, "forbidden", 403, "auth"),
    (Condition::ItemNotFound, "item-not-found", 404, "cancel"),
    (Condition::NotAllowed, "not-allowed", 405, "cancel"),
    (Condition::NotAcceptable, "not-acceptable", 406, "modify"),
    (Condition::PolicyViolation, "policy-violation", 406, "modify"),
    (Condition::RegistrationRequired, "registration-required", 407, "auth"),
    (Condition::Conflict, "conflict", 409, "cancel"),
    (Condition::InternalServerError, "internal-server-error", 500, "wait"),
    (Condition::ResourceConstraint, "resource-constraint", 500, "wait"),
    (Condition::FeatureNotImplemented, "feature-not-implemented", 501, "cancel"),
    (Condition::ServiceUnavailable, "service-unavailable", 503, "cancel"),
    (Condition::RemoteServerTimeout, "remote-server-timeout", 504, "wait"),
    (Condition::Redirect, "redirect", 302, "modify"),
    (Condition::Gone, "gone", 302, "cancel"),
    (Condition::JidMalformed, "jid-malformed", 400, "modify"),
    (Condition::UnexpectedRequest, "unexpected-request", 400, "wait"),
    (Condition::RecipientUnavailable, "recipient-unavailable", 404, "wait"),
    (Condition::RemoteServerNotFound, "remote-server-not-found", 404, "cancel"),
    (Condition::SubscriptionRequired, "subscription-required", 407, "auth"),
    (Condition::Undefined, "undefined-condition", 500, "cancel"),
];

impl Condition {
    /// Its name in RFC 6120.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// Its number in XEP-0086.
    #[must_use]
    pub fn code(self) -> u16 {
        self.row().2
    }

    fn row(self) -> &'static (Self, &'static str, u16, &'static str) {
        CONDITIONS
            .iter()
            .find(|row| row.0 == self)
            .unwrap_or_else(|| unreachable!("every condition is in the table"))
    }

    /// The condition of a number of XEP-0086.
    fn of_code(code: &str) -> Self {
        // Old entities used these numbers of HTTP.
        let code = match code {
            "408" => "504",
            "502" | "510" => "503",
            code => code,
        };
        let code = code.parse().unwrap_or(0);
        CONDITIONS.iter().find(|row| row.2 == code).map_or(Self::Undefined, |row| row.0)
    }
}

/// The `<error/>` of a stanza.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StanzaError {
    /// The condition, for programs.
    pub condition: Condition,
    /// The text for humans; may be empty. It is untrusted and must be escaped.
    pub text: String,
}

impl StanzaError {
    /// An error with a text for humans.
    #[must_use]
    pub fn new(condition: Condition, text: &str) -> Self {
        Self { condition, text: String::from(text) }
    }

    /// Parses either form: a condition as a child, or a number with or without text.
    #[must_use]
    pub fn read(error: &Element) -> Self {
        let of_rfc = |child: &&Element| child.namespace() == STANZAS;
        let named = error.children().iter().filter(of_rfc).find(|child| child.name() != "text");
        let text = error.children().iter().filter(of_rfc).find(|child| child.name() == "text");
        let condition = match (named, error.attribute("code")) {
            (Some(named), _) => {
                CONDITIONS.iter().find(|row| row.1 == named.name()).map_or(Condition::Undefined, |row| row.0)
            }
            (None, Some(code)) => Condition::of_code(code),
            (None, None) => Condition::Undefined,
        };
        Self::new(condition, text.unwrap_or(error).text().trim())
    }

    /// Writes both forms in one: number, type, condition, text (XEP-0086 §3).
    #[must_use]
    pub(super) fn to_element(&self, namespace: &str) -> Element {
        let (_, name, code, kind) = self.condition.row();
        let error = Element::new(namespace, "error");
        let error = error.with("code", &alloc::format!("{code}")).with("type", kind);
        let error = error.with_child(Element::new(STANZAS, name));
        if self.text.is_empty() {
            return error;
        }
        error.with_child(Element::new(STANZAS, "text").with_text(&self.text))
    }
}

/// Why a stream was ended (RFC 6120 §4.9.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamCondition {
    /// bad-format: XML that is not allowed at this place.
    BadFormat,
    /// conflict: another connection has the name.
    Conflict,
    /// connection-timeout.
    ConnectionTimeout,
    /// host-gone.
    HostGone,
    /// host-unknown: the server has no component of that name.
    HostUnknown,
    /// improper-addressing.
    ImproperAddressing,
    /// internal-server-error.
    InternalServerError,
    /// invalid-from.
    InvalidFrom,
    /// invalid-namespace.
    InvalidNamespace,
    /// invalid-xml.
    InvalidXml,
    /// not-authorized: the secret is wrong.
    NotAuthorized,
    /// not-well-formed.
    NotWellFormed,
    /// policy-violation: too large.
    PolicyViolation,
    /// remote-connection-failed.
    RemoteConnectionFailed,
    /// reset.
    Reset,
    /// resource-constraint.
    ResourceConstraint,
    /// restricted-xml: XML features that XMPP excludes.
    RestrictedXml,
    /// system-shutdown.
    SystemShutdown,
    /// undefined-condition, and all others.
    Undefined,
}

const STREAM_CONDITIONS: &[(StreamCondition, &str)] = &[
    (StreamCondition::BadFormat, "bad-format"),
    (StreamCondition::Conflict, "conflict"),
    (StreamCondition::ConnectionTimeout, "connection-timeout"),
    (StreamCondition::HostGone, "host-gone"),
    (StreamCondition::HostUnknown, "host-unknown"),
    (StreamCondition::ImproperAddressing, "improper-addressing"),
    (StreamCondition::InternalServerError, "internal-server-error"),
    (StreamCondition::InvalidFrom, "invalid-from"),
    (StreamCondition::InvalidNamespace, "invalid-namespace"),
    (StreamCondition::InvalidXml, "invalid-xml"),
    (StreamCondition::NotAuthorized, "not-authorized"),
    (StreamCondition::NotWellFormed, "not-well-formed"),
    (StreamCondition::PolicyViolation, "policy-violation"),
    (StreamCondition::RemoteConnectionFailed, "remote-connection-failed"),
    (StreamCondition::Reset, "reset"),
    (StreamCondition::ResourceConstraint, "resource-constraint"),
    (StreamCondition::RestrictedXml, "restricted-xml"),
    (StreamCondition::SystemShutdown, "system-shutdown"),
    (StreamCondition::Undefined, "undefined-condition"),
];

impl StreamCondition {
    /// Its name in RFC 6120.
    #[must_use]
    pub fn name(self) -> &'static str {
        let row = STREAM_CONDITIONS.iter().find(|row| row.0 == self);
        row.unwrap_or_else(|| unreachable!("every condition is in the table")).1
    }

    /// Parses a `<stream:error/>`.
    #[must_use]
    pub fn read(error: &Element) -> Self {
        let named =
            error.children().iter().find(|child| child.namespace() == STREAMS && child.name() != "text");
        let row = named.and_then(|named| STREAM_CONDITIONS.iter().find(|row| row.1 == named.name()));
        row.map_or(Self::Undefined, |row| row.0)
    }
}
