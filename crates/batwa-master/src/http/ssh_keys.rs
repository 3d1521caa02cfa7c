//! One's own SSH keys.

use axum::{Json, extract::State};
use batwa_api::{
    id::SshKeyId,
    list::Items,
    ssh_key::{AddSshKey, SshKey},
};
use http::StatusCode;

use super::{
    ApiResult,
    extract::{Body, Path},
};
use crate::app::{App, auth::Caller};

/// The caller's SSH keys, which are put into the VMs that they make.
#[utoipa::path(get, path = "/api/v1/ssh-keys", tag = "ssh keys", responses((status = 200, body = Items<SshKey>)))]
pub(crate) async fn list(State(app): State<App>, caller: Caller) -> ApiResult<Json<Items<SshKey>>> {
    Ok(Json(app.ssh_keys(&caller).await?.into()))
}

/// Add an SSH key of the caller's.
#[utoipa::path(post, path = "/api/v1/ssh-keys", tag = "ssh keys", request_body = AddSshKey,
    responses((status = 201, body = SshKey)))]
pub(crate) async fn add(
    State(app): State<App>,
    caller: Caller,
    Body(body): Body<AddSshKey>,
) -> ApiResult<(StatusCode, Json<SshKey>)> {
    let key = app.add_ssh_key(&caller, body).await?;
    Ok((StatusCode::CREATED, Json(key)))
}

/// Remove an SSH key of the caller's. VMs that have it keep it.
#[utoipa::path(delete, path = "/api/v1/ssh-keys/{key}", tag = "ssh keys",
    params(("key" = SshKeyId, Path, description = "the key's id")), responses((status = 204)))]
pub(crate) async fn delete(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<SshKeyId>,
) -> ApiResult<StatusCode> {
    app.delete_ssh_key(&caller, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
