//! What handlers take from a request, with refusals that name the field.

use std::time::Duration;

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Request},
};
use batwa_api::problem::{FieldError, Problem, ProblemCode};
use http::{StatusCode, header, request::Parts};
use serde::de::DeserializeOwned;

use super::{ApiError, client::Client};
use crate::app::App;

/// A body must be whole this long after its head: a slow sender holds memory.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// A JSON body.
pub(crate) struct Body<T>(pub(crate) T);

/// A JSON body, or none for the default.
pub(crate) struct OptionalBody<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<App> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, Self::Rejection> {
        let bytes = read(request, app).await?;
        if bytes.is_empty() {
            return Err(ApiError::malformed("a JSON body is needed"));
        }
        parse(&bytes).map(Self)
    }
}

impl<T: DeserializeOwned + Default> FromRequest<App> for OptionalBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, Self::Rejection> {
        let bytes = read(request, app).await?;
        if bytes.is_empty() {
            return Ok(Self(T::default()));
        }
        parse(&bytes).map(Self)
    }
}

async fn read(request: Request, app: &App) -> Result<Bytes, ApiError> {
    let kind = request.headers().get(header::CONTENT_TYPE);
    // What a form of another site's page can send is not taken for JSON.
    let is_json = kind.is_none_or(|kind| {
        let kind = kind.to_str().unwrap_or_default();
        let kind = kind
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase();
        kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
    });
    if !is_json {
        return Err(ApiError::malformed(
            "send the body as `Content-Type: application/json`",
        ));
    }
    let read = tokio::time::timeout(BODY_TIMEOUT, Bytes::from_request(request, app)).await;
    match read {
        Err(_) => Err(ApiError::malformed("the body did not arrive in time")),
        Ok(Err(rejection)) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => Err(
            ApiError::Request(Problem::new(ProblemCode::TooLarge, "the body is too large")),
        ),
        Ok(Err(_)) => Err(ApiError::malformed("the body could not be read")),
        Ok(Ok(bytes)) => Ok(bytes),
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let cause = error.into_inner();
        if cause.is_data() {
            let message = bare_message(&cause);
            // Serde names a missing field in its message only.
            let field = match message
                .strip_prefix("missing field `")
                .and_then(|rest| rest.strip_suffix('`'))
            {
                Some(missing) if path == "." => missing.to_owned(),
                Some(missing) => format!("{path}.{missing}"),
                None => path,
            };
            ApiError::Request(Problem::invalid_fields(vec![FieldError::new(
                field, message,
            )]))
        } else {
            ApiError::malformed(format!("the body is no JSON: {cause}"))
        }
    })?;
    json.end()
        .map_err(|_| ApiError::malformed("the body goes on after its JSON"))?;
    Ok(value)
}

/// The message without ` at line 1 column 2`, which says nothing to people.
fn bare_message(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

/// The variable parts of the path. What cannot be such a part does not exist.
pub(crate) struct Path<T>(pub(crate) T);

impl<T: DeserializeOwned + Send> FromRequestParts<App> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Self::Rejection> {
        match axum::extract::Path::from_request_parts(parts, app).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(_) => {
                let detail = format!("there is nothing at `{}`", parts.uri.path());
                Err(ApiError::Request(Problem::new(
                    ProblemCode::NotFound,
                    detail,
                )))
            }
        }
    }
}

/// The query.
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequestParts<App> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Self::Rejection> {
        match axum::extract::Query::from_request_parts(parts, app).await {
            Ok(axum::extract::Query(value)) => Ok(Self(value)),
            Err(rejection) => {
                let detail = rejection.body_text();
                // `Failed to deserialize query string: limit: invalid digit found in string`
                let detail = detail
                    .strip_prefix("Failed to deserialize query string: ")
                    .unwrap_or(&detail);
                let (field, message) = detail.split_once(": ").unwrap_or(("query", detail));
                let errors = vec![FieldError::new(field, message)];
                Err(ApiError::Request(Problem::invalid_fields(errors)))
            }
        }
    }
}

/// What the browser or program calls itself.
pub(crate) struct UserAgent(pub(crate) String);

impl FromRequestParts<App> for UserAgent {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _app: &App) -> Result<Self, Self::Rejection> {
        let name = parts
            .headers
            .get(header::USER_AGENT)
            .and_then(|name| name.to_str().ok());
        Ok(Self(name.unwrap_or_default().to_owned()))
    }
}

/// The caller of a public path, if it is anybody we know.
pub(crate) struct MaybeCaller(pub(crate) Option<crate::app::auth::Caller>);

impl FromRequestParts<App> for MaybeCaller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Self::Rejection> {
        let client = Client::from_request_parts(parts, app).await?;
        match super::caller::authenticate(app, &client, &parts.headers).await {
            Ok(caller) => Ok(Self(Some(caller))),
            Err(crate::app::Error::NotSignedIn) => Ok(Self(None)),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only parsing is looked at")]
    struct Outer {
        name: String,
        cpus: u32,
        inner: Option<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only parsing is looked at")]
    struct Inner {
        size: u8,
    }

    fn refusal(json: &str) -> (ProblemCode, Vec<(String, String)>) {
        match parse::<Outer>(json.as_bytes()).unwrap_err() {
            ApiError::Request(problem) => (
                problem.code,
                problem
                    .errors
                    .into_iter()
                    .map(|e| (e.field, e.message))
                    .collect(),
            ),
            ApiError::App(error) => panic!("{error:?}"),
        }
    }

    #[test]
    fn a_refused_body_names_its_field() {
        let field = |json| {
            let (code, errors) = refusal(json);
            assert_eq!(code, ProblemCode::InvalidField);
            errors.into_iter().next().unwrap()
        };
        let (name, message) = field(r#"{"name":"x","cpus":"two"}"#);
        assert_eq!(
            (name.as_str(), message.as_str()),
            ("cpus", "invalid type: string \"two\", expected u32")
        );
        assert_eq!(field(r#"{"name":"x"}"#).0, "cpus");
        assert_eq!(field(r#"{"name":"x","cpus":1,"inner":{}}"#).0, "inner.size");
        assert_eq!(
            field(r#"{"name":"x","cpus":1,"inner":{"size":300}}"#).0,
            "inner.size"
        );
    }

    #[test]
    fn what_is_no_json_is_malformed() {
        for bad in ["{", "", "{\"name\":\"x\",\"cpus\":1}x", "name=x"] {
            assert_eq!(refusal(bad).0, ProblemCode::Malformed, "{bad:?}");
        }
    }
}
