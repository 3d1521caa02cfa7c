//! `agent join` and `agent rotate-key`: an agent's place at its master.

use std::{io::Read as _, sync::Arc, time::Duration};

use batwa_agent::tunnel::{self, Dialer, JoinRequest, RotateError};
use batwa_api::tunnel::{JoinToken, TunnelStatus};

use crate::{
    cli::JoinArgs,
    config,
    failure::{Exit, Failure, chain},
    logging, output,
    settings::{Environment, Flags, Role, Settings},
};

/// Nobody pastes more than this.
const MAX_TOKEN: u64 = 4096;

/// `batwa agent join`: enrols, then runs.
pub(crate) async fn join(args: JoinArgs) -> Result<(), Failure> {
    let environment = Environment::of_process();
    let service = args.flags.0.service();
    let settings = Settings::load(Role::Agent, args.flags.0, &environment)?;
    logging::start(&settings)?;
    let wrong = |what: &str, reason: String| {
        Failure::usage(format!("cannot use the {what} that was given: {reason}"))
    };
    let master_url = args
        .url
        .parse()
        .map_err(|error: tunnel::MasterUrlError| wrong("master's address", error.to_string()))?;
    let token: JoinToken =
        read_token(args.token)?
            .parse()
            .map_err(|error: batwa_api::tunnel::JoinTokenError| {
                wrong("join token", error.to_string())
            })?;
    let (agent_id, state_dir) = config::joining(&settings, &environment)?;
    let request = JoinRequest {
        master_url,
        token,
        agent_id,
        state_dir,
        dialer: Arc::new(Dialer::new(config::proxies(&environment))),
    };
    let joined = tunnel::join(request, |why, pause: Duration| {
        output::say(&format!(
            "{why}; trying again in {:.1} s",
            pause.as_secs_f64()
        ));
    })
    .await
    .map_err(|error| {
        let failure = Failure::usage(chain(&error));
        match error.fix() {
            Some(fix) => failure.hint(fix),
            None => failure,
        }
    })?;
    let id = &joined.agent_id;
    output::print(&match joined.status {
        TunnelStatus::Approved => format!("joined {} as agent `{id}`\n", args.url),
        TunnelStatus::Pending => format!(
            "agent `{id}` is known to {} and waits for an admin to approve it on the Machines page\n",
            args.url
        ),
    })?;
    super::roles::run_agent(&settings, &environment, service).await
}

/// The token from the command line or the environment; from standard input when it is `-`.
fn read_token(given: Option<String>) -> Result<String, Failure> {
    match given {
        Some(token) if token != "-" => Ok(token),
        Some(_) => {
            let mut token = String::new();
            std::io::stdin()
                .take(MAX_TOKEN)
                .read_to_string(&mut token)
                .map_err(|error| Failure::usage(format!("cannot read the token: {error}")))?;
            Ok(token)
        }
        None => Err(Failure::usage("the join token is missing")
            .hint("make one on the Machines page, or with `batwa join-token create`")),
    }
}

/// `batwa agent rotate-key`: works beside the running agent.
pub(crate) async fn rotate_key(flags: Flags) -> Result<(), Failure> {
    let environment = Environment::of_process();
    let settings = Settings::load(Role::Agent, flags, &environment)?;
    logging::start(&settings)?;
    let state_dir = config::agent_state_dir(&settings, &environment)?;
    let dialer = Dialer::new(config::proxies(&environment));
    tunnel::rotate_key(&state_dir, &dialer, tunnel::instance())
        .await
        .map_err(|error| {
            let exit = match &error {
                RotateError::Identity(_) => Exit::Usage,
                RotateError::Connect(cause) if cause.is_transient() => Exit::Unreachable,
                RotateError::Connect(_) | RotateError::Key(_) => Exit::Failed,
            };
            let failure = Failure::new(exit, chain(&error));
            match error.fix() {
                Some(fix) => failure.hint(fix),
                None => failure,
            }
        })?;
    output::print("the agent goes by a new key\n")
}
