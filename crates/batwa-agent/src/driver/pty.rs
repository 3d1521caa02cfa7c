//! Programs on a pseudo-terminal of this machine, for the drivers whose shell is a local program.
//!
//! The program leads a session of its own with the terminal as its controlling one, so that job control,
//! Ctrl-C and window changes work as on a real terminal. One small task a program applies sizes and waits for
//! the end; the output half owns it. Invariant: when the output half is dropped, the whole session is killed
//! and reaped, background jobs included.

use std::{
    ffi::OsStr,
    io,
    os::fd::OwnedFd,
    path::Path,
    pin::Pin,
    process::ExitStatus,
    task::{Context, Poll},
};

use batwa_api::terminal::TermSize;
use pty_process::OwnedReadPty;
use rustix::{
    io::Errno,
    process::{Pid, Signal},
    termios::{Winsize, tcgetpgrp, tcsetwinsize},
};
use tokio::{
    io::{AsyncRead, ReadBuf},
    process::Child,
    sync::{oneshot, watch},
    task::JoinSet,
};
use tracing::debug;

use super::{DriverError, Pty, PtyExit, command::secret_variables};

/// Runs `program` on a new pseudo-terminal of the given size, in the agent's own directory.
///
/// The program inherits the agent's environment without the agent's secrets (`API_KEY`, `BATWA_*`), with
/// `TERM=xterm-256color`, and then `env`.
///
/// # Errors
/// [`DriverError::Missing`] when there is no such program, [`DriverError::Failed`] when it or the terminal
/// cannot be had. Must be called within a tokio runtime.
pub fn spawn(
    program: impl AsRef<OsStr>,
    args: impl IntoIterator<Item = impl AsRef<OsStr>>,
    env: impl IntoIterator<Item = (impl AsRef<OsStr>, impl AsRef<OsStr>)>,
    size: TermSize,
) -> Result<Pty, DriverError> {
    start(program.as_ref(), args, env, None, size)
}

/// As [`spawn`], with `directory` as the working directory.
///
/// # Errors
/// As [`spawn`].
pub fn spawn_in(
    directory: &Path,
    program: impl AsRef<OsStr>,
    args: impl IntoIterator<Item = impl AsRef<OsStr>>,
    env: impl IntoIterator<Item = (impl AsRef<OsStr>, impl AsRef<OsStr>)>,
    size: TermSize,
) -> Result<Pty, DriverError> {
    start(program.as_ref(), args, env, Some(directory), size)
}

fn start(
    program: &OsStr,
    args: impl IntoIterator<Item = impl AsRef<OsStr>>,
    env: impl IntoIterator<Item = (impl AsRef<OsStr>, impl AsRef<OsStr>)>,
    directory: Option<&Path>,
    size: TermSize,
) -> Result<Pty, DriverError> {
    let cannot = |what: &str, error: &dyn std::fmt::Display| {
        DriverError::failed(format!(
            "cannot {what} for `{}`: {error}",
            program.to_string_lossy()
        ))
    };
    let size = size.clamped();
    let (terminal, slave) =
        pty_process::open().map_err(|error| cannot("open a pseudo-terminal", &error))?;
    let control: OwnedFd = std::os::fd::AsFd::as_fd(&terminal)
        .try_clone_to_owned()
        .map_err(|error| cannot("keep the pseudo-terminal", &error))?;
    tcsetwinsize(&control, winsize(size)).map_err(|error| cannot("set the size", &error))?;

    let mut command = pty_process::Command::new(program)
        .args(args)
        .kill_on_drop(true);
    for name in secret_variables() {
        command = command.env_remove(name);
    }
    command = command.env("TERM", "xterm-256color");
    for (name, value) in env {
        command = command.env(name, value);
    }
    if let Some(directory) = directory {
        command = command.current_dir(directory);
    }
    let child = command.spawn(slave).map_err(|error| match error {
        pty_process::Error::Io(error) if error.kind() == io::ErrorKind::NotFound => {
            DriverError::Missing(format!("`{}` is not installed", program.to_string_lossy()))
        }
        error => cannot("start a terminal", &error),
    })?;
    let leader = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(Pid::from_raw)
        .ok_or_else(|| cannot("start a terminal", &"it ended at once"))?;

    let (output, input) = terminal.into_split();
    let (size, sizes) = watch::channel(size);
    let (report, exit) = oneshot::channel();
    let mut owner = JoinSet::new();
    owner.spawn(attend(
        Session {
            leader: Some(leader),
            control,
        },
        child,
        sizes,
        report,
    ));
    Ok(Pty {
        output: Box::pin(Output {
            terminal: output,
            _owner: owner,
        }),
        input: Box::pin(input),
        size,
        exit,
    })
}

