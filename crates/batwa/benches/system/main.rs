//! What Batwa promises in numbers, measured against the real binary on loopback.
//!
//! Every row starts real processes (`batwa master`, `batwa agent`, a bare terminal server to compare with), loads
//! them from here, and gives figures. Nothing here fails a build: a missed target is told, not punished. Times and
//! counts are bounded, so that a whole run takes a few minutes. The exception are [`PROOFS`], which run only when they
//! are named, and whose failure is the command's.
//!
//! `cargo bench -p batwa --bench system -- [row…]`, or `scripts/bench [row…]`.

mod baseline;
mod http;
mod lab;
mod process;
mod report;
mod rows;
#[path = "../../tests/soak/mod.rs"]
mod soak;
mod stats;
mod viewer;

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;

use crate::{
    report::Report,
    rows::{PROOFS, ROWS},
};

/// The binary built with this bench.
const BUILT: &str = env!("CARGO_BIN_EXE_batwa");
/// Names another binary to measure instead; `scripts/bench --help` speaks of it.
const OTHER: &str = "BATWA_BENCH_BINARY";

/// The binary under test.
fn binary() -> PathBuf {
    std::env::var_os(OTHER).map_or_else(|| BUILT.into(), PathBuf::from)
}

fn main() -> ExitCode {
    let mut names: Vec<String> = std::env::args().skip(1).collect();
    if let Some(done) = baseline::asked_to(&names) {
        return done;
    }
    // `cargo bench` adds this one.
    names.retain(|name| name != "--bench");
    if names.iter().any(|name| name == "--list") {
        // A test runner asks which tests are in here: none.
        return ExitCode::SUCCESS;
    }
    match run(&names) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(names: &[String]) -> anyhow::Result<()> {
    if let Some(unknown) = names.iter().find(|name| {
        !ROWS
            .iter()
            .chain(PROOFS)
            .any(|row| row.name == name.as_str())
    }) {
        anyhow::bail!("there is no row `{unknown}`: scripts/bench --help lists those there are");
    }
    let chosen = ROWS
        .iter()
        .filter(|row| names.is_empty() || names.iter().any(|name| name == row.name));
    let proofs = PROOFS
        .iter()
        .filter(|row| names.iter().any(|name| name == row.name));

    let mut report = Report::create(&jsonl()?)?;
    let mut failed = None;
    for row in chosen.chain(proofs) {
        report.begin(row.name, row.about)?;
        // A runtime a row: what one leaves behind cannot slow the next. One thread, as the machine is small and
        // the processes under test need the others.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start a runtime")?;
        if let Err(error) = runtime.block_on((row.run)(&mut report)) {
            report.failed(row.name, &error)?;
            if PROOFS.iter().any(|proof| proof.name == row.name) {
                failed = Some(row.name);
            }
        }
    }
    report.finish()?;
    match failed {
        Some(name) => anyhow::bail!("the proof `{name}` failed"),
        None => Ok(()),
    }
}

/// Beside the folder that holds the binary: `target/bench.jsonl`.
fn jsonl() -> anyhow::Result<PathBuf> {
    let target = Path::new(BUILT)
        .parent()
        .and_then(Path::parent)
        .context("the binary lies in no target folder")?;
    Ok(target.join("bench.jsonl"))
}
