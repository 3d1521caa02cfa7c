//! What a simulation counts and prints.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use tokio::sync::watch;

use super::agent::Plan;
use crate::{cli::SimulateArgs, output::say};

/// What happens while it runs.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Tunnels that are open now.
    open: watch::Sender<usize>,
    opened: AtomicU64,
    changed: AtomicU64,
    failed: AtomicU64,
    joins: Mutex<Vec<Duration>>,
}

/// An open tunnel, counted until this is dropped.
#[derive(Debug)]
pub(super) struct OpenTunnel<'a>(&'a Counters);

impl Drop for OpenTunnel<'_> {
    fn drop(&mut self) {
        self.0.open.send_modify(|open| *open -= 1);
    }
}

impl Counters {
    /// An agent has joined, and it took so long.
    pub(super) fn joined(&self, took: Duration) {
        let mut joins = self.joins.lock().unwrap_or_else(PoisonError::into_inner);
        joins.push(took);
    }

    /// A tunnel is open.
    pub(super) fn opened(&self) -> OpenTunnel<'_> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        self.open.send_modify(|open| *open += 1);
        OpenTunnel(self)
    }

    /// A VM was changed.
    pub(super) fn changed(&self) {
        self.changed.fetch_add(1, Ordering::Relaxed);
    }

    /// Something failed on this side; the first time it is said.
    pub(super) fn failed(&self, why: &str) {
        if self.failed.fetch_add(1, Ordering::Relaxed) == 0 {
            say(&format!("a simulated agent failed: {why}"));
        }
    }

    /// Waits until so many tunnels are open at once.
    pub(super) async fn wait_for_open(&self, wanted: usize) {
        let mut open = self.open.subscribe();
        // The sender lives as long as `self`.
        let _ = open.wait_for(|open| *open >= wanted).await;
    }
}

/// The line at the end. Times in milliseconds unless the name says otherwise; `null` where nothing was measured.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    agents: usize,
    vms: usize,
    /// Tunnels open at the end.
    connected: usize,
    /// From the first join to the last open tunnel.
    connect_s: f64,
    /// Agents a second in that time.
    connects_per_s: f64,
    join_p50_ms: Option<f64>,
    join_p99_ms: Option<f64>,
    /// Tunnels that were opened again afterwards.
    reconnects: u64,
    changes: u64,
    /// From the change of a VM to its event at a client of the master; only with an API token.
    event_p50_ms: Option<f64>,
    event_p99_ms: Option<f64>,
    failures: u64,
    /// How long it was watched after all were connected.
    seconds: f64,
    /// Of this process, in that time, of one CPU.
    cpu_percent: f64,
    memory_mb: Option<f64>,
    memory_kb_per_agent: Option<f64>,
}

impl Figures {
    /// Of now.
    pub(super) fn taken(
        args: &SimulateArgs,
        plan: &Plan,
        connected_after: Duration,
        watched: Duration,
        cpu: Duration,
    ) -> Self {
        let counters = &plan.counters;
        let joins = counters
            .joins
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let delays = plan.delays.seen();
        let memory = memory_bytes();
        let opened = counters.opened.load(Ordering::Relaxed);
        Self {
            agents: args.agents,
            vms: args.agents * args.vms,
            connected: *counters.open.borrow(),
            connect_s: rounded(connected_after.as_secs_f64()),
            connects_per_s: rounded(args.agents as f64 / connected_after.as_secs_f64()),
            join_p50_ms: percentile_ms(&joins, 50),
            join_p99_ms: percentile_ms(&joins, 99),
            reconnects: opened.saturating_sub(args.agents as u64),
            changes: counters.changed.load(Ordering::Relaxed),
            event_p50_ms: percentile_ms(&delays, 50),
            event_p99_ms: percentile_ms(&delays, 99),
            failures: counters.failed.load(Ordering::Relaxed),
            seconds: rounded(watched.as_secs_f64()),
            cpu_percent: rounded(cpu.as_secs_f64() / watched.as_secs_f64() * 100.0),
            memory_mb: memory.map(|bytes| rounded(bytes / 1e6)),
            memory_kb_per_agent: memory.map(|bytes| rounded(bytes / 1e3 / args.agents as f64)),
        }
    }
}

/// CPU time that this process has used.
pub(super) fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

/// Resident memory, where the system has `/proc`.
fn memory_bytes() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024.0)
}

/// The time that `percent` of them do not exceed.
fn percentile_ms(times: &[Duration], percent: usize) -> Option<f64> {
    let mut times = times.to_vec();
    times.sort_unstable();
    let at = (times.len() * percent / 100).min(times.len().checked_sub(1)?);
    Some(rounded(times[at].as_secs_f64() * 1e3))
}

fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_what_was_measured() {
        let times: Vec<_> = (1..=200).rev().map(Duration::from_millis).collect();
        assert_eq!(percentile_ms(&times, 50), Some(101.0));
        assert_eq!(percentile_ms(&times, 99), Some(199.0));
        assert_eq!(percentile_ms(&times[..1], 99), Some(200.0));
        assert_eq!(percentile_ms(&[], 50), None);
    }

    #[test]
    fn open_tunnels_are_counted_until_they_close() {
        let counters = Counters::default();
        let first = counters.opened();
        let second = counters.opened();
        assert_eq!(*counters.open.borrow(), 2);
        drop(first);
        assert_eq!(*counters.open.borrow(), 1);
        drop(second);
        assert_eq!(counters.opened.load(Ordering::Relaxed), 2);
    }
}
