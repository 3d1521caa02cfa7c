//! Images.

use axum::{Json, extract::State};
use batwa_api::{id::AgentId, image::ListedImage, list::Items};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{ApiResult, extract::Query};
use crate::app::{App, Error};

/// Whose images.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ImageParams {
    /// Only what can be launched on this machine.
    agent: Option<String>,
}

/// What can be launched, on one machine or on all that answer soon.
#[utoipa::path(get, path = "/api/v1/images", tag = "images", params(ImageParams),
    responses((status = 200, body = Items<ListedImage>)))]
pub(crate) async fn list(
    State(app): State<App>,
    Query(params): Query<ImageParams>,
) -> ApiResult<Json<Items<ListedImage>>> {
    let agent = params
        .agent
        .map(|agent| {
            AgentId::parse(&agent).map_err(|error| Error::invalid("agent", error.to_string()))
        })
        .transpose()?;
    Ok(Json(app.images(agent.as_ref()).await?.into()))
}
