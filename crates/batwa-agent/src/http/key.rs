//! The key of an agent's port.

use axum::{
    extract::Request,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

/// The header that carries the key.
pub(crate) const HEADER: &str = "x-api-key";

/// A caller without the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refused;

impl IntoResponse for Refused {
    /// Old clients know this body to the letter.
    fn into_response(self) -> Response {
        let body = serde_json::json!({"detail": "Invalid or missing API key"});
        (StatusCode::FORBIDDEN, axum::Json(body)).into_response()
    }
}

/// Whether the request may pass: there is no key, it is the open path, or it carries the key.
pub(super) fn check(key: Option<&SecretString>, request: &Request) -> Result<(), Refused> {
    let Some(key) = key else { return Ok(()) };
    if request.uri().path() == "/health" {
        return Ok(());
    }
    let given = request
        .headers()
        .get(HEADER)
        .map(|value| value.as_bytes())
        .ok_or(Refused)?;
    // Takes as long whichever byte differs; the length alone may show.
    if bool::from(given.ct_eq(key.expose_secret().as_bytes())) {
        Ok(())
    } else {
        Err(Refused)
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn request(path: &str, key: Option<&str>) -> Request {
        let mut builder = Request::builder().uri(path);
        if let Some(key) = key {
            builder = builder.header("X-API-Key", key);
        }
        builder.body(Body::empty()).unwrap()
    }

    #[test]
    fn only_the_key_opens_and_only_health_is_open() {
        let key = SecretString::from("s3cret");
        for (path, given, allowed) in [
            ("/api/vm/list", Some("s3cret"), true),
            ("/api/vm/list", Some("s3cres"), false),
            ("/api/vm/list", Some("s3cret "), false),
            ("/api/vm/list", Some(""), false),
            ("/api/vm/list", None, false),
            ("/ws", None, false),
            ("/health", None, true),
            ("/health/../api/vm/list", None, false),
        ] {
            assert_eq!(
                check(Some(&key), &request(path, given)).is_ok(),
                allowed,
                "{path} {given:?}"
            );
        }
        assert!(check(None, &request("/api/vm/list", None)).is_ok());
    }
}
