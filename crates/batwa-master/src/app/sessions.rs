//! Signing in and out, and one's own sessions and password.

use batwa_api::{
    Timestamp,
    id::SessionId,
    user::{CurrentSession, Role, Session, User},
};
use secrecy::SecretString;

use super::{
    App, Error,
    audit::{Actor, Outcome, Record},
    auth::{
        Caller, Source, Via,
        limits::{Acquaintance, Attempt},
        password, secret,
    },
};
use crate::store::{sessions::NewSession, users::Account};

/// Addresses remembered for an account: whose sign-ins others' failures do not hold up.
const KNOWN_ADDRESSES: i64 = 32;

/// Longest name of a browser that is kept, in characters.
const MAX_USER_AGENT: usize = 256;

/// A fresh sign-in.
#[derive(Debug)]
pub(crate) struct SignedIn {
    /// What goes into the cookie; not kept here.
    pub(crate) secret: SecretString,
    /// The account.
    pub(crate) user: User,
    /// The session.
    pub(crate) session_id: SessionId,
}

impl App {
    /// Signs in with name and password.
    pub(crate) async fn sign_in(
        &self,
        name: &str,
        password: SecretString,
        user_agent: &str,
        source: &Source,
    ) -> Result<SignedIn, Error> {
        let checked = self.check_password(name, password, source).await;
        let signed_in = match checked {
            Ok(account) => self.begin_session(account.user, user_agent, source).await,
            Err(error) => Err(error),
        };
        match &signed_in {
            Ok(SignedIn { user, .. }) => {
                let record = Record::ok("session.sign_in", &user.name);
                self.audit_by(Actor::User(&user.name), source, record)
                    .await?;
            }
            Err(Error::BadCredentials) => {
                let record = Record {
                    outcome: Outcome::Refused,
                    ..Record::ok("session.sign_in", shortened(name))
                };
                self.audit_by(Actor::Anonymous, source, record).await?;
            }
            Err(Error::TooManyAttempts { .. }) => {
                self.audit_refusal(source, "session.sign_in".to_owned())
                    .await?;
            }
            // Nobody's fault but ours, and in the log.
            Err(_) => {}
        }
        signed_in
    }

    /// The account with this name and password; failures are limited.
    async fn check_password(
        &self,
        name: &str,
        password: SecretString,
        source: &Source,
    ) -> Result<Account, Error> {
        let account = self.store().user_by_name(name).await?;
        let attempt = self.begin_attempt(name, account.as_ref(), source).await?;
        let hash = account
            .as_ref()
            .map(|account| account.password_hash.clone());
        let right = self.auth().passwords.verify(password, hash).await?;
        match account {
            Some(account) if right => {
                self.auth().limits().succeeded(attempt);
                Ok(account)
            }
            _ => Err(Error::BadCredentials),
        }
    }

    async fn begin_attempt(
        &self,
        name: &str,
        account: Option<&Account>,
        source: &Source,
    ) -> Result<Attempt, Error> {
        let known = match account {
            Some(account) => {
                let address = source.address.to_string();
                self.store()
                    .knows_address(account.user.id, &address)
                    .await?
            }
            None => false,
        };
        let acquaintance = if known {
            Acquaintance::Known
        } else {
            Acquaintance::Unknown
        };
        self.auth()
            .limits()
            .begin(
                &shortened(name),
                source.address,
                acquaintance,
                tokio::time::Instant::now(),
            )
            .map_err(|retry_after| Error::TooManyAttempts { retry_after })
    }

    /// Begins a session for `user`, who has proven to be that.
    pub(crate) async fn begin_session(
        &self,
        mut user: User,
        user_agent: &str,
        source: &Source,
    ) -> Result<SignedIn, Error> {
        let now = Timestamp::now();
        let secret = secret::generate();
        let session = NewSession {
            id: SessionId::new(),
            user_id: user.id,
            secret_hash: secret::hash(&secret),
            address: source.address.to_string(),
            user_agent: user_agent
                .chars()
                .filter(|c| !c.is_control())
                .take(MAX_USER_AGENT)
                .collect(),
            created_at: now,
            expires_at: now + self.config().session_limits.absolute,
        };
        self.store()
            .insert_session(&session, self.idle_since(now))
            .await?;
        self.store()
            .note_sign_in(user.id, &session.address, now, KNOWN_ADDRESSES)
            .await?;
        user.last_signed_in_at = Some(now);
        Ok(SignedIn {
            secret: secret.into(),
            user,
            session_id: session.id,
        })
    }

