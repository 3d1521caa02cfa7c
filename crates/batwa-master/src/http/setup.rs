//! The first run.

use axum::{Json, extract::State, response::Response};
use batwa_api::user::{CurrentSession, Setup, SetupState};

use super::{
    ApiResult,
    client::Client,
    extract::{Body, UserAgent},
    session::with_cookie,
};
use crate::app::App;

/// Whether there is no admin yet.
#[utoipa::path(get, path = "/api/v1/setup", tag = "session", security(()), responses((status = 200, body = SetupState)))]
pub(crate) async fn state(State(app): State<App>) -> ApiResult<Json<SetupState>> {
    Ok(Json(SetupState {
        needed: app.setup_needed().await?,
    }))
}

/// Make the first admin with the code of the one-time link, and sign it in.
#[utoipa::path(post, path = "/api/v1/setup", tag = "session", security(()), request_body = Setup,
    responses((status = 200, body = CurrentSession)))]
pub(crate) async fn setup(
    State(app): State<App>,
    client: Client,
    UserAgent(user_agent): UserAgent,
    Body(body): Body<Setup>,
) -> ApiResult<Response> {
    let signed_in = app.setup(body, &user_agent, &client.source).await?;
    Ok(with_cookie(&app, &client, signed_in))
}
