//! A CA in memory: strict about what RFC 8555 asks of clients, and with a switch for each way in which CAs misbehave.

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::BASE64URL_NOPAD as BASE64URL;
use miniserde::json::{self, Value};
use rendezvous_core::acme::{Challenge, Method, NoResponse, Proof, PublicKey, Request, Response};
use rendezvous_core::http::date::{civil, write_date};
use sha2::{Digest, Sha256};

pub(crate) const BASE: &str = "https://ca.example:14000";
const DAY: u64 = 86_400;

/// The result of the CA's validations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Validation {
    /// They come after so many seconds, and succeed if the challenge is answered then.
    After(u64),
    /// They fail, whatever is answered.
    Fails,
    /// They reach only the HTTP listener.
    HttpOnly,
    /// They never come.
    Never,
}

/// A request that fails.
#[derive(Clone, Debug)]
pub(crate) struct Failing {
    /// The kind of request: the first segment of its path.
    pub(crate) what: &'static str,
    pub(crate) how: How,
    /// Whether the CA does what was asked for before the failure.
    pub(crate) is_done: bool,
    /// How often it fails; then it works.
    pub(crate) times: u32,
}

#[derive(Clone, Debug)]
pub(crate) enum How {
    Silent(NoResponse),
    /// Status, type of the problem, `Retry-After`.
    Problem(u16, &'static str, Option<String>),
    /// Status and body.
    Body(u16, Vec<u8>),
}

/// The window of renewal information, as parts of the lifetime in percent, and the `Retry-After`.
#[derive(Clone, Debug)]
pub(crate) struct Ari {
    pub(crate) from: i64,
    pub(crate) to: i64,
    pub(crate) retry_after: &'static str,
}

/// When the CA can be reached.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Up {
    Always,
    Never,
    /// Until a time, and for one hour from a later one.
    OneHour {
        until: u64,
        at: u64,
    },
}

impl Up {
    fn is_at(self, wall: u64) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::OneHour { until, at } => wall < until || (at..at + 3_600).contains(&wall),
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Switches {
    /// Each nth nonce is refused; 1: all of them.
    pub(crate) bad_nonce_every: u32,
    /// The number of next requests whose nonces are refused.
    pub(crate) bad_nonces: u32,
    /// No response but that of newNonce has a nonce.
    pub(crate) no_nonces: bool,
    pub(crate) validation: Validation,
    /// Authorizations are valid from the beginning.
    pub(crate) authorizations_valid: bool,
    /// How long an order stays pending after its authorizations are valid, in seconds.
    pub(crate) ready_after: u64,
    /// How long an order stays processing, in seconds.
    pub(crate) processing: u64,
    pub(crate) lifetime: u64,
    pub(crate) backdated: u64,
    pub(crate) ari: Option<Ari>,
    /// The type of the problem by which `replaces` is refused.
    pub(crate) refuse_replaces: Option<&'static str>,
    pub(crate) external_account: Option<(&'static str, &'static [u8])>,
    pub(crate) profiles: &'static [&'static str],
    /// Certificates are for another key.
    pub(crate) wrong_key: bool,
    /// Issuers of alternate chains.
    pub(crate) alternates: Vec<&'static str>,
    /// Only a challenge of an unknown kind is offered.
    pub(crate) unknown_challenges_only: bool,
    /// How far the CA's clock is ahead, in seconds.
    pub(crate) skew: i64,
    pub(crate) failing: Vec<Failing>,
    pub(crate) up: Up,
}

