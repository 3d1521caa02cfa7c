//! Who calls: the guards in front of the routes, and the extractor behind them.

use axum::{
    extract::{FromRequestParts, Request, State},
    middleware::Next,
    response::Response,
};
use http::{HeaderMap, header, request::Parts};

use super::{ApiError, ApiResult, client::Client, cookie, origin};
use crate::app::{
    App, Error,
    auth::{Caller, Credential, Right},
};

/// Lets signed-in callers with `right` through, with their [`Caller`]; nobody's body is read before that.
pub(crate) async fn require(
    right: Right,
    State(app): State<App>,
    client: Client,
    mut request: Request,
    next: Next,
) -> ApiResult<Response> {
    let caller = authenticate(&app, &client, request.headers()).await?;
    let allowed = caller.require(right);
    let mut response = match allowed {
        Ok(()) => {
            request.extensions_mut().insert(caller.clone());
            next.run(request).await
        }
        Err(error) => axum::response::IntoResponse::into_response(ApiError::from(error)),
    };
    // For the audit.
    response.extensions_mut().insert(caller);
    Ok(response)
}

/// The caller of a request, by `Authorization: Bearer` or else by cookie.
pub(crate) async fn authenticate(
    app: &App,
    client: &Client,
    headers: &HeaderMap,
) -> Result<Caller, Error> {
    let credential = match bearer(headers) {
        Some(token) => Credential::Token(token.into()),
        None => {
            let secret = cookie::read(client, headers).ok_or(Error::NotSignedIn)?;
            origin::check(app.config(), client, headers)?;
            Credential::Session(secret)
        }
    };
    app.authenticate(&credential, client.source.clone()).await
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Refuses calls of other sites' pages to the public paths that change something: signing in above all.
pub(crate) async fn refuse_other_sites(
    State(app): State<App>,
    client: Client,
    request: Request,
    next: Next,
) -> ApiResult<Response> {
    let headers = request.headers();
    let has_own_key =
        headers.contains_key(header::AUTHORIZATION) || headers.contains_key("x-api-key");
    if !request.method().is_safe() && !has_own_key {
        origin::check(app.config(), &client, headers)?;
    }
    Ok(next.run(request).await)
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
