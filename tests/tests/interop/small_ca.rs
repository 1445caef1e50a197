//! A small CA of our own, for what real CAs do and Pebble does not: a challenge can be posted once, orders stay pending
//! for a while, a challenge of an unknown kind has no token, chains have two intermediates, and several validators come at
//! once, whose ClientHellos are split. Valid authorizations can be used again, renewal information asks for a renewal, and a
//! replacement can be refused. Requests can be held at any point, and failures can be set.

mod validators;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256,
    PublicKeyData, SignatureAlgorithm, date_time_ymd,
};
use rendezvous::tls_config::provider;
use rendezvous_core::http::date::write_date;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use sha2::{Digest, Sha256};

use crate::pebble::free_port;
use crate::program::PATIENCE;
use crate::world::{Folder, base64};
use validators::validate;

/// How long a read of the CA or of its validators may take.
const TIMEOUT: Duration = Duration::from_secs(20);
/// The beginning of a SubjectPublicKeyInfo with a key of P-256, before its 65 bytes.
const P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3,
    1, 7, 3, 0x42, 0,
];

/// A response of the CA instead of its own, for one kind of request.
#[derive(Clone)]
pub(crate) struct Refusal {
    pub(crate) kind: &'static str,
    pub(crate) status: u16,
    /// `Retry-After`: seconds, or a date so many seconds ahead.
    pub(crate) retry_after: RetryAfter,
}

#[derive(Clone, Copy)]
pub(crate) enum RetryAfter {
    Seconds(u64),
    Date(u64),
}

/// When a request is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// It has arrived, and nothing was done.
    Received,
    /// It is done, and its response is sent.
    Answered,
}

/// How a CA differs from the usual one.
#[derive(Clone, Copy, Default)]
pub(crate) struct Behaviour {
    /// A valid authorization is used for later orders of its name.
    pub(crate) reuses_authorizations: bool,
    /// The lifetime of certificates in seconds, if it is not 90 days, with renewal information that asks for renewal now.
    pub(crate) lifetime: Option<u64>,
    /// An order that names the certificate that it replaces is refused: `alreadyReplaced` (RFC 9773 §5).
    pub(crate) refuses_replacements: bool,
}

#[derive(Default)]
struct State {
    log: Vec<String>,
    nonces: BTreeSet<String>,
    nonce: u32,
    /// Thumbprints of keys.
    accounts: Vec<String>,
    /// The accounts are deactivated.
    is_deactivated: bool,
    /// Validations have no result for now.
    withholds_results: bool,
    orders: Vec<Order>,
    authorizations: Vec<Authorization>,
    refusal: Option<Refusal>,
    /// The number of the request that is held.
    hold: Option<(usize, Moment)>,
    is_holding: bool,
    /// Authorizations whose challenges were posted, and the number of validations in progress.
    to_validate: Vec<usize>,
    validating: usize,
    /// Validations: the name, and how many of the three validators succeeded.
    validations: Vec<(String, usize)>,
}

struct Order {
    name: String,
    authorization: usize,
    /// How often its state was read since its authorization is valid.
    reads: u32,
    chain: Option<String>,
}

struct Authorization {
    name: String,
    token: String,
    /// The index of its account.
    account: usize,
    posts: u32,
    result: Option<bool>,
}

/// What all threads share.
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    address: SocketAddr,
    validated: u16,
    behaviour: Behaviour,
    intermediate: Issuer<'static, KeyPair>,
    /// The two intermediates in PEM, the issuer of the leaf first.
    intermediates: String,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn url(&self, path: &str) -> String {
        format!("https://localhost:{}/{path}", self.address.port())
    }
}

/// A running CA. Its threads end with the test.
pub(crate) struct SmallCa {
    shared: Arc<Shared>,
    _folder: Folder,
    root: PathBuf,
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

impl SmallCa {
    pub(crate) fn start() -> Self {
        Self::start_with(Behaviour::default())
    }

