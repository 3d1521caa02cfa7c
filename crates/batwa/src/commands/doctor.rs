//! `batwa doctor`: can this machine run VMs, and what is missing?
//!
//! It asks what the agent itself would ask, in a folder that is thrown away, and changes nothing. Whatever is wrong comes
//! with what repairs it.

mod machine;
mod master;
mod policy;

use std::{net::TcpListener, path::PathBuf, time::Duration};

use axum::{body::Body, http::Request};
use batwa_agent::{Agent, AgentConfig, DriverChoice};
use batwa_api::{
    agent::{AgentInfo, DriverKind, DriverStatus, HealthStatus},
    id::AgentId,
};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::{
    cli::{DoctorArgs, Format},
    config,
    failure::{Exit, Failure, chain},
    output::{self, Table, plain},
    settings::Environment,
};

/// Longer than proving KVM and asking a slow Multipass daemon take.
const PROBE_DEADLINE: Duration = Duration::from_secs(40);
/// The drivers that are looked at.
const DRIVERS: [DriverKind; 2] = [DriverKind::Multipass, DriverKind::Qemu];
/// Between two looks at whether the drivers were probed.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// Far above what an agent says of itself.
const ANSWER_LIMIT: usize = 1 << 20;

/// How one thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    /// As it should be.
    Ok,
    /// It works, but something could be better.
    Note,
    /// It does not work.
    Bad,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    name: String,
    verdict: Verdict,
    finding: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    repair: Option<String>,
}

impl Check {
    /// The same with what to do about it.
    fn repair(mut self, repair: impl Into<String>) -> Self {
        self.repair = Some(repair.into());
        self
    }
}

fn check(name: impl Into<String>, verdict: Verdict, finding: impl Into<String>) -> Check {
    Check {
        name: name.into(),
        verdict,
        finding: finding.into(),
        repair: None,
    }
}

/// `batwa doctor`
pub(crate) async fn run(args: DoctorArgs) -> Result<(), Failure> {
    let is_root = rustix::process::geteuid().is_root();
    let dir = args
        .state_dir
        .or_else(|| config::default_state_dir(is_root, &Environment::of_process()));
    let mut checks = vec![machine::state_folder(dir.as_deref())];
    checks.extend(machine::disk(dir.as_deref()));
    checks.extend(policy::checks_of(args.policy, dir.as_deref()));
    for (port, whose) in [(8000, "master"), (8001, "agent")] {
        checks.push(port_is_free(port, whose).await);
    }
    checks.extend(machine::multipass_socket());
    if let Some(url) = &args.master.master_url {
        checks.extend(master::checks(url, &args.master).await);
    }
    let info = agent_info().await?;
    checks.extend(machine::machine(&info));
    let can_run = info
        .drivers
        .iter()
        .any(|driver| matches!(driver.health.status, HealthStatus::Ok | HealthStatus::Slow));
    if !can_run {
        checks.push(check(
            "VMs",
            Verdict::Bad,
            "nothing here can run VMs",
        ).repair("install QEMU (`apt-get install qemu-system-x86 qemu-utils`) or Multipass (`snap install multipass`)"));
    }
    if args.format == Format::Table {
        output::print(&render(&checks))?;
    } else {
        let value = serde_json::json!({ "checks": checks, "agent": info });
        output::show(args.format, &value, || Ok(table(&checks)))?;
    }
    if checks.iter().any(|check| check.verdict == Verdict::Bad) {
        return Err(Failure::new(Exit::Failed, "something is wrong, see above"));
    }
    Ok(())
}

fn render(checks: &[Check]) -> String {
    checks
        .iter()
        .map(|check| {
            let mark = match check.verdict {
                Verdict::Ok => "ok  ",
                Verdict::Note => "note",
                Verdict::Bad => "BAD ",
            };
            let repair = match &check.repair {
                Some(repair) => format!("{:20}to repair it: {}\n", "", plain(repair)),
                None => String::new(),
            };
            format!(
                "{mark}  {:<14}{}\n{repair}",
                check.name,
                plain(&check.finding)
            )
        })
        .collect()
}

fn table(checks: &[Check]) -> Table {
    let mut table = Table::new(&["VERDICT", "CHECK", "FINDING", "REPAIR"]);
    for check in checks {
        let verdict = match check.verdict {
            Verdict::Ok => "ok",
            Verdict::Note => "note",
            Verdict::Bad => "bad",
        };
        table.row([
            verdict.to_owned(),
            check.name.clone(),
            check.finding.clone(),
            check.repair.clone().unwrap_or_default(),
        ]);
    }
    table
}

/// Whether the port can be had, or one of ours has it.
async fn port_is_free(port: u16, whose: &str) -> Check {
    let name = format!("port {port}");
    let error = match TcpListener::bind(("0.0.0.0", port)) {
        Ok(_) => return check(name, Verdict::Ok, format!("free for the {whose}")),
        Err(error) => error,
    };
    match master::who_is_at(port).await {
        Some(whom) => check(name, Verdict::Ok, format!("{whom} runs there")),
        None => check(
            name,
            Verdict::Note,
            format!("not free for the {whose} ({error})"),
        )
        .repair(format!(
            "`ss -ltnp 'sport = :{port}'` says who has it; stop that, or give the {whose} another `--port`"
        )),
    }
}

/// What an agent with every real driver says of this machine, once each driver was asked.
async fn agent_info() -> Result<AgentInfo, Failure> {
    let folder = Scratch::new()?;
    let mut agent_config = AgentConfig::new(AgentId::local(), folder.0.clone());
    agent_config.drivers = DriverChoice::List(DRIVERS.into());
    let agent = Agent::new(agent_config)?;
    let stop = CancellationToken::new();
    let asking = async {
        let info = tokio::time::timeout(PROBE_DEADLINE, probed(&agent)).await;
        stop.cancel();
        info.map_err(|_| Failure::new(Exit::Failed, "the drivers did not answer"))?
    };
    let (outcome, info) = tokio::join!(agent.run(stop.clone()), asking);
    outcome.map_err(|error| Failure::new(Exit::Failed, chain(&error)))?;
    info
}

/// Asks the agent as a master would, until every driver was probed.
async fn probed(agent: &Agent) -> Result<AgentInfo, Failure> {
    let broken = |error: &dyn std::error::Error| Failure::new(Exit::Failed, chain(error));
    loop {
        let request = Request::get("/api/v1/agent")
            .body(Body::empty())
            .map_err(|error| broken(&error))?;
        let Ok(response) = agent.router().oneshot(request).await;
        let body = axum::body::to_bytes(response.into_body(), ANSWER_LIMIT)
            .await
            .map_err(|error| broken(&error))?;
        let info: AgentInfo = serde_json::from_slice(&body).map_err(|error| broken(&error))?;
        // One that was not asked yet passes for well, but has no version.
        let is_known = |driver: &DriverStatus| {
            driver.version.is_some() || driver.health.status != HealthStatus::Ok
        };
        if info.drivers.len() >= DRIVERS.len() && info.drivers.iter().all(is_known) {
            return Ok(info);
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

/// A folder that goes with this value.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self, Failure> {
        let path = std::env::temp_dir().join(format!("batwa-doctor-{}", std::process::id()));
        std::fs::create_dir(&path).map_err(|error| {
            Failure::usage(format!(
                "cannot make a folder at {}: {error}",
                path.display()
            ))
        })?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
