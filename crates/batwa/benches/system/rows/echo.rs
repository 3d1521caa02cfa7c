//! Keystrokes: from the key to its echo.

use std::{future::Future, time::Duration};

use anyhow::Context as _;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::task::JoinSet;

use crate::{
    baseline::Baseline,
    lab::{Agent, Lab, Master, within},
    process::Pin,
    report::{Report, Target},
    stats::Latencies,
    viewer::Viewer,
};

/// Keys of a lone typist in each of the rounds.
const KEYS: usize = 400;
const ROUNDS: usize = 3;
/// Between the echo and the next key of a lone typist.
const PAUSE: Duration = Duration::from_millis(2);
/// Keys of each of many typists, and their pause: ten keys a second, as fast as people type.
const MANY_KEYS: usize = 30;
const MANY_PAUSE: Duration = Duration::from_millis(100);
/// Shells being opened at a time.
const OPENING: usize = 16;
/// What a target allows of the comparison's figure.
const FACTOR: f64 = 2.0;

/// All of them in one run, turn by turn with what they are compared with.
pub(crate) async fn echo(report: &mut Report) -> anyhow::Result<()> {
    let lab = Lab::new()?;
    let mut master = lab.master("master", &[], Pin::Anywhere).await?;
    let agent = lab.agent(&master, "far", "vms=3", Pin::Anywhere)?;
    master.knows(1, 3, Duration::from_secs(30)).await?;
    let vm = master.running_vm(&agent.id).await?;
    let mut baselines = Baseline::all(&lab, Pin::Anywhere).await?;
    baselines.push(Baseline::without_server());
    report.note(&format!(
        "targets are twice {}",
        baselines.first().map_or("nothing", |first| first.name)
    ))?;

    alone(report, &master, &agent, &vm, &baselines).await?;
    master.end_terminals().await?;
    for typists in [50, 200] {
        many(report, &master, &agent, &vm, &baselines, typists).await?;
        master.end_terminals().await?;
    }
    beside_idle(report, &master, &agent, &vm, &baselines).await
}

async fn alone(
    report: &mut Report,
    master: &Master,
    agent: &Agent,
    vm: &str,
    baselines: &[Baseline],
) -> anyhow::Result<()> {
    let mut shells = Vec::new();
    for baseline in baselines {
        shells.push(baseline.shell().await.context(baseline.name)?);
    }
    let mut ours = Viewer::shell(master, &agent.id, vm).await?;
    let mut compared: Vec<Latencies> = baselines.iter().map(|_| Latencies::default()).collect();
    let mut measured = Latencies::default();
    for _ in 0..ROUNDS {
        for (shell, latencies) in shells.iter_mut().zip(&mut compared) {
            latencies.extend(shell.keystrokes(KEYS, PAUSE).await?);
        }
        measured.extend(ours.keystrokes(KEYS, PAUSE).await?);
    }
    figures(report, "echo/one", baselines, &mut compared, &mut measured)
}

async fn many(
    report: &mut Report,
    master: &Master,
    agent: &Agent,
    vm: &str,
    baselines: &[Baseline],
    typists: usize,
) -> anyhow::Result<()> {
    let mut compared = Vec::new();
    for baseline in baselines {
        let shells = open(typists, || baseline.shell()).await;
        let latencies = all_type(shells.context(baseline.name)?).await;
        compared.push(latencies.context(baseline.name)?);
    }
    let shells = open(typists, || Viewer::shell(master, &agent.id, vm)).await?;
    let mut measured = all_type(shells).await?;
    figures(
        report,
        &format!("echo/{typists}_typists"),
        baselines,
        &mut compared,
        &mut measured,
    )
}

/// Opens many shells, some at a time: one who waits long without reading counts as gone.
pub(super) async fn open<F>(count: usize, shell: impl Fn() -> F) -> anyhow::Result<Vec<Viewer>>
where
    F: Future<Output = anyhow::Result<Viewer>>,
{
    stream::iter(0..count)
        .map(|_| shell())
        .buffer_unordered(OPENING)
        .try_collect()
        .await
}

async fn all_type(shells: Vec<Viewer>) -> anyhow::Result<Latencies> {
    let count = shells.len();
    let mut typists = JoinSet::new();
    for (n, mut shell) in shells.into_iter().enumerate() {
        typists.spawn(async move {
            // Nobody types in step with the others.
            let late = MANY_PAUSE.mul_f64(n as f64 / count as f64);
            tokio::time::sleep(late).await;
            shell.keystrokes(MANY_KEYS, MANY_PAUSE).await
        });
    }
    let mut all = Latencies::default();
    within(Duration::from_secs(120), async {
        while let Some(done) = typists.join_next().await {
            all.extend(done??);
        }
        Ok(())
    })
    .await?;
    Ok(all)
}

async fn beside_idle(
    report: &mut Report,
    master: &Master,
    agent: &Agent,
    vm: &str,
    baselines: &[Baseline],
) -> anyhow::Result<()> {
    const IDLE: usize = 50;
    let mut compared = Vec::new();
    for baseline in baselines {
        let _idle = open(IDLE, || baseline.shell()).await?;
        compared.push(baseline.shell().await?.keystrokes(KEYS, PAUSE).await?);
    }
    let before = master.process.memory_mb()?;
    let agent_before = agent.process.memory_mb()?;
    let _idle = open(IDLE, || Viewer::shell(master, &agent.id, vm)).await?;
    let each = |now: f64, before: f64| (now - before) * 1e3 / IDLE as f64;
    let on_master = each(master.process.memory_mb()?, before);
    let on_agent = each(agent.process.memory_mb()?, agent_before);
    let mut measured = Viewer::shell(master, &agent.id, vm)
        .await?
        .keystrokes(KEYS, PAUSE)
        .await?;
    figures(
        report,
        "echo/beside_50_idle",
        baselines,
        &mut compared,
        &mut measured,
    )?;
    report.figure(
        "echo/memory_per_terminal_master",
        on_master,
        "kB",
        Target::Below(100.0),
    )?;
    report.figure(
        "echo/memory_per_terminal_agent",
        on_agent,
        "kB",
        Target::None,
    )
}

fn figures(
    report: &mut Report,
    name: &str,
    baselines: &[Baseline],
    compared: &mut [Latencies],
    measured: &mut Latencies,
) -> anyhow::Result<()> {
    for (baseline, latencies) in baselines.iter().zip(compared.iter_mut()) {
        report.figure(
            &format!("{name}/{}/p50", baseline.name),
            latencies.p50(),
            "ms",
            Target::None,
        )?;
        report.figure(
            &format!("{name}/{}/p99", baseline.name),
            latencies.p99(),
            "ms",
            Target::None,
        )?;
    }
    let judge = compared.first_mut().context("nothing to compare with")?;
    let (p50, p99) = (judge.p50() * FACTOR, judge.p99() * FACTOR);
    report.figure(
        &format!("{name}/p50"),
        measured.p50(),
        "ms",
        Target::Below(p50),
    )?;
    report.figure(
        &format!("{name}/p99"),
        measured.p99(),
        "ms",
        Target::Below(p99),
    )
}
