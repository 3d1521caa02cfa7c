//! Mounts: folders of a machine that its VMs see.

use axum::{extract::State, response::Response};
use batwa_api::{
    id::AgentId,
    name::VmName,
    operation::{Operation, OperationRequest},
    vm::{MountOptions, UnmountOptions},
};

use super::{
    ApiResult,
    extract::{Body, OptionalBody, Path, Query},
    vms::{IdempotencyKey, SlowParams, act_on},
};
use crate::app::{App, auth::Caller, vms::VmRef};

/// Let a VM see a folder of its machine, as far as that machine's policy allows it. With QEMU a VM that runs sees it from
/// its next start on: its `mounts` say so.
#[utoipa::path(post, path = "/api/v1/agents/{agent}/vms/{vm}/mount", tag = "vms", request_body = MountOptions,
    params(("agent" = AgentId, Path, description = "the agent's id"), ("vm" = VmName, Path, description = "the VM's name"), SlowParams),
    responses((status = 202, body = Operation), (status = 200, body = Operation, description = "finished within `wait`")))]
pub(crate) async fn mount(
    State(app): State<App>,
    caller: Caller,
    Path((agent, name)): Path<(AgentId, VmName)>,
    Query(params): Query<SlowParams>,
    IdempotencyKey(key): IdempotencyKey,
    Body(options): Body<MountOptions>,
) -> ApiResult<Response> {
    let request = OperationRequest::Mount(options);
    act_on(&app, &caller, VmRef { agent, name }, request, key, &params).await
}

/// Take a folder of its machine, or all of them, out of a VM; the folder itself stays as it is.
#[utoipa::path(post, path = "/api/v1/agents/{agent}/vms/{vm}/umount", tag = "vms", request_body = Option<UnmountOptions>,
    params(("agent" = AgentId, Path, description = "the agent's id"), ("vm" = VmName, Path, description = "the VM's name"), SlowParams),
    responses((status = 202, body = Operation), (status = 200, body = Operation, description = "finished within `wait`")))]
pub(crate) async fn umount(
    State(app): State<App>,
    caller: Caller,
    Path((agent, name)): Path<(AgentId, VmName)>,
    Query(params): Query<SlowParams>,
    IdempotencyKey(key): IdempotencyKey,
    OptionalBody(options): OptionalBody<UnmountOptions>,
) -> ApiResult<Response> {
    let request = OperationRequest::Umount(options);
    act_on(&app, &caller, VmRef { agent, name }, request, key, &params).await
}
