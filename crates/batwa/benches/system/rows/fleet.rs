//! A fleet behind tunnels, as `batwa simulate` makes it: the real agent code, with VMs that pretend.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{
    binary,
    http::Connection,
    lab::{Lab, Master},
    process::{Pin, Process},
    report::{Report, Target},
    stats::Latencies,
};

/// Fleets side by side, to show what grows with them.
const SIZES: [u64; 2] = [1_000, 10_000];
const VMS_EACH: u64 = 10;
/// VMs that change a second while lists and events are measured.
const CHANGES: f64 = 50.0;
/// How long that is.
const WATCHED: Duration = Duration::from_secs(20);
/// Agents that one process simulates: with more of them it would need more files than are commonly allowed.
const AGENTS_A_PROCESS: u64 = 5_000;
/// Files that the simulation holds open for an agent.
const FILES_PER_AGENT: u64 = 3;
/// Files that any process holds open besides.
const OTHER_FILES: u64 = 1024;
/// How long it may take until everything is connected.
const PATIENCE: Duration = Duration::from_secs(300);
/// Between two looks at how many are back.
const LOOK: Duration = Duration::from_millis(100);

/// Connecting, what it costs the master, lists, events, and the return after the master is killed.
pub(crate) async fn fleet(report: &mut Report) -> anyhow::Result<()> {
    report.note(&format!(
        "all on this machine, over loopback; at most {AGENTS_A_PROCESS} agents in one process; {}",
        make_room_for_files(SIZES[SIZES.len() - 1])?
    ))?;
    for agents in SIZES {
        if let Err(error) = of_size(report, agents).await {
            report.failed(&format!("fleet/{agents}"), &error)?;
        }
    }
    report.side_by_side("fleet", &SIZES)
}

/// Lets the processes under test open as many files as they need, and says so: the master needs one for each agent, a
/// simulation some for each of its own. Only root may go above what is allowed, and not everywhere.
fn make_room_for_files(agents: u64) -> anyhow::Result<String> {
    let needed = agents.max(AGENTS_A_PROCESS.min(agents) * FILES_PER_AGENT) + OTHER_FILES;
    let before = getrlimit(Resource::Nofile);
    let Some(current) = before.current.filter(|current| *current < needed) else {
        return Ok("the limit of open files suffices".to_owned());
    };
    let limit = Rlimit {
        current: Some(needed),
        maximum: before.maximum.map(|maximum| maximum.max(needed)),
    };
    setrlimit(Resource::Nofile, limit).with_context(|| {
        format!(
            "{agents} agents need {needed} open files; raise the limit with `ulimit -n {needed}`"
        )
    })?;
    Ok(format!(
        "the limit of open files was raised from {current} to {needed}"
    ))
}

async fn of_size(report: &mut Report, agents: u64) -> anyhow::Result<()> {
    let name = |what: &str| format!("fleet/{agents}/{what}");
    let lab = Lab::new()?;
    let mut master = lab.master("master", &[], Pin::Anywhere).await?;
    let before = master.process.memory_mb()?;

    let begun = Instant::now();
    let mut fleet = simulate(&lab, &master, agents, WATCHED).await?;
    let known = master.knows(agents, agents * VMS_EACH, PATIENCE).await;
    fleet.check().and(known)?;
    let took = begun.elapsed().as_secs_f64();
    report.figure(&name("connected_after"), took, "s", Target::None)?;
    report.figure(
        &name("connected_rate"),
        agents as f64 / took,
        "/s",
        Target::None,
    )?;
    report.figure(
        &name("memory_per_agent"),
        (master.process.memory_mb()? - before) * 1e3 / agents as f64,
        "kB",
        Target::None,
    )?;

    for (what, clients) in [("list_alone", 1), ("list_16_at_a_time", 16)] {
        let (mut latencies, bytes) = lists(&master, clients, WATCHED / 4).await?;
        report.figure(
            &name(&format!("{what}/p50")),
            latencies.p50(),
            "ms",
            Target::None,
        )?;
        report.figure(
            &name(&format!("{what}/p99")),
            latencies.p99(),
            "ms",
            Target::Below(10.0),
        )?;
        if clients == 1 {
            report.figure(&name("first_page"), bytes as f64 / 1e3, "kB", Target::None)?;
        }
    }
    let figures = fleet.finish().await?;
    // Of several processes the worst: none of them knows what the others saw.
    let figure = |key: &str| {
        let of_one = |figures: &Value| {
            figures[key]
                .as_f64()
                .with_context(|| format!("no `{key}` in {figures}"))
        };
        figures.iter().map(of_one).try_fold(0.0, |worst: f64, one| {
            Ok::<_, anyhow::Error>(worst.max(one?))
        })
    };
    report.figure(
        &name("event/p50"),
        figure("event_p50_ms")?,
        "ms",
        Target::None,
    )?;
    report.figure(
        &name("event/p99"),
        figure("event_p99_ms")?,
        "ms",
        Target::Below(100.0),
    )?;
    report.figure(
        &name("agent_memory"),
        figure("memory_kb_per_agent")?,
        "kB",
        Target::None,
    )?;
    anyhow::ensure!(
        figure("failures")? == 0.0,
        "simulated agents failed: {figures:?}"
    );

    killed(report, &lab, master, agents).await
}

