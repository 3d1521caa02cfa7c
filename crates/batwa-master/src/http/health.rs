//! `/health`: this process lives. `/ready`: it can do its work.

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use super::ApiResult;
use crate::app::App;

/// A sign of life.
#[derive(Serialize, ToSchema)]
pub(crate) struct Health {
    /// Always `ok`.
    status: &'static str,
    /// Batwa's version.
    version: &'static str,
}

impl Health {
    fn ok() -> Json<Self> {
        Json(Self {
            status: "ok",
            version: env!("CARGO_PKG_VERSION"),
        })
    }
}

/// Whether the process lives; asks nothing of store or agents.
#[utoipa::path(get, path = "/health", tag = "health", responses((status = 200, body = Health)))]
pub(crate) async fn health() -> Json<Health> {
    Health::ok()
}

/// Whether store and fleet can serve requests; 503 with the reason otherwise.
#[utoipa::path(get, path = "/ready", tag = "health", responses((status = 200, body = Health)))]
pub(crate) async fn ready(State(app): State<App>) -> ApiResult<Json<Health>> {
    app.ready().await?;
    Ok(Health::ok())
}
