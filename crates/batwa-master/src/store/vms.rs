//! The last known state of each VM: what is shown of an agent that was not reached since the master started.

use std::sync::Arc;

use batwa_api::{id::AgentId, name::VmName, vm::Vm};

use super::{Store, StoreError, from_ms, on, to_json, to_ms};
use crate::fleet::row::Row;

/// What to write of one VM; nothing when it is gone.
pub(crate) type VmChange = ((AgentId, VmName), Option<Arc<Row>>);

impl Store {
    /// All VMs. Rows that this version cannot read are left out: agents tell again.
    pub(crate) async fn vms(&self) -> Result<Vec<Row>, StoreError> {
        let sql = "SELECT agent_id, vm, labels, missing_since FROM vms";
        let rows: Vec<(String, String, String, Option<i64>)> =
            on!(self.db(), db => sqlx::query_as(sql).fetch_all(db).await)?;
        Ok(rows
            .into_iter()
            .filter_map(|(agent, vm, labels, missing_since)| {
                let vm = serde_json::from_str(&vm).ok()?;
                let labels = serde_json::from_str(&labels).ok()?;
                let mut row = Row::new(agent.parse().ok()?, vm, labels);
                row.missing_since = missing_since.and_then(|ms| from_ms(ms).ok());
                Some(row)
            })
            .collect())
    }

    /// Writes the last state of many VMs in one transaction.
    pub(crate) async fn save_vms(&self, changes: &[VmChange]) -> Result<(), StoreError> {
        if changes.is_empty() {
            return Ok(());
        }
        let mut tx = self.begin().await?;
        let put = "INSERT INTO vms (agent_id, name, vm, labels, missing_since) VALUES ($1, $2, $3, $4, $5) \
                   ON CONFLICT (agent_id, name) DO UPDATE SET vm = excluded.vm, labels = excluded.labels, \
                   missing_since = excluded.missing_since";
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
                            .bind(to_json(&row.labels))
                            .bind(row.missing_since.map(to_ms))
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
