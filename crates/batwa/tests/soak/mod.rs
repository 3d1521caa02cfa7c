//! Many terminals under all that networks and people do to them, and the proof that each viewer saw what its shell
//! wrote, and that nothing is left when they are gone.
//!
//! Shared by the bench's row `soak`, which does it for minutes, and a system test, which does it for seconds. Each shell
//! counts: the bytes of `1\n2\n3\n…` are known by their offset alone, so every byte that arrives is checked where it
//! arrives, whatever was lost before it; and what was lost without a word shows as a wrong byte. At the end each shell
//! says up to where it counted and the checksum of that by its own reckoning.

mod cable;
pub(crate) mod count;
mod dice;
mod footprint;
mod viewer;

use std::{
    fmt::{self, Display},
    future::Future,
    net::SocketAddr,
    time::Duration,
};

use anyhow::Context as _;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

pub(crate) use self::{cable::Cable, footprint::Footprint};
use self::{
    dice::Dice,
    viewer::{Role, Viewer},
};

/// Terminals that are opened or ended at a time.
const AT_ONCE: usize = 16;
/// What an end may take after which everything should be gone.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of memory that a process may keep of what it once needed: allocators give back late.
const KEPT: u64 = 32 << 20;

/// How to call the master.
pub(crate) trait Door {
    /// Where it listens.
    fn address(&self) -> SocketAddr;
    /// The header `Authorization`.
    fn bearer(&self) -> String;
    /// The answer's body; an error where it is none of success.
    fn call(
        &self,
        method: &str,
        path: &str,
        body: &Value,
    ) -> impl Future<Output = anyhow::Result<Value>>;
}

/// What is done.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Terminals that are open at once.
    pub(crate) sessions: usize,
    /// For how long.
    pub(crate) duration: Duration,
    /// A shell's pause between two of its prints.
    pub(crate) pause: Duration,
    /// Longest time between two things that happen to a viewer.
    pub(crate) calm: Duration,
    /// Between two cuts of the machine's line.
    pub(crate) cut_every: Duration,
    /// What chance begins with.
    pub(crate) seed: u64,
    /// The machine, and its VMs, which all run.
    pub(crate) agent: String,
    /// One of them for each terminal in turn.
    pub(crate) vms: Vec<String>,
}

/// What happened.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    /// Viewers that saw their shell to its end.
    pub(crate) viewers: u64,
    /// Those of them that saw all of it, and reckoned the same checksum as the shell.
    pub(crate) whole: u64,
    /// Bytes that arrived and were right.
    pub(crate) bytes: u64,
    /// Attempts to attach.
    pub(crate) attaches: u64,
    /// Connections that a viewer broke off.
    pub(crate) cuts: u64,
    /// Connections that broke, or were closed, under a viewer.
    pub(crate) broken: u64,
    /// Viewers that began anew, as a page that is reloaded.
    pub(crate) reloads: u64,
    /// New sizes of windows.
    pub(crate) resizes: u64,
    /// Bytes of floods that were no longer held, as was said each time.
    pub(crate) missed: u64,
    /// Cuts of the machine's line.
    pub(crate) lines: u64,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.viewers += other.viewers;
        self.whole += other.whole;
        self.bytes += other.bytes;
        self.attaches += other.attaches;
        self.cuts += other.cuts;
        self.broken += other.broken;
        self.reloads += other.reloads;
        self.resizes += other.resizes;
        self.missed += other.missed;
        self.lines += other.lines;
    }
}

impl Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            viewers,
            whole,
            attaches,
            cuts,
            broken,
            reloads,
            resizes,
            lines,
            ..
        } = self;
        let (seen, missed) = (self.bytes as f64 / 1e6, self.missed as f64 / 1e6);
        write!(
            f,
            "{viewers} viewers saw {seen:.1} MB, {whole} of them all with the shell's own checksum, in {attaches} attaches; \
             {cuts} cuts of theirs, {lines} of the machine's line, {broken} connections broken, {reloads} reloads, \
             {resizes} sizes; {missed:.1} MB of floods were said to be gone"
        )
    }
}

