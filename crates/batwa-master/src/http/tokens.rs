//! API tokens.

use axum::{Json, extract::State};
use batwa_api::{
    id::TokenId,
    list::Items,
    user::{CreateToken, CreatedToken, Token},
};
use http::StatusCode;

use super::{
    ApiResult,
    extract::{Body, Path},
};
use crate::app::{App, auth::Caller};

/// The caller's tokens, or everybody's for an admin; the newest first.
#[utoipa::path(get, path = "/api/v1/tokens", tag = "tokens", responses((status = 200, body = Items<Token>)))]
pub(crate) async fn list(State(app): State<App>, caller: Caller) -> ApiResult<Json<Items<Token>>> {
    Ok(Json(app.tokens(&caller).await?.into()))
}

/// Make a token; the only time it is shown.
#[utoipa::path(post, path = "/api/v1/tokens", tag = "tokens", request_body = CreateToken,
    responses((status = 201, body = CreatedToken)))]
pub(crate) async fn create(
    State(app): State<App>,
    caller: Caller,
    Body(body): Body<CreateToken>,
) -> ApiResult<(StatusCode, Json<CreatedToken>)> {
    Ok((
        StatusCode::CREATED,
        Json(app.create_token(&caller, body).await?),
    ))
}

/// End a token, and what it has open.
#[utoipa::path(delete, path = "/api/v1/tokens/{token}", tag = "tokens",
    params(("token" = TokenId, Path, description = "the token's id")), responses((status = 204)))]
pub(crate) async fn delete(
    State(app): State<App>,
    caller: Caller,
    Path(token): Path<TokenId>,
) -> ApiResult<StatusCode> {
    app.delete_token(&caller, token).await?;
    Ok(StatusCode::NO_CONTENT)
}
