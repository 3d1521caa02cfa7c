//! Signing in and out, and one's own sessions and password.

use axum::{
    Json,
    extract::State,
    response::{AppendHeaders, IntoResponse, Response},
};
use batwa_api::{
    id::SessionId,
    list::Items,
    user::{ChangePassword, CurrentSession, Session, SignIn},
};
use http::{StatusCode, header::SET_COOKIE};

use super::{
    ApiResult,
    client::Client,
    cookie,
    extract::{Body, Path, UserAgent},
};
use crate::app::{App, auth::Caller, sessions::SignedIn};

/// Sign in; sets the session cookie.
#[utoipa::path(post, path = "/api/v1/session", tag = "session", security(()), request_body = SignIn,
    responses((status = 200, body = CurrentSession)))]
pub(crate) async fn sign_in(
    State(app): State<App>,
    client: Client,
    UserAgent(user_agent): UserAgent,
    Body(body): Body<SignIn>,
) -> ApiResult<Response> {
    let password = body.password.into();
    let signed_in = app
        .sign_in(&body.username, password, &user_agent, &client.source)
        .await?;
    Ok(with_cookie(&app, &client, signed_in))
}

/// The answer to a sign-in.
pub(super) fn with_cookie(app: &App, client: &Client, signed_in: SignedIn) -> Response {
    let cookie = cookie::set(
        client,
        &signed_in.secret,
        app.config().session_limits.absolute,
    );
    let warnings = app.warnings(signed_in.user.role, client.channel());
    let session = CurrentSession {
        user: signed_in.user,
        session_id: Some(signed_in.session_id),
        token_id: None,
        warnings,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    (AppendHeaders([(SET_COOKIE, cookie)]), Json(session)).into_response()
}

/// Who the caller is.
#[utoipa::path(get, path = "/api/v1/session", tag = "session", responses((status = 200, body = CurrentSession)))]
pub(crate) async fn current(
    State(app): State<App>,
    client: Client,
    caller: Caller,
) -> ApiResult<Json<CurrentSession>> {
    Ok(Json(app.current_session(&caller, client.channel()).await?))
}

/// Sign out; ends the session and clears its cookie.
#[utoipa::path(delete, path = "/api/v1/session", tag = "session", responses((status = 204)))]
pub(crate) async fn sign_out(
    State(app): State<App>,
    client: Client,
    caller: Caller,
) -> ApiResult<Response> {
    app.sign_out(&caller).await?;
    let cleared = AppendHeaders([(SET_COOKIE, cookie::clear(&client))]);
    Ok((StatusCode::NO_CONTENT, cleared).into_response())
}

/// Change the caller's own password; ends their other sessions.
#[utoipa::path(post, path = "/api/v1/session/password", tag = "session", request_body = ChangePassword,
    responses((status = 204)))]
pub(crate) async fn change_password(
    State(app): State<App>,
    caller: Caller,
    Body(body): Body<ChangePassword>,
) -> ApiResult<StatusCode> {
    app.change_password(
        &caller,
        body.current_password.into(),
        body.new_password.into(),
    )
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The caller's sessions, the last used first.
#[utoipa::path(get, path = "/api/v1/sessions", tag = "session", responses((status = 200, body = Items<Session>)))]
pub(crate) async fn list(
    State(app): State<App>,
    caller: Caller,
) -> ApiResult<Json<Items<Session>>> {
    Ok(Json(app.own_sessions(&caller).await?.into()))
}

/// End one of the caller's sessions, and what it has open.
#[utoipa::path(delete, path = "/api/v1/sessions/{session}", tag = "session",
    params(("session" = SessionId, Path, description = "the session's id")), responses((status = 204)))]
pub(crate) async fn end(
    State(app): State<App>,
    caller: Caller,
    Path(session): Path<SessionId>,
) -> ApiResult<StatusCode> {
    app.end_session(&caller, session).await?;
    Ok(StatusCode::NO_CONTENT)
}
