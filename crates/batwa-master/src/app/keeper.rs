//! Keeps store and fleet in step: loads at start, writes down what changed, settles what a restart left open.
//!
//! The only task that writes VMs, sightings and the progress of operations; use cases write what they decide
//! themselves, before they do it.

use std::time::Duration;

use batwa_api::{Timestamp, id::AgentId, operation::Operation, vm::AgentReason};
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at};
use tokio_util::sync::CancellationToken;

use super::{App, Error};
use crate::{
    fleet::record::AgentRecord,
    store::{StoreError, agents::Sighting},
};

/// How long changes gather before they are written: a busy fleet costs one transaction for all of them.
const GATHER: Duration = Duration::from_millis(200);
/// Most rows of one transaction. Everybody else who writes waits for its end: thousands of agents that come back, or a
/// machine with thousands of VMs, must not hold up a sign-in.
const AT_ONCE: usize = 500;
/// Pause between two such transactions: SQLite gives its lock to whoever looks at the right moment, and those who wait
/// look every few milliseconds.
const BREATH: Duration = Duration::from_millis(20);
/// Between two batches of sightings; a heartbeat itself writes nothing.
const SIGHTINGS_INTERVAL: Duration = Duration::from_secs(60);
/// Between two rounds of tidying up.
const TIDY_INTERVAL: Duration = Duration::from_secs(600);
/// How long it is kept who opened a terminal session that no agent told of: its agent may be away for a while.
const OPENERS_KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// How often it is looked at what waits for machines that are offline.
const KEPT_INTERVAL: Duration = Duration::from_secs(5);

