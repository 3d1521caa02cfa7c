//! Signing in as it was before v1 (COMPAT.md): the same use cases with the old bodies.

use axum::{
    Json,
    extract::State,
    response::{AppendHeaders, IntoResponse, Response},
};
use batwa_api::{
    legacy::{AuthCheck, Done},
    user::SignIn,
};
use http::header::SET_COOKIE;

use super::{
    ApiResult,
    client::Client,
    cookie,
    extract::{Body, MaybeCaller, UserAgent},
};
use crate::app::App;

/// Sign in; sets the session cookie.
#[utoipa::path(post, path = "/api/auth/login", tag = "before v1", security(()), request_body = SignIn,
    responses((status = 200, body = Done)))]
pub(crate) async fn login(
    State(app): State<App>,
    client: Client,
    UserAgent(user_agent): UserAgent,
    Body(body): Body<SignIn>,
) -> ApiResult<Response> {
    let password = body.password.into();
    let signed_in = app
        .sign_in(&body.username, password, &user_agent, &client.source)
        .await?;
    let cookie = cookie::set(
        &client,
        &signed_in.secret,
        app.config().session_limits.absolute,
    );
    Ok((
        AppendHeaders([(SET_COOKIE, cookie)]),
        Json(Done::new("Login successful")),
    )
        .into_response())
}

/// Sign out; without a session too.
#[utoipa::path(post, path = "/api/auth/logout", tag = "before v1", security(()), responses((status = 200, body = Done)))]
pub(crate) async fn logout(
    State(app): State<App>,
    client: Client,
    MaybeCaller(caller): MaybeCaller,
) -> ApiResult<Response> {
    if let Some(caller) = caller {
        app.sign_out(&caller).await?;
    }
    let cleared = AppendHeaders([(SET_COOKIE, cookie::clear(&client))]);
    Ok((cleared, Json(Done::new("Logged out"))).into_response())
}

/// Whether the caller is signed in, and as whom.
#[utoipa::path(get, path = "/api/auth/check", tag = "before v1", security(()), responses((status = 200, body = AuthCheck)))]
pub(crate) async fn check(MaybeCaller(caller): MaybeCaller) -> Json<AuthCheck> {
    Json(AuthCheck {
        authenticated: caller.is_some(),
        username: caller.map(|caller| caller.name.to_string()),
    })
}
