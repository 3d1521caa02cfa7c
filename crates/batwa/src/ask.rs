//! Questions to the person at the terminal.

use std::io::{BufRead, IsTerminal, Write};

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use secrecy::SecretString;

use crate::{
    cli::ConfirmArgs,
    failure::{Exit, Failure},
    output::{plain, say},
};

/// Whether somebody is there to answer.
pub(crate) fn somebody_is_there() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Asks for a line, which is shown as it is typed.
pub(crate) fn line(question: &str) -> Result<String, Failure> {
    prompt(question);
    read_line("nothing was typed")
}

/// Asks for a secret without showing what is typed; where there is no terminal, the first line of standard input.
pub(crate) fn secret(question: &str, absent: &str) -> Result<SecretString, Failure> {
    if !std::io::stdin().is_terminal() {
        return read_line(absent).map(SecretString::from);
    }
    let wrong = |error| {
        Failure::new(
            Exit::Failed,
            format!("cannot ask on this terminal: {error}"),
        )
    };
    let stdin = std::io::stdin();
    let before = tcgetattr(&stdin).map_err(wrong)?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&stdin, OptionalActions::Flush, &silent).map_err(wrong)?;
    // Asked only now: whoever is quick at the keys is not to see them either.
    prompt(question);
    let line = read_line(absent);
    tcsetattr(&stdin, OptionalActions::Flush, &before).map_err(wrong)?;
    say("");
    line.map(SecretString::from)
}

/// Asks before something is destroyed, unless that was said to be all right. Where nobody is there to answer, the
/// command itself is the answer: scripts do what they say.
pub(crate) fn confirm(args: ConfirmArgs, what: &str) -> Result<(), Failure> {
    if args.yes || !somebody_is_there() {
        return Ok(());
    }
    prompt(&format!("{} [y/N] ", plain(what)));
    let answer = read_line("").unwrap_or_default().to_lowercase();
    if matches!(answer.as_str(), "y" | "yes") {
        Ok(())
    } else {
        Err(Failure::new(Exit::Failed, "nothing was done").hint("`--yes` does not ask"))
    }
}

fn prompt(question: &str) {
    let mut stderr = std::io::stderr().lock();
    let _ = write!(stderr, "{question}");
    let _ = stderr.flush();
}

/// A line of standard input that is not empty.
fn read_line(absent: &str) -> Result<String, Failure> {
    let mut line = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|error| {
            Failure::new(Exit::Failed, format!("cannot read standard input: {error}"))
        })?;
    match line.trim_end_matches(['\r', '\n']) {
        "" => Err(Failure::usage(absent)),
        text => Ok(text.to_owned()),
    }
}
