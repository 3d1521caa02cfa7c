//! Files in VMs: passed through to the agent, which checks the query (docs/protocol.md).

use axum::{
    extract::{FromRequestParts, Request, State},
    response::Response,
};
use batwa_api::{file::WrittenFile, file::header as own, id::AgentId, name::VmName};
use http::{HeaderMap, Method, header, request::Parts};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    ApiError, ApiResult,
    extract::{Path, Query},
};
use crate::app::{App, auth::Caller, inside::FileCall, vms::VmRef};

/// Which file, and how.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(
    dead_code,
    reason = "the agent reads the rest; the document is made of it"
)]
pub(crate) struct FileParams {
    /// The file or folder; a relative one begins at the account's home.
    #[serde(default)]
    path: String,
    /// `tar` for a folder and all that is in it.
    archive: Option<String>,
    /// Names an upload that can be gone on with: 8 to 64 letters, digits and hyphens.
    upload: Option<String>,
    /// Make folders that are missing.
    parents: Option<bool>,
    /// The new file's permissions in octal; those of the file it replaces when absent.
    mode: Option<String>,
}

/// What goes to the agent of a request's head.
pub(crate) struct Call(FileCall, VmRef);

impl FromRequestParts<App> for Call {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Self::Rejection> {
        let Path((agent, name)) = Path::<(AgentId, VmName)>::from_request_parts(parts, app).await?;
        let Query(params) = Query::<FileParams>::from_request_parts(parts, app).await?;
        let headers = [
            header::RANGE.as_str(),
            header::IF_RANGE.as_str(),
            header::CONTENT_RANGE.as_str(),
            header::CONTENT_LENGTH.as_str(),
            own::DIGEST,
            own::WANT_DIGEST,
        ];
        let passed: HeaderMap = headers
            .into_iter()
            .filter_map(|name| Some((name.parse().ok()?, parts.headers.get(name)?.clone())))
            .collect();
        let call = FileCall {
            method: parts.method.clone(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            headers: passed,
            path: params.path,
            action: match parts.method {
                Method::PUT => Some("vm.upload"),
                Method::GET => Some("vm.download"),
                _ => None,
            },
        };
        Ok(Self(call, VmRef { agent, name }))
    }
}

/// Download a file of a VM, or a folder as tar. `Range` and `If-Range` go on with one that was cut off.
#[utoipa::path(get, path = "/api/v1/agents/{agent}/vms/{vm}/files", tag = "inside",
    params(("agent" = AgentId, Path, description = "the agent's id"), ("vm" = VmName, Path, description = "the VM's name"), FileParams),
    responses((status = 200, description = "the content", content_type = "application/octet-stream"),
        (status = 206, description = "the rest of the content", content_type = "application/octet-stream")))]
pub(crate) async fn download(
    State(app): State<App>,
    caller: Caller,
    call: Call,
) -> ApiResult<Response> {
    pass(&app, &caller, call, axum::body::Body::empty()).await
}

/// Look at a file of a VM: its size, permissions and checksum in headers; or, with `upload`, how much of an upload that
/// was cut off is there (`Upload-Offset`).
#[utoipa::path(head, path = "/api/v1/agents/{agent}/vms/{vm}/files", tag = "inside",
    params(("agent" = AgentId, Path, description = "the agent's id"), ("vm" = VmName, Path, description = "the VM's name"), FileParams),
    responses((status = 200, description = "what is known, in headers")))]
pub(crate) async fn look(
    State(app): State<App>,
    caller: Caller,
    call: Call,
) -> ApiResult<Response> {
    pass(&app, &caller, call, axum::body::Body::empty()).await
}

/// Upload a file to a VM, or unpack tar into a folder of it. With `upload`, one that is cut off is gone on with by
/// `Content-Range`. A `Repr-Digest` is checked before the file takes its place.
#[utoipa::path(put, path = "/api/v1/agents/{agent}/vms/{vm}/files", tag = "inside",
    params(("agent" = AgentId, Path, description = "the agent's id"), ("vm" = VmName, Path, description = "the VM's name"), FileParams),
    request_body(content_type = "application/octet-stream", description = "the content"),
    responses((status = 200, body = WrittenFile)))]
pub(crate) async fn upload(
    State(app): State<App>,
    caller: Caller,
    call: Call,
    request: Request,
) -> ApiResult<Response> {
    pass(&app, &caller, call, request.into_body()).await
}

async fn pass(
    app: &App,
    caller: &Caller,
    Call(call, vm): Call,
    body: axum::body::Body,
) -> ApiResult<Response> {
    let way = app.way_into(caller, vm, "reach files of")?;
    Ok(app.files(way, call, body).await?)
}
