//! Saved forwards: addresses of a machine that lead to ports of its VMs.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::problem::FieldError;

/// Most forwards of one VM.
pub const MAX_FORWARDS: usize = 16;

/// An address of the machine that leads to a port of a VM, while that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Forward {
    /// Where the machine listens: `192.168.1.5:8080`, `[::1]:8080`. No two forwards of a machine have the same.
    #[schema(value_type = String, example = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// The TCP port inside the VM.
    pub port: u16,
    /// How it stands.
    pub state: ForwardState,
    /// Why it stands so, when there is something to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// How a forward stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ForwardState {
    /// The VM does not run: nobody listens.
    Waiting,
    /// Connections are taken, and led to the VM.
    Listening,
    /// Nobody listens; the forward's `message` says why. It is tried again.
    Failed,
}

impl ForwardState {
    /// The state in v1's words.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Listening => "listening",
            Self::Failed => "failed",
        }
    }
}

/// A forward that is to be saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SaveForward {
    /// Where the machine is to listen: an address of its own with a port. One that leads to the same VM already leads to
    /// this port from then on.
    #[schema(value_type = String, example = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// The TCP port inside the VM.
    pub port: u16,
}

impl SaveForward {
    /// What is wrong with it, field by field. Whether the machine has that address, and may use it, is the machine's to
    /// say.
    #[must_use]
    pub fn check(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if self.listen.port() == 0 {
            errors.push(FieldError::new(
                "listen",
                "name the port, from 1 to 65535: `127.0.0.1:8080`",
            ));
        }
        if self.listen.ip().is_multicast() {
            errors.push(FieldError::new(
                "listen",
                "name an address of the machine itself",
            ));
        }
        if self.port == 0 {
            errors.push(FieldError::new(
                "port",
                "a port is a number from 1 to 65535",
            ));
        }
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forward_has_two_ports_and_an_address_of_a_machine() {
        let fields = |listen: &str, port| -> Vec<String> {
            let listen = listen.parse().unwrap();
            let errors = SaveForward { listen, port }.check();
            errors.into_iter().map(|error| error.field).collect()
        };
        assert!(fields("127.0.0.1:80", 80).is_empty());
        assert!(fields("[::]:65535", 1).is_empty());
        assert_eq!(fields("127.0.0.1:0", 80), ["listen"]);
        assert_eq!(fields("224.0.0.1:80", 0), ["listen", "port"]);
    }

    #[test]
    fn addresses_are_written_as_people_write_them() {
        let saved = SaveForward {
            listen: "[::1]:8080".parse().unwrap(),
            port: 80,
        };
        let json = serde_json::to_value(saved).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"listen": "[::1]:8080", "port": 80})
        );
        let named = serde_json::json!({"listen": "localhost:8080", "port": 80});
        serde_json::from_value::<SaveForward>(named).unwrap_err();
    }
}
