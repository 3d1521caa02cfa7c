//! Join tokens: made, listed and taken back by admins. Using one is [`super::tunnels`]' business.

use std::time::Duration;

use batwa_api::{
    Timestamp,
    id::JoinTokenId,
    problem::FieldError,
    tunnel::{CreateJoinToken, JoinToken, JoinTokenInfo, JoinTokenStatus},
    vm::{LABELS_ARE, label_is_good},
};
use batwa_tunnel::{JoinSecret, keys};

use super::{
    App, Error,
    audit::Record,
    auth::{Caller, Right},
};
use crate::store::join_tokens::StoredJoinToken;

/// Most uses of one token.
const MAX_USES: u32 = 100_000;
/// Longest life of one: a forgotten token is a door left open.
const MAX_LIFE: Duration = Duration::from_secs(366 * 24 * 60 * 60);
/// How long a token is still listed, and its refusals say what became of it, once it has expired.
pub(super) const KEPT_AFTER_EXPIRY: Duration = Duration::from_secs(30 * 24 * 60 * 60);

impl App {
    /// All tokens, the newest first.
    pub(crate) async fn join_tokens(&self, caller: &Caller) -> Result<Vec<JoinTokenInfo>, Error> {
        caller.require(Right::Administer)?;
        Ok(self.store().join_tokens(Timestamp::now()).await?)
    }

    /// Makes a token; this is the only time that it is shown whole.
    pub(crate) async fn create_join_token(
        &self,
        caller: &Caller,
        create: CreateJoinToken,
    ) -> Result<(JoinToken, Timestamp), Error> {
        caller.require(Right::Administer)?;
        let mut errors = Vec::new();
        if !(1..=MAX_USES).contains(&create.uses) {
            errors.push(FieldError::new(
                "uses",
                format!("a token may be used 1 to {MAX_USES} times"),
            ));
        }
        if !(1..=MAX_LIFE.as_secs()).contains(&create.expires_in_s) {
            errors.push(FieldError::new(
                "expires_in_s",
                "a token lives from 1 second to 366 days",
            ));
        }
        if create.labels.len() > 64
            || !create
                .labels
                .iter()
                .all(|(key, value)| label_is_good(key, value))
        {
            errors.push(FieldError::new("labels", LABELS_ARE));
        }
        if !errors.is_empty() {
            return Err(Error::Invalid(errors));
        }
        let token = JoinToken {
            id: JoinTokenId::new(),
            secret: keys::random().map_err(Error::internal)?,
            master_key_hash: keys::sha256(self.identity().public().as_bytes()),
        };
        // Columns hold milliseconds.
        let now = Timestamp::from_millisecond(Timestamp::now().as_millisecond())
            .map_err(Error::internal)?;
        let expires_at = now + Duration::from_secs(create.expires_in_s);
        let stored = StoredJoinToken {
            info: JoinTokenInfo {
                id: token.id,
                status: JoinTokenStatus::Active,
                uses: create.uses,
                used: 0,
                labels: create.labels,
                approve: create.approve,
                created_by: caller.name.to_string(),
                created_at: now,
                expires_at,
                agents: Vec::new(),
            },
            secret: JoinSecret::of(&token),
        };
        self.store().insert_join_token(&stored).await?;
        let record = Record {
            detail: Some(format!("{} uses, until {expires_at}", create.uses)),
            ..Record::ok("join_token.create", token.id.to_string())
        };
        self.audit(caller, record).await?;
        Ok((token, expires_at))
    }

    /// Takes a token back: nobody joins with it any more; agents that did stay.
    pub(crate) async fn revoke_join_token(
        &self,
        caller: &Caller,
        id: JoinTokenId,
    ) -> Result<(), Error> {
        caller.require(Right::Administer)?;
        if !self.store().revoke_join_token(id).await? {
            return Err(Error::NotFound(format!("join token `{id}`")));
        }
        self.audit(caller, Record::ok("join_token.revoke", id.to_string()))
            .await
    }
}
