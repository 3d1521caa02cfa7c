//! VMs as observed, and what can be launched.

use std::time::Duration;

use axum::{Json, extract::State};
use batwa_api::{
    image::Image,
    list::Items,
    name::VmName,
    problem::{Problem, ProblemCode},
    vm::{ShownVm, Vm},
};
use futures_util::future::join_all;
use tokio::time::timeout;
use tracing::debug;

use super::{App, error::ApiResult, extract::PathOf};

/// How long a driver may take to list its images; its images are left out then.
const IMAGES_DEADLINE: Duration = Duration::from_secs(5);

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

impl App {
    /// A VM of the list.
    pub(crate) fn vm(&self, name: &VmName) -> Result<Vm, Problem> {
        self.picture().vm(name).ok_or_else(|| no_such_vm(name))
    }
}

fn no_such_vm(name: &VmName) -> Problem {
    Problem::new(ProblemCode::NotFound, format!("VM `{name}` does not exist"))
}

/// What can be launched on this machine, the driver for new VMs first.
#[utoipa::path(get, path = "/api/v1/images", tag = "vms", responses((status = 200, body = Items<Image>)))]
pub(crate) async fn list_images(State(app): State<App>) -> Json<Items<Image>> {
    let lists = app
        .inventory()
        .drivers()
        .into_iter()
        .map(|driver| async move {
            match timeout(IMAGES_DEADLINE, driver.images()).await {
                Ok(Ok(images)) => images,
                // Its health says why; the other drivers' images are still of use.
                Ok(Err(error)) => {
                    debug!("driver `{}` lists no images: {error}", driver.kind());
                    Vec::new()
                }
                Err(_) => Vec::new(),
            }
        });
    let images: Vec<Image> = join_all(lists).await.into_iter().flatten().collect();
    Json(images.into())
}
