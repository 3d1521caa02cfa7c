//! API tokens.

use batwa_api::{
    Timestamp,
    id::{TokenId, UserId},
    user::{Role, Token},
};
use sqlx::FromRow;

use super::{
    Store, StoreError, from_ms, on, parse, sessions::Holder, to_ms, users::role_from_text,
};

/// A token as it is made.
#[derive(Clone, Debug)]
pub(crate) struct NewToken {
    /// Its id.
    pub(crate) id: TokenId,
    /// Its owner.
    pub(crate) user_id: UserId,
    /// What it is for.
    pub(crate) name: String,
    /// At most its owner's; whatever its owner's is when absent.
    pub(crate) role: Option<Role>,
    /// SHA-256 of the token.
    pub(crate) secret_hash: [u8; 32],
    /// When it is made.
    pub(crate) created_at: Timestamp,
    /// When it expires.
    pub(crate) expires_at: Option<Timestamp>,
}

#[derive(FromRow)]
struct HolderRow {
    id: String,
    user_id: String,
    name: String,
    role: String,
    terminal: bool,
    token_role: Option<String>,
    last_used_at: Option<i64>,
}

impl HolderRow {
    fn into_holder(self) -> Result<Holder<TokenId>, StoreError> {
        let owner = role_from_text(&self.role)?;
        let own = self.token_role.as_deref().map(role_from_text).transpose()?;
        let role = own.map_or(owner, |role| role.min(owner));
        Ok(Holder {
            id: parse("a token id", &self.id)?,
            user_id: parse("a user id", &self.user_id)?,
            name: self.name,
            role,
            // A token made for reading only is not one to type in VMs with.
            terminal: self.terminal && own.is_none_or(|role| role >= Role::Operator),
            last_used_at: self.last_used_at.map(from_ms).transpose()?,
        })
    }
}

#[derive(FromRow)]
struct TokenRow {
    id: String,
    name: String,
    token_role: Option<String>,
    owner: String,
    owner_role: String,
    created_at: i64,
    expires_at: Option<i64>,
    last_used_at: Option<i64>,
}

impl TokenRow {
    fn into_token(self) -> Result<Token, StoreError> {
        let owner = role_from_text(&self.owner_role)?;
        let own = self.token_role.as_deref().map(role_from_text).transpose()?;
        Ok(Token {
            id: parse("a token id", &self.id)?,
            name: self.name,
            role: own.map_or(owner, |role| role.min(owner)),
            owner: self.owner,
            created_at: from_ms(self.created_at)?,
            expires_at: self.expires_at.map(from_ms).transpose()?,
            last_used_at: self.last_used_at.map(from_ms).transpose()?,
        })
    }
}

impl Store {
    /// Adds a token.
    pub(crate) async fn insert_token(&self, token: &NewToken) -> Result<(), StoreError> {
        let sql = "INSERT INTO api_tokens (id, user_id, name, role, secret_hash, created_at, expires_at) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7)";
        on!(self.db(), db => {
            sqlx::query(sql)
                .bind(token.id.to_string())
                .bind(token.user_id.to_string())
                .bind(&token.name)
                .bind(token.role.map(Role::as_str))
                .bind(token.secret_hash.to_vec())
                .bind(to_ms(token.created_at))
                .bind(token.expires_at.map(to_ms))
                .execute(db)
                .await
                .map(drop)
        })?;
        Ok(())
    }

    /// Who holds the token with this hash, unless it has expired.
    pub(crate) async fn token_holder(
        &self,
        secret_hash: &[u8; 32],
        now: Timestamp,
    ) -> Result<Option<Holder<TokenId>>, StoreError> {
        let sql = "SELECT t.id, t.user_id, u.name, u.role, u.terminal, t.role AS token_role, t.last_used_at \
                   FROM api_tokens t JOIN users u ON u.id = t.user_id \
                   WHERE t.secret_hash = $1 AND (t.expires_at IS NULL OR t.expires_at > $2)";
        let row: Option<HolderRow> = on!(self.db(), db => {
            sqlx::query_as(sql)
                .bind(secret_hash.to_vec())
                .bind(to_ms(now))
                .fetch_optional(db)
                .await
        })?;
        row.map(HolderRow::into_holder).transpose()
    }

    /// Who holds this token, unless it has expired.
    pub(crate) async fn token_holder_by_id(
        &self,
        id: TokenId,
        now: Timestamp,
    ) -> Result<Option<Holder<TokenId>>, StoreError> {
        let sql = "SELECT t.id, t.user_id, u.name, u.role, u.terminal, t.role AS token_role, t.last_used_at \
                   FROM api_tokens t JOIN users u ON u.id = t.user_id \
                   WHERE t.id = $1 AND (t.expires_at IS NULL OR t.expires_at > $2)";
        let row: Option<HolderRow> = on!(self.db(), db => {
            sqlx::query_as(sql)
                .bind(id.to_string())
                .bind(to_ms(now))
                .fetch_optional(db)
                .await
        })?;
        row.map(HolderRow::into_holder).transpose()
    }

    /// Notes that a token was used.
    pub(crate) async fn touch_token(&self, id: TokenId, at: Timestamp) -> Result<(), StoreError> {
        let sql = "UPDATE api_tokens SET last_used_at = $2 WHERE id = $1";
        on!(self.db(), db => {
            sqlx::query(sql).bind(id.to_string()).bind(to_ms(at)).execute(db).await.map(drop)
        })?;
        Ok(())
    }

    /// The tokens of `owner`, or of everybody; the newest first, expired ones included.
    pub(crate) async fn tokens(&self, owner: Option<UserId>) -> Result<Vec<Token>, StoreError> {
        let sql = "SELECT t.id, t.name, t.role AS token_role, u.name AS owner, u.role AS owner_role, \
                   t.created_at, t.expires_at, t.last_used_at \
                   FROM api_tokens t JOIN users u ON u.id = t.user_id \
                   WHERE $1 = '' OR t.user_id = $1 ORDER BY t.id DESC";
        let owner = owner.map(|id| id.to_string()).unwrap_or_default();
        let rows: Vec<TokenRow> = on!(self.db(), db => {
            sqlx::query_as(sql).bind(owner).fetch_all(db).await
        })?;
        rows.into_iter().map(TokenRow::into_token).collect()
    }

    /// Removes a token of `owner`, or of anybody; its name, or `None` when there is no such token.
    pub(crate) async fn delete_token(
        &self,
        id: TokenId,
        owner: Option<UserId>,
    ) -> Result<Option<String>, StoreError> {
        let sql =
            "DELETE FROM api_tokens WHERE id = $1 AND ($2 = '' OR user_id = $2) RETURNING name";
        let owner = owner.map(|id| id.to_string()).unwrap_or_default();
        Ok(on!(self.db(), db => {
            sqlx::query_scalar(sql).bind(id.to_string()).bind(owner).fetch_optional(db).await
        })?)
    }
}
