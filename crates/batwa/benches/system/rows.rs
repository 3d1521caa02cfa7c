//! The rows: what is measured, each in a file of its own.

mod busy;
mod echo;
mod events;
mod fleet;
mod flood;
mod heartbeats;
mod interrupt;
mod lists;
mod soak;
mod start;
mod stuck;
mod tunnel;

use std::{future::Future, pin::Pin};

use crate::report::Report;

/// One thing to measure.
pub(crate) struct Row {
    /// How it is asked for.
    pub(crate) name: &'static str,
    /// What it measures, in a line.
    pub(crate) about: &'static str,
    /// Measures it.
    pub(crate) run: for<'a> fn(&'a mut Report) -> Measuring<'a>,
}

type Measuring<'a> = Pin<Box<dyn Future<Output = anyhow::Result<()>> + 'a>>;

/// All rows, in the order of a whole run.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "start",
        about: "time from `batwa up` to its first answer",
        run: |report| Box::pin(start::start(report)),
    },
    Row {
        name: "memory",
        about: "memory of an idle master and an idle agent",
        run: |report| Box::pin(start::memory(report)),
    },
    Row {
        name: "old-list",
        about: "the old `GET /api/vm/list`, 50 agents with 20 VMs each, also with agents that hang or died",
        run: |report| Box::pin(lists::old_list(report)),
    },
    Row {
        name: "vms",
        about: "`GET /api/v1/vms?limit=100` at 16 concurrent, 100,000 VMs",
        run: |report| Box::pin(lists::v1_list(report)),
    },
    Row {
        name: "busy",
        about: "list, /health and sign-in while VMs are made",
        run: |report| Box::pin(busy::busy(report)),
    },
    Row {
        name: "stuck",
        about: "lists while Multipass hangs, with a stand-in for it",
        run: |report| Box::pin(stuck::stuck(report)),
    },
    Row {
        name: "heartbeats",
        about: "heartbeats of 100 old agents",
        run: |report| Box::pin(heartbeats::heartbeats(report)),
    },
    Row {
        name: "events",
        about: "a change on an agent, seen in the master's event stream",
        run: |report| Box::pin(events::events(report)),
    },
    Row {
        name: "echo",
        about: "keystrokes through master and agent, and on a bare terminal; 1, 50 and 200 typists; beside 50 idle sessions",
        run: |report| Box::pin(echo::echo(report)),
    },
    Row {
        name: "flood",
        about: "200 MB of output, local and through an agent; memory with a reader that stalls",
        run: |report| Box::pin(flood::flood(report)),
    },
    Row {
        name: "interrupt",
        about: "Ctrl-C in the middle of a flood, until the prompt is there",
        run: |report| Box::pin(interrupt::interrupt(report)),
    },
    Row {
        name: "tunnel",
        about: "50 typists through one tunnel, beside 2 GB of output in the same",
        run: |report| Box::pin(tunnel::tunnel(report)),
    },
    Row {
        name: "fleet",
        about: "1,000 and 10,000 agents behind tunnels, 10 VMs each; the master killed under them",
        run: |report| Box::pin(fleet::fleet(report)),
    },
];

/// What proves rather than measures: long, so only when it is named.
pub(crate) const PROOFS: &[Row] = &[Row {
    name: "soak",
    about: "only when named: 200 terminals with cuts, reloads, sizes and floods, every byte checked; BATWA_BENCH_SOAK=10m",
    run: |report| Box::pin(soak::soak(report)),
}];
