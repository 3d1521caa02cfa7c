//! The last known state of each VM: what is shown of an agent that was not reached since the master started.

use std::collections::BTreeMap;

use batwa_api::{
    id::AgentId,
    name::VmName,
    vm::{Actions, Vm},
};

use super::{Store, StoreError, on, to_json};

/// One VM as the store holds it.
pub(crate) type StoredVm = (AgentId, Vm, BTreeMap<String, String>);

/// What to write of one VM; nothing when it is gone.
pub(crate) type VmChange = ((AgentId, VmName), Option<(Vm, BTreeMap<String, String>)>);

impl Store {
    /// All VMs. Rows that this version cannot read are left out: agents tell again.
    pub(crate) async fn vms(&self) -> Result<Vec<StoredVm>, StoreError> {
        let sql = "SELECT agent_id, vm, labels FROM vms";
        let rows: Vec<(String, String, String)> =
            on!(self.db(), db => sqlx::query_as(sql).fetch_all(db).await)?;
        Ok(rows
            .into_iter()
            .filter_map(|(agent, vm, labels)| {
                Some((
                    agent.parse().ok()?,
                    serde_json::from_str(&vm).ok()?,
                    serde_json::from_str(&labels).ok()?,
                ))
            })
            .collect())
    }

    /// Writes the last state of many VMs in one transaction.
    pub(crate) async fn save_vms(&self, changes: &[VmChange]) -> Result<(), StoreError> {
        if changes.is_empty() {
            return Ok(());
        }
        let mut tx = self.begin().await?;
        let put = "INSERT INTO vms (agent_id, name, vm, labels) VALUES ($1, $2, $3, $4) \
                   ON CONFLICT (agent_id, name) DO UPDATE SET vm = excluded.vm, labels = excluded.labels";
        let remove = "DELETE FROM vms WHERE agent_id = $1 AND name = $2";
        for ((agent, name), change) in changes {
            match change {
                Some((vm, labels)) => {
                    let vm = Vm {
                        actions: Actions::default(),
                        usage: None,
                        ..vm.clone()
                    };
                    on!(&mut tx, tx => {
                        sqlx::query(put)
                            .bind(agent.as_str())
                            .bind(name.as_str())
                            .bind(to_json(&vm))
                            .bind(to_json(labels))
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