    /// Signs out: ends the caller's session. A token stays what it is.
    pub(crate) async fn sign_out(&self, caller: &Caller) -> Result<(), Error> {
        if let Via::Session(id) = caller.via {
            self.end_session(caller, id).await?;
        }
        Ok(())
    }

    /// The caller's sessions.
    pub(crate) async fn own_sessions(&self, caller: &Caller) -> Result<Vec<Session>, Error> {
        let current = match caller.via {
            Via::Session(id) => Some(id),
            Via::Token(_) => None,
        };
        let now = Timestamp::now();
        Ok(self
            .store()
            .sessions_of(caller.user_id, current, now, self.idle_since(now))
            .await?)
    }

    /// Ends one of the caller's sessions; what it has open is closed at once.
    pub(crate) async fn end_session(&self, caller: &Caller, id: SessionId) -> Result<(), Error> {
        if !self.store().delete_session(id, caller.user_id).await? {
            return Err(Error::NotFound(format!("session `{id}`")));
        }
        self.auth().withdraw();
        self.audit(caller, Record::ok("session.end", id.to_string()))
            .await
    }

    /// Changes the caller's own password and ends their other sessions.
    pub(crate) async fn change_password(
        &self,
        caller: &Caller,
        current: SecretString,
        new: SecretString,
    ) -> Result<(), Error> {
        password::check("new_password", &new)?;
        match self
            .check_password(&caller.name, current, &caller.source)
            .await
        {
            Ok(_) => {}
            Err(Error::BadCredentials) => {
                let refused = Record {
                    outcome: Outcome::Refused,
                    ..Record::ok("user.password", &*caller.name)
                };
                self.audit(caller, refused).await?;
                // Not a 401: the caller is signed in, and pages sign out on that.
                return Err(Error::invalid(
                    "current_password",
                    "this is not your password",
                ));
            }
            Err(error) => return Err(error),
        }
        let hash = self.auth().passwords.hash(new).await?;
        let keep = match caller.via {
            Via::Session(id) => Some(id),
            Via::Token(_) => None,
        };
        self.store()
            .set_password(caller.user_id, &hash, keep)
            .await?;
        self.auth().withdraw();
        self.audit(caller, Record::ok("user.password", &*caller.name))
            .await
    }

    /// Who the caller is, and what an admin should know.
    pub(crate) async fn current_session(
        &self,
        caller: &Caller,
        channel: Channel,
    ) -> Result<CurrentSession, Error> {
        let account = self
            .store()
            .user_by_id(caller.user_id)
            .await?
            .ok_or(Error::NotSignedIn)?;
        let (session_id, token_id) = match caller.via {
            Via::Session(id) => (Some(id), None),
            Via::Token(id) => (None, Some(id)),
        };
        Ok(CurrentSession {
            user: User {
                // What this caller may do: less than the account for a lesser token.
                role: caller.role,
                terminal: caller.terminal,
                ..account.user
            },
            session_id,
            token_id,
            warnings: self.warnings(caller.role, channel),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        })
    }

    /// Things an admin should know.
    pub(crate) fn warnings(&self, role: Role, channel: Channel) -> Vec<String> {
        let mut warnings = Vec::new();
        if role < Role::Admin {
            return warnings;
        }
        let open = !self.address().ip().is_loopback();
        if open && channel == Channel::Plain {
            warnings.push(
                "this page is served by plain HTTP on an address that others can reach: passwords and terminals \
                 can be read on the way. Put TLS in front and set --public-url and --trusted-proxy"
                    .to_owned(),
            );
        }
        if self.config().open_registration {
            warnings.push(
                "open registration is on: any machine that reaches this master becomes one of its agents"
                    .to_owned(),
            );
        }
        warnings
    }
}

/// How a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channel {
    /// By TLS, or from this machine itself.
    Private,
    /// By plain HTTP over a network.
    Plain,
}

/// A name as somebody typed it, cut to what a name can have: it is kept and shown.
fn shortened(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(64).collect()
}