/// Before and after, and what was in between.
#[derive(Debug)]
pub(crate) struct Proof {
    /// After a short run of the same kind, so that what is only made once is made.
    pub(crate) before: Vec<Footprint>,
    /// When all of it is over.
    pub(crate) after: Vec<Footprint>,
    /// What happened.
    pub(crate) tally: Tally,
}

/// Does it, and checks everything; `processes` are the ids of those whose footprint is taken, with what they started.
///
/// # Errors
/// The first thing that was wrong.
pub(crate) async fn prove(
    plan: &Plan,
    door: &impl Door,
    cable: &Cable,
    processes: &[u32],
) -> anyhow::Result<Proof> {
    let warm = Plan {
        duration: (plan.duration / 10).clamp(Duration::from_secs(2), Duration::from_secs(20)),
        ..plan.clone()
    };
    round(&warm, door, cable, "stop-1")
        .await
        .context("in the first, short run")?;
    let before = quiet(processes).await?;
    let tally = round(plan, door, cable, "stop-2").await?;
    let after = gone(processes, &before).await?;
    Ok(Proof {
        before,
        after,
        tally,
    })
}

/// Opens all terminals, lets everything happen to them, and ends them; the file that stops the shells has this name.
async fn round(
    plan: &Plan,
    door: &impl Door,
    cable: &Cable,
    stop_file: &str,
) -> anyhow::Result<Tally> {
    let ids: Vec<String> = stream::iter(0..plan.sessions)
        .map(|n| open(door, plan, n))
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    let (stop, stopping) = watch::channel(false);
    let mut dice = Dice::new(plan.seed);
    let mut viewers = JoinSet::new();
    let mut beginnings = Vec::new();
    for (n, id) in ids.iter().enumerate() {
        let (begins, beginning) = watch::channel(None);
        beginnings.push(beginning.clone());
        let role = Role::Owner {
            script: script(plan, n, stop_file),
            begins,
        };
        let mut add = |role| {
            let viewer = Viewer::new(
                door.address(),
                door.bearer(),
                id.clone(),
                is_flood(n),
                plan.calm,
                dice.split(),
                stopping.clone(),
            );
            viewers.spawn(viewer.watch(role));
        };
        add(role);
        if n % 4 == 0 {
            add(Role::Guest { beginning });
        }
    }
    for mut beginning in beginnings {
        // What is typed while the line is cut would be lost.
        let begun = timeout(PATIENCE, beginning.wait_for(Option::is_some));
        if !matches!(begun.await, Ok(Ok(_))) {
            break;
        }
    }
    let mut tally = Tally {
        lines: trouble(plan, cable, &mut dice, &mut viewers).await?,
        ..Tally::default()
    };
    for vm in &plan.vms {
        let path = format!(
            "/api/v1/agents/{}/vms/{vm}/files?path={stop_file}",
            plan.agent
        );
        // The line may have been cut a moment ago.
        let asked = Instant::now();
        while let Err(error) = door.call("PUT", &path, &json!("stop")).await {
            anyhow::ensure!(
                asked.elapsed() < PATIENCE,
                "cannot stop the shells: {error:#}"
            );
            sleep(Duration::from_millis(200)).await;
        }
    }
    stop.send_replace(true);
    timeout(PATIENCE * 2, async {
        while let Some(ended) = viewers.join_next().await {
            tally.add(&ended.context("a viewer panicked")??);
        }
        anyhow::Ok(())
    })
    .await
    .context("some viewers do not see the end of their shell")??;
    stream::iter(&ids)
        .map(|id| async move {
            let path = format!("/api/v1/terminals/{id}");
            // One whose shell has ended may be gone already.
            door.call("DELETE", &path, &Value::Null).await.ok();
        })
        .buffer_unordered(AT_ONCE)
        .collect::<()>()
        .await;
    anyhow::ensure!(tally.bytes > 0, "nothing arrived");
    Ok(tally)
}

