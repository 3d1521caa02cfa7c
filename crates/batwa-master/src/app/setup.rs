//! The first run: how the first admin comes to be.
//!
//! There is no default password. With no admin yet, a code is written to a file that only the master's own
//! user can read and shown as a link; whoever brings it makes the first admin. Unattended, a file with the
//! password does instead.

use std::{
    fs, io,
    io::Write,
    path::{Path, PathBuf},
};

use batwa_api::{
    Timestamp,
    id::UserId,
    user::{Role, Setup, User},
};
use secrecy::SecretString;
use subtle::ConstantTimeEq;

use super::{
    App, Error,
    audit::{Actor, Outcome, Record},
    auth::{Source, limits::Acquaintance, password},
    sessions::SignedIn,
    users::check_name,
};
use crate::store::users::Account;

/// The file that holds the one-time code.
#[derive(Debug)]
pub(crate) struct SetupCode {
    path: PathBuf,
}

impl SetupCode {
    /// The code kept in `state_dir`.
    pub(crate) fn new(state_dir: &Path) -> Self {
        Self {
            path: state_dir.join("setup-code"),
        }
    }

    /// The code, made on first need; the same over restarts, so that a link once printed stays good.
    fn get_or_make(&self) -> io::Result<String> {
        match fs::read_to_string(&self.path) {
            Ok(code) if is_code(code.trim()) => return Ok(code.trim().to_owned()),
            // Cut short by a crash, or by hand: made anew.
            Ok(_) => fs::remove_file(&self.path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let code = hex::encode(rand::random::<[u8; 16]>());
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&self.path)?;
        writeln!(file, "{code}")?;
        file.sync_all()?;
        Ok(code)
    }

    /// Whether `given` is the code.
    fn is(&self, given: &str) -> bool {
        fs::read_to_string(&self.path).is_ok_and(|code| {
            is_code(code.trim())
                && bool::from(code.trim().as_bytes().ct_eq(given.trim().as_bytes()))
        })
    }

    fn remove(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// 128 bits in hex.
fn is_code(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

impl App {
    /// Whether there is no admin yet.
    pub(crate) async fn setup_needed(&self) -> Result<bool, Error> {
        Ok(!self.store().has_admin().await?)
    }

    /// The code to show when there is no admin yet.
    pub(crate) fn setup_code(&self) -> io::Result<String> {
        self.0.setup.get_or_make()
    }

    /// The code is of no more use.
    pub(crate) fn remove_setup_code(&self) -> io::Result<()> {
        self.0.setup.remove()
    }

    /// Makes the first admin for whoever has the code, and signs it in.
    pub(crate) async fn setup(
        &self,
        setup: Setup,
        user_agent: &str,
        source: &Source,
    ) -> Result<SignedIn, Error> {
        if !self.setup_needed().await? {
            return Err(Error::Conflict(
                "this master is set up already: sign in".to_owned(),
            ));
        }
        // Nobody guesses 128 bits; what is limited is the noise.
        let attempt = self
            .auth()
            .limits()
            .begin(
                "set-up",
                source.address,
                Acquaintance::Known,
                tokio::time::Instant::now(),
            )
            .map_err(|retry_after| Error::TooManyAttempts { retry_after })?;
        if !self.0.setup.is(&setup.code) {
            let record = Record {
                outcome: Outcome::Refused,
                ..Record::ok("setup", "")
            };
            self.audit_by(Actor::Anonymous, source, record).await?;
            return Err(Error::Refused(
                "this is not the set-up code: use the link that the master printed when it started, or the code in \
                 the file `setup-code` of its state folder"
                    .to_owned(),
            ));
        }
        self.auth().limits().succeeded(attempt);
        check_name("username", &setup.username)?;
        let user = self
            .make_first_admin("password", &setup.username, setup.password.into())
            .await?;
        let user = user
            .ok_or_else(|| Error::Conflict("this master is set up already: sign in".to_owned()))?;
        self.audit_by(
            Actor::User(&user.name),
            source,
            Record::ok("setup", &user.name),
        )
        .await?;
        self.begin_session(user, user_agent, source).await
    }

    /// Makes the first admin; `None` when there is one.
    pub(crate) async fn make_first_admin(
        &self,
        password_field: &str,
        name: &str,
        password: SecretString,
    ) -> Result<Option<User>, Error> {
        password::check(password_field, &password)?;
        let account = Account {
            user: User {
                id: UserId::new(),
                name: name.to_owned(),
                role: Role::Admin,
                terminal: true,
                created_at: Timestamp::now(),
                last_signed_in_at: None,
            },
            password_hash: self.auth().passwords.hash(password).await?,
        };
        let made = self.store().insert_first_admin(&account).await?;
        if made && let Err(error) = self.remove_setup_code() {
            // It opens nothing any more.
            tracing::warn!("cannot remove the used set-up code: {error}");
        }
        Ok(made.then_some(account.user))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_kept_for_its_user_alone_and_stays_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let setup = SetupCode::new(folder.path());
        let code = setup.get_or_make().unwrap();
        assert_eq!(SetupCode::new(folder.path()).get_or_make().unwrap(), code);
        assert!(setup.is(&code));
        assert!(!setup.is(""));
        assert!(!setup.is(&"0".repeat(32)));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(folder.path().join("setup-code"))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        setup.remove().unwrap();
        assert!(!setup.is(&code), "a code is good once");
        setup.remove().unwrap();
    }

    #[test]
    fn a_code_cut_short_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let setup = SetupCode::new(folder.path());
        fs::write(folder.path().join("setup-code"), "").unwrap();
        assert!(!setup.is(""));
        assert!(is_code(&setup.get_or_make().unwrap()));
    }
}
