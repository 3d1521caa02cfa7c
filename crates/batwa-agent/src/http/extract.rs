//! What handlers take out of requests, with failures as problems.

use std::str::FromStr;

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
    http::{StatusCode, request::Parts},
};
use batwa_api::{
    id::{OperationId, RecordingId, TerminalId, ViewerId},
    image::ImageName,
    name::VmName,
    problem::{FieldError, Problem, ProblemCode},
};
use serde::de::DeserializeOwned;

use super::error::ApiError;

/// A JSON body, whatever its Content-Type says; an empty one is `{}`.
#[derive(Debug)]
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, Self::Rejection> {
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|rejection| {
                let code = if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
                    ProblemCode::TooLarge
                } else {
                    ProblemCode::Malformed
                };
                ApiError::new(code, rejection.body_text())
            })?;
        parse(&bytes).map(Self)
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let bytes = if bytes.is_empty() { b"{}" } else { bytes };
    serde_json::from_slice(bytes).map_err(|error| {
        if error.is_data() {
            let text = error.to_string();
            // `… at line 1 column 20` helps nobody who sends one line.
            let text = text
                .rsplit_once(" at line ")
                .map_or(&*text, |(text, _)| text);
            let mut problem = Problem::new(ProblemCode::InvalidField, text);
            if let Some(field) = text.split('`').nth(1).filter(|_| text.contains(" field `")) {
                problem.errors.push(FieldError::new(field, text));
            }
            problem.into()
        } else {
            ApiError::new(
                ProblemCode::Malformed,
                format!("the body is no JSON: {error}"),
            )
        }
    })
}

/// The query; unknown parameters are ignored.
#[derive(Debug)]
pub(crate) struct QueryOf<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for QueryOf<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Query::try_from_uri(&parts.uri)
            .map(|Query(query)| Self(query))
            .map_err(|error| {
                ApiError::new(
                    ProblemCode::Malformed,
                    format!("the query is wrong: {}", error.body_text()),
                )
            })
    }
}

/// Something that a path names; what cannot be a name of it names nothing.
pub(crate) trait Named: FromStr {
    const WHAT: &'static str;
}

impl Named for VmName {
    const WHAT: &'static str = "VM";
}

impl Named for ImageName {
    const WHAT: &'static str = "image";
}

impl Named for OperationId {
    const WHAT: &'static str = "operation";
}

impl Named for TerminalId {
    const WHAT: &'static str = "terminal session";
}

impl Named for RecordingId {
    const WHAT: &'static str = "recording";
}

impl Named for ViewerId {
    const WHAT: &'static str = "viewer";
}

/// The one name or id in the path.
#[derive(Debug)]
pub(crate) struct PathOf<T>(pub(crate) T);

impl<T: Named, S: Send + Sync> FromRequestParts<S> for PathOf<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let Path(text) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|error| ApiError::new(ProblemCode::Malformed, error.body_text()))?;
        named(&text).map(Self)
    }
}

/// The two names or ids in the path.
#[derive(Debug)]
pub(crate) struct PathsOf<A, B>(pub(crate) A, pub(crate) B);

impl<A: Named, B: Named, S: Send + Sync> FromRequestParts<S> for PathsOf<A, B> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let Path((first, second)) = Path::<(String, String)>::from_request_parts(parts, state)
            .await
            .map_err(|error| ApiError::new(ProblemCode::Malformed, error.body_text()))?;
        Ok(Self(named(&first)?, named(&second)?))
    }
}

fn named<T: Named>(text: &str) -> Result<T, ApiError> {
    text.parse().map_err(|_| {
        ApiError::new(
            ProblemCode::NotFound,
            format!("there is no {} `{}`", T::WHAT, text.escape_debug()),
        )
    })
}
