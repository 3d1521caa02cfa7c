//! Who calls, and what they may do.
//!
//! A [`Credential`] becomes a [`Caller`] with the rights that its account has at this moment: nothing is
//! remembered between requests, so what is withdrawn is withdrawn. Connections that outlive their request
//! wait for that with [`App::withdrawn`].

pub(crate) mod limits;
pub(crate) mod password;
mod recent;
pub(crate) mod secret;

use std::{
    fmt,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use batwa_api::{
    Timestamp,
    id::{SessionId, TokenId, UserId},
    user::Role,
};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::watch;

use self::{
    limits::Limits,
    password::Passwords,
    recent::{Kind, Recent},
};
use super::{App, Error};
use crate::store::sessions::Holder;

/// What a call needs; each path has exactly one, see `http/router.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Right {
    /// To see machines, VMs and operations.
    Read,
    /// To make and manage VMs.
    Manage,
    /// To type in VMs.
    Terminal,
    /// To let VMs touch their machine: its folders, its image files, its addresses and networks.
    Host,
    /// To manage machines, accounts and settings.
    Administer,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "see machines and VMs",
            Self::Manage => "manage VMs",
            Self::Terminal => "open terminals",
            Self::Host => "let VMs touch their machine: its folders, files, addresses and networks",
            Self::Administer => "administer",
        })
    }
}

/// Whether an account with this role and terminal right has `right`. The one place that says so.
pub(crate) fn allows(role: Role, terminal: bool, right: Right) -> bool {
    match right {
        Right::Read => true,
        Right::Manage => role >= Role::Operator,
        Right::Terminal => terminal,
        Right::Host | Right::Administer => role >= Role::Admin,
    }
}

/// By what a caller is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Via {
    /// A browser's session cookie.
    Session(SessionId),
    /// An API token.
    Token(TokenId),
}

/// Where a request came from, and its name in log and audit.
#[derive(Clone, Debug)]
pub struct Source {
    /// The true client's address, behind trusted proxies too.
    pub address: IpAddr,
    /// The request as the log knows it.
    pub request_id: Arc<str>,
    /// Whether an audit line was written for this request already.
    pub(crate) audited: Arc<AtomicBool>,
}

impl Source {
    /// A request from `address`.
    pub(crate) fn new(address: IpAddr, request_id: Arc<str>) -> Self {
        Self {
            address,
            request_id,
            audited: Arc::new(AtomicBool::new(false)),
        }
    }

    /// Whether the audit knows of this request.
    pub(crate) fn is_audited(&self) -> bool {
        self.audited.load(Ordering::Relaxed)
    }
}

/// Who calls: an account, by its session or token, with the rights that these have now.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The account.
    pub user_id: UserId,
    /// Its name.
    pub name: Arc<str>,
    /// What it may do: the account's role, or less for a lesser token.
    pub role: Role,
    /// Whether it may open terminals.
    pub terminal: bool,
    /// By what it is known.
    pub via: Via,
    /// Where the request came from.
    pub source: Source,
}

impl Caller {
    /// Refuses a caller without `right`.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub fn require(&self, right: Right) -> Result<(), Error> {
        if allows(self.role, self.terminal, right) {
            Ok(())
        } else {
            Err(Error::Forbidden(right))
        }
    }
}

/// What proves who calls.
#[derive(Clone, Debug)]
pub(crate) enum Credential {
    /// The secret of a session's cookie.
    Session(SecretString),
    /// An API token.
    Token(SecretString),
}

/// What signing in needs to remember.
#[derive(Debug)]
pub(crate) struct Auth {
    pub(crate) passwords: Passwords,
    limits: Mutex<Limits>,
    /// Counts what was withdrawn: sessions and tokens ended, accounts removed or changed.
    withdrawals: watch::Sender<u64>,
    recent: Recent,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            passwords: Passwords::default(),
            limits: Mutex::default(),
            withdrawals: watch::Sender::new(0),
            recent: Recent::default(),
        }
    }
}

impl Auth {
    /// The failures of late.
    pub(crate) fn limits(&self) -> std::sync::MutexGuard<'_, Limits> {
        // Plain counts: whatever a panic left is still a count.
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows what is withdrawn, for [`App::something_withdrawn`].
    pub(crate) fn withdrawals(&self) -> watch::Receiver<u64> {
        self.withdrawals.subscribe()
    }

    /// Something was withdrawn from somebody: open connections look whether it concerns them.
    pub(crate) fn withdraw(&self) {
        self.withdrawals.send_modify(|count| *count += 1);
    }
}