    pub(crate) fn start_with(behaviour: Behaviour) -> Self {
        let folder = Folder::new();
        let key = || KeyPair::generate().expect("a key");
        let (root, first, second) = (params("Small Root"), params("Small First"), params("Small Second"));
        let root_key = key();
        let root_pem = root.self_signed(&root_key).expect("a root").pem();
        let root = Issuer::new(root, root_key);
        let first_key = key();
        let first_pem = first.signed_by(&first_key, &root).expect("an intermediate").pem();
        let first = Issuer::new(first, first_key);
        let second_key = key();
        let second_pem = second.signed_by(&second_key, &first).expect("an intermediate").pem();
        let own_key = key();
        let own = CertificateParams::new(["localhost".to_owned()]).expect("names");
        let own = own.signed_by(&own_key, &root).expect("a certificate");
        let own_key = own_key.serialize_der().try_into().expect("PKCS#8");
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![own.der().clone()], own_key)
            .expect("the key belongs to the certificate");
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            address: listener.local_addr().expect("it is bound"),
            validated: free_port(),
            behaviour,
            intermediate: Issuer::new(second, second_key),
            intermediates: second_pem + &first_pem,
        });
        let serving = shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (shared, config) = (serving.clone(), config.clone());
                thread::spawn(move || serve(&shared, stream, config));
            }
        });
        let root = folder.write("root.pem", &root_pem);
        Self { shared, _folder: folder, root }
    }

    /// The options of a client of it.
    pub(crate) fn options(&self) -> Vec<String> {
        let ca = self.root.display().to_string();
        let directory = self.shared.url("directory");
        ["--acme", "--acme-agree-tos", "--acme-directory", &directory, "--acme-ca", &ca]
            .map(str::to_owned)
            .to_vec()
    }

    /// The root of the certificates that it issues, and of its own server.
    pub(crate) fn root(&self) -> &PathBuf {
        &self.root
    }

    /// The port that its validators connect to.
    pub(crate) fn validated(&self) -> u16 {
        self.shared.validated
    }

    /// Refuses one kind of request from now on.
    pub(crate) fn refuse(&self, refusal: Option<Refusal>) {
        self.shared.lock().refusal = refusal;
    }

    /// Deactivates all accounts.
    pub(crate) fn deactivate(&self) {
        self.shared.lock().is_deactivated = true;
    }

    /// Withholds the results of validations, or publishes them.
    pub(crate) fn withhold_results(&self, withholds: bool) {
        self.shared.lock().withholds_results = withholds;
    }

    /// Holds the request with this number, counted from 1, at a moment.
    pub(crate) fn hold(&self, number: usize, moment: Moment) {
        self.shared.lock().hold = Some((number, moment));
    }

    /// Waits until a request is held and no validator is under way, or until `is_over`. Returns whether one is held.
    pub(crate) fn await_hold(&self, is_over: impl Fn() -> bool) -> bool {
        let until = Instant::now() + PATIENCE;
        loop {
            // Called without the lock, because it may ask this CA.
            let is_over = is_over();
            let state = self.shared.lock();
            if state.is_holding && state.validating == 0 || is_over {
                return state.is_holding;
            }
            assert!(Instant::now() < until, "no request is held; there were {:?}", state.log);
            let step = Duration::from_millis(50);
            drop(self.shared.changed.wait_timeout(state, step).unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Lets the held request go on.
    pub(crate) fn release(&self) {
        let mut state = self.shared.lock();
        (state.hold, state.is_holding) = (None, false);
        self.shared.changed.notify_all();
    }

    /// The kinds of all requests so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.shared.lock().log.clone()
    }

    /// How many orders were made.
    pub(crate) fn orders(&self) -> usize {
        self.shared.lock().orders.len()
    }

    /// How many accounts were made.
    pub(crate) fn accounts(&self) -> usize {
        self.shared.lock().accounts.len()
    }

    /// The most often that one challenge was posted.
    pub(crate) fn challenge_posts(&self) -> u32 {
        self.shared.lock().authorizations.iter().map(|it| it.posts).max().unwrap_or(0)
    }

    /// How many validators succeeded in each validation.
    pub(crate) fn validations(&self) -> Vec<usize> {
        self.shared.lock().validations.iter().map(|(_, succeeded)| *succeeded).collect()
    }
}

fn wall() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs()
}

struct Asked {
    method: String,
    path: String,
    body: String,
}

