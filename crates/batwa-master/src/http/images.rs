//! Images.

use axum::{
    Json,
    extract::{FromRequestParts, Request, State},
    response::{IntoResponse, Response},
};
use batwa_api::{
    agent::DriverKind,
    file::header as own,
    id::AgentId,
    image::{AddImage, ImageList, ImageName, ListedImage},
    operation::{Operation, PullOptions},
};
use http::{HeaderMap, StatusCode, header, request::Parts};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    ApiError, ApiResult,
    extract::{Body, OptionalBody, Path, Query},
    vms::{IdempotencyKey, SlowParams, accepted},
};
use crate::app::{
    App, Error,
    auth::Caller,
    images::{ImageRef, ImageSearch},
};

/// Whose images, and which.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ImageParams {
    /// Only what can be launched on this machine.
    agent: Option<String>,
    /// Words that are all in the image's names, title, origin or machine.
    q: Option<String>,
}

/// What can be launched, on one machine or on all that answer soon, what lies there of it, and what can be done with it.
#[utoipa::path(get, path = "/api/v1/images", tag = "images", params(ImageParams),
    responses((status = 200, body = ImageList)))]
pub(crate) async fn list(
    State(app): State<App>,
    Query(params): Query<ImageParams>,
) -> ApiResult<Json<ImageList>> {
    let agent = params
        .agent
        .map(|agent| {
            AgentId::parse(&agent).map_err(|error| Error::invalid("agent", error.to_string()))
        })
        .transpose()?;
    let search = ImageSearch::parse(params.q.as_deref().unwrap_or_default());
    Ok(Json(app.images(agent.as_ref(), &search).await?))
}

/// Add an image to a machine, by its address and SHA-256 or by a file of that machine. Its content comes when it is
/// pulled or launched.
#[utoipa::path(post, path = "/api/v1/agents/{agent}/images", tag = "images", request_body = AddImage,
    params(("agent" = AgentId, Path, description = "the agent's id")),
    responses((status = 201, body = ListedImage)))]
pub(crate) async fn add(
    State(app): State<App>,
    caller: Caller,
    Path(agent): Path<AgentId>,
    Body(body): Body<AddImage>,
) -> ApiResult<(StatusCode, Json<ListedImage>)> {
    let image = app.add_image(&caller, &agent, body).await?;
    Ok((StatusCode::CREATED, Json(image)))
}

/// What is said of an image that is uploaded.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "the agent reads them; the document is made of it")]
pub(crate) struct UploadParams {
    /// Other names for it, separated by commas.
    aliases: Option<String>,
    /// For people; the name when absent.
    title: Option<String>,
    /// The account that people use in it; `batwa` when absent.
    user: Option<String>,
    /// Which driver is to have it; the one for new VMs when absent.
    driver: Option<DriverKind>,
    /// Names an upload that can be gone on with: 8 to 64 letters, digits and hyphens.
    upload: Option<String>,
}

/// What goes to the agent of an upload's head.
pub(crate) struct UploadHead {
    image: ImageRef,
    query: String,
    headers: HeaderMap,
}

impl FromRequestParts<App> for UploadHead {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Self::Rejection> {
        let Path((agent, name)) =
            Path::<(AgentId, ImageName)>::from_request_parts(parts, app).await?;
        Query::<UploadParams>::from_request_parts(parts, app).await?;
        let headers = [
            header::CONTENT_LENGTH.as_str(),
            header::CONTENT_RANGE.as_str(),
            own::DIGEST,
        ]
        .into_iter()
        .filter_map(|name| Some((name.parse().ok()?, parts.headers.get(name)?.clone())))
        .collect();
        Ok(Self {
            image: ImageRef { agent, name },
            query: parts.uri.query().unwrap_or_default().to_owned(),
            headers,
        })
    }
}

/// Upload an image to a machine: a disk image, qcow2 or raw. It is there once all of it has come; a `Repr-Digest` is
/// checked before. `Content-Length` is needed. With `upload`, one that is cut off is gone on with by `Content-Range`.
#[utoipa::path(put, path = "/api/v1/agents/{agent}/images/{image}/content", tag = "images",
    params(("agent" = AgentId, Path, description = "the agent's id"), ("image" = ImageName, Path, description = "the image's name"),
        UploadParams),
    request_body(content_type = "application/octet-stream", description = "the disk image"),
    responses((status = 201, body = ListedImage)))]
pub(crate) async fn upload(
    State(app): State<App>,
    caller: Caller,
    head: UploadHead,
    request: Request,
) -> ApiResult<(StatusCode, Json<ListedImage>)> {
    let UploadHead {
        image,
        query,
        headers,
    } = head;
    let body = request.into_body();
    let image = app
        .upload_image(&caller, &image, &query, headers, body)
        .await?;
    Ok((StatusCode::CREATED, Json(image)))
}

/// Look how much of an upload that was cut off the machine has: `Upload-Offset`.
#[utoipa::path(head, path = "/api/v1/agents/{agent}/images/{image}/content", tag = "images",
    params(("agent" = AgentId, Path, description = "the agent's id"), ("image" = ImageName, Path, description = "the image's name"),
        UploadParams),
    responses((status = 200, description = "how many bytes, in a header")))]
pub(crate) async fn look_at_upload(
    State(app): State<App>,
    caller: Caller,
    head: UploadHead,
) -> ApiResult<Response> {
    let held = app
        .held_of_upload(&caller, &head.image, &head.query)
        .await?;
    Ok([(own::UPLOAD_OFFSET, held.to_string())].into_response())
}

/// Bring an image to a machine before a VM wants it.
#[utoipa::path(post, path = "/api/v1/agents/{agent}/images/{image}/pull", tag = "images", request_body = Option<PullOptions>,
    params(("agent" = AgentId, Path, description = "the agent's id"), ("image" = ImageName, Path, description = "the image's name"),
        SlowParams),
    responses((status = 202, body = Operation), (status = 200, body = Operation, description = "finished within `wait`")))]
pub(crate) async fn pull(
    State(app): State<App>,
    caller: Caller,
    Path((agent, name)): Path<(AgentId, ImageName)>,
    Query(params): Query<SlowParams>,
    IdempotencyKey(key): IdempotencyKey,
    OptionalBody(options): OptionalBody<Option<PullOptions>>,
) -> ApiResult<Response> {
    let delivery = params.delivery(key)?;
    let image = ImageRef { agent, name };
    let options = options.unwrap_or_default();
    let operation = app.pull_image(&caller, image, options, delivery).await?;
    accepted(&app, operation, &params).await
}

/// Which driver's image.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct RemoveParams {
    /// Only this driver's; the first one's that has it when absent.
    driver: Option<DriverKind>,
}

/// Remove what a machine has of an image, and forget it where somebody added it.
#[utoipa::path(delete, path = "/api/v1/agents/{agent}/images/{image}", tag = "images",
    params(("agent" = AgentId, Path, description = "the agent's id"), ("image" = ImageName, Path, description = "the image's name"),
        RemoveParams),
    responses((status = 204)))]
pub(crate) async fn remove(
    State(app): State<App>,
    caller: Caller,
    Path((agent, name)): Path<(AgentId, ImageName)>,
    Query(params): Query<RemoveParams>,
) -> ApiResult<StatusCode> {
    let image = ImageRef { agent, name };
    app.remove_image(&caller, &image, params.driver).await?;
    Ok(StatusCode::NO_CONTENT)
}
