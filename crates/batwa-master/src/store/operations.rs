//! Operations: written before anything is sent, and with every state they come to.

use std::collections::BTreeMap;

use batwa_api::{
    Timestamp,
    id::{AgentId, OperationId},
    list::OperationCounts,
    name::VmName,
    operation::{Operation, OperationKind, OperationState, StartOperation},
};
use sqlx::FromRow;

use super::{Store, StoreError, from_json, on, to_json, to_ms};

/// An operation that was just accepted.
#[derive(Debug, Clone)]
pub(crate) struct NewOperation {
    /// The operation.
    pub(crate) operation: Operation,
    /// What is sent to the agent. Sealed where it may hold secrets.
    pub(crate) request: StartOperation,
    /// The caller's `Idempotency-Key`, if it gave one.
    pub(crate) idempotency: Option<Idempotency>,
}

/// By what a repeated request is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Idempotency {
    /// The key with its caller.
    pub(crate) key: String,
    /// The hash of what was asked for.
    pub(crate) body_hash: Vec<u8>,
}

/// What became of writing an operation.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Accepted {
    /// It is new.
    New,
    /// The same request made this operation before.
    Known(OperationId),
    /// The key came with another request before.
    KeyOfAnother,
}

/// Which operations to list.
#[derive(Debug, Clone, Default)]
pub(crate) struct OperationQuery {
    /// States; empty means all.
    pub(crate) states: Vec<OperationState>,
    /// Only of this agent.
    pub(crate) agent: Option<AgentId>,
    /// Only of VMs with this name.
    pub(crate) vm: Option<VmName>,
    /// Kinds; empty means all.
    pub(crate) kinds: Vec<OperationKind>,
    /// Only those that this account asked for.
    pub(crate) requested_by: Option<String>,
    /// Only those made before this one.
    pub(crate) before: Option<OperationId>,
    /// At most this many.
    pub(crate) limit: usize,
}

#[derive(FromRow)]
struct KnownRow {
    id: String,
    body_hash: Option<Vec<u8>>,
}

/// Words as `,one,two,`, in which the database finds each; nothing for no words.
fn among<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let mut list = String::new();
    for word in words {
        list.push_str(if list.is_empty() { "," } else { "" });
        list.push_str(word);
        list.push(',');
    }
    list
}

fn place(id: OperationId) -> String {
    format!("operations:{id}")
}

impl Store {
    /// Writes a new operation down, unless its request made one before; keys older than `keys_since` are free again.
    pub(crate) async fn insert_operation(
        &self,
        new: &NewOperation,
        keys_since: Timestamp,
    ) -> Result<Accepted, StoreError> {
        let operation = &new.operation;
        let key = new.idempotency.as_ref().map(|known| known.key.as_str());
        let hash = new
            .idempotency
            .as_ref()
            .map(|known| known.body_hash.as_slice());
        let request = match new.request.request.has_secrets() {
            true => self
                .vault()
                .seal(&place(operation.id), &to_json(&new.request))?,
            false => to_json(&new.request),
        };
        let mut tx = self.begin().await?;
        if key.is_some() {
            let sql = "UPDATE operations SET idempotency_key = NULL \
                       WHERE idempotency_key = $1 AND created_at < $2";
            on!(&mut tx, tx => {
                sqlx::query(sql).bind(key).bind(to_ms(keys_since)).execute(&mut **tx).await.map(drop)
            })?;
        }
        let sql = "INSERT INTO operations (id, agent_id, vm, kind, state, request, operation, requested_by, \
                   idempotency_key, body_hash, created_at, keeps_request) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) \
                   ON CONFLICT (idempotency_key) DO NOTHING RETURNING id";
        let inserted: Option<String> = on!(&mut tx, tx => {
            sqlx::query_scalar(sql)
                .bind(operation.id.to_string())
                .bind(operation.agent_id.as_str())
                .bind(operation.vm.as_str())
                .bind(operation.kind.as_str())
                .bind(operation.state.as_str())
                .bind(request)
                .bind(to_json(operation))
                .bind(operation.requested_by.as_deref().unwrap_or_default())
                .bind(key)
                .bind(hash)
                .bind(to_ms(operation.created_at))
                .bind(!new.request.request.has_secrets())
                .fetch_optional(&mut **tx)
                .await
        })?;
        if inserted.is_some() {
            tx.commit().await?;
            return Ok(Accepted::New);
        }
        let sql = "SELECT id, body_hash FROM operations WHERE idempotency_key = $1";
        let known: KnownRow = on!(&mut tx, tx => {
            sqlx::query_as(sql).bind(key).fetch_one(&mut **tx).await
        })?;
        if known.body_hash.as_deref() != hash {
            return Ok(Accepted::KeyOfAnother);
        }
        Ok(Accepted::Known(super::parse("an operation id", &known.id)?))
    }

