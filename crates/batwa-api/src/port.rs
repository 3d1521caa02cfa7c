//! Connections to ports inside VMs: a WebSocket whose binary frames are bytes.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A text frame, in either direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum PortFrame {
    /// This side sends no more bytes; the other direction goes on.
    Eof,
}
