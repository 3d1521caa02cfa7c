//! Failed calls: the one place where a failure becomes a response.

use std::any::Any;

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use batwa_api::problem::{Problem, ProblemCode};
use tracing::error;

use crate::driver::DriverError;

pub(crate) type ApiResult<T> = Result<T, ApiError>;

/// A failed call.
#[derive(Debug)]
pub(crate) struct ApiError(Box<Problem>);

impl ApiError {
    pub(crate) fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        Problem::new(code, detail).into()
    }
}

impl From<Problem> for ApiError {
    fn from(problem: Problem) -> Self {
        Self(Box::new(problem))
    }
}

impl From<DriverError> for ApiError {
    fn from(error: DriverError) -> Self {
        crate::operations::error_of(&error).to_problem().into()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(&*self.0)).into_response();
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static(Problem::CONTENT_TYPE),
        );
        response
    }
}

/// A handler panicked: a defect of ours, told apart from everything foreseen.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the layer's signature asks for the box"
)]
pub(super) fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    error!(panic = %text, "a request handler panicked");
    ApiError::new(
        ProblemCode::Internal,
        "unexpected failure; the agent's log says more",
    )
    .into_response()
}
