//! VMs as observed.

use std::time::Duration;

use axum::{Json, extract::State};
use batwa_api::{
    list::Items,
    name::VmName,
    problem::{Problem, ProblemCode},
    vm::{SettingsChange, ShownVm, Vm},
};

use super::{
    App,
    error::ApiResult,
    extract::{JsonBody, PathOf},
};

/// All VMs of this machine, by name, as last observed.
#[utoipa::path(get, path = "/api/v1/vms", tag = "vms", responses((status = 200, body = Items<ShownVm>)))]
pub(crate) async fn list_vms(State(app): State<App>) -> Json<Items<ShownVm>> {
    app.wait_for_first_word().await;
    Json(app.picture().shown_vms().into())
}

/// One VM as last observed. Asking also brings its addresses and usage up to date, for the next call and for
/// those who watch.
#[utoipa::path(
    get, path = "/api/v1/vms/{vm}", tag = "vms", params(("vm" = VmName, Path)),
    responses((status = 200, body = ShownVm), (status = 404, body = Problem))
)]
pub(crate) async fn get_vm(
    State(app): State<App>,
    PathOf(name): PathOf<VmName>,
) -> ApiResult<Json<ShownVm>> {
    app.wait_for_first_word().await;
    app.inventory().look(&name, Duration::ZERO).await;
    Ok(Json(
        app.picture()
            .shown_vm(&name)
            .ok_or_else(|| no_such_vm(&name))?,
    ))
}

/// Change what is done about a VM by itself: what is absent stays as it is, `null` switches off. Answers with the VM as
/// it is shown from then on, also to those who watch.
#[utoipa::path(
    patch, path = "/api/v1/vms/{vm}", tag = "vms", params(("vm" = VmName, Path)), request_body = SettingsChange,
    responses((status = 200, body = ShownVm), (status = 404, body = Problem), (status = 422, body = Problem))
)]
pub(crate) async fn change_settings(
    State(app): State<App>,
    PathOf(name): PathOf<VmName>,
    JsonBody(change): JsonBody<SettingsChange>,
) -> ApiResult<Json<ShownVm>> {
    app.wait_for_first_word().await;
    Ok(Json(app.upkeep().change(&name, &change).await?))
}

impl App {
    /// A VM of the list.
    pub(crate) fn vm(&self, name: &VmName) -> Result<Vm, Problem> {
        self.picture().vm(name).ok_or_else(|| no_such_vm(name))
    }
}

fn no_such_vm(name: &VmName) -> Problem {
    Problem::new(ProblemCode::NotFound, format!("VM `{name}` does not exist"))
}