/// Runs until `stop`, then writes down what is left.
pub(crate) async fn run(app: App, stop: CancellationToken) {
    while let Err(error) = load(&app).await {
        tracing::error!("cannot load the fleet from the store: {error}");
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
    let mut sightings = interval(SIGHTINGS_INTERVAL);
    sightings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut kept = interval(KEPT_INTERVAL);
    kept.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut tidy = interval_at(Instant::now() + TIDY_INTERVAL, TIDY_INTERVAL);
    loop {
        let saved = tokio::select! {
            () = stop.cancelled() => break,
            () = app.fleet().unsaved() => {
                tokio::time::sleep(GATHER).await;
                save(&app).await
            }
            arrived = app.fleet().arrivals() => {
                for agent in arrived {
                    app.settle_operations(&agent);
                }
                Ok(())
            }
            _ = sightings.tick() => save_sightings(&app).await,
            _ = kept.tick() => match app.give_up_in_vain().await {
                Err(Error::Store(error)) => Err(error),
                Err(error) => {
                    tracing::warn!("cannot give up what waits for a machine: {error}");
                    Ok(())
                }
                Ok(()) => Ok(()),
            },
            _ = tidy.tick() => tidy_up(&app).await,
        };
        if let Err(error) = saved {
            tracing::error!("cannot write to the store: {error}; trying again");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
    app.fleet().finish().await;
    for saved in [save(&app).await, save_sightings(&app).await] {
        if let Err(error) = saved {
            tracing::error!("cannot write to the store at the end: {error}");
        }
    }
}

/// Brings what the store knows into the fleet, and reaches for every agent.
async fn load(app: &App) -> Result<(), StoreError> {
    let fleet = app.fleet();
    let agents = app.store().agents().await?;
    let vms = app.store().vms().await?;
    let waiting = app.store().registrations().await?;
    let operations = app.store().unfinished_operations().await?;
    if fleet.has_local_agent() && !agents.iter().any(|agent| agent.record.id.is_local()) {
        let record = AgentRecord::local("local".to_owned(), Timestamp::now());
        app.store().save_agent(&record).await?;
        fleet.load_agent(record, None, false);
    }
    let mut ids = Vec::new();
    for agent in agents {
        // The folder may have been used with an agent in the process before.
        if agent.record.id.is_local() && !fleet.has_local_agent() {
            continue;
        }
        ids.push(agent.record.id.clone());
        fleet.load_agent(agent.record, agent.info, agent.legacy);
    }
    for row in vms {
        fleet.load_vm(row);
    }
    fleet.load_ownerships(app.store().ownerships().await?);
    for row in waiting {
        let mut rows = fleet.pending_of(&row.id);
        rows.push(row);
        let id = rows[0].id.clone();
        fleet.put_pending(&id, rows);
    }
    for operation in operations {
        promise_again(app, &operation).await?;
        fleet.add_operation(operation);
    }
    fleet.reach_all();
    fleet.set_loaded();
    Ok(())
}

/// What was written about a VM that was being made when the master ended; its agent may have made it since.
async fn promise_again(app: &App, operation: &Operation) -> Result<(), StoreError> {
    let Some(start) = app.store().operation_request(operation.id).await? else {
        return Ok(());
    };
    let agent = &operation.agent_id;
    let account = operation.requested_by.as_deref().unwrap_or_default();
    if let Some((vm, about)) = app.about_new(account, agent, &start) {
        let row = app.fleet().row(agent, &vm);
        // Once it is listed it has got that, and perhaps something newer.
        if row.is_none_or(|row| row.missing_since.is_some()) {
            app.fleet().put_about(agent, &vm, about);
        }
    }
    Ok(())
}

async fn save(app: &App) -> Result<(), StoreError> {
    let fleet = app.fleet();
    let operations = fleet.unsaved_operations();
    if let Err(error) = save_operations(app, &operations).await {
        let ids: Vec<_> = operations.iter().map(|operation| operation.id).collect();
        fleet.still_unsaved(&ids);
        return Err(error);
    }
    fleet.forget_finished_operations();
    let links = fleet.links_to_save();
    app.store().save_links(&links).await?;
    fleet.links_saved(&links);
    let vms = fleet.take_unsaved_vms();
    for (n, some) in vms.chunks(AT_ONCE).enumerate() {
        if n > 0 {
            tokio::time::sleep(BREATH).await;
        }
        if let Err(error) = app.store().save_vms(&fleet.words_of(some)).await {
            fleet.vms_still_unsaved(&vms[n * AT_ONCE..]);
            return Err(error);
        }
    }
    Ok(())
}

/// Writes operations down; those that agents began by themselves have a line of the audit first.
async fn save_operations(app: &App, operations: &[Operation]) -> Result<(), StoreError> {
    for operation in operations {
        let reason = operation.requested_by.as_deref();
        if reason.and_then(AgentReason::parse).is_some()
            && app.store().operation(operation.id).await?.is_none()
            && let Err(Error::Store(error)) = app.audit_by_itself(operation).await
        {
            return Err(error);
        }
    }
    app.store().save_operations(operations).await
}

async fn save_sightings(app: &App) -> Result<(), StoreError> {
    let sightings: Vec<Sighting> = app.fleet().read(|state| {
        state
            .agents
            .iter()
            .filter(|(_, entry)| entry.record.is_some())
            .map(|(id, entry)| Sighting {
                id: id.clone(),
                last_seen: entry.last_seen(),
                legacy: entry.legacy,
                info: entry.info.clone(),
            })
            .collect()
    });
    for (n, some) in sightings.chunks(AT_ONCE).enumerate() {
        if n > 0 {
            tokio::time::sleep(BREATH).await;
        }
        app.store().save_sightings(some).await?;
    }
    Ok(())
}

async fn tidy_up(app: &App) -> Result<(), StoreError> {
    if let Err(Error::Store(error)) = app.forget_expired_registrations().await {
        return Err(error);
    }
    let now = Timestamp::now();
    let before = now - super::join_tokens::KEPT_AFTER_EXPIRY;
    app.store().prune_join_tokens(before).await?;
    app.store().prune_links().await?;
    let terminals = app.fleet().known_terminals();
    app.store()
        .prune_openers(now - OPENERS_KEPT, &terminals)
        .await?;
    let stored = app.store().ownerships().await?;
    app.fleet().forget_ownerships(&stored.into_keys().collect());
    let kept = app.config().operations_kept;
    app.store().prune_operations(now - kept).await
}

impl App {
    /// The fleet's name for an agent that callers name, for messages.
    pub(crate) fn agent_words(agent: &AgentId) -> String {
        if agent.is_local() {
            "this machine".to_owned()
        } else {
            format!("agent `{agent}`")
        }
    }
}