/// Answers one request.
fn serve(shared: &Arc<Shared>, stream: TcpStream, config: Arc<ServerConfig>) {
    let _ = stream.set_read_timeout(Some(TIMEOUT));
    let Ok(connection) = ServerConnection::new(config) else { return };
    let mut stream = StreamOwned::new(connection, stream);
    let Some(asked) = read_request(&mut stream) else { return };
    let kind = asked.path.split('/').nth(1).unwrap_or_default().to_owned();
    let number = {
        let mut state = shared.lock();
        state.log.push(format!("{} {kind}", asked.method));
        state.log.len()
    };
    hold(shared, number, Moment::Received);
    let response = respond(shared, &asked, &kind);
    // The client may have been killed.
    let _ = stream.write_all(response.as_bytes()).and_then(|()| stream.flush());
    hold(shared, number, Moment::Answered);
    let to_validate = {
        let mut state = shared.lock();
        state.validating += state.to_validate.len();
        std::mem::take(&mut state.to_validate)
    };
    for index in to_validate {
        let shared = shared.clone();
        thread::spawn(move || validate(&shared, index));
    }
    stream.conn.send_close_notify();
    let _ = stream.flush();
}

fn hold(shared: &Shared, number: usize, moment: Moment) {
    let mut state = shared.lock();
    if state.hold != Some((number, moment)) {
        return;
    }
    state.is_holding = true;
    shared.changed.notify_all();
    while state.is_holding {
        state = shared.changed.wait_timeout(state, TIMEOUT).unwrap_or_else(PoisonError::into_inner).0;
    }
}

fn read_request(stream: &mut impl Read) -> Option<Asked> {
    let mut bytes = Vec::new();
    let mut more = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(": ")?;
                name.eq_ignore_ascii_case("content-length").then(|| value.parse::<usize>().ok())?
            });
            if body.len() >= length.unwrap_or(0) {
                let mut words = head.split(' ');
                let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
                return Some(Asked { method, path, body: body.to_owned() });
            }
        }
        match stream.read(&mut more) {
            Ok(0) | Err(_) => return None,
            Ok(n) => bytes.extend_from_slice(&more[..n]),
        }
    }
}

/// The string in a compact JSON object.
fn field(json: &str, name: &str) -> Option<String> {
    let (_, rest) = json.split_once(&format!("\"{name}\":\""))?;
    Some(rest.split('"').next()?.to_owned())
}

fn to_base64url(bytes: &[u8]) -> String {
    base64(bytes).replace('+', "-").replace('/', "_").trim_end_matches('=').to_owned()
}

fn from_base64url(text: &str) -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (mut bits, mut held, mut bytes) = (0_u32, 0, Vec::new());
    for letter in text.bytes() {
        let digit = DIGITS.iter().position(|it| *it == letter).expect("base64url without padding");
        bits = bits << 6 | u32::try_from(digit).expect("below 64");
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from(bits >> held & 255).expect("a byte"));
        }
    }
    bytes
}

/// What a response has: status, further field lines, body.
type Response = (u16, String, String);

fn respond(shared: &Arc<Shared>, asked: &Asked, kind: &str) -> String {
    let (status, fields, body) = match (asked.method.as_str(), kind) {
        ("GET", "directory") => (200, String::new(), directory(shared)),
        ("HEAD", "nonce") => (200, String::new(), String::new()),
        ("GET", "renewal-info") => (200, String::new(), renewal_info()),
        ("POST", _) => post(shared, asked, kind),
        _ => problem(404, "malformed"),
    };
    let mut state = shared.lock();
    state.nonce += 1;
    let nonce = format!("nonce{}", state.nonce);
    state.nonces.insert(nonce.clone());
    let mut date = Vec::new();
    write_date(wall(), &mut date);
    let date = String::from_utf8_lossy(&date).into_owned();
    format!(
        "HTTP/1.1 {status} X\r\nDate: {date}\r\nReplay-Nonce: {nonce}\r\nContent-Length: {}\r\nConnection: close\r\n{fields}\r\n{body}",
        body.len()
    )
}

fn problem(status: u16, kind: &str) -> Response {
    // As long as those of Let's Encrypt, which end with a link.
    let long = "and explains it at length ".repeat(15);
    let body = format!(
        r#"{{"type":"urn:ietf:params:acme:error:{kind}","detail":"the small CA says {kind} {long}to the last word"}}"#
    );
    (status, String::new(), body)
}

