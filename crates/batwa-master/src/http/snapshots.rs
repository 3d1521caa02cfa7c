//! Snapshots of VMs, and what else is done while a VM is off: cloning and resizing it.

use axum::{extract::State, response::Response};
use batwa_api::{
    id::AgentId,
    name::{SnapshotName, VmName},
    operation::{Operation, OperationRequest},
    vm::{CloneOptions, ResizeOptions, RestoreOptions, SnapshotOptions},
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    ApiResult,
    extract::{Body, OptionalBody, Path, Query},
    vms::{IdempotencyKey, SlowParams, act_on},
};
use crate::app::{App, auth::Caller, vms::VmRef};

/// Keep a VM's disk as it is now, to go back to. The VM has to be off, or `stop` has to be asked for.
#[utoipa::path(post, path = "/api/v1/agents/{agent}/vms/{vm}/snapshot", tag = "vms", request_body = Option<SnapshotOptions>,
    params(("agent" = AgentId, Path, description = "the agent's id"), ("vm" = VmName, Path, description = "the VM's name"), SlowParams),
    responses((status = 202, body = Operation), (status = 200, body = Operation, description = "finished within `wait`")))]
pub(crate) async fn snapshot(
    State(app): State<App>,
    caller: Caller,
    Path((agent, name)): Path<(AgentId, VmName)>,
    Query(params): Query<SlowParams>,
    IdempotencyKey(key): IdempotencyKey,
    OptionalBody(options): OptionalBody<SnapshotOptions>,
) -> ApiResult<Response> {
    let request = OperationRequest::Snapshot(options);
    act_on(&app, &caller, VmRef { agent, name }, request, key, &params).await
}

/// Take a VM back to a snapshot. Its disk as it is now is kept as one more snapshot first, unless `discard` is asked for.
#[utoipa::path(post, path = "/api/v1/agents/{agent}/vms/{vm}/restore", tag = "vms", request_body = RestoreOptions,
    params(("agent" = AgentId, Path, description = "the agent's id"), ("vm" = VmName, Path, description = "the VM's name"), SlowParams),
    responses((status = 202, body = Operation), (status = 200, body = Operation, description = "finished within `wait`")))]
pub(crate) async fn restore(
    State(app): State<App>,
    caller: Caller,
    Path((agent, name)): Path<(AgentId, VmName)>,
    Query(params): Query<SlowParams>,
    IdempotencyKey(key): IdempotencyKey,
    Body(options): Body<RestoreOptions>,
) -> ApiResult<Response> {
    let request = OperationRequest::Restore(options);
    act_on(&app, &caller, VmRef { agent, name }, request, key, &params).await
}

/// How to remove a snapshot.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct DeleteParams {
    /// Stop the VM for it if it runs, and start it again.
    #[serde(default)]
    stop: bool,
    /// Wait for the operation, at most this long: `30s`, `2m`.
    wait: Option<String>,
    /// Where the machine is offline, keep the operation for it, at most this long: `12h`, `3d`; refused otherwise.
    when_online: Option<String>,
}

/// Remove a snapshot; those that came from it go on from its parent.
#[utoipa::path(delete, path = "/api/v1/agents/{agent}/vms/{vm}/snapshots/{snapshot}", tag = "vms",
    params(("agent" = AgentId, Path, description = "the agent's id"), ("vm" = VmName, Path, description = "the VM's name"),
        ("snapshot" = SnapshotName, Path, description = "the snapshot's name"), DeleteParams),
    responses((status = 202, body = Operation), (status = 200, body = Operation, description = "finished within `wait`")))]
pub(crate) async fn delete_snapshot(
    State(app): State<App>,
    caller: Caller,
    Path((agent, name, snapshot)): Path<(AgentId, VmName, SnapshotName)>,
    Query(params): Query<DeleteParams>,
    IdempotencyKey(key): IdempotencyKey,
) -> ApiResult<Response> {
    let stop = params.stop;
    let params = SlowParams {
        wait: params.wait,
        when_online: params.when_online,
    };
    let request = OperationRequest::DeleteSnapshot { snapshot, stop };
    act_on(&app, &caller, VmRef { agent, name }, request, key, &params).await
}

/// Make another VM of one, on the same machine and with an identity of its own; it is left off.
#[utoipa::path(post, path = "/api/v1/agents/{agent}/vms/{vm}/clone", tag = "vms", request_body = CloneOptions,
    params(("agent" = AgentId, Path, description = "the agent's id"), ("vm" = VmName, Path, description = "the VM's name"), SlowParams),
    responses((status = 202, body = Operation), (status = 200, body = Operation, description = "finished within `wait`")))]
pub(crate) async fn clone(
    State(app): State<App>,
    caller: Caller,
    Path((agent, name)): Path<(AgentId, VmName)>,
    Query(params): Query<SlowParams>,
    IdempotencyKey(key): IdempotencyKey,
    Body(options): Body<CloneOptions>,
) -> ApiResult<Response> {
    let request = OperationRequest::Clone(options);
    act_on(&app, &caller, VmRef { agent, name }, request, key, &params).await
}

/// Change a VM's CPUs, memory or disk; a disk only grows.
#[utoipa::path(post, path = "/api/v1/agents/{agent}/vms/{vm}/resize", tag = "vms", request_body = ResizeOptions,
    params(("agent" = AgentId, Path, description = "the agent's id"), ("vm" = VmName, Path, description = "the VM's name"), SlowParams),
    responses((status = 202, body = Operation), (status = 200, body = Operation, description = "finished within `wait`")))]
pub(crate) async fn resize(
    State(app): State<App>,
    caller: Caller,
    Path((agent, name)): Path<(AgentId, VmName)>,
    Query(params): Query<SlowParams>,
    IdempotencyKey(key): IdempotencyKey,
    Body(size): Body<ResizeOptions>,
) -> ApiResult<Response> {
    let request = OperationRequest::Resize(size);
    act_on(&app, &caller, VmRef { agent, name }, request, key, &params).await
}