/// The master is killed and started again: how soon all agents are back, and how many come at once.
async fn killed(
    report: &mut Report,
    lab: &Lab,
    mut master: Master,
    agents: u64,
) -> anyhow::Result<()> {
    let name = |what: &str| format!("fleet/{agents}/{what}");
    let hours = Duration::from_secs(3600);
    // The same agents again, from their folders.
    let mut fleet = simulate(lab, &master, agents, hours).await?;
    let known = master.knows(agents, agents * VMS_EACH, PATIENCE).await;
    fleet.check().and(known)?;
    master.process.kill()?;
    let begun = Instant::now();
    lab.restart(&mut master).await?;
    let mut peak = 0.0_f64;
    let mut seen = vec![(begun, 0)];
    let mut connection = Connection::open(master.address).await?;
    let agent_list = master.request("GET", "/api/v1/agents?limit=1", None);
    loop {
        let list = connection.send(&agent_list).await?.json()?;
        let online = list["counts"]["statuses"]["online"].as_u64().unwrap_or(0);
        let now = Instant::now();
        seen.push((now, online));
        // Over the last second, or what there is of it.
        let since = seen
            .iter()
            .rev()
            .find(|(then, _)| now - *then >= Duration::from_secs(1));
        if let Some((then, count)) = since {
            let rate = online.saturating_sub(*count) as f64 / (now - *then).as_secs_f64();
            peak = peak.max(rate);
        }
        if online >= agents {
            break;
        }
        fleet.check()?;
        anyhow::ensure!(
            begun.elapsed() < PATIENCE,
            "{online} of {agents} agents are back"
        );
        tokio::time::sleep(LOOK).await;
    }
    report.figure(
        &name("back_after_kill"),
        begun.elapsed().as_secs_f64(),
        "s",
        Target::Below(60.0),
    )?;
    report.figure(&name("back_peak_rate"), peak, "/s", Target::None)?;
    let total = async |search: &str| -> anyhow::Result<f64> {
        let path = format!("/api/v1/vms?limit=1&q={search}");
        let list = master.call("GET", &path, None).await?;
        list["counts"]["total"]
            .as_f64()
            .context("a list without its total")
    };
    let lost = (agents * VMS_EACH) as f64 - total("").await?;
    report.figure(&name("vms_lost"), lost, "", Target::Below(1.0))?;
    let marked = total("is:missing").await? + total("state:error,unknown").await?;
    report.figure(&name("vms_marked_failed"), marked, "", Target::Below(1.0))
}

/// Agents in as many processes as they need.
struct Fleet(Vec<Process>);

impl Fleet {
    /// An error when one of them has ended.
    fn check(&mut self) -> anyhow::Result<()> {
        self.0.iter_mut().try_for_each(Process::check)
    }

    /// Waits for their end; the figures that each printed.
    async fn finish(mut self) -> anyhow::Result<Vec<Value>> {
        let mut figures = Vec::new();
        for process in &mut self.0 {
            let said = process.finish(PATIENCE).await?;
            let line = said.lines().last().unwrap_or_default();
            let of_one = serde_json::from_str(line)
                .with_context(|| format!("the simulation prints no figures: {said}"))?;
            figures.push(of_one);
        }
        Ok(figures)
    }
}

/// Starts `batwa simulate` as often as it takes.
async fn simulate(
    lab: &Lab,
    master: &Master,
    agents: u64,
    duration: Duration,
) -> anyhow::Result<Fleet> {
    let wanted = json!({"uses": agents, "expires_in_s": 3600});
    let token = master
        .call("POST", "/api/v1/join-tokens", Some(&wanted))
        .await?;
    let token = token["token"]
        .as_str()
        .context("a join token without its text")?;
    let bearer = master.bearer.trim_start_matches("Bearer ").to_owned();
    let processes = agents.div_ceil(AGENTS_A_PROCESS);
    let start = |n: u64| {
        let args = [
            "simulate",
            "--master",
            &format!("http://{}", master.address),
            "--token",
            token,
            "--agents",
            &(agents / processes).to_string(),
            "--prefix",
            &format!("sim-{n}-"),
            "--vms",
            &VMS_EACH.to_string(),
            "--changes",
            &(CHANGES / processes as f64).to_string(),
            "--duration",
            &format!("{}s", duration.as_secs()),
            "--state-dir",
            &lab.path("fleet").display().to_string(),
        ]
        .map(str::to_owned);
        let env = [("BATWA_TOKEN", bearer.clone())];
        let log = lab.path(&format!("simulate-{n}.log"));
        Process::start(&binary(), &args, &env, &log, Pin::Anywhere)
    };
    Ok(Fleet(
        (1..=processes).map(start).collect::<anyhow::Result<_>>()?,
    ))
}

/// The first page, over and over by so many clients; how long each took, and its bytes.
async fn lists(
    master: &Master,
    clients: usize,
    lasts: Duration,
) -> anyhow::Result<(Latencies, usize)> {
    let request = master.request("GET", "/api/v1/vms?limit=100", None);
    let mut asking = JoinSet::new();
    let until = Instant::now() + lasts;
    for _ in 0..clients {
        let (address, request) = (master.address, request.clone());
        asking.spawn(async move {
            let mut connection = Connection::open(address).await?;
            let (mut latencies, mut bytes) = (Latencies::default(), 0);
            while Instant::now() < until {
                let asked = Instant::now();
                let answer = connection.send(&request).await?;
                latencies.push(asked.elapsed());
                answer.good()?;
                bytes = answer.body.len();
            }
            anyhow::Ok((latencies, bytes))
        });
    }
    let (mut all, mut page) = (Latencies::default(), 0);
    while let Some(done) = asking.join_next().await {
        let (latencies, bytes) = done??;
        all.extend(latencies);
        page = bytes;
    }
    Ok((all, page))
}
