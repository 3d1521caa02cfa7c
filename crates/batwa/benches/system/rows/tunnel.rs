//! One tunnel that everything of a machine shares: people who type, beside output as fast as it comes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::task::JoinSet;

use super::echo;
use crate::{
    lab::{Lab, Master, within},
    process::Pin,
    report::{Report, Target},
    stats::Latencies,
    viewer::Viewer,
};

const AGENT: &str = "far";
const TYPISTS: usize = 50;
/// Terminals that flood, and what all of them bring.
const FLOODS: usize = 4;
const BYTES: u64 = 2_000_000_000;
/// A slow machine brings less of it rather than measuring for ever.
const LONGEST: Duration = Duration::from_secs(240);
/// Keys of each typist without the flood, and between two looks whether the flood is over.
const KEYS: usize = 50;
/// Between two keys: ten a second, as fast as people type.
const PAUSE: Duration = Duration::from_millis(100);
/// From here on people begin to notice.
const NOTICED_MS: f64 = 50.0;

/// Keystrokes of fifty people through one tunnel, first alone in it, then beside the flood.
pub(crate) async fn tunnel(report: &mut Report) -> anyhow::Result<()> {
    let lab = Lab::new()?;
    let mut master = lab.master("master", &[], Pin::Anywhere).await?;
    let _agent = lab.member(&master, AGENT, "vms=3", Pin::Anywhere).await?;
    master.knows(1, 3, Duration::from_secs(30)).await?;
    let vm = master.running_vm(AGENT).await?;

    let over = Arc::new(AtomicBool::new(true));
    let mut quiet = typing(&master, &vm, &over).await?;
    master.end_terminals().await?;

    over.store(false, Ordering::Relaxed);
    let flood = flood(&master, vm.clone(), Arc::clone(&over));
    let typed = typing(&master, &vm, &over).await;
    // Whatever became of the typists, the flood is not left behind.
    over.store(true, Ordering::Relaxed);
    let flooded = tokio::task::spawn_blocking(move || flood.join()).await?;
    let (bytes, took) = flooded.map_err(|_| anyhow::anyhow!("the flood panicked"))??;
    let mut beside = typed?;
    master.end_terminals().await?;

    let mut figure = |name: &str, value: f64, unit: &'static str, target: Target| {
        report.figure(&format!("tunnel/{name}"), value, unit, target)
    };
    figure("50_typists/p50", quiet.p50(), "ms", Target::None)?;
    figure("50_typists/p99", quiet.p99(), "ms", Target::None)?;
    let noticed = Target::Below(NOTICED_MS);
    figure("50_typists_beside_flood/p50", beside.p50(), "ms", noticed)?;
    figure("50_typists_beside_flood/p99", beside.p99(), "ms", noticed)?;
    figure("flood", bytes as f64 / 1e6, "MB", Target::None)?;
    let speed = bytes as f64 / 1e6 / took.as_secs_f64();
    figure("flood_speed", speed, "MB/s", Target::None)
}

/// Fifty type until it is over, at least once through their keys.
async fn typing(master: &Master, vm: &str, over: &Arc<AtomicBool>) -> anyhow::Result<Latencies> {
    let shells = echo::open(TYPISTS, || Viewer::shell(master, AGENT, vm)).await?;
    let mut typists = JoinSet::new();
    for (n, mut shell) in shells.into_iter().enumerate() {
        let over = Arc::clone(over);
        typists.spawn(async move {
            // Nobody types in step with the others.
            tokio::time::sleep(PAUSE.mul_f64(n as f64 / TYPISTS as f64)).await;
            let mut all = Latencies::default();
            loop {
                all.extend(shell.keystrokes(KEYS, PAUSE).await?);
                if over.load(Ordering::Relaxed) {
                    return anyhow::Ok(all);
                }
            }
        });
    }
    let mut all = Latencies::default();
    within(2 * LONGEST, async {
        while let Some(done) = typists.join_next().await {
            all.extend(done??);
        }
        Ok(())
    })
    .await?;
    Ok(all)
}

type Flood = std::thread::JoinHandle<anyhow::Result<(u64, Duration)>>;

/// Reads what several terminals print until all of it has come, on a thread of its own: what is measured here is the
/// tunnel, not how this program shares a thread. How much came, and how long that took.
fn flood(master: &Master, vm: String, over: Arc<AtomicBool>) -> Flood {
    let door = master.door();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let flooded = runtime.block_on(async {
            let begun = Instant::now();
            let each = BYTES / FLOODS as u64;
            let mut floods = JoinSet::new();
            for _ in 0..FLOODS {
                let mut shell = Viewer::shell_at(&door, AGENT, &vm).await?;
                let over = Arc::clone(&over);
                floods.spawn(async move {
                    shell
                        .type_in(b"yes 0123456789abcdef0123456789abcdef\n")
                        .await?;
                    let mut bytes = 0;
                    while bytes < each && begun.elapsed() < LONGEST && !over.load(Ordering::Relaxed)
                    {
                        bytes += shell.output().await?.len() as u64;
                    }
                    anyhow::Ok(bytes)
                });
            }
            let mut bytes = 0;
            while let Some(done) = floods.join_next().await {
                bytes += done?.context("a terminal of the flood")?;
            }
            Ok((bytes, begun.elapsed()))
        });
        over.store(true, Ordering::Relaxed);
        flooded
    })
}
