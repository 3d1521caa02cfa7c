//! Accounts.

use batwa_api::{
    Timestamp,
    id::{SessionId, UserId},
    user::{Role, User},
};
use sqlx::FromRow;

use super::{Exclusive, Store, StoreError, error::violated, from_ms, on, parse, to_ms};

/// An account with what only the sign-in may see.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    /// The account.
    pub(crate) user: User,
    /// Argon2id in PHC form.
    pub(crate) password_hash: String,
}

/// What changing or removing an account came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Changed<T> {
    /// Done.
    Yes(T),
    /// There is no such account.
    NotFound,
    /// It would leave no admin.
    LastAdmin,
}

/// Changes to an account; absent ones stay as they are.
#[derive(Clone, Debug, Default)]
pub(crate) struct UserChanges {
    /// A new role.
    pub(crate) role: Option<Role>,
    /// The terminal right.
    pub(crate) terminal: Option<bool>,
    /// A new password's hash; ends the account's sessions.
    pub(crate) password_hash: Option<String>,
}

#[derive(FromRow)]
struct UserRow {
    id: String,
    name: String,
    role: String,
    terminal: bool,
    password_hash: String,
    created_at: i64,
    last_signed_in_at: Option<i64>,
}

impl UserRow {
    fn into_account(self) -> Result<Account, StoreError> {
        Ok(Account {
            user: User {
                id: parse("a user id", &self.id)?,
                name: self.name,
                role: role_from_text(&self.role)?,
                terminal: self.terminal,
                created_at: from_ms(self.created_at)?,
                last_signed_in_at: self.last_signed_in_at.map(from_ms).transpose()?,
            },
            password_hash: self.password_hash,
        })
    }
}

/// A role from its column.
pub(super) fn role_from_text(text: &str) -> Result<Role, StoreError> {
    [Role::Viewer, Role::Operator, Role::Admin]
        .into_iter()
        .find(|role| role.as_str() == text)
        .ok_or(StoreError::Corrupt { what: "a role" })
}

/// Two names that differ by case alone are one.
fn name_key(name: &str) -> String {
    name.to_lowercase()
}

