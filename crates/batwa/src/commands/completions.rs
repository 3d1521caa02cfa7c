//! `batwa completions`: the script that makes a shell ask us, and the answer to it.

use std::io::Write;

use clap::CommandFactory;
use clap_complete::{
    Shell,
    env::{CompleteEnv, Shells},
};

use crate::{
    cli::Cli,
    failure::{Exit, Failure},
    output,
};

/// In which a shell says that it wants completions, and which shell it is.
const ASKED: &str = "BATWA_COMPLETE";

/// Answers a shell and ends the process, if it was a shell that called. Before any thread is started.
pub(crate) fn answer() {
    CompleteEnv::with_factory(Cli::command)
        .var(ASKED)
        .complete();
}

/// Prints the script for one shell. It calls the `batwa` that is first in the shell's path.
pub(crate) fn run(shell: Shell) -> Result<(), Failure> {
    let name = shell.to_string();
    let wrong = |error: &dyn std::fmt::Display| {
        Failure::new(
            Exit::Failed,
            format!("cannot make a script for {name}: {error}"),
        )
    };
    let shells = Shells::builtins();
    let shell = shells
        .completer(&name)
        .ok_or_else(|| wrong(&"it is not known"))?;
    let mut script = Vec::new();
    shell
        .write_registration(ASKED, "batwa", "batwa", "batwa", &mut script)
        .and_then(|()| script.flush())
        .map_err(|error| wrong(&error))?;
    output::print(&String::from_utf8_lossy(&script))
}
