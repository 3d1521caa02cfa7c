//! `login`, `logout`, `masters`: signing in to masters, and what is kept of that.

use batwa_api::user::{CreateToken, CreatedToken, CurrentSession, SignIn};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use crate::{
    ask,
    cli::{LoginArgs, LogoutArgs, MastersArgs, MastersTask},
    client::{Client, KnownMaster, KnownMasters, Master, address},
    failure::{Exit, Failure},
    output::{self, Table, plain, say},
};

/// Longest host name in a token's name.
const MAX_HOST: usize = 64;

/// `batwa login`
pub(crate) async fn login(args: LoginArgs) -> Result<(), Failure> {
    let url = address(&args.url)?;
    let name = match &args.name {
        Some(name) => name_of_ones_own(name)?,
        None => KnownMasters::name_for(&url),
    };
    // Before anything is made there: a file that cannot be read is not to be replaced.
    let mut known = KnownMasters::load()?;
    let master = match &args.token {
        Some(token) => with_token(&args, url, token).await?,
        None => with_password(&args, url).await?,
    };
    let user = master.user.clone();
    let before = known.masters.insert(name.clone(), master);
    known.in_use = Some(name.clone());
    let path = known.save()?;
    say(&plain(&format!(
        "signed in to `{name}` as `{user}`; kept in {}",
        path.display()
    )));
    if let Some(before) = before {
        forget_token(&before).await;
    }
    Ok(())
}

/// Signs in with a password, makes a token, and signs out again.
async fn with_password(args: &LoginArgs, url: reqwest::Url) -> Result<KnownMaster, Failure> {
    let user = match &args.user {
        Some(user) => user.clone(),
        None if ask::somebody_is_there() => ask::line("User: ")?,
        None => {
            return Err(Failure::usage(
                "say as whom with `--user`, or give a `--token`",
            ));
        }
    };
    let password = ask::secret("Password: ", "no password was given on standard input")?;
    let client = Client::with_session(url.clone(), args.master_certificate)?;
    let sign_in = SignIn {
        username: user,
        password: password.expose_secret().to_owned(),
    };
    let session = client
        .post(&["session"], &sign_in)
        .await
        .map_err(|failure| Failure {
            // That hint is about tokens.
            hint: failure.hint.filter(|_| failure.exit != Exit::NotAllowed),
            ..failure
        })?;
    let session: CurrentSession = client.read(session)?;
    let new = CreateToken {
        name: format!("cli on {}", host()),
        expires_in_s: args.expires.map(|time| time.as_secs().max(1)),
        role: None,
    };
    let made = client.post(&["tokens"], &new).await;
    // Whatever became of that, nobody uses the session any more; should this fail, it ends by itself.
    let _ = client.delete(&["session"], &[]).await;
    let made: CreatedToken = client.read(made?)?;
    Ok(KnownMaster {
        url,
        user: session.user.name,
        token: made.token.into(),
        token_id: Some(made.id),
        certificate: args.master_certificate,
    })
}

/// Keeps a token that somebody made, once it is known to be good.
async fn with_token(
    args: &LoginArgs,
    url: reqwest::Url,
    token: &str,
) -> Result<KnownMaster, Failure> {
    let token = match token {
        "-" => ask::secret("Token: ", "no token was given on standard input")?,
        token => SecretString::from(token),
    };
    let client = Client::of(Master {
        url: url.clone(),
        token: Some(token.clone()),
        certificate: args.master_certificate,
    })?;
    let session: CurrentSession = client.read(client.get(&["session"], &[]).await?)?;
    Ok(KnownMaster {
        url,
        user: session.user.name,
        token,
        token_id: None,
        certificate: args.master_certificate,
    })
}

/// `batwa logout`
pub(crate) async fn logout(args: LogoutArgs) -> Result<(), Failure> {
    let mut known = KnownMasters::load()?;
    let name = match (&args.name, &known.in_use) {
        (Some(name), _) | (None, Some(name)) => name.clone(),
        (None, None) => {
            return Err(
                Failure::new(Exit::NotFound, "no master is signed in to here")
                    .hint("`batwa masters` lists those that are known"),
            );
        }
    };
    let master = known.named(&name)?.clone();
    match revoke(&master).await {
        Ok(()) => {}
        Err(failure) if args.forget => {
            say(&format!("its token is not taken back: {}", failure.message));
        }
        Err(failure) => {
            return Err(failure.hint("`--forget` removes it here; end its token on the page then"));
        }
    }
    known.masters.remove(&name);
    if known.in_use.as_ref() == Some(&name) {
        known.in_use = None;
    }
    known.save()?;
    say(&match &master.token_id {
        Some(_) => format!("signed out of `{name}`"),
        None => format!("`{name}` is forgotten; its token was made elsewhere and stays good"),
    });
    Ok(())
}

/// Takes a token back that `login` made; one that is gone already is as good.
async fn revoke(master: &KnownMaster) -> Result<(), Failure> {
    let Some(id) = master.token_id else {
        return Ok(());
    };
    let client = Client::of(Master::known(master))?;
    match client.delete(&["tokens", &id.to_string()], &[]).await {
        // A token that is not known any more cannot say so of itself.
        Err(failure) if matches!(failure.exit, Exit::NotFound | Exit::NotAllowed) => Ok(()),
        other => other.map(drop),
    }
}

/// The token that a new one takes the place of is of no more use to anybody.
async fn forget_token(before: &KnownMaster) {
    if let Err(failure) = revoke(before).await {
        say(&format!(
            "the token before is not taken back: {}",
            failure.message
        ));
    }
}

/// `batwa masters`
pub(crate) fn masters(args: MastersArgs) -> Result<(), Failure> {
    let mut known = KnownMasters::load()?;
    if let Some(MastersTask::Use { name }) = args.task {
        known.named(&name)?;
        known.in_use = Some(name.clone());
        known.save()?;
        say(&format!("commands talk to `{name}` now"));
        return Ok(());
    }
    let in_use = |name: &str| known.in_use.as_deref() == Some(name);
    let items: Vec<_> = known
        .masters
        .iter()
        .map(|(name, master)| {
            json!({"name": name, "url": master.url.as_str(), "user": master.user, "in_use": in_use(name)})
        })
        .collect();
    output::show(args.format, &json!({ "items": items }), || {
        let mut table = Table::new(&["NAME", "URL", "USER", "IN USE"]);
        for (name, master) in &known.masters {
            let used = if in_use(name) { "yes" } else { "" };
            table.row([name.as_str(), master.url.as_str(), &master.user, used]);
        }
        Ok(table)
    })
}

/// A name that is easy to type and to read.
fn name_of_ones_own(name: &str) -> Result<String, Failure> {
    let good = !name.is_empty()
        && name.len() <= 63
        && !name.starts_with('-')
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':'));
    if good {
        Ok(name.to_owned())
    } else {
        Err(Failure::usage(format!(
            "`{name}` is no name for a master: use letters, digits and `._-:`, at most 63"
        )))
    }
}

/// This machine's name, for people.
fn host() -> String {
    let name = rustix::system::uname();
    let name: String = name
        .nodename()
        .to_string_lossy()
        .chars()
        .filter(|c| !c.is_control())
        .take(MAX_HOST)
        .collect();
    if name.is_empty() {
        "a machine".to_owned()
    } else {
        name
    }
}
