//! The agent's key, for its master.

use axum::{Json, extract::State};
use batwa_api::{problem::ProblemCode, tunnel::RotatedKey};

use super::{App, error::ApiError};
use crate::tunnel;

/// Change the key that this agent goes by: it dials its master once more, beside its tunnel, to do so.
#[utoipa::path(post, path = "/api/v1/identity/rotate-key", tag = "agent", responses((status = 200, body = RotatedKey)))]
pub(crate) async fn rotate_key(State(app): State<App>) -> Result<Json<RotatedKey>, ApiError> {
    let Some(tunnel) = &app.config().tunnel else {
        return Err(ApiError::new(
            ProblemCode::Unsupported,
            "this agent has no key of its own: it did not join with a token",
        ));
    };
    let state_dir = &app.config().state_dir;
    let rotated = tunnel::rotate_key(state_dir, &tunnel.dialer, app.instance()).await;
    rotated
        .map(|public_key| Json(RotatedKey { public_key }))
        .map_err(|error| {
            let mut text = error.to_string();
            if let Some(cause) = std::error::Error::source(&error) {
                text = format!("{text}: {cause}");
            }
            ApiError::new(ProblemCode::AgentFailed, text)
        })
}