fn winsize(size: TermSize) -> Winsize {
    Winsize {
        ws_col: size.cols,
        ws_row: size.rows,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

/// Applies sizes and reports the end. Aborted when the output half is dropped: then the guard kills.
async fn attend(
    mut session: Session,
    mut child: Child,
    mut sizes: watch::Receiver<TermSize>,
    report: oneshot::Sender<PtyExit>,
) {
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            changed = sizes.changed() => {
                if changed.is_err() {
                    break child.wait().await;
                }
                let size = sizes.borrow_and_update().clamped();
                // The terminal sends SIGWINCH by itself. Failing means that it is gone, which wait() tells.
                if let Err(error) = tcsetwinsize(&session.control, winsize(size)) {
                    debug!(%error, "cannot resize a pseudo-terminal");
                }
            }
        }
    };
    // Reaped: its number may soon be another's.
    session.leader = None;
    // Nobody listens when the viewer went first.
    let _ = report.send(exit_of(status));
}

fn exit_of(status: io::Result<ExitStatus>) -> PtyExit {
    use std::os::unix::process::ExitStatusExt;
    match status {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => PtyExit {
                code: Some(code),
                reason: "the shell ended".to_owned(),
            },
            (None, Some(signal)) => PtyExit {
                code: None,
                reason: format!("the shell was ended by signal {signal}"),
            },
            (None, None) => PtyExit {
                code: None,
                reason: "the shell ended".to_owned(),
            },
        },
        Err(error) => PtyExit {
            code: None,
            reason: format!("the shell's end is not known: {error}"),
        },
    }
}

/// Kills everything on the terminal when dropped, unless its leader has been reaped.
struct Session {
    leader: Option<Pid>,
    control: OwnedFd,
}

impl Drop for Session {
    fn drop(&mut self) {
        let Some(leader) = self.leader else { return };
        let mut groups = vec![leader];
        // A shell with job control gives each job a process group of its own.
        groups.extend(tcgetpgrp(&self.control));
        groups.extend(groups_of_session(leader));
        for group in groups {
            match rustix::process::kill_process_group(group, Signal::KILL) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(error) => debug!(%error, "cannot end a terminal's process group"),
            }
        }
    }
}

/// The process groups of all processes in `leader`'s session; empty where there is no `/proc`.
fn groups_of_session(leader: Pid) -> Vec<Pid> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(Result::ok)
        .filter(|entry| {
            entry
                .file_name()
                .to_str()
                .is_some_and(|name| name.bytes().all(|b| b.is_ascii_digit()))
        })
        .filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok())
        .filter_map(|stat| group_and_session(&stat))
        .filter(|(_, session)| *session == leader)
        .map(|(group, _)| group)
        .collect()
}

/// Process group and session from a line of `/proc/PID/stat`.
fn group_and_session(stat: &str) -> Option<(Pid, Pid)> {
    // The program's name stands in brackets and may hold anything, brackets included.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(2);
    let mut pid = || Pid::from_raw(fields.next()?.parse().ok()?);
    Some((pid()?, pid()?))
}

/// The output half: ends cleanly when the program has, and owns the task that attends to it.
struct Output {
    terminal: OwnedReadPty,
    _owner: JoinSet<()>,
}

impl AsyncRead for Output {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.terminal).poll_read(cx, buf) {
            // How Linux says that nobody has the other side open any more.
            Poll::Ready(Err(error)) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => {
                Poll::Ready(Ok(()))
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        time::timeout,
    };

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    fn sh(script: &str) -> Pty {
        spawn(
            "/bin/sh",
            ["-c", script],
            [("PS1", "$ ")],
            TermSize { cols: 91, rows: 27 },
        )
        .unwrap()
    }

    async fn read_until(pty: &mut Pty, wanted: &str) -> String {
        let mut seen = Vec::new();
        let found = timeout(DEADLINE, async {
            let mut buf = [0; 4096];
            loop {
                if String::from_utf8_lossy(&seen).contains(wanted) {
                    return true;
                }
                match pty.output.read(&mut buf).await.unwrap() {
                    0 => return false,
                    n => seen.extend_from_slice(&buf[..n]),
                }
            }
        })
        .await;
        let text = String::from_utf8_lossy(&seen).into_owned();
        assert!(matches!(found, Ok(true)), "{wanted:?} not in {text:?}");
        text
    }

    fn is_alive(pid: i32) -> bool {
        // A zombie is not reaped yet, so it counts.
        Path::new(&format!("/proc/{pid}")).exists()
    }

