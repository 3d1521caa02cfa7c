//! `simulate`: many agents in one process, to see how a master bears them.
//!
//! Each is the agent that `batwa agent` runs, in a folder of its own, with the fake driver, joined by a token and
//! reached through its own tunnel; only the machine's facts are measured once for all. Agents are started some at
//! a time, VMs then change, tunnels are cut and dialled again as asked, and one line of figures ends it.

mod agent;
mod events;
mod figures;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use batwa_agent::tunnel::{Dialer, MasterUrl};
use batwa_api::tunnel::JoinToken;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep_until},
};
use tokio_util::sync::CancellationToken;

use self::{
    agent::{Plan, SimulatedAgent},
    events::Delays,
    figures::{Counters, Figures},
};
use crate::{
    cli::SimulateArgs,
    config,
    failure::{Exit, Failure},
    output::{self, say},
    settings::Environment,
};

/// Agents that join at a time: enough to keep a master busy, few enough that none waits long.
const JOINING: usize = 64;
/// Files that one agent holds open: its tunnel, its folder's lock, and one to spare while it writes.
const FILES_PER_AGENT: u64 = 3;
/// Files that the process holds open besides.
const OTHER_FILES: u64 = 256;
/// Time between two lines about how far it is.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// `batwa simulate`
pub(crate) async fn run(args: SimulateArgs) -> Result<(), Failure> {
    let wrong = |what: &str, reason: &dyn std::fmt::Display| {
        Failure::usage(format!("cannot use the {what}: {reason}"))
    };
    let master: MasterUrl = args
        .master
        .parse()
        .map_err(|error| wrong("master's address", &error))?;
    let token: JoinToken = args
        .token
        .parse()
        .map_err(|error| wrong("join token", &error))?;
    make_room_for_files(args.agents)?;
    let temporary;
    let folder = match &args.state_dir {
        Some(folder) => folder.clone(),
        None => {
            temporary = tempfile::Builder::new()
                .prefix("batwa-simulate-")
                .tempdir()
                .map_err(|error| wrong("folder for temporary files", &error))?;
            temporary.path().to_owned()
        }
    };
    let plan = Arc::new(Plan {
        dialer: Arc::new(Dialer::new(config::proxies(&Environment::of_process()))),
        facts: batwa_agent::host::measure(&folder),
        master,
        token,
        vms: args.vms,
        latency: args.latency,
        counters: Counters::default(),
        delays: Delays::default(),
    });
    let stop = CancellationToken::new();
    let figures = tokio::select! {
        figures = simulate(&args, folder, &plan, &stop) => figures,
        _ = tokio::signal::ctrl_c() => Err(Failure::new(Exit::Failed, "interrupted")),
    };
    stop.cancel();
    let line = serde_json::to_string(&figures?).expect("figures are plain data");
    output::print(&format!("{line}\n"))
}

/// Starts everything, lets it live for the time asked, and measures.
async fn simulate(
    args: &SimulateArgs,
    folder: PathBuf,
    plan: &Arc<Plan>,
    stop: &CancellationToken,
) -> Result<Figures, Failure> {
    let mut living = JoinSet::new();
    if let Some(api_token) = &args.api_token {
        let changes = events::follow(&args.master, api_token).await?;
        let plan = Arc::clone(plan);
        living.spawn(async move { events::note(changes, &plan.delays).await });
    }
    let begun = Instant::now();
    let agents = connect(args, folder, plan, stop, &mut living).await?;
    let connected_after = begun.elapsed();
    say(&format!(
        "{} agents with {} VMs each are connected after {:.1} s",
        args.agents,
        args.vms,
        connected_after.as_secs_f64()
    ));

    let cpu_before = figures::cpu_time();
    let until = tokio::time::Instant::now() + args.duration;
    let began = Instant::now();
    tokio::select! {
        () = sleep_until(until) => {}
        () = change_vms(args.changes, &agents) => {}
        () = cut_tunnels(args.churn, &agents) => {}
    }
    Ok(Figures::taken(
        args,
        plan,
        connected_after,
        began.elapsed(),
        figures::cpu_time() - cpu_before,
    ))
}

