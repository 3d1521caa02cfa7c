//! The session cookie: `session_id` over plain HTTP, `__Host-session_id` with Secure over TLS and only that.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};
use secrecy::{ExposeSecret, SecretString};

use super::client::Client;

fn name(client: &Client) -> &'static str {
    // The prefix makes browsers refuse one that a neighbouring host or a plain page has planted.
    if client.is_secure {
        "__Host-session_id"
    } else {
        "session_id"
    }
}

/// The secret in the request's session cookie.
pub(crate) fn read(client: &Client, headers: &HeaderMap) -> Option<SecretString> {
    let lines = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|line| line.to_str().ok());
    let mut pairs = lines
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = pairs.find(|(key, _)| *key == name(client))?;
    (!value.is_empty()).then(|| value.trim_matches('"').into())
}

/// `Set-Cookie` for a new session.
pub(crate) fn set(client: &Client, secret: &SecretString, lifetime: Duration) -> HeaderValue {
    line(client, secret.expose_secret(), lifetime)
}

/// `Set-Cookie` that takes it away.
pub(crate) fn clear(client: &Client) -> HeaderValue {
    line(client, "", Duration::ZERO)
}

fn line(client: &Client, value: &str, lifetime: Duration) -> HeaderValue {
    let secure = if client.is_secure { "; Secure" } else { "" };
    let line = format!(
        "{}={value}; HttpOnly; SameSite=Lax; Path=/; Max-Age={}{secure}",
        name(client),
        lifetime.as_secs()
    );
    let mut line = HeaderValue::try_from(line).expect("our secrets are plain letters");
    line.set_sensitive(true);
    line
}
