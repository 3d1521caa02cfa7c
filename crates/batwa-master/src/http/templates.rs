//! Saved user-data, and checks of it.

use axum::{Json, extract::State};
use batwa_api::{
    cloud_init::{CheckCloudInit, CloudInitCheck, SaveTemplate, Template},
    id::TemplateId,
    list::Items,
};
use http::StatusCode;

use super::{
    ApiResult,
    extract::{Body, Path},
};
use crate::app::{App, auth::Caller};

/// What is wrong with user-data, line by line: errors, with which no VM is made, and warnings, which cloud-init
/// would skip. Nothing is kept.
#[utoipa::path(post, path = "/api/v1/cloud-init/check", tag = "templates", request_body = CheckCloudInit,
    responses((status = 200, body = CloudInitCheck)))]
pub(crate) async fn check(
    State(app): State<App>,
    caller: Caller,
    Body(body): Body<CheckCloudInit>,
) -> ApiResult<Json<CloudInitCheck>> {
    Ok(Json(app.check_cloud_init(&caller, &body)?))
}

/// All templates by name. The values of secrets are never shown.
#[utoipa::path(get, path = "/api/v1/templates", tag = "templates", responses((status = 200, body = Items<Template>)))]
pub(crate) async fn list(
    State(app): State<App>,
    caller: Caller,
) -> ApiResult<Json<Items<Template>>> {
    Ok(Json(app.templates(&caller).await?.into()))
}

/// One template.
#[utoipa::path(get, path = "/api/v1/templates/{template}", tag = "templates",
    params(("template" = TemplateId, Path, description = "the template's id")),
    responses((status = 200, body = Template)))]
pub(crate) async fn get(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<TemplateId>,
) -> ApiResult<Json<Template>> {
    Ok(Json(app.template(&caller, id).await?))
}

/// Save a template; it is the caller's.
#[utoipa::path(post, path = "/api/v1/templates", tag = "templates", request_body = SaveTemplate,
    responses((status = 201, body = Template)))]
pub(crate) async fn create(
    State(app): State<App>,
    caller: Caller,
    Body(body): Body<SaveTemplate>,
) -> ApiResult<(StatusCode, Json<Template>)> {
    let template = app.create_template(&caller, body).await?;
    Ok((StatusCode::CREATED, Json(template)))
}

/// Write a template anew; its owner and admins may. A secret with `has_default` and without `default` stays as it is.
#[utoipa::path(put, path = "/api/v1/templates/{template}", tag = "templates", request_body = SaveTemplate,
    params(("template" = TemplateId, Path, description = "the template's id")),
    responses((status = 200, body = Template)))]
pub(crate) async fn update(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<TemplateId>,
    Body(body): Body<SaveTemplate>,
) -> ApiResult<Json<Template>> {
    Ok(Json(app.update_template(&caller, id, body).await?))
}

/// Remove a template; its owner and admins may. VMs that were made with it stay as they are.
#[utoipa::path(delete, path = "/api/v1/templates/{template}", tag = "templates",
    params(("template" = TemplateId, Path, description = "the template's id")), responses((status = 204)))]
pub(crate) async fn delete(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<TemplateId>,
) -> ApiResult<StatusCode> {
    app.delete_template(&caller, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
