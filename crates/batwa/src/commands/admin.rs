//! `batwa admin`: work on a master's own files.

use std::io::IsTerminal;

use batwa_master::{Master, MasterConfig};
use secrecy::{ExposeSecret, SecretString};

use crate::{
    ask,
    cli::{AdminTask, FilesArgs},
    config,
    failure::{Exit, Failure},
    output::say,
    settings::Environment,
};

/// Runs one of them.
pub(crate) async fn run(task: AdminTask) -> Result<(), Failure> {
    match task {
        AdminTask::ResetPassword { user, files } => {
            let config = config_of(files)?;
            let password = new_password()?;
            Master::reset_password(config, &user, password).await?;
            say(&format!(
                "`{user}` has the new password; its sessions are ended"
            ));
            Ok(())
        }
        AdminTask::VerifyAudit { files } => match Master::verify_audit(config_of(files)?).await? {
            None => {
                say("the audit is whole: every line follows the one before it");
                Ok(())
            }
            Some(line) => Err(Failure::new(
                Exit::Failed,
                format!("line {line} of the audit was changed, or follows one that was taken out"),
            )
            .hint("compare it with a backup; whoever did it could write to the master's store")),
        },
    }
}

fn config_of(files: FilesArgs) -> Result<MasterConfig, Failure> {
    let dir = match files.state_dir {
        Some(dir) => dir,
        None => {
            let is_root = rustix::process::geteuid().is_root();
            config::default_state_dir(is_root, &Environment::of_process())
                .ok_or_else(|| Failure::usage("name the master's folder with `--state-dir`"))?
        }
    };
    if !dir.is_dir() {
        return Err(
            Failure::usage(format!("there is no master's folder at {}", dir.display()))
                .hint("name it with `--state-dir`"),
        );
    }
    let mut config = MasterConfig::new(dir);
    config.database = files
        .database
        .map(|url| url.parse())
        .transpose()
        .map_err(|error: batwa_master::ConfigError| Failure::usage(error))?;
    Ok(config)
}

/// Asks twice on a terminal, else takes the first line of standard input.
fn new_password() -> Result<SecretString, Failure> {
    const ABSENT: &str = "no password was given on standard input";
    let first = ask::secret("New password: ", ABSENT)?;
    if std::io::stdin().is_terminal() {
        let second = ask::secret("The same again: ", ABSENT)?;
        if first.expose_secret() != second.expose_secret() {
            return Err(Failure::usage("the two passwords differ"));
        }
    }
    Ok(first)
}