/// How exactly the use of a session or token is noted: a write for every request would be too much.
const USE_NOTED_EVERY: Duration = Duration::from_secs(60);

/// How often an open connection looks whether its caller still may: for what ends by itself, and for what
/// another process withdrew.
const RECHECK_EVERY: Duration = Duration::from_secs(60);

impl App {
    /// Who holds `credential`, with the rights of this moment.
    pub(crate) async fn authenticate(
        &self,
        credential: &Credential,
        source: Source,
    ) -> Result<Caller, Error> {
        let (kind, secret) = match credential {
            Credential::Session(secret) => (Kind::Session, secret),
            Credential::Token(secret) => (Kind::Token, secret),
        };
        let hash = secret::hash(secret.expose_secret());
        // Counted before the store is asked: what is withdrawn meanwhile makes this answer an old one.
        let withdrawals = *self.auth().withdrawals.borrow();
        if let Some(caller) = self.auth().recent.get(&(kind, hash), withdrawals) {
            return Ok(Caller { source, ..caller });
        }
        let now = Timestamp::now();
        let caller = match kind {
            Kind::Session => {
                let idle_since = self.idle_since(now);
                let holder = self.store().session_holder(&hash, now, idle_since).await?;
                self.session_caller(holder, source, now).await?
            }
            Kind::Token => {
                let holder = self.store().token_holder(&hash, now).await?;
                self.token_caller(holder, source, now).await?
            }
        };
        let recent = &self.auth().recent;
        recent.put((kind, hash), withdrawals, caller.clone());
        Ok(caller)
    }

    /// Ends when `caller` has lost its session or token, or `right`; says which.
    ///
    /// For connections that outlive their request. An open one counts as use: a session does not become
    /// idle while its terminal is on somebody's screen.
    pub(crate) async fn withdrawn(&self, caller: &Caller, right: Right) -> Error {
        let mut withdrawals = self.auth().withdrawals();
        loop {
            match self
                .refresh(caller)
                .await
                .and_then(|now| now.require(right))
            {
                Ok(()) => {}
                Err(error @ (Error::NotSignedIn | Error::Forbidden(_))) => return error,
                // That the store is away for a moment takes nothing from anybody.
                Err(error) => {
                    tracing::warn!("cannot check the rights of `{}`: {error}", caller.name)
                }
            }
            self.something_withdrawn(&mut withdrawals).await;
        }
    }

    /// Waits until something may have been withdrawn from somebody.
    pub(crate) async fn something_withdrawn(&self, withdrawals: &mut watch::Receiver<u64>) {
        // Only a timeout or a withdrawal ends this; the sender lives as long as the app.
        let _ = tokio::time::timeout(RECHECK_EVERY, withdrawals.changed()).await;
    }

    /// The same caller with the rights of this moment.
    pub(crate) async fn refresh(&self, caller: &Caller) -> Result<Caller, Error> {
        let now = Timestamp::now();
        let source = caller.source.clone();
        match caller.via {
            Via::Session(id) => {
                let holder = self
                    .store()
                    .session_holder_by_id(id, now, self.idle_since(now))
                    .await?;
                self.session_caller(holder, source, now).await
            }
            Via::Token(id) => {
                let holder = self.store().token_holder_by_id(id, now).await?;
                self.token_caller(holder, source, now).await
            }
        }
    }

    async fn session_caller(
        &self,
        holder: Option<Holder<SessionId>>,
        source: Source,
        now: Timestamp,
    ) -> Result<Caller, Error> {
        let holder = holder.ok_or(Error::NotSignedIn)?;
        if is_to_be_noted(&holder, now) {
            self.store().touch_session(holder.id, now).await?;
        }
        Ok(caller(Via::Session(holder.id), holder, source))
    }

    async fn token_caller(
        &self,
        holder: Option<Holder<TokenId>>,
        source: Source,
        now: Timestamp,
    ) -> Result<Caller, Error> {
        let holder = holder.ok_or(Error::NotSignedIn)?;
        if is_to_be_noted(&holder, now) {
            self.store().touch_token(holder.id, now).await?;
        }
        Ok(caller(Via::Token(holder.id), holder, source))
    }

    /// Sessions that were last used before this are over.
    pub(crate) fn idle_since(&self, now: Timestamp) -> Timestamp {
        now - self.config().session_limits.idle
    }
}

fn is_to_be_noted<Id>(holder: &Holder<Id>, now: Timestamp) -> bool {
    holder
        .last_used_at
        .is_none_or(|last| last + USE_NOTED_EVERY <= now)
}