    /// Forgets an operation that its agent refused before anything happened.
    pub(crate) async fn delete_operation(&self, id: OperationId) -> Result<(), StoreError> {
        let sql = "DELETE FROM operations WHERE id = $1";
        on!(self.db(), db => {
            sqlx::query(sql).bind(id.to_string()).execute(db).await.map(drop)
        })?;
        Ok(())
    }

    /// The operation that a request with this key made, if one did since `keys_since`.
    pub(crate) async fn operation_by_key(
        &self,
        known: &Idempotency,
        keys_since: Timestamp,
    ) -> Result<Option<Accepted>, StoreError> {
        let sql =
            "SELECT id, body_hash FROM operations WHERE idempotency_key = $1 AND created_at >= $2";
        let row: Option<KnownRow> = on!(self.db(), db => {
            sqlx::query_as(sql).bind(&known.key).bind(to_ms(keys_since)).fetch_optional(db).await
        })?;
        row.map(|row| {
            Ok(if row.body_hash.as_deref() == Some(&known.body_hash) {
                Accepted::Known(super::parse("an operation id", &row.id)?)
            } else {
                Accepted::KeyOfAnother
            })
        })
        .transpose()
    }

    /// Writes what is known of operations now; a finished one is never changed again, nor another agent's.
    pub(crate) async fn save_operations(&self, operations: &[Operation]) -> Result<(), StoreError> {
        if operations.is_empty() {
            return Ok(());
        }
        let mut tx = self.begin().await?;
        // A request that holds user-data, which may hold passwords, goes as soon as it is of no more use.
        let sql = "INSERT INTO operations (id, agent_id, vm, kind, state, request, operation, requested_by, \
                   created_at, finished_at) VALUES ($1, $2, $3, $4, $5, '', $6, $7, $8, $9) \
                   ON CONFLICT (id) DO UPDATE SET state = excluded.state, operation = excluded.operation, \
                   finished_at = excluded.finished_at, \
                   request = CASE WHEN excluded.finished_at IS NULL OR operations.keeps_request \
                   THEN operations.request ELSE '' END \
                   WHERE operations.finished_at IS NULL AND operations.agent_id = excluded.agent_id";
        for operation in operations {
            // Finished is finished, also when an agent forgot to say when.
            let finished_at = operation
                .state
                .is_finished()
                .then(|| operation.finished_at.unwrap_or_else(Timestamp::now));
            on!(&mut tx, tx => {
                sqlx::query(sql)
                    .bind(operation.id.to_string())
                    .bind(operation.agent_id.as_str())
                    .bind(operation.vm.as_str())
                    .bind(operation.kind.as_str())
                    .bind(operation.state.as_str())
                    .bind(to_json(operation))
                    .bind(operation.requested_by.as_deref().unwrap_or_default())
                    .bind(to_ms(operation.created_at))
                    .bind(finished_at.map(to_ms))
                    .execute(&mut **tx)
                    .await
                    .map(drop)
            })?;
        }
        tx.commit().await
    }

    /// One operation.
    pub(crate) async fn operation(&self, id: OperationId) -> Result<Option<Operation>, StoreError> {
        let sql = "SELECT operation FROM operations WHERE id = $1";
        let row: Option<String> = on!(self.db(), db => {
            sqlx::query_scalar(sql).bind(id.to_string()).fetch_optional(db).await
        })?;
        row.map(|json| from_json("an operation", &json)).transpose()
    }

