//! JSON Web Signatures of ACME requests (RFC 7515, RFC 8555 §6.2): what is signed, and the result.

use alloc::format;
use alloc::string::String;

use data_encoding::BASE64URL_NOPAD as BASE64URL;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::config::{ExternalAccount, PublicKey};
use super::json::{quote, quoted};

/// The key or account that verifies a request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Verifier<'a> {
    /// The key itself: newAccount, and inside keyChange.
    Key(&'a PublicKey),
    /// The account: everything else.
    Account(&'a str),
}

/// A message that waits for its signature.
#[derive(Clone, Debug)]
pub(super) struct Unsigned {
    protected: String,
    payload: String,
}

impl Unsigned {
    /// `payload` is JSON, or empty for a POST-as-GET.
    pub(super) fn new(by: Verifier<'_>, nonce: Option<&str>, url: &str, payload: &str) -> Self {
        let mut header = String::from(r#"{"alg":"ES256","#);
        match by {
            Verifier::Key(key) => {
                header.push_str(r#""jwk":"#);
                header.push_str(&jwk(key));
            }
            Verifier::Account(url) => {
                header.push_str(r#""kid":"#);
                quote(url, &mut header);
            }
        }
        if let Some(nonce) = nonce {
            header.push_str(r#","nonce":"#);
            quote(nonce, &mut header);
        }
        header.push_str(r#","url":"#);
        quote(url, &mut header);
        header.push('}');
        Self { protected: BASE64URL.encode(header.as_bytes()), payload: BASE64URL.encode(payload.as_bytes()) }
    }

    /// The JWS signing input (RFC 7515 §5.1).
    pub(super) fn signing_input(&self) -> String {
        format!("{}.{}", self.protected, self.payload)
    }

    /// The flattened JSON serialization with the signature.
    pub(super) fn signed(&self, signature: &[u8]) -> String {
        format!(
            r#"{{"protected":"{}","payload":"{}","signature":"{}"}}"#,
            self.protected,
            self.payload,
            BASE64URL.encode(signature)
        )
    }
}

/// The key as JWK, its members in the order of RFC 7638 §3.
pub(super) fn jwk(key: &PublicKey) -> String {
    let (x, y) = (BASE64URL.encode(&key.x), BASE64URL.encode(&key.y));
    format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#)
}

/// The thumbprint of a key (RFC 7638).
pub(super) fn thumbprint(key: &PublicKey) -> String {
    BASE64URL.encode(&Sha256::digest(jwk(key).as_bytes()))
}

/// The `externalAccountBinding` of a newAccount request (RFC 8555 §7.3.4).
pub(super) fn external_binding(account: &ExternalAccount, key: &PublicKey, url: &str) -> String {
    let header = format!(r#"{{"alg":"HS256","kid":{},"url":{}}}"#, quoted(&account.key_id), quoted(url));
    let message = Unsigned {
        protected: BASE64URL.encode(header.as_bytes()),
        payload: BASE64URL.encode(jwk(key).as_bytes()),
    };
    let mac = Hmac::<Sha256>::new_from_slice(&account.mac_key)
        .unwrap_or_else(|_| unreachable!("HMAC takes keys of any length"));
    let mac = mac.chain_update(message.signing_input()).finalize().into_bytes();
    message.signed(&mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key of RFC 7517 §A.1; the thumbprint is by RFC 7638.
    fn key() -> PublicKey {
        let decode = |text: &str| {
            BASE64URL.decode(text.as_bytes()).ok().and_then(|it| it.try_into().ok()).expect("32 bytes")
        };
        PublicKey {
            x: decode("MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4"),
            y: decode("4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"),
        }
    }

    #[test]
    fn thumbprint_and_messages_have_the_specified_form() {
        assert_eq!(thumbprint(&key()), "cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s");
        let message = Unsigned::new(Verifier::Account("https://a/1"), Some("n"), "https://a/\"2", "");
        let header = BASE64URL.decode(message.protected.as_bytes()).expect("base64url");
        assert_eq!(header, br#"{"alg":"ES256","kid":"https://a/1","nonce":"n","url":"https://a/\"2"}"#);
        assert!(message.signing_input().ends_with('.'));
        assert!(message.signed(&[0; 64]).ends_with(r#""payload":"","signature":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}"#));
    }

    #[test]
    fn the_external_account_key_is_decoded_before_it_is_used() {
        let account = ExternalAccount::parse("kid-1", "c2VjcmV0").expect("base64url");
        assert_eq!(account.mac_key.as_slice(), b"secret");
        assert_eq!(ExternalAccount::parse("kid-1", "c2VjcmV_+w==").map(|it| it.mac_key.len()), Some(7));
        assert_eq!(ExternalAccount::parse("kid-1", "§"), None);
        let binding = external_binding(&account, &key(), "https://a/new-acct");
        let json = super::super::json::Json::parse(binding.as_bytes()).expect("JSON");
        let header =
            BASE64URL.decode(json.str("protected").unwrap_or_default().as_bytes()).expect("base64url");
        assert_eq!(header, br#"{"alg":"HS256","kid":"kid-1","url":"https://a/new-acct"}"#);
        let payload =
            BASE64URL.decode(json.str("payload").unwrap_or_default().as_bytes()).expect("base64url");
        assert_eq!(payload, jwk(&key()).as_bytes());
    }
}
