//! The audit's lines, each with a hash over itself and the one before.
//!
//! Triggers refuse to change or remove a line; the chain shows it when somebody did so by other means.

use batwa_api::{Timestamp, user::AuditEntry};
use sha2::{Digest, Sha256};
use sqlx::FromRow;

use super::{Exclusive, Store, StoreError, from_ms, on, to_ms};

/// A line before it has its place in the chain.
#[derive(Clone, Debug)]
pub(crate) struct NewAuditEntry {
    pub(crate) at: Timestamp,
    pub(crate) actor: String,
    pub(crate) via: &'static str,
    pub(crate) address: String,
    pub(crate) action: String,
    pub(crate) target: String,
    pub(crate) result: &'static str,
    pub(crate) detail: Option<String>,
    pub(crate) request_id: String,
}

/// Which lines to list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AuditPage {
    /// Only lines before this one.
    pub(crate) before: i64,
    /// At most this many.
    pub(crate) limit: i64,
}

#[derive(FromRow)]
struct AuditRow {
    seq: i64,
    at: i64,
    actor: String,
    via: String,
    address: String,
    action: String,
    target: String,
    result: String,
    detail: Option<String>,
    request_id: String,
    hash: String,
}

impl AuditRow {
    fn into_entry(self) -> Result<AuditEntry, StoreError> {
        Ok(AuditEntry {
            seq: self.seq,
            at: from_ms(self.at)?,
            actor: self.actor,
            via: self.via,
            address: self.address,
            action: self.action,
            target: self.target,
            result: self.result,
            detail: self.detail,
            request_id: self.request_id,
            hash: self.hash,
        })
    }
}

/// The hash of a line: SHA-256 over the hash before it and the line's fields as a JSON array, in hex.
pub(crate) fn chained_hash(before: &str, entry: &AuditEntry) -> String {
    let fields = (
        before,
        entry.seq,
        to_ms(entry.at),
        &entry.actor,
        &entry.via,
        &entry.address,
        &entry.action,
        &entry.target,
        &entry.result,
        &entry.detail,
        &entry.request_id,
    );
    let bytes = serde_json::to_vec(&fields).expect("a tuple of texts and numbers is JSON");
    hex::encode(Sha256::digest(bytes))
}

impl Store {
    /// Adds a line at the end of the chain.
    pub(crate) async fn append_audit(&self, new: NewAuditEntry) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        tx.lock(Exclusive::Audit).await?;
        let sql = "SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1";
        let last: Option<(i64, String)> =
            on!(&mut tx, tx => sqlx::query_as(sql).fetch_optional(&mut **tx).await)?;
        let (seq, before) = last.map_or((1, String::new()), |(seq, hash)| (seq + 1, hash));
        let mut entry = AuditEntry {
            seq,
            at: from_ms(to_ms(new.at))?,
            actor: new.actor,
            via: new.via.to_owned(),
            address: new.address,
            action: new.action,
            target: new.target,
            result: new.result.to_owned(),
            detail: new.detail,
            request_id: new.request_id,
            hash: String::new(),
        };
        entry.hash = chained_hash(&before, &entry);
        let sql = "INSERT INTO audit \
                   (seq, at, actor, via, address, action, target, result, detail, request_id, hash) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
        on!(&mut tx, tx => {
            sqlx::query(sql)
                .bind(entry.seq)
                .bind(to_ms(entry.at))
                .bind(&entry.actor)
                .bind(&entry.via)
                .bind(&entry.address)
                .bind(&entry.action)
                .bind(&entry.target)
                .bind(&entry.result)
                .bind(&entry.detail)
                .bind(&entry.request_id)
                .bind(&entry.hash)
                .execute(&mut **tx)
                .await
                .map(drop)
        })?;
        tx.commit().await
    }

    /// Lines, the newest first.
    pub(crate) async fn audit_page(&self, page: AuditPage) -> Result<Vec<AuditEntry>, StoreError> {
        let sql = "SELECT seq, at, actor, via, address, action, target, result, detail, request_id, hash \
                   FROM audit WHERE seq < $1 ORDER BY seq DESC LIMIT $2";
        let rows: Vec<AuditRow> = on!(self.db(), db => {
            sqlx::query_as(sql).bind(page.before).bind(page.limit).fetch_all(db).await
        })?;
        rows.into_iter().map(AuditRow::into_entry).collect()
    }

    /// Walks the whole chain; the first line that does not fit, if any.
    ///
    /// Lines missing from the end cannot be seen this way: who must know keeps the last hash elsewhere.
    pub(crate) async fn verify_audit(&self) -> Result<Option<i64>, StoreError> {
        /// Lines held in memory at a time.
        const STEP: i64 = 1000;
        let sql = "SELECT seq, at, actor, via, address, action, target, result, detail, request_id, hash \
                   FROM audit WHERE seq > $1 ORDER BY seq LIMIT $2";
        let mut last = (0, String::new());
        loop {
            let rows: Vec<AuditRow> = on!(self.db(), db => {
                sqlx::query_as(sql).bind(last.0).bind(STEP).fetch_all(db).await
            })?;
            if rows.is_empty() {
                return Ok(None);
            }
            for row in rows {
                let entry = row.into_entry()?;
                if entry.seq != last.0 + 1 || entry.hash != chained_hash(&last.1, &entry) {
                    return Ok(Some(entry.seq));
                }
                last = (entry.seq, entry.hash);
            }
        }
    }
}
