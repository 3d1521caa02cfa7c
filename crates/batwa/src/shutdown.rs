//! Ctrl-C and SIGTERM: the first asks for an orderly end, the second ends at once.

use std::{future::Future, time::Duration};

use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    failure::{Exit, Failure},
    service_manager::{self, ServiceManager},
    start_pages,
};

/// Master and agent end by themselves well within this; what has not by then is cut.
const GRACE_PERIOD: Duration = Duration::from_secs(9);

/// The parts of a process that live and end together.
pub(crate) struct Parts {
    tasks: JoinSet<(&'static str, Result<(), Failure>)>,
    stop: CancellationToken,
    manager: ServiceManager,
}

impl Parts {
    /// No part yet.
    pub(crate) fn new() -> Self {
        Self {
            tasks: JoinSet::new(),
            stop: CancellationToken::new(),
            manager: ServiceManager::default(),
        }
    }

    /// Tells this service manager when everything runs, and when it ends.
    pub(crate) fn told_to(mut self, manager: ServiceManager) -> Self {
        self.manager = manager;
        self
    }

    /// Adds a part that runs until the token it is given is cancelled.
    pub(crate) fn add<F>(&mut self, name: &'static str, part: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        let part = part(self.stop.child_token());
        self.tasks.spawn(async move { (name, part.await) });
    }

    /// Runs until a signal comes or a part ends by itself, then ends the rest in order.
    pub(crate) async fn run(mut self) -> Result<(), Failure> {
        let wrong = |error| Failure::new(Exit::Failed, format!("cannot receive signals: {error}"));
        let mut interrupt = signal(SignalKind::interrupt()).map_err(wrong)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(wrong)?;
        let mut outcome = Ok(());
        self.add("start pages", start_pages::let_go);
        self.manager.tell(service_manager::READY);
        tokio::select! {
            _ = interrupt.recv() => info!("stopping: interrupted; VMs go on"),
            _ = terminate.recv() => info!("stopping: asked to terminate; VMs go on"),
            Some(ended) = self.tasks.join_next() => outcome = judge(ended),
        }
        self.manager.tell(service_manager::STOPPING);
        self.stop.cancel();
        let orderly = async {
            while let Some(ended) = self.tasks.join_next().await {
                if let (Err(failure), true) = (judge(ended), outcome.is_ok()) {
                    outcome = Err(failure);
                }
            }
        };
        let at_once = tokio::select! {
            done = tokio::time::timeout(GRACE_PERIOD, orderly) => done.is_err(),
            _ = interrupt.recv() => true,
            _ = terminate.recv() => true,
        };
        if at_once {
            warn!("not everything ended in order; cut");
            self.tasks.abort_all();
        } else {
            info!("stopped");
        }
        outcome
    }
}

type Ended = Result<(&'static str, Result<(), Failure>), tokio::task::JoinError>;

fn judge(ended: Ended) -> Result<(), Failure> {
    match ended {
        Ok((_, outcome)) => outcome,
        Err(cause) => {
            error!("a part of the program broke: {cause}");
            Err(Failure::new(
                Exit::Failed,
                format!("a part of the program broke: {cause}"),
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_that_fails_ends_the_others_and_gives_the_reason() {
        let (ended, was_told) = tokio::sync::oneshot::channel();
        let mut parts = Parts::new();
        parts.add("steady", |stop| async move {
            stop.cancelled().await;
            let _ = ended.send(());
            Ok(())
        });
        parts.add("weak", |_| async {
            Err(Failure::usage("the port is gone"))
        });
        let failure = parts.run().await.expect_err("the weak one failed");
        assert_eq!(failure.message, "the port is gone");
        was_told.await.expect("the steady one was told to stop");
    }
}