impl Default for Switches {
    fn default() -> Self {
        Self {
            bad_nonce_every: 0,
            bad_nonces: 0,
            no_nonces: false,
            validation: Validation::After(2),
            authorizations_valid: false,
            ready_after: 0,
            processing: 2,
            lifetime: 90 * DAY,
            backdated: 3_600,
            ari: None,
            refuse_replaces: None,
            external_account: None,
            profiles: &[],
            wrong_key: false,
            alternates: Vec::new(),
            unknown_challenges_only: false,
            skew: 0,
            failing: Vec::new(),
            up: Up::Always,
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Account {
    pub(crate) key: (Vec<u8>, Vec<u8>),
    pub(crate) is_deactivated: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Order {
    account: String,
    pub(crate) names: Vec<String>,
    pub(crate) made: u64,
    authorizations: Vec<usize>,
    valid_since: Option<u64>,
    finalized: Option<(u64, String)>,
    pub(crate) replaces: Option<String>,
    pub(crate) profile: Option<String>,
    is_invalid: bool,
}

#[derive(Clone, Debug)]
struct Authorization {
    name: String,
    token: String,
    posted: Option<u64>,
    result: Option<bool>,
    is_deactivated: bool,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Ca {
    pub(crate) switches: Switches,
    nonces: BTreeSet<String>,
    counter: u32,
    posts: u32,
    pub(crate) accounts: BTreeMap<String, Account>,
    pub(crate) orders: Vec<Order>,
    authorizations: Vec<Authorization>,
    /// Renewal ids that were replaced.
    replaced: BTreeSet<String>,
    issued: BTreeMap<String, (u64, u64)>,
    /// All requests: time, method, kind.
    pub(crate) log: Vec<(u64, Method, String)>,
    pub(crate) failed_validations: Vec<u64>,
    pub(crate) deactivated: u32,
    pub(crate) key_changes: u32,
}

type Answered = Result<Response, NoResponse>;

impl Ca {
    pub(crate) fn new(switches: Switches) -> Self {
        Self { switches, ..Self::default() }
    }

    /// Loses everything except the switches and the log.
    pub(crate) fn forget(&mut self) {
        let (switches, log) = (self.switches.clone(), std::mem::take(&mut self.log));
        *self = Self { switches, log, counter: self.counter + 1_000, ..Self::default() };
    }

    pub(crate) fn count(&self, kind: &str) -> usize {
        self.log.iter().filter(|(_, _, it)| it == kind).count()
    }

    /// Answers a request. `provided` are the challenges that are answered now.
    pub(crate) fn answer(&mut self, request: &Request, provided: &[Challenge], wall: u64) -> Answered {
        let url = request.url.as_str();
        let path = url.strip_prefix(BASE).expect("a URL of this CA");
        let kind = path.split('/').nth(1).unwrap_or_default().to_owned();
        self.log.push((wall, request.method, kind.clone()));
        if !self.switches.up.is_at(wall) {
            return Err(NoResponse::TimedOut);
        }
        self.validate(provided, wall);
        let failing = self.switches.failing.iter_mut().find(|it| it.what == kind && it.times > 0);
        let failing = failing.map(|it| {
            it.times -= 1;
            it.clone()
        });
        let response = match &failing {
            Some(it) if !it.is_done => Ok(Response::default()),
            _ => self.route(request, path, &kind, wall),
        };
        match failing.map(|it| it.how) {
            None => response,
            Some(How::Silent(why)) => Err(why),
            Some(How::Problem(status, kind, retry_after)) => {
                let mut fields = Vec::new();
                if let Some(it) = &retry_after {
                    fields.push(("Retry-After", it.clone()));
                }
                Ok(self.respond(status, fields, problem(kind), wall))
            }
            Some(How::Body(status, body)) => {
                Ok(Response { body, ..self.respond(status, vec![], String::new(), wall) })
            }
        }
    }

    fn respond(
        &mut self,
        status: u16,
        mut fields: Vec<(&'static str, String)>,
        body: String,
        wall: u64,
    ) -> Response {
        let mut date = Vec::new();
        write_date(wall.saturating_add_signed(self.switches.skew), &mut date);
        fields.push(("Date", String::from_utf8(date).expect("ASCII")));
        if !self.switches.no_nonces {
            fields.push(("Replay-Nonce", self.nonce()));
        }
        Response::read(
            status,
            fields.iter().map(|(name, value)| (*name, value.as_bytes())),
            body.into_bytes(),
        )
    }

    fn nonce(&mut self) -> String {
        self.counter += 1;
        let nonce = format!("nonce-{}", self.counter);
        self.nonces.insert(nonce.clone());
        nonce
    }

    fn route(&mut self, request: &Request, path: &str, kind: &str, wall: u64) -> Answered {
        match (request.method, kind) {
            (Method::Get, "directory") => {
                let mut extra = String::new();
                if self.switches.ari.is_some() {
                    extra += &format!(r#","renewalInfo":"{BASE}/renewal-info""#);
                }
                let profiles: Vec<_> =
                    self.switches.profiles.iter().map(|it| format!("\"{it}\":\"x\"")).collect();
                let eab = self.switches.external_account.is_some();
                let body = format!(
                    r#"{{"newNonce":"{BASE}/nonce","newAccount":"{BASE}/new-account","newOrder":"{BASE}/new-order",
                    "keyChange":"{BASE}/key-change","revokeCert":"{BASE}/revoke","zzz":[{{}}],
                    "meta":{{"termsOfService":"https://other.example/terms","externalAccountRequired":{eab},"profiles":{{{}}}}}{extra}}}"#,
                    profiles.join(",")
                );
                Ok(self.respond(200, vec![], body, wall))
            }
            (Method::Head, "nonce") => {
                let mut response = self.respond(200, vec![], String::new(), wall);
                response.nonce = Some(self.nonce());
                Ok(response)
            }
            (Method::Get, "renewal-info") => {
                let id = path.rsplit('/').next().unwrap_or_default();
                let (Some(ari), Some(&(from, to))) = (self.switches.ari.clone(), self.issued.get(id)) else {
                    return Ok(self.respond(404, vec![], problem("malformed"), wall));
                };
                let at =
                    |percent: i64| rfc3339(from.saturating_add_signed((to - from) as i64 / 100 * percent));
                let body = format!(
                    r#"{{"suggestedWindow":{{"start":"{}","end":"{}"}},"explanationURL":"https://ca.example/why"}}"#,
                    at(ari.from),
                    at(ari.to)
                );
                Ok(self.respond(200, vec![("Retry-After", ari.retry_after.into())], body, wall))
            }
            (Method::Post, _) => Ok(self.post(request, path, kind, wall)),
            other => panic!("no client sends {other:?}"),
        }
    }

    /// Answers a signed request. It makes all checks of a CA, and panics at an error of the client.
    fn post(&mut self, request: &Request, path: &str, kind: &str, wall: u64) -> Response {
        let message = parse(request.body.as_bytes());
        let decode = |name: &str| BASE64URL.decode(str(&message, name).as_bytes()).expect("base64url");
        let header = parse(&decode("protected"));
        let (payload, signature) = (decode("payload"), decode("signature"));
        assert_eq!(str(&header, "alg"), "ES256");
        assert_eq!(str(&header, "url"), request.url.as_str());
        let is_by_key = kind == "new-account";
        let key = match (get(&header, "jwk"), get(&header, "kid")) {
            (Some(jwk), None) if is_by_key => Some(coordinates(jwk)),
            (None, Some(_)) if !is_by_key => self.accounts.get(str(&header, "kid")).map(|it| it.key.clone()),
            other => panic!("jwk and kid: {other:?}"),
        };
        self.posts += 1;
        let is_refused =
            self.switches.bad_nonces > 0 || self.posts.is_multiple_of(self.switches.bad_nonce_every);
        self.switches.bad_nonces = self.switches.bad_nonces.saturating_sub(1);
        if !self.nonces.remove(str(&header, "nonce")) || is_refused {
            let mut response = self.respond(400, vec![], problem("badNonce"), wall);
            response.nonce = Some(self.nonce());
            return response;
        }
        let Some(key) = key else { return self.respond(400, vec![], problem("accountDoesNotExist"), wall) };
        let input = format!("{}.{}", str(&message, "protected"), str(&message, "payload"));
        assert_eq!(signature, sign(&key.0, input.as_bytes()), "the signature of {path}");
        let account = if is_by_key { String::new() } else { str(&header, "kid").to_owned() };
        if self.accounts.get(&account).is_some_and(|it| it.is_deactivated) {
            return self.respond(403, vec![], problem("unauthorized"), wall);
        }
        let index: usize = path.rsplit('/').next().and_then(|it| it.parse().ok()).unwrap_or(0);
        match kind {
            "new-account" => self.new_account(&payload, key, wall),
            "account" => {
                assert!(payload.is_empty(), "a POST-as-GET");
                self.respond(200, vec![], r#"{"status":"valid"}"#.into(), wall)
            }
            "new-order" => self.new_order(&payload, &account, wall),
            "order" => {
                assert!(payload.is_empty(), "a POST-as-GET");
                match self.orders.get(index).is_some_and(|it| it.account == account) {
                    true => self.show_order(index, 200, wall),
                    false => self.respond(404, vec![], problem("malformed"), wall),
                }
            }
            "authorization" => self.authorization(index, &payload, wall),
            "challenge" => self.challenge(index, &payload, wall),
            "finalize" => self.finalize(index, &payload, wall),
            "certificate" | "alternate" => {
                assert!(payload.is_empty(), "a POST-as-GET");
                self.certificate(index, path, kind, wall)
            }
            "key-change" => self.key_change(&payload, &account, wall),
            other => panic!("there is no {other}"),
        }
    }

    fn new_account(&mut self, payload: &[u8], key: (Vec<u8>, Vec<u8>), wall: u64) -> Response {
        let payload = parse(payload);
        let known =
            self.accounts.iter().find(|(_, it)| it.key == key).map(|(url, it)| (url.clone(), it.clone()));
        match known {
            Some((_, account)) if account.is_deactivated => {
                return self.respond(403, vec![], problem("unauthorized"), wall);
            }
            Some((url, _)) => {
                // Some CAs refuse a binding that was used.
                if get(&payload, "externalAccountBinding").is_some() {
                    return self.respond(400, vec![], problem("malformed"), wall);
                }
                return self.respond(200, vec![("Location", url)], r#"{"status":"valid"}"#.into(), wall);
            }
            None => {}
        }
        if is_true(&payload, "onlyReturnExisting") {
            return self.respond(400, vec![], problem("accountDoesNotExist"), wall);
        }
        assert!(is_true(&payload, "termsOfServiceAgreed"));
        if let Some((kid, secret)) = self.switches.external_account {
            let Some(binding) = get(&payload, "externalAccountBinding") else {
                return self.respond(403, vec![], problem("externalAccountRequired"), wall);
            };
            check_binding(binding, kid, secret, &key);
        }
        let url = format!("{BASE}/account/{}", self.counter);
        self.accounts.insert(url.clone(), Account { key, is_deactivated: false });
        self.respond(201, vec![("Location", url)], r#"{"status":"valid","orders":"x"}"#.into(), wall)
    }

    fn new_order(&mut self, payload: &[u8], account: &str, wall: u64) -> Response {
        let payload = parse(payload);
        let Some(Value::Array(identifiers)) = get(&payload, "identifiers") else { panic!("identifiers") };
        let names: Vec<String> = identifiers
            .iter()
            .map(|it| {
                assert_eq!(str(it, "type"), "dns");
                str(it, "value").to_owned()
            })
            .collect();
        let replaces = get(&payload, "replaces").map(|_| str(&payload, "replaces").to_owned());
        let profile = get(&payload, "profile").map(|_| str(&payload, "profile").to_owned());
        if let Some(it) = &profile {
            assert!(
                self.switches.profiles.contains(&it.as_str()),
                "a profile that the directory does not list"
            );
        }
        if let Some(id) = &replaces {
            let refusal = self.switches.refuse_replaces;
            let refusal = refusal.or(self.replaced.contains(id).then_some("alreadyReplaced"));
            if let Some(kind) = refusal {
                let status = if kind == "alreadyReplaced" || kind == "conflict" { 409 } else { 403 };
                return self.respond(status, vec![], problem(kind), wall);
            }
            assert!(self.issued.contains_key(id), "a certificate that this CA has issued");
        }
        // A pending or ready order for the same names is returned again.
        let same = (0..self.orders.len()).find(|at| {
            let it = &self.orders[*at];
            it.account == account
                && it.names == names
                && matches!(self.status(*at, wall), "pending" | "ready")
        });
        let index = same.unwrap_or_else(|| {
            let authorizations = names
                .iter()
                .map(|name| {
                    self.authorizations.push(Authorization {
                        name: name.clone(),
                        token: format!("token-{}", self.authorizations.len()),
                        posted: None,
                        result: self.switches.authorizations_valid.then_some(true),
                        is_deactivated: false,
                    });
                    self.authorizations.len() - 1
                })
                .collect();
            self.orders.push(Order {
                account: account.into(),
                names,
                made: wall,
                authorizations,
                valid_since: None,
                finalized: None,
                replaces,
                profile,
                is_invalid: false,
            });
            self.orders.len() - 1
        });
        self.show_order(index, 201, wall)
    }

    fn status(&self, index: usize, wall: u64) -> &'static str {
        let it = &self.orders[index];
        if let Some((at, _)) = &it.finalized {
            return if wall < at + self.switches.processing { "processing" } else { "valid" };
        }
        let of = |at: &usize| &self.authorizations[*at];
        let is_dead = |at: &usize| of(at).result == Some(false) || of(at).is_deactivated;
        if it.is_invalid || it.authorizations.iter().any(is_dead) || wall > it.made + 7 * DAY {
            "invalid"
        } else if it.authorizations.iter().all(|at| of(at).result == Some(true))
            && it.valid_since.is_some_and(|since| wall >= since + self.switches.ready_after)
        {
            "ready"
        } else {
            "pending"
        }
    }

    fn show_order(&mut self, index: usize, status: u16, wall: u64) -> Response {
        let all_valid =
            self.orders[index].authorizations.iter().all(|at| self.authorizations[*at].result == Some(true));
        if all_valid {
            self.orders[index].valid_since.get_or_insert(wall);
        }
        let state = self.status(index, wall);
        let order = &self.orders[index];
        let urls: Vec<_> =
            order.authorizations.iter().map(|it| format!("\"{BASE}/authorization/{it}\"")).collect();
        let certificate = match state {
            "valid" => format!(r#","certificate":"{BASE}/certificate/{index}""#),
            _ => String::new(),
        };
        let body = format!(
            r#"{{"status":"{state}","expires":"{}","authorizations":[{}],"finalize":"{BASE}/finalize/{index}","identifiers":[]{certificate}}}"#,
            rfc3339(order.made + 7 * DAY),
            urls.join(",")
        );
        self.respond(status, vec![("Location", format!("{BASE}/order/{index}"))], body, wall)
    }

    fn authorization(&mut self, index: usize, payload: &[u8], wall: u64) -> Response {
        if !payload.is_empty() {
            assert_eq!(str(&parse(payload), "status"), "deactivated");
            self.authorizations[index].is_deactivated = true;
            self.deactivated += 1;
        }
        let it = self.authorizations[index].clone();
        let state = match it.result {
            _ if it.is_deactivated => "deactivated",
            Some(true) => "valid",
            Some(false) => "invalid",
            None => "pending",
        };
        let error = match it.result {
            Some(false) => format!(r#","error":{}"#, problem("unauthorized")),
            _ => String::new(),
        };
        let known = format!(
            r#",{{"type":"tls-alpn-01","url":"{BASE}/challenge/{index}","token":"{0}","status":"pending"{error}}},
            {{"type":"http-01","url":"{BASE}/challenge/{index}","token":"{0}","status":"pending"}}"#,
            it.token
        );
        let known = if self.switches.unknown_challenges_only { String::new() } else { known };
        let body = format!(
            r#"{{"status":"{state}","identifier":{{"type":"dns","value":"{}"}},"challenges":[{{"type":"dns-persist-01","url":"{BASE}/x"}}{known}]}}"#,
            it.name
        );
        self.respond(200, vec![], body, wall)
    }

    fn challenge(&mut self, index: usize, payload: &[u8], wall: u64) -> Response {
        assert_eq!(payload, b"{}");
        let it = &mut self.authorizations[index];
        if it.posted.is_some() || it.result.is_some() {
            return self.respond(409, vec![], problem("conflict"), wall);
        }
        it.posted = Some(wall);
        self.respond(200, vec![], r#"{"type":"tls-alpn-01","status":"processing"}"#.into(), wall)
    }

    /// Validates all challenges that were posted.
    fn validate(&mut self, provided: &[Challenge], wall: u64) {
        for it in self.authorizations.iter_mut().filter(|it| it.result.is_none()) {
            let Some(posted) = it.posted else { continue };
            let result = match self.switches.validation {
                Validation::Never => continue,
                Validation::Fails => false,
                Validation::After(delay) if wall < posted + delay => continue,
                Validation::After(_) | Validation::HttpOnly => provided.iter().any(|one| {
                    let account = self.accounts.values().next().expect("an account");
                    let expected = format!("{}.{}", it.token, thumbprint(&account.key));
                    one.name == it.name
                        && match &one.proof {
                            Proof::TlsAlpn01 { digest } => {
                                self.switches.validation != Validation::HttpOnly
                                    && *digest == *Sha256::digest(&expected)
                            }
                            Proof::Http01 { token, key_authorization } => {
                                *token == it.token && *key_authorization == expected
                            }
                        }
                }),
            };
            it.result = Some(result);
            if !result {
                self.failed_validations.push(wall);
            }
        }
    }

    fn finalize(&mut self, index: usize, payload: &[u8], wall: u64) -> Response {
        let csr = BASE64URL.decode(str(&parse(payload), "csr").as_bytes()).expect("base64url");
        let csr = String::from_utf8(csr).expect("our own form");
        match self.status(index, wall) {
            "ready" => {
                let (key, names) = csr.split_once(' ').expect("our own form");
                assert_eq!(names, self.orders[index].names.join(" "), "the names of the request");
                let key = if self.switches.wrong_key { "other" } else { key };
                self.orders[index].finalized = Some((wall, key.into()));
                self.show_order(index, 200, wall)
            }
            "pending" => self.respond(403, vec![], problem("orderNotReady"), wall),
            _ => self.respond(403, vec![], problem("malformed"), wall),
        }
    }

    fn certificate(&mut self, index: usize, path: &str, kind: &str, wall: u64) -> Response {
        let order = &self.orders[index];
        let (at, key) = order.finalized.clone().expect("an order that is finalized");
        let (from, to) =
            (at - self.switches.backdated, at - self.switches.backdated + self.switches.lifetime);
        let issuer = match kind {
            "alternate" => path.split('/').nth(2).unwrap_or_default().to_owned(),
            _ => "Default Root".to_owned(),
        };
        // As the tests' driver reads it: a first byte that looks like DER, and text.
        let leaf = format!("0{key}|{}|{from}|{to}|{index}|{issuer}", order.names.join(" "));
        let id = format!("{}.{}", BASE64URL.encode(b"aki"), BASE64URL.encode(&serial(index)));
        self.issued.insert(id, (from, to));
        if let Some(replaced) = &order.replaces {
            self.replaced.insert(replaced.clone());
        }
        let body = format!("{}{}", pem(leaf.as_bytes()), pem(b"0intermediate"));
        let links = self.switches.alternates.clone();
        let mut response = self.respond(200, vec![], body, wall);
        if kind == "certificate" {
            response.alternates = links.iter().map(|it| format!("{BASE}/alternate/{it}/{index}")).collect();
        }
        response
    }

    fn key_change(&mut self, payload: &[u8], account: &str, wall: u64) -> Response {
        let inner = parse(payload);
        let decode = |name: &str| BASE64URL.decode(str(&inner, name).as_bytes()).expect("base64url");
        let (header, payload) = (parse(&decode("protected")), parse(&decode("payload")));
        assert_eq!(str(&header, "url"), format!("{BASE}/key-change"));
        assert!(get(&header, "nonce").is_none());
        let new = coordinates(get(&header, "jwk").expect("a key"));
        let input = format!("{}.{}", str(&inner, "protected"), str(&inner, "payload"));
        assert_eq!(decode("signature"), sign(&new.0, input.as_bytes()));
        assert_eq!(str(&payload, "account"), account);
        let known = self.accounts.get_mut(account).expect("an account");
        assert_eq!(coordinates(get(&payload, "oldKey").expect("the old key")), known.key);
        known.key = new;
        self.key_changes += 1;
        self.respond(200, vec![], String::new(), wall)
    }
}

fn check_binding(binding: &Value, kid: &str, secret: &[u8], key: &(Vec<u8>, Vec<u8>)) {
    use hmac::{Hmac, KeyInit, Mac};
    let decode = |name: &str| BASE64URL.decode(str(binding, name).as_bytes()).expect("base64url");
    let header = parse(&decode("protected"));
    assert_eq!((str(&header, "alg"), str(&header, "kid")), ("HS256", kid));
    assert_eq!(str(&header, "url"), format!("{BASE}/new-account"));
    assert!(get(&header, "nonce").is_none());
    assert_eq!(&coordinates(&parse(&decode("payload"))), key);
    let mac = Hmac::<Sha256>::new_from_slice(secret).expect("any length");
    let input = format!("{}.{}", str(binding, "protected"), str(binding, "payload"));
    assert_eq!(decode("signature"), mac.chain_update(input).finalize().into_bytes().to_vec());
}

/// The signature of the tests. It can be made with the public key.
pub(crate) fn sign(x: &[u8], input: &[u8]) -> Vec<u8> {
    let half = Sha256::new().chain_update(x).chain_update(input).finalize();
    [half, half].concat()
}

pub(crate) fn public_key(of: &str) -> PublicKey {
    PublicKey { x: Sha256::digest(of).into(), y: Sha256::digest(format!("{of}y")).into() }
}

/// A serial number with its high bit set, so that there is a leading zero.
pub(crate) fn serial(index: usize) -> Vec<u8> {
    [&[0, 0x80][..], &(index as u32).to_be_bytes()].concat()
}

fn thumbprint(key: &(Vec<u8>, Vec<u8>)) -> String {
    let (x, y) = (BASE64URL.encode(&key.0), BASE64URL.encode(&key.1));
    BASE64URL.encode(&Sha256::digest(format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#)))
}

fn coordinates(jwk: &Value) -> (Vec<u8>, Vec<u8>) {
    assert_eq!((str(jwk, "kty"), str(jwk, "crv")), ("EC", "P-256"));
    let decode = |name: &str| BASE64URL.decode(str(jwk, name).as_bytes()).expect("base64url");
    let (x, y) = (decode("x"), decode("y"));
    assert_eq!((x.len(), y.len()), (32, 32));
    (x, y)
}

pub(crate) fn problem(kind: &str) -> String {
    format!(r#"{{"type":"urn:ietf:params:acme:error:{kind}","detail":"because of {kind}"}}"#)
}

fn pem(der: &[u8]) -> String {
    let text = data_encoding::BASE64.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}

pub(crate) fn rfc3339(wall: u64) -> String {
    let (year, month, day) = civil(wall / DAY);
    let second = wall % DAY;
    let (hour, minute) = (second / 3_600, second / 60 % 60);
    format!("{year:04}-{:02}-{day:02}T{hour:02}:{minute:02}:{:02}Z", month + 1, second % 60)
}

fn parse(bytes: &[u8]) -> Value {
    let text = std::str::from_utf8(bytes).expect("UTF-8");
    json::from_str(text).unwrap_or_else(|_| panic!("no JSON: {text}"))
}

fn get<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    match value {
        Value::Object(object) => object.get(name),
        _ => None,
    }
}

fn str<'a>(value: &'a Value, name: &str) -> &'a str {
    match get(value, name) {
        Some(Value::String(text)) => text,
        other => panic!("{name}: {other:?}"),
    }
}

fn is_true(value: &Value, name: &str) -> bool {
    matches!(get(value, name), Some(Value::Bool(true)))
}