/// Lets time pass, and cuts the machine's line now and then; how often. An error as soon as a viewer has one.
async fn trouble(
    plan: &Plan,
    cable: &Cable,
    dice: &mut Dice,
    viewers: &mut JoinSet<anyhow::Result<Tally>>,
) -> anyhow::Result<u64> {
    let until = Instant::now() + plan.duration;
    let mut lines = 0;
    let mut next = Instant::now() + plan.cut_every / 2;
    loop {
        tokio::select! {
            ended = viewers.join_next() => match ended {
                Some(ended) => {
                    ended.context("a viewer panicked")??;
                    anyhow::bail!("a shell ended before it was told to");
                }
                None => anyhow::bail!("nobody watches"),
            },
            () = tokio::time::sleep_until(next.min(until)) => {
                if Instant::now() >= until {
                    return Ok(lines);
                }
                cable.cut(dice.time(Duration::from_millis(400))).await;
                lines += 1;
                next = Instant::now() + plan.cut_every / 2 + dice.time(plan.cut_every);
            }
        }
    }
}

/// Every tenth shell prints more at a time than a session holds.
fn is_flood(n: usize) -> bool {
    n % 10 == 3
}

async fn open(door: &impl Door, plan: &Plan, n: usize) -> anyhow::Result<String> {
    let vm = &plan.vms[n % plan.vms.len()];
    let body = json!({"agent_id": plan.agent, "vm": vm, "cols": 80, "rows": 24});
    let asked = Instant::now();
    loop {
        match door.call("POST", "/api/v1/terminals", &body).await {
            Ok(made) => {
                let id = made["id"].as_str().context("a terminal without an id")?;
                return Ok(id.to_owned());
            }
            // The room of a round before is given back a moment later.
            Err(error) => anyhow::ensure!(
                asked.elapsed() < PATIENCE,
                "cannot open terminal {n}: {error:#}"
            ),
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// What a shell is told: it counts until there is this file, then says how far it came.
fn script(plan: &Plan, n: usize, stop_file: &str) -> String {
    let (numbers, pauses) = if is_flood(n) { (220_000, 5) } else { (40, 1) };
    let pause = (plan.pause * pauses).as_secs_f64();
    // Raw, so that what is printed is what arrives. The marks are written so that their echo is not taken for them.
    format!(
        "stty raw -echo; printf 'BE''GIN\\n'; n=0; \
         while [ ! -e {stop_file} ]; do seq $((n+1)) $((n+{numbers})); n=$((n+{numbers})); sleep {pause}; done; \
         printf 'EN''D %d %s\\n' $n $(seq 1 $n | sha256sum | cut -c1-64)\n"
    )
}

/// The footprints once two looks in a row find the same number of processes and open files.
async fn quiet(processes: &[u32]) -> anyhow::Result<Vec<Footprint>> {
    let asked = Instant::now();
    let mut before = Footprint::of_all(processes)?;
    loop {
        sleep(Duration::from_secs(1)).await;
        let now = Footprint::of_all(processes)?;
        let rests = before.iter().zip(&now).all(|(a, b)| a.has_as_many_as(b));
        if rests || asked.elapsed() > PATIENCE {
            return Ok(now);
        }
        before = now;
    }
}

/// The footprints once they are as before; an error where they do not become so.
async fn gone(processes: &[u32], before: &[Footprint]) -> anyhow::Result<Vec<Footprint>> {
    let asked = Instant::now();
    loop {
        let now = Footprint::of_all(processes)?;
        let leak = before
            .iter()
            .zip(&now)
            .find_map(|(before, now)| now.leak_since(before, KEPT));
        match leak {
            None => return Ok(now),
            Some(leak) => anyhow::ensure!(asked.elapsed() < PATIENCE, "{leak}"),
        }
        sleep(Duration::from_millis(200)).await;
    }
}
