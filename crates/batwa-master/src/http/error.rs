//! Failures over HTTP: [`ApiError`] holds a use case's error or what an extractor refused, and [`finish`]
//! is the one place that makes a body of it. No handler chooses a status.

use std::{error::Error as StdError, sync::Arc};

use axum::response::{IntoResponse, Response};
use batwa_api::problem::{Problem, ProblemCode};
use http::{HeaderValue, StatusCode, header};

use crate::app;

/// What handlers return.
pub(crate) type ApiResult<T> = Result<T, ApiError>;

/// Why a request failed.
#[derive(Debug)]
pub(crate) enum ApiError {
    /// A use case failed.
    App(app::Error),
    /// The request could not be read.
    Request(Problem),
}

impl ApiError {
    /// A request that cannot be read.
    pub(crate) fn malformed(detail: impl Into<String>) -> Self {
        Self::Request(Problem::new(ProblemCode::Malformed, detail))
    }
}

impl<E: Into<app::Error>> From<E> for ApiError {
    fn from(error: E) -> Self {
        Self::App(error.into())
    }
}

/// A failure on its way out; [`finish`] adds the request's id and logs the cause.
#[derive(Clone)]
pub(crate) struct Failure {
    pub(crate) problem: Problem,
    pub(crate) cause: Option<Arc<app::Error>>,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (problem, retry_after, cause) = match self {
            Self::Request(problem) => (problem, None, None),
            Self::App(error) => (
                error.to_problem(),
                error.retry_after(),
                Some(Arc::new(error)),
            ),
        };
        let mut response = body(&problem);
        if let Some(wait) = retry_after {
            // Rounded up: a client that waits as told must not come too early.
            let seconds = wait.as_millis().div_ceil(1000).max(1);
            response.headers_mut().insert(
                header::RETRY_AFTER,
                HeaderValue::from_str(&seconds.to_string()).expect("digits are a header value"),
            );
        }
        response.extensions_mut().insert(Failure { problem, cause });
        response
    }
}

/// Gives every failure its final form: a problem with the request's id, and one line in the log for what
/// nobody foresaw. Failures of the framework itself (no such method, body too large) become problems too.
pub(crate) fn finish(mut response: Response, request_id: &str) -> Response {
    let status = response.status();
    let failure = match response.extensions_mut().remove::<Failure>() {
        Some(failure) => failure,
        None if is_bare_failure(&response) => Failure {
            problem: framework_problem(status),
            cause: None,
        },
        None => return response,
    };
    if failure.problem.code == ProblemCode::Internal {
        let causes = failure.cause.as_deref().map(chain).unwrap_or_default();
        tracing::error!(request.id = request_id, "request failed: {causes}");
    }
    let problem = Problem {
        request_id: Some(request_id.to_owned()),
        ..failure.problem
    };
    let (mut parts, _) = response.into_parts();
    let (new, body) = body(&problem).into_parts();
    parts.status = new.status;
    parts.headers.remove(header::CONTENT_LENGTH);
    for (name, value) in new.headers {
        if let Some(name) = name {
            parts.headers.insert(name, value);
        }
    }
    if new.status == StatusCode::UNAUTHORIZED {
        parts.headers.insert(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer realm=\"batwa\""),
        );
    }
    Response::from_parts(parts, body)
}

fn is_bare_failure(response: &Response) -> bool {
    let status = response.status();
    (status.is_client_error() || status.is_server_error())
        && response
            .headers()
            .get(header::CONTENT_TYPE)
            .is_none_or(|kind| kind.as_bytes().starts_with(b"text/plain"))
}

fn framework_problem(status: StatusCode) -> Problem {
    let (code, detail) = match status {
        StatusCode::NOT_FOUND => (ProblemCode::NotFound, "there is nothing at this path"),
        StatusCode::METHOD_NOT_ALLOWED => (
            ProblemCode::MethodNotAllowed,
            "this path does not take that method",
        ),
        StatusCode::PAYLOAD_TOO_LARGE => (ProblemCode::TooLarge, "the body is too large"),
        status if status.is_client_error() => {
            (ProblemCode::Malformed, "the request could not be read")
        }
        _ => (ProblemCode::Internal, "unexpected failure"),
    };
    Problem {
        status: if code == ProblemCode::Malformed {
            status.as_u16()
        } else {
            code.status()
        },
        ..Problem::new(code, detail)
    }
}

fn body(problem: &Problem) -> Response {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let json = serde_json::to_vec(problem).expect("a problem is plain data");
    let headers = [
        (header::CONTENT_TYPE, Problem::CONTENT_TYPE),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (status, headers, json).into_response()
}

/// The error and what caused it, in one line.
pub(crate) fn chain(error: &app::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
