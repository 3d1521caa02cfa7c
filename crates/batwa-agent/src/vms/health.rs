//! How a driver is, and since when.

use batwa_api::{
    Timestamp,
    agent::{Health, HealthStatus},
};

use crate::driver::DriverError;

/// Follows a driver's health; `since` moves only when the status does.
#[derive(Debug, Clone)]
pub(super) struct HealthTrack {
    health: Health,
    /// Whether it has answered or failed at all.
    known: bool,
}

impl HealthTrack {
    /// A driver that has not been asked yet.
    pub(super) fn new() -> Self {
        Self {
            health: Health {
                status: HealthStatus::Ok,
                message: Some("starting".to_owned()),
                since: Timestamp::now(),
            },
            known: false,
        }
    }

    pub(super) fn health(&self) -> Health {
        self.health.clone()
    }

    pub(super) fn status(&self) -> HealthStatus {
        self.health.status
    }

    /// Whether it has been found not to answer.
    pub(super) fn has_failed(&self) -> bool {
        self.known
            && matches!(
                self.health.status,
                HealthStatus::Stuck | HealthStatus::Missing
            )
    }

    /// Takes note of an answer, or of none. Returns whether the status changed.
    pub(super) fn note(&mut self, status: HealthStatus, message: Option<String>) -> bool {
        let changed = !self.known || self.health.status != status;
        if changed {
            self.health.since = Timestamp::now();
        }
        self.known = true;
        self.health.status = status;
        self.health.message = message;
        changed
    }

    /// Why the driver cannot be used now.
    pub(super) fn error(&self) -> DriverError {
        let text = self
            .health
            .message
            .clone()
            .unwrap_or_else(|| "the driver does not answer".to_owned());
        match self.health.status {
            HealthStatus::Missing => DriverError::Missing(text),
            _ => DriverError::Stuck(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_moves_only_with_the_status() {
        let mut track = HealthTrack::new();
        assert!(track.note(HealthStatus::Stuck, Some("no answer".into())));
        assert!(track.has_failed());
        let since = track.health().since;
        assert!(!track.note(HealthStatus::Stuck, Some("still none".into())));
        assert_eq!(track.health().since, since);
        assert_eq!(track.health().message.as_deref(), Some("still none"));
        assert_eq!(track.error(), DriverError::Stuck("still none".into()));
        assert!(track.note(HealthStatus::Ok, None));
        assert!(track.health().since > since);
    }
}
