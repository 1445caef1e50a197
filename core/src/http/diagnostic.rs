//! The diagnostics for which an error page has a text of its own.

/// 401 to a client.
pub(crate) const ASK: &str = "the ID of the hidden server is asked for as user name";
/// 401, of an agent.
pub(crate) const PASSWORD: &str = "the hidden server asks for a user name and a password";
/// 403, of an agent.
pub(crate) const ADDRESS: &str = "the hidden server's agent takes no clients from this address";
/// 403: the operator of the relay has disabled the hidden server.
pub(crate) const DISABLED: &str = "the relay's operator has disabled this hidden server";
/// 403: the operator of the relay admits no clients from this address.
pub(crate) const DENIED: &str = "the relay admits no clients from this address to this hidden server";
/// 421, to a hidden server.
pub(crate) const GROUP_SERVER: &str =
    "one of several relays: the server name (SNI) must be the first label of the ID under the relay's domain";
/// 421, to a client.
pub(crate) const GROUP_CLIENT: &str = "one of several relays: a hidden server is reached only at its own \
                                       host name, LABEL.DOMAIN, not by user name or parameter";
/// 503.
pub(crate) const QUOTA: &str = "the hidden server's transfer quota of this month is used up";
/// 400.
pub(crate) const CREDENTIALS: &str = "malformed Authorization";
/// 400.
pub(crate) const PLAIN_HTTP: &str = "plain HTTP on a port for HTTPS: use https";
/// 404. Unknown and unconnected IDs are not told apart.
pub(crate) const NOBODY: &str = "no hidden server waits under this ID";
/// 503: the hidden server was connected a short time ago.
pub(crate) const OFFLINE: &str = "the hidden server is offline";
/// 503.
pub(crate) const BUSY: &str = "all connections of the hidden server are taken";
/// 403 and 421.
pub(crate) const END_TO_END: &str =
    "the hidden server is end-to-end: the relay must not read what its clients send";
/// 503.
pub(crate) const FULL: &str = "the relay is full";
/// 503.
pub(crate) const STOPPING: &str = "the relay is shutting down";
/// 503.
pub(crate) const TAKEN_OVER: &str = "another process of this relay has taken over: connect again";
/// 502, of an agent.
pub(crate) const SERVICE_UNREACHABLE: &str = "the hidden server's local service cannot be reached";
/// 502, of an agent.
pub(crate) const NO_SERVICE: &str = "the hidden server has no HTTP service";
/// 503, of an agent.
pub(crate) const TOO_MANY_CLIENTS: &str = "the hidden server's agent serves as many clients as it can";
/// 503, of an agent.
pub(crate) const NO_DESCRIPTORS: &str = "the hidden server's agent is out of descriptors, or may not connect";
