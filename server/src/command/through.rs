//! `--proxy`: an HTTP proxy on the way to a relay.

use rendezvous_core::tunnel::Proxy;

use crate::failure::Failure;
use crate::options::{Matches, Opt, value};
use crate::proxy_url::{self, ProxyUrl};
use crate::relay_url::RelayUrl;

pub(super) const PROXY: Opt = Opt::one(
    "proxy",
    "http://[USER@]HOST:PORT|none",
    "$HTTPS_PROXY, unless $NO_PROXY has the relay",
    "reach the relay through this HTTP proxy, which must allow CONNECT to the relay's port (many allow only 443)",
);

pub(super) const PASSWORD: Opt = Opt::one(
    "proxy-password-file",
    "FILE",
    "none",
    "the password of the proxy's user, in one line, mode 600",
);

/// The proxy on the way to a relay, if there is one.
///
/// # Errors
/// [`Failure`] if an option or a variable of the environment is invalid, or if the file of the password cannot be read.
pub(super) fn proxy(matches: &Matches, relay: &RelayUrl) -> Result<Option<Proxy>, Failure> {
    let file = matches.get_if(PASSWORD.long, value::path)?;
    let url = match matches.one(PROXY.long) {
        Some("none") => None,
        Some(_) => {
            let url = matches.get(PROXY.long, ProxyUrl::parse)?;
            if url.has_password() && matches.is_on_command_line(PROXY.long) {
                return Err(Failure::Usage(
                    "--proxy: every user of this machine can see a password on the command line; use \
                     --proxy-password-file FILE"
                        .to_owned(),
                ));
            }
            Some(url)
        }
        None => proxy_url::of_environment(relay)?.map(|(name, url)| {
            log::debug!("event=proxy relay={relay} variable={name}");
            url
        }),
    };
    match url {
        Some(url) => {
            let proxy = url.with_password(file.as_deref())?;
            log::info!("event=proxy relay={relay} proxy={}", proxy_url::shown(&proxy));
            Ok(Some(proxy))
        }
        None if file.is_some() => Err(Failure::Usage("--proxy-password-file needs --proxy".to_owned())),
        None => Ok(None),
    }
}
