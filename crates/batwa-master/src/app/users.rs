//! Accounts, as admins manage them.

use batwa_api::{
    Timestamp,
    id::UserId,
    user::{CreateUser, Role, UpdateUser, User},
};

use super::{
    App, Error,
    audit::Record,
    auth::{Caller, password},
};
use crate::store::users::{Account, Changed, UserChanges};

impl App {
    /// All accounts.
    pub(crate) async fn users(&self) -> Result<Vec<User>, Error> {
        Ok(self.store().users().await?)
    }

    /// Makes an account.
    pub(crate) async fn create_user(
        &self,
        caller: &Caller,
        new: CreateUser,
    ) -> Result<User, Error> {
        let mut errors = Vec::new();
        let password = new.password.into();
        for check in [
            check_name("name", &new.name),
            password::check("password", &password),
        ] {
            if let Err(Error::Invalid(found)) = check {
                errors.extend(found);
            }
        }
        if !errors.is_empty() {
            return Err(Error::Invalid(errors));
        }
        let account = Account {
            user: User {
                id: UserId::new(),
                name: new.name,
                role: new.role,
                terminal: new.terminal.unwrap_or(new.role >= Role::Operator),
                created_at: Timestamp::now(),
                last_signed_in_at: None,
            },
            password_hash: self.auth().passwords.hash(password).await?,
        };
        if !self.store().insert_user(&account).await? {
            return Err(Error::NameTaken(format!("user `{}`", account.user.name)));
        }
        let record = Record {
            detail: Some(rights_text(&account.user)),
            ..Record::ok("user.create", &account.user.name)
        };
        self.audit(caller, record).await?;
        Ok(account.user)
    }

    /// Changes an account's role, rights or password. What it has open and may no longer is closed at once.
    pub(crate) async fn update_user(
        &self,
        caller: &Caller,
        id: UserId,
        update: UpdateUser,
    ) -> Result<User, Error> {
        let mut changes = UserChanges {
            role: update.role,
            terminal: update.terminal,
            password_hash: None,
        };
        if let Some(password) = update.password {
            let password = password.into();
            password::check("password", &password)?;
            changes.password_hash = Some(self.auth().passwords.hash(password).await?);
        }
        let user = changed(id, self.store().update_user(id, &changes).await?)?;
        self.auth().withdraw();
        let mut detail = rights_text(&user);
        if changes.password_hash.is_some() {
            detail.push_str(", new password");
        }
        let record = Record {
            detail: Some(detail),
            ..Record::ok("user.update", &user.name)
        };
        self.audit(caller, record).await?;
        Ok(user)
    }

    /// Removes an account with its sessions and tokens.
    pub(crate) async fn delete_user(&self, caller: &Caller, id: UserId) -> Result<(), Error> {
        let name = changed(id, self.store().delete_user(id).await?)?;
        self.fleet().forget_guest(id);
        self.auth().withdraw();
        self.audit(caller, Record::ok("user.delete", name)).await
    }
}

fn changed<T>(id: UserId, changed: Changed<T>) -> Result<T, Error> {
    match changed {
        Changed::Yes(value) => Ok(value),
        Changed::NotFound => Err(Error::NotFound(format!("user `{id}`"))),
        Changed::LastAdmin => Err(Error::Conflict(
            "this is the last admin: make another one first".to_owned(),
        )),
    }
}

fn rights_text(user: &User) -> String {
    let terminal = if user.terminal { "with" } else { "without" };
    format!("{}, {terminal} terminals", user.role.as_str())
}

/// Refuses what cannot be an account's name, naming `field`.
pub(crate) fn check_name(field: &str, name: &str) -> Result<(), Error> {
    if is_name(name) {
        Ok(())
    } else {
        Err(Error::invalid(
            field,
            "a name has 1 to 64 letters, digits and `._@-`",
        ))
    }
}

/// Whether an account can be called so.
pub(crate) fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '@' | '-'))
}

#[cfg(test)]
mod tests {
    use super::is_name;

    #[test]
    fn names_are_plain() {
        for good in ["admin", "ann@example.com", "a", "x.y_z-1", &"a".repeat(64)] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "a b", "ä", "a/b", "a\n", "<b>", &"a".repeat(65)] {
            assert!(!is_name(bad), "{bad:?}");
        }
    }
}
