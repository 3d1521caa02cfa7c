//! A Multipass that hangs, and everybody else.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use serde_json::{Value, json};

use super::busy::paced;
use crate::{
    BUILT,
    lab::{Agent, Lab, Master, eventually},
    process::Pin,
    report::{Report, Target},
    stats::unchanged,
};

const LOAD: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(3);

/// Lists while the daemon serves nobody, against lists while it is well.
pub(crate) async fn stuck(report: &mut Report) -> anyhow::Result<()> {
    let lab = Lab::new()?;
    let stand_in = StandIn::new(lab.path("multipass"))?;
    let mut master = lab
        .master(
            "up",
            &["--driver", "fake", "--fake", "vms=20"],
            Pin::Anywhere,
        )
        .await?;
    let path = std::env::var("PATH").unwrap_or_default();
    let agent = lab.agent_with(
        &master,
        "far",
        &["--driver", "multipass"],
        &[("PATH", format!("{}:{path}", stand_in.folder.display()))],
        Pin::Anywhere,
    )?;
    master.knows(2, 20, Duration::from_secs(30)).await?;
    for name in ["one", "two"] {
        let body = json!({"name": name, "image": "22.04", "agent_id": agent.id});
        master.call("POST", "/api/vm/create", Some(&body)).await?;
    }

    let list = master.request("GET", "/api/vm/list", None);
    let mut well = paced(master.address, list.clone(), PAUSE, LOAD).await?;

    stand_in.control(&json!({"hang": ["*"]}))?;
    let begun = Instant::now();
    // Something that waits for the daemon all the while.
    let restart = format!("/api/v1/agents/{}/vms/one/restart", agent.id);
    master.call("POST", &restart, None).await?;
    let mut hung = paced(master.address, list, PAUSE, LOAD).await?;
    report.figure("stuck/list_well/p50", well.p50(), "ms", Target::None)?;
    let target = Target::Below(unchanged::p50(&mut well));
    report.figure("stuck/list/p50", hung.p50(), "ms", target)?;
    let target = Target::Below(unchanged::p99(&mut well));
    report.figure("stuck/list/p99", hung.p99(), "ms", target)?;

    driver_is(&master, &agent, "stuck").await?;
    report.figure(
        "stuck/said_so_after",
        begun.elapsed().as_secs_f64(),
        "s",
        Target::None,
    )?;
    stand_in.control(&json!({}))?;
    let begun = Instant::now();
    driver_is(&master, &agent, "ok").await?;
    report.figure(
        "stuck/well_again_after",
        begun.elapsed().as_secs_f64(),
        "s",
        Target::None,
    )
}

async fn driver_is(master: &Master, agent: &Agent, status: &str) -> anyhow::Result<()> {
    let path = format!("/api/v1/agents/{}", agent.id);
    eventually(Duration::from_secs(90), async || {
        let agent = master.call("GET", &path, None).await?;
        let health = &agent["info"]["drivers"][0]["health"];
        anyhow::ensure!(health["status"] == status, "the driver is {health}");
        Ok(())
    })
    .await
}

/// The stand-in for Multipass that the agent's tests have, in a world of its own.
struct StandIn {
    folder: PathBuf,
}

impl StandIn {
    fn new(folder: PathBuf) -> anyhow::Result<Self> {
        let program = Path::new(BUILT)
            .with_file_name("examples")
            .join("multipass");
        anyhow::ensure!(
            program.is_file(),
            "the stand-in is not built: cargo build --release -p batwa-agent --example multipass"
        );
        fs::create_dir_all(&folder)?;
        symlink(program, folder.join("multipass"))?;
        Ok(Self { folder })
    }

    /// Says how it is to behave from now on.
    fn control(&self, knobs: &Value) -> anyhow::Result<()> {
        let new = self.folder.join("control.json.new");
        fs::write(&new, knobs.to_string())?;
        fs::rename(new, self.folder.join("control.json")).context("cannot control the stand-in")
    }
}
