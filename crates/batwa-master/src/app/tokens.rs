//! API tokens: for scripts, never above their owner's rights.

use std::time::Duration;

use batwa_api::{
    Timestamp,
    id::TokenId,
    user::{CreateToken, CreatedToken, Role, Token},
};

use super::{
    App, Error,
    audit::Record,
    auth::{Caller, Right, Via, secret},
};
use crate::store::tokens::NewToken;

/// The longest that a token can be asked to last: ten years. Without a limit it lasts until it is removed.
const LONGEST: u64 = 10 * 366 * 24 * 60 * 60;

impl App {
    /// The caller's tokens; everybody's for an admin.
    pub(crate) async fn tokens(&self, caller: &Caller) -> Result<Vec<Token>, Error> {
        Ok(self.store().tokens(owner_filter(caller)).await?)
    }

    /// Makes a token of the caller's.
    pub(crate) async fn create_token(
        &self,
        caller: &Caller,
        new: CreateToken,
    ) -> Result<CreatedToken, Error> {
        let name = new.name.trim();
        if name.is_empty() || name.chars().count() > 100 || name.chars().any(char::is_control) {
            return Err(Error::invalid(
                "name",
                "a token's name has 1 to 100 printable characters",
            ));
        }
        if new.expires_in_s.is_some_and(|s| s == 0 || s > LONGEST) {
            let message = format!(
                "a token lasts 1 to {LONGEST} s; leave it out for one that does not expire"
            );
            return Err(Error::invalid("expires_in_s", message));
        }
        let role = token_role(caller, new.role)?;
        let now = Timestamp::now();
        let token = secret::generate_token();
        let new = NewToken {
            id: TokenId::new(),
            user_id: caller.user_id,
            name: name.to_owned(),
            role,
            secret_hash: secret::hash(&token),
            created_at: now,
            expires_at: new.expires_in_s.map(|s| now + Duration::from_secs(s)),
        };
        self.store().insert_token(&new).await?;
        let record = Record {
            detail: Some(format!("`{}`", new.name)),
            ..Record::ok("token.create", new.id.to_string())
        };
        self.audit(caller, record).await?;
        Ok(CreatedToken { id: new.id, token })
    }

    /// Ends a token of the caller's, or of anybody's for an admin. What it has open is closed at once.
    pub(crate) async fn delete_token(&self, caller: &Caller, id: TokenId) -> Result<(), Error> {
        let gone = self.store().delete_token(id, owner_filter(caller)).await?;
        let name = gone.ok_or_else(|| Error::NotFound(format!("token `{id}`")))?;
        self.auth().withdraw();
        let record = Record {
            detail: Some(format!("`{name}`")),
            ..Record::ok("token.delete", id.to_string())
        };
        self.audit(caller, record).await
    }
}

fn owner_filter(caller: &Caller) -> Option<batwa_api::id::UserId> {
    caller
        .require(Right::Administer)
        .is_err()
        .then_some(caller.user_id)
}

/// The role to write down; `None` follows the owner's.
fn token_role(caller: &Caller, asked: Option<Role>) -> Result<Option<Role>, Error> {
    match asked {
        Some(role) if role > caller.role => Err(Error::invalid(
            "role",
            format!(
                "a token cannot do more than you: at most {}",
                caller.role.as_str()
            ),
        )),
        Some(role) => Ok(Some(role)),
        // A token made by a token has that one's limits, not the account's.
        None => Ok(match caller.via {
            Via::Session(_) => None,
            Via::Token(_) => Some(caller.role),
        }),
    }
}
