//! CAA records: which CAs may issue certificates for a name, and by which validation (RFC 8659, RFC 8657).

use simple_dns::TYPE;
use simple_dns::rdata::{CAA, RData};

use super::Step;
use super::dns::Resolver;
use super::wire::Deadline;
use crate::escape::Shown;

/// The validation with which the relay answers at port 443.
const TLS_ALPN: &str = "tls-alpn-01";
/// The validation with which it answers at port 80, with `--acme-http`.
const HTTP: &str = "http-01";
/// Properties whose meaning for an issuance is known (RFC 8659 §4, and those of other registrations that do not limit it).
const KNOWN: [&str; 6] = ["issue", "issuewild", "iodef", "issuemail", "contactemail", "contactphone"];

/// The order for a certificate that the records are judged for.
#[derive(Clone, Copy)]
pub(super) struct Order<'a> {
    pub(super) name: &'a str,
    /// The CA's own name in CAA records.
    pub(super) issuer: &'a str,
    /// The URL of the account, if it is known.
    pub(super) account: Option<&'a str>,
}

/// A property.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Property {
    is_critical: bool,
    tag: String,
    value: String,
}

/// The CA of an `issue`, and its parameters.
struct Issue<'a> {
    issuer: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
}

/// Looks up the records that apply to a name: its own, or else those of the nearest name above (RFC 8659 §3). A CA
/// does the same before it issues a certificate, and refuses if a look-up fails.
pub(super) fn check(order: Order<'_>, resolver: &Resolver, deadline: Deadline) -> Step {
    let mut at = order.name;
    loop {
        match resolver.records(at, TYPE::CAA, deadline) {
            Ok(records) if records.is_empty() => {}
            Ok(records) => {
                let properties: Option<Vec<_>> = records.iter().map(parse).collect();
                return match properties {
                    Some(properties) => judge(order, at, &properties),
                    None => Step::Failed(format!("a CAA record of {at} is malformed: correct it")),
                };
            }
            Err(why) => {
                return Step::Failed(format!(
                    "{why}. A CA refuses to issue then: correct the zone's name servers"
                ));
            }
        }
        match at.split_once('.') {
            Some((_, parent)) => at = parent,
            None => return Step::Ok(format!("{} has no CAA record: any CA may issue", order.name)),
        }
    }
}

/// Reads a record (RFC 8659 §4.1).
fn parse(data: &RData<'_>) -> Option<Property> {
    let RData::CAA(CAA { flag, tag, value }) = data else { return None };
    let tag = tag.to_string().to_ascii_lowercase();
    (!tag.is_empty()).then(|| Property {
        is_critical: flag & 128 != 0,
        tag,
        value: String::from_utf8_lossy(value).into_owned(),
    })
}

/// Splits the value of an `issue` (RFC 8659 §4.2).
fn issue(value: &str) -> Issue<'_> {
    let mut parts = value.split(';').map(|part| part.trim_matches([' ', '\t']));
    let issuer = parts.next().unwrap_or_default();
    let parameters = parts
        .filter_map(|part| part.split_once('='))
        .map(|(tag, value)| (tag.trim_matches([' ', '\t']), value.trim_matches([' ', '\t'])));
    Issue { issuer, parameters: parameters.collect() }
}

impl Issue<'_> {
    fn parameter(&self, wanted: &str) -> Option<&str> {
        self.parameters.iter().find(|(tag, _)| tag.eq_ignore_ascii_case(wanted)).map(|(_, value)| *value)
    }
}

/// Judges the records of `owner`, which apply to the name.
fn judge(order: Order<'_>, owner: &str, properties: &[Property]) -> Step {
    let Order { issuer, account, .. } = order;
    let unknown = properties.iter().find(|it| it.is_critical && !KNOWN.contains(&it.tag.as_str()));
    if let Some(unknown) = unknown {
        return Step::Failed(format!(
            "{owner} has a critical CAA property '{}': a CA that does not know it refuses. Remove the record or its \
             flag 128",
            Shown(&unknown.tag)
        ));
    }
    let issues: Vec<_> =
        properties.iter().filter(|it| it.tag == "issue").map(|it| issue(&it.value)).collect();
    if issues.is_empty() {
        return Step::Ok(format!("the CAA records of {owner} have no 'issue': any CA may issue"));
    }
    let ours: Vec<_> = issues.iter().filter(|it| it.issuer.eq_ignore_ascii_case(issuer)).collect();
    if ours.is_empty() {
        let allowed: Vec<_> = issues.iter().map(|it| format!("'{}'", Shown(it.issuer))).collect();
        return Step::Failed(format!(
            "the CAA records of {owner} allow only {}. Add: {owner}. CAA 0 issue \"{issuer}\", or name your CA with \
             --issuer",
            allowed.join(", ")
        ));
    }
    let judged = ours.iter().map(|it| judge_issue(it, owner, account));
    let best = judged.min_by_key(|step| match step {
        Step::Ok(_) => 0,
        Step::Info(_) => 1,
        Step::Failed(_) => 2,
    });
    best.unwrap_or_else(|| Step::Ok(String::new()))
}

