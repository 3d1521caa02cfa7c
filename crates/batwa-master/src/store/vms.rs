//! The last known state of each VM: what is shown of an agent that was not reached since the master started.

use std::sync::Arc;

use batwa_api::{id::AgentId, name::VmName, vm::Vm};

use sqlx::FromRow;

use super::{Store, StoreError, from_ms, on, to_json, to_ms};
use crate::fleet::row::{About, Row};

/// What to write of one VM; nothing when it is gone.
pub(crate) type VmChange = ((AgentId, VmName), Option<Arc<Row>>);

#[derive(FromRow)]
struct VmRow {
    agent_id: String,
    vm: String,
    display_name: Option<String>,
    notes: String,
    labels: String,
    label_sources: String,
    missing_since: Option<i64>,
}

impl VmRow {
    /// The VM; `None` when this version cannot read it.
    fn row(self) -> Option<Row> {
        let about = About {
            display_name: self.display_name,
            notes: self.notes,
            labels: serde_json::from_str(&self.labels).ok()?,
            label_sources: serde_json::from_str(&self.label_sources).ok()?,
        };
        let vm = serde_json::from_str(&self.vm).ok()?;
        let mut row = Row::new(self.agent_id.parse().ok()?, vm, about);
        row.missing_since = self.missing_since.and_then(|ms| from_ms(ms).ok());
        Some(row)
    }
}

impl Store {
    /// All VMs. Rows that this version cannot read are left out: agents tell again.
    pub(crate) async fn vms(&self) -> Result<Vec<Row>, StoreError> {
        let sql = "SELECT agent_id, vm, display_name, notes, labels, label_sources, missing_since FROM vms";
        let rows: Vec<VmRow> = on!(self.db(), db => sqlx::query_as(sql).fetch_all(db).await)?;
        Ok(rows.into_iter().filter_map(VmRow::row).collect())
    }

    /// Writes the last state of many VMs in one transaction.
    pub(crate) async fn save_vms(&self, changes: &[VmChange]) -> Result<(), StoreError> {
        if changes.is_empty() {
            return Ok(());
        }
        let mut tx = self.begin().await?;
        let put = "INSERT INTO vms (agent_id, name, vm, labels, missing_since, display_name, notes, label_sources) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8) \
                   ON CONFLICT (agent_id, name) DO UPDATE SET vm = excluded.vm, labels = excluded.labels, \
                   missing_since = excluded.missing_since, display_name = excluded.display_name, \
                   notes = excluded.notes, label_sources = excluded.label_sources";
        let remove = "DELETE FROM vms WHERE agent_id = $1 AND name = $2";
        for ((agent, name), change) in changes {
            match change {
                Some(row) => {
                    let vm = Vm {
                        usage: None,
                        ..Vm::clone(&row.vm)
                    };
                    on!(&mut tx, tx => {
                        sqlx::query(put)
                            .bind(agent.as_str())
                            .bind(name.as_str())
                            .bind(to_json(&vm))
                            .bind(to_json(&row.about.labels))
                            .bind(row.missing_since.map(to_ms))
                            .bind(row.about.display_name.as_deref())
                            .bind(&row.about.notes)
                            .bind(to_json(&row.about.label_sources))
                            .execute(&mut **tx)
                            .await
                            .map(drop)
                    })?;
                }
                None => on!(&mut tx, tx => {
                    sqlx::query(remove)
                        .bind(agent.as_str())
                        .bind(name.as_str())
                        .execute(&mut **tx)
                        .await
                        .map(drop)
                })?,
            }
        }
        tx.commit().await
    }
}
