//! Who calls: the guards in front of the routes, and the extractor behind them.

use axum::{
    extract::{FromRequestParts, Request, State},
    middleware::Next,
    response::Response,
};
use http::{HeaderMap, request::Parts};

use super::{ApiError, ApiResult};
use crate::app::{
    App, Error,
    auth::{Caller, Right, Source},
};

/// Lets signed-in callers with `right` through, with their [`Caller`]; nobody's body is read before that.
pub(crate) async fn require(
    right: Right,
    State(app): State<App>,
    mut request: Request,
    next: Next,
) -> ApiResult<Response> {
    let caller = authenticate(&app, request.headers()).await?;
    caller.require(right)?;
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

async fn authenticate(_app: &App, _headers: &HeaderMap) -> Result<Caller, Error> {
    Err(Error::NotSignedIn)
}

impl FromRequestParts<App> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _app: &App) -> Result<Self, Self::Rejection> {
        // A route outside every guard must not be served to anybody by mistake.
        parts
            .extensions
            .get::<Self>()
            .cloned()
            .ok_or(ApiError::App(Error::NotSignedIn))
    }
}

impl FromRequestParts<App> for Source {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _app: &App) -> Result<Self, Self::Rejection> {
        parts
            .extensions
            .get::<Self>()
            .cloned()
            .ok_or_else(|| ApiError::App(Error::Unavailable("the request has no source")))
    }
}