    async fn wait_until_gone(pid: i32) {
        let start = Instant::now();
        while is_alive(pid) {
            assert!(start.elapsed() < DEADLINE, "process {pid} is still there");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn the_program_has_a_controlling_terminal_of_the_size_asked() {
        let mut pty = sh("stty size < /dev/tty; echo is-tty:$(test -t 0 && echo yes)");
        let text = read_until(&mut pty, "is-tty:yes").await;
        assert!(text.contains("27 91"), "{text:?}");
        assert_eq!(
            timeout(DEADLINE, &mut pty.exit)
                .await
                .unwrap()
                .unwrap()
                .code,
            Some(0)
        );
    }

    #[tokio::test]
    async fn a_resize_reaches_the_program_as_a_signal() {
        let mut pty =
            sh("trap 'stty size; exit 7' WINCH; echo ready; while :; do sleep 0.01; done");
        read_until(&mut pty, "ready").await;
        pty.size
            .send(TermSize {
                cols: 132,
                rows: 50,
            })
            .unwrap();
        read_until(&mut pty, "50 132").await;
        assert_eq!(
            timeout(DEADLINE, &mut pty.exit)
                .await
                .unwrap()
                .unwrap()
                .code,
            Some(7)
        );
    }

    #[tokio::test]
    async fn dropping_the_terminal_kills_and_reaps_the_whole_session() {
        let mut pty = sh("set -m; sleep 1000 & echo pids:$$:$!:; wait");
        let text = read_until(&mut pty, ":\r\n").await;
        let pids: Vec<i32> = text
            .split("pids:")
            .nth(1)
            .unwrap()
            .split(':')
            .take(2)
            .map(|pid| pid.parse().unwrap())
            .collect();
        assert_eq!(pids.len(), 2);
        assert!(pids.iter().all(|pid| is_alive(*pid)));
        drop(pty);
        wait_until_gone(pids[0]).await;
        // The job is init's child by now; where nobody reaps orphans it stays a zombie.
        let start = Instant::now();
        while std::fs::read_to_string(format!("/proc/{}/stat", pids[1]))
            .is_ok_and(|stat| !stat.rsplit_once(')').unwrap().1.starts_with(" Z"))
        {
            assert!(start.elapsed() < DEADLINE, "the background job still runs");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn input_is_never_lost_when_the_terminal_is_full() {
        const SIZE: usize = 3 << 20;
        // It starts to read late, when the terminal has long been full.
        let mut pty = sh(&format!(
            "stty raw -echo; echo ready; sleep 0.2; head -c {SIZE} | cksum; echo done"
        ));
        read_until(&mut pty, "ready").await;
        let data: Vec<u8> = (0..SIZE).map(|i| (i * 31 % 251) as u8).collect();
        timeout(DEADLINE, pty.input.write_all(&data))
            .await
            .unwrap()
            .unwrap();
        let text = read_until(&mut pty, "done").await;
        assert!(
            text.contains(&format!("{} {SIZE}", cksum(&data))),
            "{text:?}"
        );
    }

    /// The checksum of POSIX `cksum`.
    fn cksum(data: &[u8]) -> u32 {
        let length = (0..8).map(|i| (data.len() >> (8 * i)) as u8);
        let length: Vec<u8> = length
            .take(8 - data.len().leading_zeros() as usize / 8)
            .collect();
        let mut crc = 0_u32;
        for byte in data.iter().chain(&length) {
            crc ^= u32::from(*byte) << 24;
            for _ in 0..8 {
                crc = if crc & 0x8000_0000 == 0 {
                    crc << 1
                } else {
                    (crc << 1) ^ 0x04C1_1DB7
                };
            }
        }
        !crc
    }

    #[tokio::test]
    async fn the_program_knows_its_terminal_and_what_it_was_given() {
        let mut pty = sh("echo term=$TERM ps1=$PS1 path=${PATH:+set}");
        read_until(&mut pty, "term=xterm-256color ps1=$ path=set").await;
    }

    #[tokio::test]
    async fn a_missing_program_is_named() {
        let error = spawn(
            "/no/such/shell",
            [""; 0],
            [("A", "b"); 0],
            TermSize::default(),
        )
        .err()
        .unwrap();
        assert_eq!(
            error,
            DriverError::Missing("`/no/such/shell` is not installed".into())
        );
    }

    #[test]
    fn a_program_name_with_brackets_does_not_confuse_the_reader_of_proc() {
        let pids = group_and_session("42 (a) b) S 1 77 66 0")
            .map(|(g, s)| (g.as_raw_nonzero().get(), s.as_raw_nonzero().get()));
        assert_eq!(pids, Some((77, 66)));
    }
}
