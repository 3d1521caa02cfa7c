//! Networks of this machine that new VMs can be put on.

use std::{sync::Arc, time::Duration};

use axum::{Json, extract::State};
use batwa_api::{list::Items, vm::HostNetwork};
use futures_util::future::join_all;
use tokio::time::timeout;

use super::App;
use crate::{driver::Driver, policy::PolicyFile};

/// How long a driver may take to list them; its networks are left out then.
const LIST_DEADLINE: Duration = Duration::from_secs(5);

/// Networks of this machine that new VMs can be put on, each driver's, and why not where its policy does not let them.
#[utoipa::path(get, path = "/api/v1/networks", tag = "agent", responses((status = 200, body = Items<HostNetwork>)))]
pub(crate) async fn list_networks(State(app): State<App>) -> Json<Items<HostNetwork>> {
    let drivers = app.inventory().drivers();
    let lists = drivers.iter().map(|driver| list(driver, app.policy()));
    let networks: Vec<HostNetwork> = join_all(lists).await.into_iter().flatten().collect();
    Json(networks.into())
}

/// One driver's. Where it does not answer, the other drivers' are still of use.
async fn list(driver: &Arc<dyn Driver>, policy: &PolicyFile) -> Vec<HostNetwork> {
    let mut networks = match timeout(LIST_DEADLINE, driver.networks()).await {
        Ok(Ok(networks)) => networks,
        Ok(Err(error)) => {
            tracing::debug!("driver `{}` lists no networks: {error}", driver.kind());
            Vec::new()
        }
        Err(_) => Vec::new(),
    };
    for network in &mut networks {
        if let Err(refusal) = policy.check_network(&network.name) {
            network.refusal = Some(format!("{refusal}: {}", refusal.remedy));
        }
    }
    networks
}
