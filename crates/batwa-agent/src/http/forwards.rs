//! Saved forwards: addresses of this machine that lead to ports of its VMs.

use axum::{
    Json,
    extract::{Path, State},
};
use batwa_api::{
    name::VmName,
    problem::{FieldError, Problem},
    vm::{SaveForward, ShownVm},
};

use super::{
    App,
    error::ApiResult,
    extract::{JsonBody, PathOf},
    ports::nothing,
};

/// Let an address of this machine lead to a port of a VM whenever that runs, as far as the machine's policy allows it. Answers
/// with the VM as it is shown from then on, also to those who watch.
#[utoipa::path(
    put, path = "/api/v1/vms/{vm}/forwards", tag = "vms", params(("vm" = VmName, Path)), request_body = SaveForward,
    responses(
        (status = 200, body = ShownVm), (status = 403, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem, description = "the address leads to another VM, or the VM has too many"),
        (status = 422, body = Problem),
    )
)]
pub(crate) async fn save_forward(
    State(app): State<App>,
    PathOf(name): PathOf<VmName>,
    JsonBody(forward): JsonBody<SaveForward>,
) -> ApiResult<Json<ShownVm>> {
    app.wait_for_first_word().await;
    Ok(Json(app.forwards().save(&name, forward).await?))
}

/// Let it lead there no more, and cut the connections that it carries; one that leads nowhere is success.
#[utoipa::path(
    delete, path = "/api/v1/vms/{vm}/forwards/{listen}", tag = "vms",
    params(("vm" = VmName, Path), ("listen" = String, Path, description = "the address with its port")),
    responses((status = 200, body = ShownVm), (status = 404, body = Problem), (status = 422, body = Problem))
)]
pub(crate) async fn remove_forward(
    State(app): State<App>,
    Path((vm, listen)): Path<(String, String)>,
) -> ApiResult<Json<ShownVm>> {
    let vm = VmName::parse(&vm).map_err(|_| nothing("VM", &vm))?;
    let listen = listen.parse().map_err(|_| {
        let error = FieldError::new("listen", "write an address with a port: `127.0.0.1:8080`");
        Problem::invalid_fields(vec![error])
    })?;
    app.wait_for_first_word().await;
    Ok(Json(app.forwards().remove(&vm, listen).await?))
}