    /// What was to be sent for an operation; `None` when it was not asked for here, or has ended and held user-data.
    pub(crate) async fn operation_request(
        &self,
        id: OperationId,
    ) -> Result<Option<StartOperation>, StoreError> {
        let sql = "SELECT request FROM operations WHERE id = $1 AND request <> ''";
        let row: Option<String> = on!(self.db(), db => {
            sqlx::query_scalar(sql).bind(id.to_string()).fetch_optional(db).await
        })?;
        row.map(|text| {
            let json = self.vault().unseal(&place(id), text)?;
            from_json("an operation's request", &json)
        })
        .transpose()
    }

    /// All operations that are not finished.
    pub(crate) async fn unfinished_operations(&self) -> Result<Vec<Operation>, StoreError> {
        let sql =
            "SELECT operation FROM operations WHERE state IN ('queued', 'running') ORDER BY id";
        let rows: Vec<String> = on!(self.db(), db => sqlx::query_scalar(sql).fetch_all(db).await)?;
        rows.iter()
            .map(|json| from_json("an operation", json))
            .collect()
    }

    /// One page of operations, the newest first, and one more than asked for when there is one.
    pub(crate) async fn list_operations(
        &self,
        query: &OperationQuery,
    ) -> Result<Vec<Operation>, StoreError> {
        let sql = "SELECT operation FROM operations \
                   WHERE ($1 = '' OR agent_id = $1) AND ($2 = '' OR vm = $2) AND ($3 = '' OR id < $3) \
                   AND ($4 = '' OR $4 LIKE '%,' || state || ',%') AND ($5 = '' OR $5 LIKE '%,' || kind || ',%') \
                   AND ($6 = '' OR requested_by = $6) ORDER BY id DESC LIMIT $7";
        let rows: Vec<String> = on!(self.db(), db => {
            sqlx::query_scalar(sql)
                .bind(query.agent.as_ref().map_or("", AgentId::as_str))
                .bind(query.vm.as_ref().map_or("", VmName::as_str))
                .bind(query.before.map(|id| id.to_string()).unwrap_or_default())
                .bind(among(query.states.iter().map(|state| state.as_str())))
                .bind(among(query.kinds.iter().map(|kind| kind.as_str())))
                .bind(query.requested_by.as_deref().unwrap_or_default())
                .bind(i64::try_from(query.limit + 1).unwrap_or(i64::MAX))
                .fetch_all(db)
                .await
        })?;
        rows.iter()
            .map(|json| from_json("an operation", json))
            .collect()
    }

    /// How many operations of an agent and VM there are in each state.
    pub(crate) async fn count_operations(
        &self,
        query: &OperationQuery,
    ) -> Result<OperationCounts, StoreError> {
        let sql = "SELECT state, COUNT(*) FROM operations \
                   WHERE ($1 = '' OR agent_id = $1) AND ($2 = '' OR vm = $2) \
                   AND ($3 = '' OR $3 LIKE '%,' || kind || ',%') AND ($4 = '' OR requested_by = $4) GROUP BY state";
        let rows: Vec<(String, i64)> = on!(self.db(), db => {
            sqlx::query_as(sql)
                .bind(query.agent.as_ref().map_or("", AgentId::as_str))
                .bind(query.vm.as_ref().map_or("", VmName::as_str))
                .bind(among(query.kinds.iter().map(|kind| kind.as_str())))
                .bind(query.requested_by.as_deref().unwrap_or_default())
                .fetch_all(db)
                .await
        })?;
        let mut states = BTreeMap::new();
        for (state, count) in rows {
            let state: OperationState = from_json("a state", &format!("\"{state}\""))?;
            states.insert(state, u64::try_from(count).unwrap_or_default());
        }
        let total = states
            .iter()
            .filter(|(state, _)| query.states.is_empty() || query.states.contains(state))
            .map(|(_, count)| count)
            .sum();
        Ok(OperationCounts { total, states })
    }

    /// Forgets operations that finished before `before`.
    pub(crate) async fn prune_operations(&self, before: Timestamp) -> Result<(), StoreError> {
        let sql = "DELETE FROM operations WHERE finished_at < $1";
        on!(self.db(), db => sqlx::query(sql).bind(to_ms(before)).execute(db).await.map(drop))?;
        Ok(())
    }
}
