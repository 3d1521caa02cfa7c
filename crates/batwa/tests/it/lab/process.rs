//! `batwa` as a process of its own, with nothing of the test's environment.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader, Read, Seek, Write},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use batwa_api::certificate::CertificateHash;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::{DEADLINE, until};

/// A `batwa` to be.
pub(crate) struct ProcessBuilder(Command);

/// The binary, with an empty environment but for PATH.
pub(crate) fn batwa() -> ProcessBuilder {
    ProcessBuilder::program(PathBuf::from(env!("CARGO_BIN_EXE_batwa")))
}

/// What a command left behind.
#[derive(Debug)]
pub(crate) struct Finished {
    /// Its exit code.
    pub(crate) code: Option<i32>,
    /// What it printed.
    pub(crate) stdout: String,
    /// What it said.
    pub(crate) stderr: String,
}

impl ProcessBuilder {
    /// Any program.
    #[expect(
        clippy::disallowed_methods,
        reason = "tests start the binary as its user would"
    )]
    pub(crate) fn program(path: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(path);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", "/nonexistent")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // What it starts in turn, as a pasted line does, ends with it.
            .process_group(0);
        Self(command)
    }

    /// Adds an argument.
    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.0.arg(arg);
        self
    }

    /// Adds arguments.
    pub(crate) fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.0.args(args);
        self
    }

    /// Sets an environment variable.
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.0.env(name, value);
        self
    }

    /// The folder it starts in.
    pub(crate) fn current_dir(mut self, folder: &Path) -> Self {
        self.0.current_dir(folder);
        self
    }

    /// Gives it this on standard input.
    pub(crate) fn stdin(mut self, text: &str) -> Self {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(text.as_bytes())
            .and_then(|()| file.rewind())
            .expect("written");
        self.0.stdin(file);
        self
    }

    /// Starts it and keeps what it prints.
    pub(crate) fn start(mut self) -> Process {
        let mut child = self.0.spawn().expect("the program starts");
        let stdout = follow(child.stdout.take().expect("piped"));
        let stderr = follow(child.stderr.take().expect("piped"));
        Process {
            child,
            stdout,
            stderr,
        }
    }

    /// Runs it to its end.
    pub(crate) async fn run(self) -> Finished {
        let mut process = self.start();
        let status = process.ended().await;
        // The pipes end with the process; the threads that read them need a moment more.
        let [stdout, stderr] = [&process.stdout, &process.stderr].map(Arc::clone);
        until("its output ends", async || {
            (Arc::strong_count(&stdout) == 2 && Arc::strong_count(&stderr) == 2).then_some(())
        })
        .await;
        Finished {
            code: status.code(),
            stdout: text(&stdout),
            stderr: text(&stderr),
        }
    }
}

type Text = Arc<Mutex<String>>;

fn text(of: &Text) -> String {
    of.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Collects what comes through a pipe, on a thread that ends with it.
fn follow(pipe: impl Read + Send + 'static) -> Text {
    let collected = Text::default();
    let into = Arc::clone(&collected);
    std::thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            into.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    });
    collected
}

/// A running program; it ends with this value, and its log is shown when the test has failed.
pub(crate) struct Process {
    child: Child,
    stdout: Text,
    stderr: Text,
}

impl Process {
    /// The URL in the first line on stdout that has `before` in it.
    pub(crate) async fn address(&self, before: &str) -> String {
        until(
            &format!("the line `{before} …`, stderr:\n{}", self.log()),
            async || {
                self.printed()
                    .lines()
                    .find(|line| line.contains(before))
                    .and_then(|line| {
                        let url = line
                            .split_whitespace()
                            .find(|word| word.starts_with("http"))?;
                        Some(url.trim_end_matches('/').to_owned())
                    })
            },
        )
        .await
    }

    /// The hash of the certificate that it says it shows.
    pub(crate) fn certificate(&self) -> CertificateHash {
        self.printed()
            .lines()
            .find_map(|line| line.strip_prefix("certificate    SHA-256 "))
            .unwrap_or_else(|| panic!("no certificate in:\n{}", self.printed()))
            .parse()
            .expect("a hash")
    }

    /// What it printed so far.
    pub(crate) fn printed(&self) -> String {
        text(&self.stdout)
    }

    /// What it logged so far.
    pub(crate) fn log(&self) -> String {
        text(&self.stderr)
    }

    /// Waits until it has logged this.
    pub(crate) async fn logged(&self, words: &str) {
        until(&format!("the log says `{words}`"), async || {
            self.log().contains(words).then_some(())
        })
        .await;
    }

    /// Waits for its end for as long as that takes; the test's own deadline holds.
    pub(crate) fn wait_patiently(&mut self) -> ExitStatus {
        self.child.wait().expect("it can be waited for")
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Pulls its plug.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it is reaped");
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .expect("a process id");
        kill_process(pid, signal).expect("it can be signalled");
    }

    /// Asks it to end as service managers do; tells how it ended and how long that took.
    pub(crate) async fn terminate(&mut self) -> (ExitStatus, Duration) {
        let began = Instant::now();
        self.signal(Signal::TERM);
        let status = self.ended().await;
        (status, began.elapsed())
    }

    /// Waits for its end, blocking the thread.
    pub(crate) fn wait(&mut self) {
        // Nothing can be done about one that cannot be waited for.
        let _ = self.child.wait();
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                return status;
            }
            assert!(
                began.elapsed() < DEADLINE,
                "it does not end, stderr:\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Process {
    #[expect(clippy::print_stdout, reason = "what a failed test has to say")]
    fn drop(&mut self) {
        if let Some(group) = Pid::from_raw(self.child.id().cast_signed()) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            println!("--- log of process {}\n{}", self.child.id(), self.log());
        }
    }
}