fn caller<Id>(via: Via, holder: Holder<Id>, source: Source) -> Caller {
    Caller {
        user_id: holder.user_id,
        name: holder.name.into(),
        role: holder.role,
        terminal: holder.terminal,
        via,
        source,
    }
}

#[cfg(test)]
mod tests {
    use batwa_api::user::{CreateUser, UpdateUser};
    use secrecy::SecretString;
    use tempfile::TempDir;

    use super::*;
    use crate::{config::MasterConfig, store::Store};

    #[test]
    fn what_each_role_may_is_this_table() {
        use Right::{Administer, Manage, Read, Terminal};
        for (role, terminal, expected) in [
            (Role::Viewer, false, &[Read][..]),
            (Role::Viewer, true, &[Read, Terminal]),
            (Role::Operator, false, &[Read, Manage]),
            (Role::Operator, true, &[Read, Manage, Terminal]),
            (Role::Admin, false, &[Read, Manage, Administer]),
            (Role::Admin, true, &[Read, Manage, Terminal, Administer]),
        ] {
            let mut rights = vec![Read, Manage, Terminal, Administer];
            rights.retain(|right| allows(role, terminal, *right));
            assert_eq!(rights, expected, "{role:?}, {terminal}");
        }
    }

    const PASSWORD: &str = "correct horse";

    fn source() -> Source {
        Source::new("192.0.2.1".parse().unwrap(), "r".into())
    }

    /// An app with its first admin, signed in.
    async fn app() -> (App, Caller, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), None).await.unwrap();
        let app = App::new(
            MasterConfig::new(folder.path()),
            "127.0.0.1:1".parse().unwrap(),
            store,
            None,
            batwa_tunnel::Identity::generate().unwrap(),
        );
        app.make_first_admin("password", "admin", PASSWORD.into())
            .await
            .unwrap()
            .unwrap();
        let admin = sign_in(&app, "admin").await;
        (app, admin, folder)
    }

    async fn sign_in(app: &App, name: &str) -> Caller {
        let signed_in = app
            .sign_in(name, SecretString::from(PASSWORD), "test", &source())
            .await
            .unwrap();
        app.authenticate(&Credential::Session(signed_in.secret), source())
            .await
            .unwrap()
    }

    /// Withdraws something meanwhile and tells what the waiting connection hears.
    async fn heard(
        app: &App,
        caller: &Caller,
        right: Right,
        withdraw: impl Future<Output = ()>,
    ) -> Error {
        let waiting = app.withdrawn(caller, right);
        tokio::pin!(waiting);
        let early = tokio::time::timeout(Duration::from_millis(50), waiting.as_mut()).await;
        assert!(early.is_err(), "nothing was withdrawn yet: {early:?}");
        withdraw.await;
        // Far below the time between two looks: it was told, it did not look by chance.
        let told = tokio::time::timeout(RECHECK_EVERY / 4, waiting).await;
        told.expect("an open connection hears of it at once")
    }

    #[tokio::test]
    async fn an_open_connection_hears_at_once_what_its_caller_lost() {
        let (app, admin, _folder) = app().await;
        let new = CreateUser {
            name: "bob".to_owned(),
            password: PASSWORD.to_owned(),
            role: Role::Operator,
            terminal: None,
        };
        let bob = app.create_user(&admin, new).await.unwrap();
        let caller = sign_in(&app, "bob").await;

        let no_terminals = UpdateUser {
            terminal: Some(false),
            ..UpdateUser::default()
        };
        let lost = heard(&app, &caller, Right::Terminal, async {
            app.update_user(&admin, bob.id, no_terminals).await.unwrap();
        });
        assert!(matches!(lost.await, Error::Forbidden(Right::Terminal)));

        let Via::Session(session) = caller.via else {
            unreachable!("signed in by cookie")
        };
        let lost = heard(&app, &caller, Right::Read, async {
            app.end_session(&caller, session).await.unwrap();
        });
        assert!(matches!(lost.await, Error::NotSignedIn));

        let caller = sign_in(&app, "bob").await;
        let lost = heard(&app, &caller, Right::Read, async {
            app.delete_user(&admin, bob.id).await.unwrap();
        });
        assert!(matches!(lost.await, Error::NotSignedIn));
    }

    #[tokio::test]
    async fn a_withdrawal_from_others_disturbs_nobody() {
        let (app, admin, _folder) = app().await;
        let other = sign_in(&app, "admin").await;
        let waiting = app.withdrawn(&admin, Right::Administer);
        app.sign_out(&other).await.unwrap();
        let heard = tokio::time::timeout(Duration::from_millis(200), waiting).await;
        assert!(heard.is_err(), "{heard:?}");
    }
}
