//! Mounts: folders of a machine that its VMs see.

use axum::{extract::State, response::Response};
use batwa_api::{
    id::AgentId,
    name::VmName,
    operation::{Operation, OperationRequest},
    vm::{MountKind, MountOptions, UnmountOptions},
};
use serde::Deserialize;

use super::{
    ApiResult,
    extract::{Body, OptionalBody, Path, Query},
    vms::{IdempotencyKey, SlowParams, act_on},
};
use crate::app::{App, auth::Caller, vms::VmRef};

/// [`MountOptions`], and nothing else: a misspelt `read_only` would let the VM write.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MountBody {
    source: String,
    target: String,
    #[serde(default)]
    read_only: bool,
    #[serde(rename = "type", default)]
    kind: Option<MountKind>,
}

impl From<MountBody> for MountOptions {
    fn from(body: MountBody) -> Self {
        Self {
            source: body.source,
            target: body.target,
            read_only: body.read_only,
            kind: body.kind,
        }
    }
}

/// [`UnmountOptions`], and nothing else: a misspelt `target` would take all of them out.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct UnmountBody {
    target: Option<String>,
}

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
    Body(body): Body<MountBody>,
) -> ApiResult<Response> {
    let request = OperationRequest::Mount(body.into());
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
    OptionalBody(body): OptionalBody<UnmountBody>,
) -> ApiResult<Response> {
    let request = OperationRequest::Umount(UnmountOptions {
        target: body.target,
    });
    act_on(&app, &caller, VmRef { agent, name }, request, key, &params).await
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn a_misspelt_field_is_refused_and_every_known_one_is_taken() {
        let known = MountOptions {
            source: "/srv".to_owned(),
            target: "/m".to_owned(),
            read_only: true,
            kind: Some(MountKind::Native),
        };
        let body: MountBody = from_value(serde_json::to_value(&known).unwrap()).unwrap();
        assert_eq!(MountOptions::from(body), known);
        assert!(
            from_value::<MountBody>(json!({"source": "/srv", "target": "/m", "readonly": true}))
                .is_err()
        );
        assert!(from_value::<UnmountBody>(json!({"target": "/m"})).is_ok());
        assert!(from_value::<UnmountBody>(json!({"traget": "/m"})).is_err());
    }
}
