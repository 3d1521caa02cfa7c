//! Tokens that machines join with.

use axum::{Json, extract::State};
use batwa_api::{
    id::JoinTokenId,
    list::Items,
    tunnel::{CreateJoinToken, CreatedJoinToken, JoinTokenInfo},
};
use http::StatusCode;

use super::{
    ApiResult,
    client::Client,
    extract::{OptionalBody, Path},
    install,
};
use crate::app::{App, auth::Caller};

/// All tokens, the newest first, and who joined with each.
#[utoipa::path(get, path = "/api/v1/join-tokens", tag = "join tokens", responses((status = 200, body = Items<JoinTokenInfo>)))]
pub(crate) async fn list(
    State(app): State<App>,
    caller: Caller,
) -> ApiResult<Json<Items<JoinTokenInfo>>> {
    Ok(Json(app.join_tokens(&caller).await?.into()))
}

/// Make a token; the only time it is shown.
#[utoipa::path(post, path = "/api/v1/join-tokens", tag = "join tokens", request_body = CreateJoinToken,
    responses((status = 201, body = CreatedJoinToken)))]
pub(crate) async fn create(
    State(app): State<App>,
    caller: Caller,
    client: Client,
    OptionalBody(body): OptionalBody<CreateJoinToken>,
) -> ApiResult<(StatusCode, Json<CreatedJoinToken>)> {
    let (token, expires_at) = app.create_join_token(&caller, body).await?;
    let ways = install::ways(&app, &client, &token).await;
    let created = CreatedJoinToken {
        id: token.id,
        command: ways
            .first()
            .map(|way| way.command.clone())
            .unwrap_or_default(),
        ways,
        token: token.to_string(),
        expires_at,
    };
    Ok((StatusCode::CREATED, Json(created)))
}

/// Take a token back: nobody joins with it any more; machines that did stay.
#[utoipa::path(delete, path = "/api/v1/join-tokens/{token}", tag = "join tokens",
    params(("token" = JoinTokenId, Path, description = "the token's id")), responses((status = 204)))]
pub(crate) async fn revoke(
    State(app): State<App>,
    caller: Caller,
    Path(token): Path<JoinTokenId>,
) -> ApiResult<StatusCode> {
    app.revoke_join_token(&caller, token).await?;
    Ok(StatusCode::NO_CONTENT)
}
