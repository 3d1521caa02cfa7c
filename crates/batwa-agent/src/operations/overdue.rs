//! Ends of operations that the disk did not take: written down as soon as it does.
//!
//! Until then what is shown is right and what the journal says is old. An agent that dies in that state settles the
//! operation anew by what it sees, so nothing may be accepted for a VM over such an end: the ends are written first.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use batwa_api::id::OperationId;
use tokio::{sync::Notify, time::sleep};
use tracing::{info, warn};

use super::{Operations, record::Record};

/// Between two tries.
const PAUSE: Duration = Duration::from_secs(5);

/// The operations whose end the journal lacks.
#[derive(Debug, Default)]
pub(super) struct Overdue {
    records: Mutex<BTreeMap<OperationId, Arc<Record>>>,
    added: Notify,
}

impl Overdue {
    fn all(&self) -> Vec<Arc<Record>> {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.values().cloned().collect()
    }

    fn add(&self, id: OperationId, record: &Arc<Record>) {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.insert(id, Arc::clone(record));
        drop(records);
        self.added.notify_one();
    }

    fn remove(&self, id: OperationId) {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.remove(&id);
    }
}

impl Operations {
    /// Writes down how an operation ended, or sees to it that this is done later.
    pub(super) async fn write_end(&self, record: &Arc<Record>) {
        if let Err(error) = record.persist(&self.journal).await {
            let id = record.operation().id;
            warn!(operation.id = %id, "cannot write down how an operation ended, and try again: {error}");
            self.overdue.add(id, record);
        }
    }

    /// Writes down every end that is overdue; false when the disk still does not take one.
    pub(super) async fn write_overdue(&self) -> bool {
        for record in self.overdue.all() {
            let id = record.operation().id;
            if record.persist(&self.journal).await.is_err() {
                return false;
            }
            info!(operation.id = %id, "how an operation ended is written down now");
            self.overdue.remove(id);
            if self.get(id).is_none() {
                // It was forgotten meanwhile, as too many others have ended since.
                let _ = self.journal.remove(id);
            }
        }
        true
    }

    /// Tries again whenever an end is overdue; for ever.
    pub(crate) async fn see_to_overdue(&self) {
        loop {
            self.overdue.added.notified().await;
            while !self.write_overdue().await {
                sleep(PAUSE).await;
            }
        }
    }
}
