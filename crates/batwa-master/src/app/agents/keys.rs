//! Keys that admins make for agents.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use batwa_api::{
    Timestamp,
    agent::{AgentKey, CreateAgentKey, CreatedAgentKey},
    id::{AgentId, AgentKeyId},
};
use rand::Rng as _;
use secrecy::SecretString;

use super::MAX_NAME;
use crate::{
    app::{
        App, Error,
        audit::Record,
        auth::{Caller, Right},
    },
    fleet::record::Fingerprint,
};

impl App {
    /// All keys that admins made for agents.
    pub(crate) async fn agent_keys(&self, caller: &Caller) -> Result<Vec<AgentKey>, Error> {
        caller.require(Right::Administer)?;
        Ok(self.store().agent_keys().await?)
    }

    /// Makes a key that an agent may register with; this is the only time it is shown.
    pub(crate) async fn create_agent_key(
        &self,
        caller: &Caller,
        create: CreateAgentKey,
    ) -> Result<CreatedAgentKey, Error> {
        caller.require(Right::Administer)?;
        let name = create.name.trim();
        if name.is_empty() || name.chars().count() > MAX_NAME || name.chars().any(char::is_control)
        {
            return Err(Error::invalid(
                "name",
                "say what the key is for, in at most 255 printable characters",
            ));
        }
        if create.agent_id.as_ref().is_some_and(AgentId::is_local) {
            return Err(Error::invalid(
                "agent_id",
                "the master's own machine needs no key",
            ));
        }
        let mut bytes = [0_u8; 32];
        rand::rng().fill_bytes(&mut bytes);
        let key = format!("batwa_agent_{}", URL_SAFE_NO_PAD.encode(bytes));
        let fingerprint = Fingerprint::of(&SecretString::from(key.clone()));
        let row = AgentKey {
            id: AgentKeyId::new(),
            name: name.to_owned(),
            agent_id: create.agent_id,
            fingerprint: fingerprint.shown().to_owned(),
            created_at: Timestamp::now(),
            last_used_at: None,
        };
        self.store().insert_agent_key(&row, &fingerprint).await?;
        self.audit(caller, Record::ok("agent_key.create", row.id.to_string()))
            .await?;
        Ok(CreatedAgentKey { id: row.id, key })
    }

    /// Removes a key: nobody can enrol with it any more. Agents that did stay.
    pub(crate) async fn delete_agent_key(
        &self,
        caller: &Caller,
        id: AgentKeyId,
    ) -> Result<(), Error> {
        caller.require(Right::Administer)?;
        if !self.store().delete_agent_key(id).await? {
            return Err(Error::NotFound(format!("agent key `{id}`")));
        }
        self.audit(caller, Record::ok("agent_key.delete", id.to_string()))
            .await
    }
}
