//! Start time and idle memory.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    binary,
    lab::{Lab, answers, arguments, free_address},
    process::{Pin, Process},
    report::{Report, Target},
    stats::Latencies,
};

const STARTS: usize = 9;

/// From the start of the process to a 200 of `/health`, in a new state folder and in one that is there.
pub(crate) async fn start(report: &mut Report) -> anyhow::Result<()> {
    let lab = Lab::new()?;
    let mut new = Latencies::default();
    let mut again = Latencies::default();
    for n in 0..STARTS {
        let folder = lab.path(&format!("state-{n}"));
        new.push(one_start(&lab, &folder).await?);
        again.push(one_start(&lab, &folder).await?);
    }
    report.figure(
        "start/new_state_folder",
        new.p50(),
        "ms",
        Target::Below(150.0),
    )?;
    report.figure("start/again", again.p50(), "ms", Target::Below(150.0))
}

async fn one_start(lab: &Lab, folder: &Path) -> anyhow::Result<Duration> {
    let address = free_address()?;
    let mut args = arguments("up", address, folder);
    args.extend(["--driver", "fake"].map(str::to_owned));
    let begun = Instant::now();
    let mut process = Process::start(&binary(), &args, &[], &lab.path("up.log"), Pin::Anywhere)?;
    answers(address, &mut process).await?;
    Ok(begun.elapsed())
}

/// How long an idle process is left alone: what it needs has come back by then of the pages that it let go after its
/// start.
const IDLE: Duration = Duration::from_secs(60);

/// Resident memory after a minute of idling, with one agent online.
pub(crate) async fn memory(report: &mut Report) -> anyhow::Result<()> {
    let lab = Lab::new()?;
    let mut master = lab.master("master", &[], Pin::Anywhere).await?;
    let agent = lab.agent(&master, "idle", "vms=3", Pin::Anywhere)?;
    master.knows(1, 3, Duration::from_secs(30)).await?;
    tokio::time::sleep(IDLE).await;
    report.figure(
        "memory/master",
        master.process.memory_mb()?,
        "MB",
        Target::Below(30.0),
    )?;
    report.figure(
        "memory/agent",
        agent.process.memory_mb()?,
        "MB",
        Target::Below(15.0),
    )?;
    drop((agent, master));

    let lab = Lab::new()?;
    let mut up = lab
        .master("up", &["--driver", "fake"], Pin::Anywhere)
        .await?;
    up.knows(1, 3, Duration::from_secs(30)).await?;
    tokio::time::sleep(IDLE).await;
    report.figure("memory/up", up.process.memory_mb()?, "MB", Target::None)
}