/// Lets all agents join and dial in; fails with the first that is refused.
async fn connect(
    args: &SimulateArgs,
    folder: PathBuf,
    plan: &Arc<Plan>,
    stop: &CancellationToken,
    living: &mut JoinSet<()>,
) -> Result<Vec<Arc<SimulatedAgent>>, Failure> {
    let digits = args.agents.to_string().len();
    let joining = stream::iter(1..=args.agents)
        .map(|n| {
            let id = format!("{}{n:0digits$}", args.prefix);
            SimulatedAgent::join(Arc::clone(plan), id, &folder)
        })
        .buffer_unordered(JOINING);
    let mut joining = std::pin::pin!(joining);
    let mut agents = Vec::with_capacity(args.agents);
    let mut told = Instant::now();
    while let Some(agent) = joining.try_next().await? {
        let agent = Arc::new(agent);
        living.spawn(Arc::clone(&agent).live(stop.child_token()));
        agents.push(agent);
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            say(&format!(
                "{} of {} agents have joined",
                agents.len(),
                args.agents
            ));
        }
    }
    plan.counters.wait_for_open(args.agents).await;
    Ok(agents)
}

/// Changes VMs behind the agents' backs, so many a second, for ever.
async fn change_vms(per_second: f64, agents: &[Arc<SimulatedAgent>]) {
    for_ever(per_second, agents, |agent| async move {
        let changing = tokio::task::spawn_blocking(move || agent.change_a_vm());
        // It only ends early when it panics, which the runtime has said.
        let _ = changing.await;
    })
    .await;
}

/// Cuts tunnels and lets the agents start anew, so many a minute, for ever.
async fn cut_tunnels(per_minute: f64, agents: &[Arc<SimulatedAgent>]) {
    for_ever(per_minute / 60.0, agents, |agent| async move {
        agent.start_anew();
    })
    .await;
}

/// Does something to one agent after the other, in an order that visits all before any again.
async fn for_ever<F: Future<Output = ()>>(
    per_second: f64,
    agents: &[Arc<SimulatedAgent>],
    mut act: impl FnMut(Arc<SimulatedAgent>) -> F,
) {
    if per_second <= 0.0 || agents.is_empty() {
        return std::future::pending().await;
    }
    let mut ticks = interval(Duration::from_secs_f64(1.0 / per_second));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let step = stride(agents.len());
    let mut at = 0;
    loop {
        ticks.tick().await;
        act(Arc::clone(&agents[at])).await;
        at = (at + step) % agents.len();
    }
}

/// A step through `len` places that comes to all of them and does not look like a row.
fn stride(len: usize) -> usize {
    const fn divisor(a: usize, b: usize) -> usize {
        if b == 0 { a } else { divisor(b, a % b) }
    }
    // About the golden section, where neighbours are far apart.
    let near = len * 618 / 1000;
    (near.max(1)..=len)
        .find(|step| divisor(*step, len) == 1)
        .unwrap_or(1)
}

/// Lets this process open as many files as its agents need.
fn make_room_for_files(agents: usize) -> Result<(), Failure> {
    let needed = u64::try_from(agents)
        .unwrap_or(u64::MAX)
        .saturating_mul(FILES_PER_AGENT)
        + OTHER_FILES;
    let now = getrlimit(Resource::Nofile);
    if now.current.is_none_or(|now| now >= needed) {
        return Ok(());
    }
    let wanted = Rlimit {
        current: Some(needed),
        // Only root may go above what there is.
        maximum: now.maximum.map(|maximum| maximum.max(needed)),
    };
    setrlimit(Resource::Nofile, wanted).map_err(|error| {
        Failure::usage(format!(
            "cannot open {needed} files, which {agents} agents need: {error}"
        ))
        .hint(format!("raise the limit with `ulimit -n {needed}`, or simulate fewer in each of several processes"))
    })?;
    say(&format!("raised the limit of open files to {needed}"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_agent_has_its_turn() {
        for len in 1..200 {
            let step = stride(len);
            let mut seen: Vec<_> = (0..len).map(|n| n * step % len).collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..len).collect::<Vec<_>>(), "{len} by {step}");
        }
    }
}
