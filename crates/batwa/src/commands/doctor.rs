//! `batwa doctor`: can this machine run VMs, and what is missing?
//!
//! It asks what the agent itself would ask, in a folder that is thrown away, and changes nothing. Whatever is wrong comes
//! with what repairs it.

mod master;

use std::{net::TcpListener, path::Path, path::PathBuf, time::Duration};

use axum::{body::Body, http::Request};
use batwa_agent::{Agent, AgentConfig, DriverChoice};
use batwa_api::{
    agent::{AgentInfo, DriverKind, DriverStatus, HealthStatus},
    id::AgentId,
    size::ByteSize,
};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::{
    cli::{DoctorArgs, Format},
    config,
    failure::{Exit, Failure, chain},
    output::{self, plain, print_json},
    settings::Environment,
};

/// Longer than proving KVM and asking a slow Multipass daemon take.
const PROBE_DEADLINE: Duration = Duration::from_secs(40);
/// Below this no usual image fits.
const LITTLE_DISK: ByteSize = ByteSize::gib(10);

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
    let mut checks = vec![state_folder(dir.as_deref())];
    for (port, whose) in [(8000, "master"), (8001, "agent")] {
        checks.push(port_is_free(port, whose).await);
    }
    checks.extend(multipass_socket());
    if let Some(url) = &args.master.master_url {
        checks.extend(master::checks(url, &args.master).await);
    }
    let info = agent_info().await?;
    checks.extend(machine(&info));
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
    match args.format {
        Format::Json => print_json(&serde_json::json!({ "checks": checks, "agent": info }))?,
        Format::Table => output::print(&render(&checks))?,
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

/// Whether the folder, or the nearest that exists above it, can be written.
fn state_folder(dir: Option<&Path>) -> Check {
    let name = "state folder";
    let Some(dir) = dir else {
        return check(
            name,
            Verdict::Bad,
            "there is no home folder: name one with `--state-dir`",
        );
    };
    let existing = dir.ancestors().find(|path| path.exists()).unwrap_or(dir);
    let shown = dir.display();
    if !existing.is_dir() {
        let finding = format!(
            "{shown} cannot be written: {} is no folder",
            existing.display()
        );
        return check(name, Verdict::Bad, finding).repair("name another folder with `--state-dir`");
    }
    match rustix::fs::access(existing, rustix::fs::Access::WRITE_OK) {
        Ok(()) if existing == dir => check(name, Verdict::Ok, shown.to_string()),
        Ok(()) => check(name, Verdict::Ok, format!("{shown}, to be made")),
        Err(error) => check(
            name,
            Verdict::Bad,
            format!("{shown} cannot be written: {}: {error}", existing.display()),
        )
        .repair("run as the user that it belongs to, or name another folder with `--state-dir`"),
    }
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

/// Where Multipass' daemon listens, by its snap and by other packages.
const MULTIPASS_SOCKETS: [&str; 2] = [
    "/var/snap/multipass/common/multipass_socket",
    "/run/multipass_socket",
];

/// Whether the daemon's socket, where there is one, may be used by this user.
fn multipass_socket() -> Option<Check> {
    let path = MULTIPASS_SOCKETS
        .iter()
        .map(Path::new)
        .find(|path| path.exists())?;
    let name = "multipass socket";
    Some(match rustix::fs::access(path, rustix::fs::Access::WRITE_OK) {
        Ok(()) => check(name, Verdict::Ok, path.display().to_string()),
        Err(error) => check(
            name,
            Verdict::Bad,
            format!("{} cannot be used by this user: {error}", path.display()),
        )
        .repair(format!(
            "add the user to the group that owns it (`sudo usermod -aG \"$(stat -c %G {})\" USER`, then sign in again), or run the agent as root",
            path.display()
        )),
    })
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

fn machine(info: &AgentInfo) -> Vec<Check> {
    let host = &info.host;
    let mut checks = vec![check(
        "machine",
        Verdict::Ok,
        format!(
            "{}, {} CPUs ({}), memory {}",
            host.os, host.cpus, host.arch, host.memory
        ),
    )];
    if let Some(free) = host.disk_free {
        let verdict = if free < LITTLE_DISK {
            Verdict::Note
        } else {
            Verdict::Ok
        };
        let disk = check("disk", verdict, format!("{free} free"));
        checks.push(if verdict == Verdict::Ok {
            disk
        } else {
            disk.repair("images and VMs' disks need room: purge VMs that are not needed, or put `--state-dir` on a larger disk")
        });
    }
    for driver in &info.drivers {
        let (verdict, mut finding) = match driver.health.status {
            HealthStatus::Ok => (Verdict::Ok, String::from("works")),
            HealthStatus::Slow => (Verdict::Note, String::from("answers slowly")),
            HealthStatus::Stuck => (Verdict::Bad, String::from("does not answer")),
            HealthStatus::Missing => (Verdict::Note, String::from("is not there")),
        };
        if let Some(version) = &driver.version {
            finding = format!("{version}, {finding}");
        }
        if let Some(message) = &driver.health.message {
            finding.push_str(": ");
            finding.push_str(message);
        }
        checks.push(check(driver.kind.as_str(), verdict, finding));
        if let Some(acceleration) = &driver.acceleration {
            let verdict = if acceleration.name == "tcg" {
                Verdict::Note
            } else {
                Verdict::Ok
            };
            let kvm = check(
                "acceleration",
                verdict,
                format!("{}: {}", acceleration.name, acceleration.reason),
            );
            checks.push(match kvm_repair() {
                Some(repair) if verdict == Verdict::Note => kvm.repair(repair),
                _ => kvm,
            });
        }
    }
    checks
}

/// What brings KVM where VMs are emulated, as far as this machine lets us see.
fn kvm_repair() -> Option<&'static str> {
    let kvm = Path::new("/dev/kvm");
    if !kvm.exists() {
        return Some(
            "there is no /dev/kvm: switch virtualisation on in the firmware, or, in a VM, nested virtualisation on its host; then `modprobe kvm_intel` or `kvm_amd`",
        );
    }
    match rustix::fs::access(
        kvm,
        rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK,
    ) {
        Ok(()) => None,
        Err(_) => Some("`sudo usermod -aG kvm USER`, then sign in again, or run the agent as root"),
    }
}