/// Judges an `issue` for the CA (RFC 8657).
fn judge_issue(issue: &Issue<'_>, owner: &str, account: Option<&str>) -> Step {
    let allows = format!("the CAA records of {owner} allow {}", Shown(issue.issuer));
    match (issue.parameter("accounturi"), account) {
        (Some(wanted), Some(account)) if wanted != account => {
            return Step::Failed(format!(
                "{allows} only for the account {}, and the account here is {account}: change accounturi, or use that \
                 account's key",
                Shown(wanted)
            ));
        }
        (Some(wanted), None) => {
            return Step::Info(format!(
                "{allows} only for the account {}: --state DIR compares it with the relay's",
                Shown(wanted)
            ));
        }
        (Some(_), Some(_)) | (None, _) => {}
    }
    match issue.parameter("validationmethods") {
        None => Step::Ok(allows),
        Some(methods) => {
            let has = |method: &str| methods.split(',').any(|it| it.trim().eq_ignore_ascii_case(method));
            if has(TLS_ALPN) {
                Step::Ok(format!("{allows} by {}", Shown(methods)))
            } else if has(HTTP) {
                Step::Info(format!(
                    "{allows} only by {}: the relay needs --acme-http [::]:80",
                    Shown(methods)
                ))
            } else {
                Step::Failed(format!(
                    "{allows} only by {}: add {TLS_ALPN} to validationmethods, because the relay validates at port 443",
                    Shown(methods)
                ))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use simple_dns::CharacterString;

    use super::*;

    const ACCOUNT: &str = "https://ca.example/acct/1";

    fn record<'a>(flag: u8, tag: &'a str, value: &'a str) -> RData<'a> {
        let tag = CharacterString::new(tag.as_bytes()).expect("short");
        RData::CAA(CAA { flag, tag, value: value.as_bytes().into() })
    }

    /// The word and the text of the outcome for records of `example.com`, for Let's Encrypt.
    fn outcome(records: &[(u8, &str, &str)], account: Option<&str>) -> (&'static str, String) {
        let properties: Vec<_> = records
            .iter()
            .map(|(flag, tag, value)| parse(&record(*flag, tag, value)).expect("a property"))
            .collect();
        let order = Order { name: "a.example.com", issuer: "letsencrypt.org", account };
        match judge(order, "example.com", &properties) {
            Step::Ok(text) => ("ok", text),
            Step::Info(text) => ("info", text),
            Step::Failed(text) => ("FAILED", text),
        }
    }

    #[test]
    fn a_ca_may_issue_if_a_record_allows_it_with_its_validation_and_account() {
        for (records, word) in [
            (&[(0, "issue", "letsencrypt.org")][..], "ok"),
            (&[(128, "ISSUE", " LetsEncrypt.org ; ")], "ok"),
            (&[(0, "iodef", "mailto:a@example.com")], "ok"),
            (&[(0, "issuewild", ";")], "ok"),
            (&[(0, "issue", ";")], "FAILED"),
            (&[(0, "issue", "pki.goog"), (0, "iodef", "x")], "FAILED"),
            (&[(0, "issue", "pki.goog"), (0, "issue", "letsencrypt.org")], "ok"),
            (&[(0, "issue", "letsencrypt.org"), (128, "future", "x")], "FAILED"),
            (&[(0, "issue", "letsencrypt.org"), (0, "future", "x")], "ok"),
            (&[(0, "issue", "letsencrypt.org; validationmethods=dns-01")], "FAILED"),
            (&[(0, "issue", "letsencrypt.org; validationmethods=http-01,dns-01")], "info"),
            (&[(0, "issue", "letsencrypt.org;validationmethods=dns-01,tls-alpn-01")], "ok"),
            (&[(0, "issue", "letsencrypt.org; accounturi=https://ca.example/acct/2")], "FAILED"),
            (&[(0, "issue", "letsencrypt.org; accounturi=https://ca.example/acct/1")], "ok"),
            (
                &[
                    (0, "issue", "letsencrypt.org; accounturi=https://ca.example/acct/2"),
                    (0, "issue", "letsencrypt.org; accounturi=https://ca.example/acct/1"),
                ],
                "ok",
            ),
        ] {
            let (got, text) = outcome(records, Some(ACCOUNT));
            assert_eq!(got, word, "{records:?}: {text}");
        }
    }

    #[test]
    fn an_account_is_only_shown_if_our_own_is_not_known() {
        let records = [(0, "issue", "letsencrypt.org; accounturi=https://ca.example/acct/2")];
        assert_eq!(outcome(&records, None).0, "info");
    }

    #[test]
    fn a_refusal_shows_the_record_to_add() {
        let (_, text) = outcome(&[(0, "issue", "pki.goog")], None);
        assert!(text.contains("allow only 'pki.goog'"), "{text}");
        assert!(text.contains("example.com. CAA 0 issue \"letsencrypt.org\""), "{text}");
    }

    #[test]
    fn records_without_a_property_are_malformed() {
        assert_eq!(parse(&RData::Empty(TYPE::CAA)), None);
        assert_eq!(parse(&record(0, "", "value")), None);
        assert_eq!(parse(&record(0, "Issue", "")).map(|it| it.tag), Some("issue".to_owned()));
    }
}