fn directory(shared: &Shared) -> String {
    let url = |path| shared.url(path);
    let renewal_info = match shared.behaviour.lifetime {
        Some(_) => format!(r#""renewalInfo":"{}","#, url("renewal-info")),
        None => String::new(),
    };
    format!(
        r#"{{"newNonce":"{}","newAccount":"{}","newOrder":"{}",{renewal_info}"meta":{{}}}}"#,
        url("nonce"),
        url("new-account"),
        url("new-order")
    )
}

/// A window in the past: renew now.
fn renewal_info() -> String {
    r#"{"suggestedWindow":{"start":"2020-01-01T00:00:00Z","end":"2020-01-02T00:00:00Z"}}"#.to_owned()
}

fn post(shared: &Arc<Shared>, asked: &Asked, kind: &str) -> Response {
    let decode = |name| {
        let text = field(&asked.body, name).expect("a JWS");
        String::from_utf8(from_base64url(&text)).expect("JSON")
    };
    let (protected, payload) = (decode("protected"), decode("payload"));
    let mut state = shared.lock();
    if !state.nonces.remove(&field(&protected, "nonce").unwrap_or_default()) {
        return problem(400, "badNonce");
    }
    if let Some(refusal) = state.refusal.clone().filter(|it| it.kind == kind) {
        let retry_after = match refusal.retry_after {
            RetryAfter::Seconds(seconds) => seconds.to_string(),
            RetryAfter::Date(ahead) => {
                let mut date = Vec::new();
                write_date(wall() + ahead, &mut date);
                String::from_utf8_lossy(&date).into_owned()
            }
        };
        let error = if refusal.status == 429 { "rateLimited" } else { "serverInternal" };
        let (status, _, body) = problem(refusal.status, error);
        return (status, format!("Retry-After: {retry_after}\r\n"), body);
    }
    if state.is_deactivated {
        return problem(403, "unauthorized");
    }
    let index: usize = last_number(&asked.path);
    match kind {
        "new-account" => new_account(shared, &mut state, &protected, &payload),
        "new-order" => new_order(
            shared,
            &mut state,
            last_number(&field(&protected, "kid").unwrap_or_default()),
            &payload,
        ),
        "order" => show_order(shared, &mut state, index, 200),
        "authorization" => show_authorization(shared, &state, index),
        "challenge" => {
            state.authorizations[index].posts += 1;
            if state.authorizations[index].posts > 1 {
                return problem(409, "conflict");
            }
            state.to_validate.push(index);
            (200, String::new(), r#"{"type":"tls-alpn-01","status":"processing"}"#.to_owned())
        }
        "finalize" => finalize(shared, &mut state, index, &payload),
        "certificate" => match &state.orders[index].chain {
            Some(chain) => {
                (200, "Content-Type: application/pem-certificate-chain\r\n".to_owned(), chain.clone())
            }
            None => problem(404, "malformed"),
        },
        _ => problem(404, "malformed"),
    }
}

fn new_account(shared: &Shared, state: &mut State, protected: &str, payload: &str) -> Response {
    let (x, y) = (field(protected, "x").expect("a jwk"), field(protected, "y").expect("a jwk"));
    let jwk = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
    let thumbprint = to_base64url(&Sha256::digest(jwk));
    let known = state.accounts.iter().position(|it| *it == thumbprint);
    if known.is_none() {
        if payload.contains("onlyReturnExisting") {
            return problem(400, "accountDoesNotExist");
        }
        state.accounts.push(thumbprint);
    }
    let index = known.unwrap_or(state.accounts.len() - 1);
    let location = format!("Location: {}\r\n", shared.url(&format!("account/{index}")));
    (if known.is_some() { 200 } else { 201 }, location, r#"{"status":"valid"}"#.to_owned())
}

/// The number at the end of a URL.
fn last_number(url: &str) -> usize {
    url.rsplit('/').next().and_then(|it| it.parse().ok()).unwrap_or(0)
}

/// A pending order for the same name is returned again, as Let's Encrypt does.
fn new_order(shared: &Shared, state: &mut State, account: usize, payload: &str) -> Response {
    if shared.behaviour.refuses_replacements && field(payload, "replaces").is_some() {
        return problem(409, "alreadyReplaced");
    }
    let name = field(payload, "value").expect("an identifier");
    let known = state.orders.iter().position(|it| it.name == name && it.chain.is_none());
    let index = known.unwrap_or_else(|| {
        let is_valid = |it: &Authorization| it.name == name && it.result == Some(true);
        let valid = state.authorizations.iter().position(is_valid);
        let authorization = valid.filter(|_| shared.behaviour.reuses_authorizations).unwrap_or_else(|| {
            let token = format!("token-of-the-small-ca-{}", state.authorizations.len());
            let name = name.clone();
            state.authorizations.push(Authorization { name, token, account, posts: 0, result: None });
            state.authorizations.len() - 1
        });
        state.orders.push(Order { name, authorization, reads: 0, chain: None });
        state.orders.len() - 1
    });
    show_order(shared, state, index, 201)
}

fn show_order(shared: &Shared, state: &mut State, index: usize, status: u16) -> Response {
    let order = &mut state.orders[index];
    let result = state.authorizations[order.authorization].result.filter(|_| !state.withholds_results);
    if result == Some(true) {
        order.reads += 1;
    }
    let word = match (&order.chain, result) {
        (Some(_), _) => "valid",
        (None, Some(false)) => "invalid",
        // It stays pending for two reads after its authorization is valid.
        (None, Some(true)) if order.reads > 2 => "ready",
        (None, Some(true) | None) => "pending",
    };
    let certificate = match &order.chain {
        Some(_) => format!(r#","certificate":"{}""#, shared.url(&format!("certificate/{index}"))),
        None => String::new(),
    };
    let body = format!(
        r#"{{"status":"{word}","identifiers":[{{"type":"dns","value":"{}"}}],"authorizations":["{}"],"finalize":"{}"{certificate}}}"#,
        order.name,
        shared.url(&format!("authorization/{}", order.authorization)),
        shared.url(&format!("finalize/{index}")),
    );
    (status, format!("Location: {}\r\n", shared.url(&format!("order/{index}"))), body)
}

fn show_authorization(shared: &Shared, state: &State, index: usize) -> Response {
    let Authorization { name, token, result, .. } = &state.authorizations[index];
    let word = match result.filter(|_| !state.withholds_results) {
        None => "pending",
        Some(true) => "valid",
        Some(false) => "invalid",
    };
    let url = shared.url(&format!("challenge/{index}"));
    let body = format!(
        r#"{{"status":"{word}","identifier":{{"type":"dns","value":"{name}"}},"challenges":[{{"type":"dns-persist-01","url":"{url}","status":"pending","issuer-domain-names":["small.example"]}},{{"type":"tls-alpn-01","url":"{url}","token":"{token}","status":"{word}"}}]}}"#
    );
    (200, String::new(), body)
}

/// The public key of a certificate request.
struct RequestedKey(Vec<u8>);

impl PublicKeyData for RequestedKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

fn finalize(shared: &Shared, state: &mut State, index: usize, payload: &str) -> Response {
    let is_valid = state.authorizations[state.orders[index].authorization].result == Some(true);
    if !is_valid || state.orders[index].chain.is_some() {
        return problem(403, "orderNotReady");
    }
    let request = from_base64url(&field(payload, "csr").expect("a certificate request"));
    let at = request.windows(P256.len()).position(|it| it == P256).expect("a key of P-256") + P256.len();
    let key = RequestedKey(request[at..at + 65].to_vec());
    let name = state.orders[index].name.clone();
    let mut leaf = CertificateParams::new([name]).expect("a name");
    let now = date_time_ymd(1970, 1, 1) + Duration::from_secs(wall());
    let (backdated, lifetime) = shared.behaviour.lifetime.map_or((3_600, 90 * 86_400), |it| (0, it));
    leaf.not_before = now - Duration::from_secs(backdated);
    leaf.not_after = now + Duration::from_secs(lifetime);
    leaf.use_authority_key_identifier_extension = true;
    let leaf = leaf.signed_by(&key, &shared.intermediate).expect("a certificate");
    state.orders[index].chain = Some(leaf.pem() + &shared.intermediates);
    show_order(shared, state, index, 200)
}
