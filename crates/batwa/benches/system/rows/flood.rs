//! Output as fast as it comes.

use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::{
    baseline::{Baseline, kernel_speed},
    lab::{Lab, within},
    process::Pin,
    report::{Report, Target},
    viewer::Viewer,
};

/// The last number counted to: 200 MB of digits and line ends.
const LAST: u32 = 23_456_789;
/// Times each is measured; the best counts, as everything else on the machine only takes away.
const ROUNDS: usize = 3;
/// ttyd's share of a bare terminal's speed where both were measured (80 of 210 MB/s). Where it is not installed,
/// its figure is reckoned so.
const TTYD_OF_BARE: f64 = 80.0 / 210.0;

/// What the targets allow of ttyd's speed: local, and through an agent.
const FACTORS: (f64, f64) = (1.5, 1.2);
/// And of the kernel's own: where it gives less than that much more than ttyd makes of it, no server reaches the
/// first.
const OF_KERNEL: f64 = 0.85;

/// Shells and what serves them on one CPU, the master and its reader on the other.
const SHELLS: Pin = Pin::Cpu(0);
const MASTER: Pin = Pin::Cpu(1);

/// MB/s with every byte compared, local and through an agent; then memory while nobody reads.
pub(crate) async fn flood(report: &mut Report) -> anyhow::Result<()> {
    let expected = counted();
    let lab = Lab::new()?;
    let mut up = lab
        .master("up", &["--driver", "fake", "--fake", "vms=3"], SHELLS)
        .await?;
    up.knows(1, 3, Duration::from_secs(30)).await?;
    let up_vm = up.running_vm("local").await?;

    let far_lab = Lab::new()?;
    let mut master = far_lab.master("master", &[], MASTER).await?;
    let agent = far_lab.agent(&master, "far", "vms=3", SHELLS)?;
    master.knows(1, 3, Duration::from_secs(30)).await?;
    let baselines = Baseline::all(&lab, SHELLS).await?;

    let mut compared = vec![0.0_f64; baselines.len()];
    let (mut kernel, mut local, mut far) = (0.0_f64, 0.0_f64, 0.0_f64);
    for _ in 0..ROUNDS {
        let speed = kernel_speed(&lab, &count(), SHELLS).await;
        kernel = kernel.max(speed.context("a bare terminal")?);
        for (baseline, best) in baselines.iter().zip(&mut compared) {
            let speed = one_flood(baseline.shell().await?, &expected).await;
            *best = best.max(speed.context(baseline.name)?);
        }
        let shell = Viewer::shell(&up, "local", &up_vm).await?;
        local = local.max(one_flood(shell, &expected).await.context("local")?);
        let shell = Viewer::shell_on(&master, &agent).await?;
        far = far.max(
            one_flood(shell, &expected)
                .await
                .context("through an agent")?,
        );
    }
    for (baseline, speed) in baselines.iter().zip(&compared) {
        report.figure(
            &format!("flood/{}", baseline.name),
            *speed,
            "MB/s",
            Target::None,
        )?;
    }
    let ttyd = match (baselines.first(), compared.first()) {
        (Some(first), Some(speed)) if first.name == "ttyd" => *speed,
        (_, Some(bare)) => {
            report.note("ttyd is not installed: reckoned as 80/210 of the bare server, as measured elsewhere")?;
            bare * TTYD_OF_BARE
        }
        _ => anyhow::bail!("nothing to compare with"),
    };
    report.figure("flood/kernel", kernel, "MB/s", Target::None)?;
    let target = |factor: f64| Target::AtLeast((factor * ttyd).min(OF_KERNEL * kernel));
    report.figure("flood/local", local, "MB/s", target(FACTORS.0))?;
    report.figure("flood/through_agent", far, "MB/s", target(FACTORS.1))?;

    // A reader that stops reading: what it does not take must not pile up anywhere.
    let master_before = master.process.memory_mb()?;
    let agent_before = agent.process.memory_mb()?;
    let mut shell = Viewer::shell_on(&master, &agent).await?;
    shell.type_in(b"yes 0123456789abcdef\n").await?;
    let mut taken = 0;
    while taken < 10_000_000 {
        taken += shell.output().await?.len();
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    let grown = |now: f64, before: f64| (now - before).max(0.0);
    report.figure(
        "flood/stalled_reader_master_growth",
        grown(master.process.memory_mb()?, master_before),
        "MB",
        Target::Below(4.0),
    )?;
    report.figure(
        "flood/stalled_reader_agent_growth",
        grown(agent.process.memory_mb()?, agent_before),
        "MB",
        Target::Below(4.0),
    )
}

/// What prints [`counted`].
fn count() -> String {
    format!("seq 1 {LAST}")
}

/// `1\n2\n…` up to [`LAST`].
fn counted() -> Vec<u8> {
    use std::io::Write as _;
    let mut text = Vec::with_capacity(201_000_000);
    for n in 1..=LAST {
        // Writing to memory does not fail.
        let _ = writeln!(text, "{n}");
    }
    text
}

/// Lets the shell count and compares every byte; MB/s from the first to the last.
async fn one_flood(mut shell: Viewer, expected: &[u8]) -> anyhow::Result<f64> {
    const BEGIN: &[u8] = b"BEGIN\n";
    // Raw, so that what is printed is what arrives. The mark is written so that its echo is not taken for it.
    let command = format!(
        "stty raw -echo; sleep 0.2; printf 'BE''GIN\\n'; {}\n",
        count()
    );
    shell.type_in(command.as_bytes()).await?;
    let mut head = Vec::new();
    let rest = within(Duration::from_secs(20), async {
        loop {
            head.extend_from_slice(&shell.output().await?);
            if let Some(at) = head.windows(BEGIN.len()).position(|bytes| bytes == BEGIN) {
                return Ok(at + BEGIN.len());
            }
        }
    })
    .await
    .context("the shell does not begin")?;

    let begun = Instant::now();
    let mut at = 0;
    let mut check = |bytes: &[u8]| {
        let end = (at + bytes.len()).min(expected.len());
        anyhow::ensure!(
            bytes.starts_with(&expected[at..end]),
            "a byte between {at} and {end} is wrong"
        );
        at = end;
        Ok(at == expected.len())
    };
    let mut done = check(&head[rest..])?;
    within(Duration::from_secs(120), async {
        while !done {
            done = check(&shell.output().await?)?;
        }
        Ok(())
    })
    .await?;
    Ok(expected.len() as f64 / 1e6 / begun.elapsed().as_secs_f64())
}
