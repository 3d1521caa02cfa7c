//! Ctrl-C in the middle of a flood: how long until the prompt is there, behind everything that was under way.

use std::{collections::VecDeque, time::Duration};

use anyhow::Context as _;
use tokio::time::{Instant, sleep_until};

use crate::{
    baseline::Baseline,
    lab::{Lab, within},
    process::Pin,
    report::{Report, Target},
    stats::Latencies,
    viewer::Viewer,
};

/// What people take for "at once", in milliseconds.
const AT_ONCE_MS: f64 = 100.0;
const ROUNDS: usize = 20;
/// How long each flood goes on before it is interrupted: every buffer on the way is full by then.
const FLOOD: Duration = Duration::from_millis(400);
/// What a page shows: xterm.js parses some 20 MB/s on a small machine.
const SHOWN_PER_S: f64 = 20e6;
/// A page's water marks (`web/src/lib/terminal/socket.ts`).
const HIGH_WATER: usize = 512 << 10;
const LOW_WATER: usize = 64 << 10;
/// A prompt that is in no flood. Typed so that its echo is not taken for it.
const PROMPT: &[u8] = b"[ready]";
const SET_PROMPT: &[u8] = b"PS1='[rea''dy]'\n";

/// Through each way to a shell; by a viewer that takes everything, and by one that shows no faster than a page does.
pub(crate) async fn interrupt(report: &mut Report) -> anyhow::Result<()> {
    let lab = Lab::new()?;
    let mut master = lab.master("master", &[], Pin::Anywhere).await?;
    let direct = lab.agent(&master, "direct", "vms=3", Pin::Anywhere)?;
    let _tunnel = lab
        .member(&master, "tunnel", "vms=3", Pin::Anywhere)
        .await?;
    master.knows(2, 6, Duration::from_secs(30)).await?;

    for baseline in Baseline::all(&lab, Pin::Anywhere).await? {
        let measured = rounds(baseline.shell().await?, Reader::Quick).await;
        let mut measured = measured.context(baseline.name)?;
        let name = format!("interrupt/{}", baseline.name);
        figures(report, &name, &mut measured, Target::None)?;
    }
    let target = Target::Below(AT_ONCE_MS);
    for agent in [direct.id.as_str(), "tunnel"] {
        let vm = master.running_vm(agent).await?;
        for (reader, what) in [
            (Reader::Quick, agent.to_owned()),
            (Reader::Page, format!("{agent}_as_a_page_shows")),
        ] {
            let shell = Viewer::shell(&master, agent, &vm).await?;
            let mut measured = rounds(shell, reader).await.with_context(|| what.clone())?;
            figures(report, &format!("interrupt/{what}"), &mut measured, target)?;
        }
    }
    master.end_terminals().await
}

fn figures(
    report: &mut Report,
    name: &str,
    measured: &mut Latencies,
    target: Target,
) -> anyhow::Result<()> {
    report.figure(&format!("{name}/p50"), measured.p50(), "ms", target)?;
    report.figure(&format!("{name}/p99"), measured.p99(), "ms", target)
}

/// How a viewer takes output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reader {
    /// As fast as it comes.
    Quick,
    /// Into a buffer, out of which it is shown at a page's speed, with a page's water marks.
    Page,
}

async fn rounds(mut shell: Viewer, reader: Reader) -> anyhow::Result<Latencies> {
    shell.type_in(SET_PROMPT).await?;
    let mut screen = Screen::new(reader);
    within(Duration::from_secs(20), screen.shows_prompt(&mut shell)).await?;
    let mut latencies = Latencies::default();
    for _ in 0..ROUNDS {
        shell
            .type_in(b"yes 0123456789abcdef0123456789abcdef\n")
            .await?;
        screen.watch(&mut shell, FLOOD).await?;
        let pressed = Instant::now();
        shell.type_in(b"\x03").await?;
        within(Duration::from_secs(60), screen.shows_prompt(&mut shell)).await?;
        latencies.push(pressed.elapsed());
    }
    Ok(latencies)
}

/// What somebody has before them, and what waits to be shown there.
struct Screen {
    reader: Reader,
    /// Sizes of what arrived, and when each will be shown.
    waiting: VecDeque<(usize, Instant)>,
    unshown: usize,
    paused: bool,
    /// The end of what arrived.
    tail: Vec<u8>,
}

impl Screen {
    fn new(reader: Reader) -> Self {
        Self {
            reader,
            waiting: VecDeque::new(),
            unshown: 0,
            paused: false,
            tail: Vec::new(),
        }
    }

    /// Looks for so long.
    async fn watch(&mut self, shell: &mut Viewer, time: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.step(shell, Some(until)).await?;
        }
        Ok(())
    }

    /// Looks until the prompt is the last thing that is shown.
    async fn shows_prompt(&mut self, shell: &mut Viewer) -> anyhow::Result<()> {
        while !(self.tail.ends_with(PROMPT) && self.waiting.is_empty()) {
            self.step(shell, None).await?;
        }
        self.tail.clear();
        Ok(())
    }

    /// Takes what comes next, or shows what is due.
    async fn step(&mut self, shell: &mut Viewer, until: Option<Instant>) -> anyhow::Result<()> {
        let due = self.waiting.front().map(|(_, due)| *due);
        let wake = match (due, until) {
            (Some(due), Some(until)) => Some(due.min(until)),
            (due, until) => due.or(until),
        };
        tokio::select! {
            biased;
            () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            output = shell.output() => {
                let output = output?;
                self.tail.extend_from_slice(&output);
                let excess = self.tail.len().saturating_sub(PROMPT.len());
                self.tail.drain(..excess);
                if self.reader == Reader::Page {
                    let begins = self.waiting.back().map_or_else(Instant::now, |(_, due)| *due);
                    let takes = Duration::from_secs_f64(output.len() as f64 / SHOWN_PER_S);
                    self.waiting.push_back((output.len(), begins + takes));
                    self.unshown += output.len();
                }
            }
        }
        let now = Instant::now();
        while self.waiting.front().is_some_and(|(_, due)| *due <= now) {
            let shown = self.waiting.pop_front().map_or(0, |(size, _)| size);
            self.unshown -= shown;
        }
        if shell.takes_control() {
            if !self.paused && self.unshown >= HIGH_WATER {
                self.paused = true;
                shell.control(r#"{"type":"pause"}"#).await?;
            } else if self.paused && self.unshown <= LOW_WATER {
                self.paused = false;
                shell.control(r#"{"type":"resume"}"#).await?;
            }
        }
        Ok(())
    }
}
