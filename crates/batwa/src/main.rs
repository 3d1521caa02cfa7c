//! The `batwa` binary: master, agent and client in one program.
//!
//! `cli` says what can be typed, `settings` and `config` what the staying processes are told, `commands` what is
//! done. Data goes to stdout, talk to stderr, and every failure is one line with a stable exit code.

mod ask;
mod cli;
mod client;
mod commands;
mod config;
mod failure;
mod logging;
mod output;
mod service_manager;
mod settings;
mod shutdown;
mod start_pages;
mod tls;

use std::process::ExitCode;

use clap::Parser;

use crate::failure::{Exit, Failure};

fn main() -> ExitCode {
    // A shell that asks for completions gets them, and nothing else is done.
    commands::completions::answer();
    let cli = cli::Cli::parse();
    // The first provider set is the process's; nobody else sets one before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Failed, format!("cannot start threads: {error}")))
        .and_then(|runtime| {
            let outcome = runtime.block_on(commands::run(cli.command));
            // What still blocks a thread by now must not hold up the end.
            runtime.shutdown_background();
            outcome
        });
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            output::say(&failure.to_string());
            failure.exit.into()
        }
    }
}