impl Store {
    /// Whether there is an admin: whether the set-up is done.
    pub(crate) async fn has_admin(&self) -> Result<bool, StoreError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM users WHERE role = 'admin')";
        Ok(on!(self.db(), db => sqlx::query_scalar(sql).fetch_one(db).await)?)
    }

    /// Adds an account; false when the name is taken.
    pub(crate) async fn insert_user(&self, account: &Account) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        let inserted = insert(&mut tx, account).await?;
        tx.commit().await?;
        Ok(inserted)
    }

    /// Adds the first admin; false when there is one already, or the name is taken.
    pub(crate) async fn insert_first_admin(&self, account: &Account) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        tx.lock(Exclusive::Admins).await?;
        if count_admins(&mut tx).await? > 0 {
            return Ok(false);
        }
        let inserted = insert(&mut tx, account).await?;
        tx.commit().await?;
        Ok(inserted)
    }

    /// The account that signs in as `name`.
    pub(crate) async fn user_by_name(&self, name: &str) -> Result<Option<Account>, StoreError> {
        let sql = "SELECT id, name, role, terminal, password_hash, created_at, last_signed_in_at \
                   FROM users WHERE name_key = $1";
        let row: Option<UserRow> = on!(self.db(), db => {
            sqlx::query_as(sql).bind(name_key(name)).fetch_optional(db).await
        })?;
        row.map(UserRow::into_account).transpose()
    }

    /// The account with this id.
    pub(crate) async fn user_by_id(&self, id: UserId) -> Result<Option<Account>, StoreError> {
        let sql = "SELECT id, name, role, terminal, password_hash, created_at, last_signed_in_at \
                   FROM users WHERE id = $1";
        let row: Option<UserRow> = on!(self.db(), db => {
            sqlx::query_as(sql).bind(id.to_string()).fetch_optional(db).await
        })?;
        row.map(UserRow::into_account).transpose()
    }

    /// All accounts, by name.
    pub(crate) async fn users(&self) -> Result<Vec<User>, StoreError> {
        let sql = "SELECT id, name, role, terminal, password_hash, created_at, last_signed_in_at \
                   FROM users ORDER BY name_key";
        let rows: Vec<UserRow> = on!(self.db(), db => sqlx::query_as(sql).fetch_all(db).await)?;
        rows.into_iter()
            .map(|row| Ok(row.into_account()?.user))
            .collect()
    }

    /// Changes an account, unless that would leave no admin.
    pub(crate) async fn update_user(
        &self,
        id: UserId,
        changes: &UserChanges,
    ) -> Result<Changed<User>, StoreError> {
        let mut tx = self.begin().await?;
        tx.lock(Exclusive::Admins).await?;
        let sql = "UPDATE users SET role = COALESCE($2, role), terminal = COALESCE($3, terminal), \
                   password_hash = COALESCE($4, password_hash) WHERE id = $1 \
                   RETURNING id, name, role, terminal, password_hash, created_at, last_signed_in_at";
        let row: Option<UserRow> = on!(&mut tx, tx => {
            sqlx::query_as(sql)
                .bind(id.to_string())
                .bind(changes.role.map(Role::as_str))
                .bind(changes.terminal)
                .bind(changes.password_hash.clone())
                .fetch_optional(&mut **tx)
                .await
        })?;
        let Some(row) = row else {
            return Ok(Changed::NotFound);
        };
        if count_admins(&mut tx).await? == 0 {
            return Ok(Changed::LastAdmin);
        }
        if changes.password_hash.is_some() {
            end_sessions(&mut tx, id, None).await?;
        }
        tx.commit().await?;
        Ok(Changed::Yes(row.into_account()?.user))
    }

    /// Removes an account with its sessions and tokens, unless that would leave no admin.
    pub(crate) async fn delete_user(&self, id: UserId) -> Result<Changed<String>, StoreError> {
        let mut tx = self.begin().await?;
        tx.lock(Exclusive::Admins).await?;
        let sql = "DELETE FROM users WHERE id = $1 RETURNING name";
        let name: Option<String> = on!(&mut tx, tx => {
            sqlx::query_scalar(sql).bind(id.to_string()).fetch_optional(&mut **tx).await
        })?;
        let Some(name) = name else {
            return Ok(Changed::NotFound);
        };
        if count_admins(&mut tx).await? == 0 {
            return Ok(Changed::LastAdmin);
        }
        tx.commit().await?;
        Ok(Changed::Yes(name))
    }

    /// Sets an account's password and ends its sessions except `keep`.
    pub(crate) async fn set_password(
        &self,
        id: UserId,
        password_hash: &str,
        keep: Option<SessionId>,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let sql = "UPDATE users SET password_hash = $2 WHERE id = $1";
        on!(&mut tx, tx => {
            sqlx::query(sql).bind(id.to_string()).bind(password_hash).execute(&mut **tx).await.map(drop)
        })?;
        end_sessions(&mut tx, id, keep).await?;
        tx.commit().await
    }

    /// Whether `address` signed in to this account before.
    pub(crate) async fn knows_address(
        &self,
        id: UserId,
        address: &str,
    ) -> Result<bool, StoreError> {
        let sql =
            "SELECT EXISTS (SELECT 1 FROM sign_in_addresses WHERE user_id = $1 AND address = $2)";
        Ok(on!(self.db(), db => {
            sqlx::query_scalar(sql).bind(id.to_string()).bind(address).fetch_one(db).await
        })?)
    }

    /// Notes a sign-in, and the address it came from among the last `keep` ones.
    pub(crate) async fn note_sign_in(
        &self,
        id: UserId,
        address: &str,
        at: Timestamp,
        keep: i64,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let sql = "UPDATE users SET last_signed_in_at = $2 WHERE id = $1";
        on!(&mut tx, tx => {
            sqlx::query(sql).bind(id.to_string()).bind(to_ms(at)).execute(&mut **tx).await.map(drop)
        })?;
        let sql = "INSERT INTO sign_in_addresses (user_id, address, last_at) VALUES ($1, $2, $3) \
                   ON CONFLICT (user_id, address) DO UPDATE SET last_at = excluded.last_at";
        on!(&mut tx, tx => {
            sqlx::query(sql)
                .bind(id.to_string())
                .bind(address)
                .bind(to_ms(at))
                .execute(&mut **tx)
                .await
                .map(drop)
        })?;
        let sql = "DELETE FROM sign_in_addresses WHERE user_id = $1 AND address NOT IN \
                   (SELECT address FROM sign_in_addresses WHERE user_id = $1 ORDER BY last_at DESC LIMIT $2)";
        on!(&mut tx, tx => {
            sqlx::query(sql).bind(id.to_string()).bind(keep).execute(&mut **tx).await.map(drop)
        })?;
        tx.commit().await
    }
}

async fn insert(tx: &mut super::Tx, account: &Account) -> Result<bool, StoreError> {
    let user = &account.user;
    let sql = "INSERT INTO users (id, name, name_key, role, terminal, password_hash, created_at) \
               VALUES ($1, $2, $3, $4, $5, $6, $7)";
    let inserted = on!(tx, tx => {
        sqlx::query(sql)
            .bind(user.id.to_string())
            .bind(&user.name)
            .bind(name_key(&user.name))
            .bind(user.role.as_str())
            .bind(user.terminal)
            .bind(&account.password_hash)
            .bind(to_ms(user.created_at))
            .execute(&mut **tx)
            .await
            .map(drop)
    });
    match inserted {
        Ok(()) => Ok(true),
        Err(error) if violated(&error, "users_name_key", "users.name_key") => Ok(false),
        Err(error) => Err(error.into()),
    }
}

async fn count_admins(tx: &mut super::Tx) -> Result<i64, StoreError> {
    let sql = "SELECT count(*) FROM users WHERE role = 'admin'";
    Ok(on!(tx, tx => sqlx::query_scalar(sql).fetch_one(&mut **tx).await)?)
}

async fn end_sessions(
    tx: &mut super::Tx,
    user: UserId,
    keep: Option<SessionId>,
) -> Result<(), StoreError> {
    let sql = "DELETE FROM sessions WHERE user_id = $1 AND id <> $2";
    let keep = keep.map(|id| id.to_string()).unwrap_or_default();
    on!(tx, tx => {
        sqlx::query(sql).bind(user.to_string()).bind(keep).execute(&mut **tx).await.map(drop)
    })?;
    Ok(())
}
