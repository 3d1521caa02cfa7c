//! Two hundred terminals under everything that networks and people do to them, for minutes.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context as _;
use serde_json::Value;

use crate::{
    lab::{Door, Lab, eventually},
    process::Pin,
    report::{Report, Target},
    soak::{self, Cable, Plan},
};

/// How long it goes on: a number and `s`, `m` or `h`.
const DURATION: &str = "BATWA_BENCH_SOAK";
const USUAL: Duration = Duration::from_secs(600);
const SESSIONS: usize = 200;
const AGENT: &str = "far";

impl soak::Door for Door {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn bearer(&self) -> String {
        self.bearer.clone()
    }

    async fn call(&self, method: &str, path: &str, body: &Value) -> anyhow::Result<Value> {
        Self::call(self, method, path, Some(body)).await
    }
}

/// Cuts, reloads, sizes and floods, with every byte checked; then whether anything is left.
pub(crate) async fn soak(report: &mut Report) -> anyhow::Result<()> {
    let duration = match std::env::var(DURATION) {
        Ok(text) => parse(&text)
            .with_context(|| format!("{DURATION}={text} is no duration: write 90s, 10m or 1h"))?,
        Err(_) => USUAL,
    };
    let lab = Lab::new()?;
    let mut master = lab.master("master", &[], Pin::Anywhere).await?;
    let cable = Cable::to(master.address).await?;
    let agent = lab
        .member_through(&master, cable.address, AGENT, "vms=12", Pin::Anywhere)
        .await?;
    master.knows(1, 12, Duration::from_secs(30)).await?;
    let running = format!("/api/v1/vms?agent={AGENT}&state=running&limit=100");
    let vms: Vec<String> = eventually(Duration::from_secs(20), async || {
        let list = master.call("GET", &running, None).await?;
        let names = list["items"].as_array().into_iter().flatten();
        let names: Vec<_> = names
            .filter_map(|vm| vm["name"].as_str().map(str::to_owned))
            .collect();
        anyhow::ensure!(!names.is_empty(), "no VM runs there");
        Ok(names)
    })
    .await?;

    let plan = Plan {
        sessions: SESSIONS,
        duration,
        pause: Duration::from_secs(2),
        calm: Duration::from_secs(8),
        cut_every: Duration::from_secs(20),
        seed: 1,
        agent: AGENT.to_owned(),
        vms,
    };
    report.note(&format!(
        "{SESSIONS} terminals for {} s",
        duration.as_secs()
    ))?;
    let processes = [master.process.id(), agent.id()];
    let proof = soak::prove(&plan, &master.door(), &cable, &processes).await?;
    report.note(&proof.tally.to_string())?;
    for (name, (before, after)) in ["master", "agent"]
        .iter()
        .zip(proof.before.iter().zip(&proof.after))
    {
        report.note(&format!("{name}: {before} before, {after} after"))?;
        let memory = |bytes: u64| bytes as f64 / 1e6;
        for (what, before, after, unit) in [
            (
                "processes",
                before.children as f64,
                after.children as f64,
                "",
            ),
            ("files", before.files as f64, after.files as f64, ""),
            ("memory", memory(before.memory), memory(after.memory), "MB"),
        ] {
            report.figure(
                &format!("soak/{name}/{what}_before"),
                before,
                unit,
                Target::None,
            )?;
            report.figure(
                &format!("soak/{name}/{what}_after"),
                after,
                unit,
                Target::None,
            )?;
        }
    }
    let tally = proof.tally;
    report.figure("soak/viewers", tally.viewers as f64, "", Target::None)?;
    report.figure("soak/checked", tally.bytes as f64 / 1e6, "MB", Target::None)
}

fn parse(text: &str) -> Option<Duration> {
    let unit = text.chars().last()?;
    let number: u64 = text[..text.len() - unit.len_utf8()].parse().ok()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        _ => return None,
    };
    Some(Duration::from_secs(number.checked_mul(seconds)?))
}
