//! How soon a change reaches those who watch.

use std::time::Duration;

use anyhow::Context as _;
use batwa_api::Timestamp;
use serde_json::{Value, json};

use crate::{
    http::Connection,
    lab::{Agent, Lab, within},
    process::Pin,
    report::{Report, Target},
    stats::Latencies,
};

const ROUNDS: usize = 60;

/// From the moment the agent saw a VM in a new state to the event's arrival. All clocks are this machine's.
pub(crate) async fn events(report: &mut Report) -> anyhow::Result<()> {
    let lab = Lab::new()?;
    let mut master = lab.master("master", &[], Pin::Anywhere).await?;
    let agent = lab.agent(&master, "far", "vms=20,latency=5ms", Pin::Anywhere)?;
    master.knows(1, 20, Duration::from_secs(30)).await?;
    let vm = master.running_vm(&agent.id).await?;

    let mut stream = Connection::open(master.address).await?;
    stream
        .stream(&master.request("GET", "/api/v1/events", None))
        .await?;
    let watching = within(Duration::from_secs(60), watch(&mut stream, &vm));
    let changing = within(Duration::from_secs(60), change(&agent, &vm));
    let (mut latencies, ()) = tokio::try_join!(watching, changing)?;
    report.note(&format!("{} changes of state", latencies.len()))?;
    report.figure("events/p50", latencies.p50(), "ms", Target::Below(100.0))?;
    report.figure("events/p99", latencies.p99(), "ms", Target::Below(100.0))
}

/// Stops and starts a VM at its agent, behind the master's back.
async fn change(agent: &Agent, vm: &str) -> anyhow::Result<()> {
    let mut connection = Connection::open(agent.address).await?;
    for _ in 0..ROUNDS {
        for path in ["/api/vm/stop", "/api/vm/start"] {
            agent
                .call(&mut connection, "POST", path, Some(&json!({"name": vm})))
                .await?
                .good()?;
        }
    }
    Ok(())
}

async fn watch(stream: &mut Connection, vm: &str) -> anyhow::Result<Latencies> {
    let mut latencies = Latencies::default();
    let mut last = None;
    let mut running = 0;
    while running < ROUNDS {
        let line = stream.line().await?;
        let Some(data) = line.strip_prefix("data:") else {
            continue;
        };
        let arrived = Timestamp::now();
        let event: Value = serde_json::from_str(data).context("an event that is no JSON")?;
        if event["type"] != "vm" || event["vm"]["name"] != vm {
            continue;
        }
        let since = event["vm"]["state_since"].clone();
        if last.as_ref() == Some(&since) {
            continue;
        }
        let seen: Timestamp = since.as_str().context("no state_since")?.parse()?;
        // The first event may tell of a state that is older than the stream.
        if last.replace(since).is_some() {
            latencies.push(arrived.duration_since(seen).unsigned_abs());
        }
        if event["vm"]["state"] == "running" {
            running += 1;
        }
    }
    Ok(latencies)
}
