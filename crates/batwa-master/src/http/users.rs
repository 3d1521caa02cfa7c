//! Accounts.

use axum::{Json, extract::State};
use batwa_api::{
    id::UserId,
    list::Items,
    user::{CreateUser, UpdateUser, User},
};
use http::StatusCode;

use super::{
    ApiResult,
    extract::{Body, Path},
};
use crate::app::{App, auth::Caller};

/// All accounts, by name.
#[utoipa::path(get, path = "/api/v1/users", tag = "users", responses((status = 200, body = Items<User>)))]
pub(crate) async fn list(State(app): State<App>) -> ApiResult<Json<Items<User>>> {
    Ok(Json(app.users().await?.into()))
}

/// Make an account.
#[utoipa::path(post, path = "/api/v1/users", tag = "users", request_body = CreateUser, responses((status = 201, body = User)))]
pub(crate) async fn create(
    State(app): State<App>,
    caller: Caller,
    Body(body): Body<CreateUser>,
) -> ApiResult<(StatusCode, Json<User>)> {
    Ok((
        StatusCode::CREATED,
        Json(app.create_user(&caller, body).await?),
    ))
}

/// Change an account's role, terminal right or password.
#[utoipa::path(patch, path = "/api/v1/users/{user}", tag = "users", request_body = UpdateUser,
    params(("user" = UserId, Path, description = "the account's id")), responses((status = 200, body = User)))]
pub(crate) async fn update(
    State(app): State<App>,
    caller: Caller,
    Path(user): Path<UserId>,
    Body(body): Body<UpdateUser>,
) -> ApiResult<Json<User>> {
    Ok(Json(app.update_user(&caller, user, body).await?))
}

/// Remove an account with its sessions and tokens.
#[utoipa::path(delete, path = "/api/v1/users/{user}", tag = "users",
    params(("user" = UserId, Path, description = "the account's id")), responses((status = 204)))]
pub(crate) async fn delete(
    State(app): State<App>,
    caller: Caller,
    Path(user): Path<UserId>,
) -> ApiResult<StatusCode> {
    app.delete_user(&caller, user).await?;
    Ok(StatusCode::NO_CONTENT)
}
