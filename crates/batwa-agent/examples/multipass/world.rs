//! The stand-in's world: VMs with a schedule of states, the daemon's one main thread, and the record of calls.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::{Failure, Outcome, knobs::Knobs, say};

/// How often a waiting call looks again.
const STEP: Duration = Duration::from_millis(10);
/// Between two frames of the spinner, as in the real one.
const FRAME: Duration = Duration::from_millis(100);

/// The folder.
pub(crate) struct World {
    folder: PathBuf,
}

/// What the daemon knows.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) vms: BTreeMap<String, Vm>,
    /// Images that need no download.
    pub(crate) cached: Vec<String>,
    /// Until when the daemon is away after it died.
    down_until: u64,
    /// Until when its main thread is at work, whether or not the client that asked for it lives.
    #[serde(default)]
    busy_until: u64,
    next_address: u8,
}

/// One VM.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Vm {
    pub(crate) cpus: u32,
    pub(crate) memory: u64,
    pub(crate) disk: u64,
    /// `Ubuntu 24.04 LTS`.
    pub(crate) release: String,
    pub(crate) address: String,
    /// States with the time from which each holds, oldest first.
    pub(crate) schedule: Vec<(u64, String)>,
    pub(crate) trashed: bool,
    #[serde(default)]
    pub(crate) snapshots: BTreeMap<String, Kept>,
    /// The snapshot that it has come from.
    #[serde(default)]
    pub(crate) head: Option<String>,
    /// What it sees, by where it sees it.
    #[serde(default)]
    pub(crate) mounts: BTreeMap<String, String>,
}

/// One snapshot.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) comment: String,
    pub(crate) parent: Option<String>,
    /// In milliseconds since 1970.
    pub(crate) created: u64,
    pub(crate) cpus: u32,
    pub(crate) memory: u64,
    pub(crate) disk: u64,
}

/// A call in the record; without its end when it was killed.
pub(crate) struct LoggedCall<'a> {
    world: &'a World,
    id: u32,
}

#[derive(Serialize)]
struct CallRecord<'a> {
    id: u32,
    at_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    argv: Option<&'a [String]>,
    end: bool,
}

/// The daemon's main thread, ours until dropped.
pub(crate) struct MainThread(#[expect(dead_code, reason = "closing the file frees the lock")] File);

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Vm {
    /// Its state now.
    pub(crate) fn state(&self) -> &str {
        if self.trashed {
            return "Deleted";
        }
        let now = now_ms();
        self.schedule
            .iter()
            .rev()
            .find(|(at, _)| *at <= now)
            .map_or("Unknown", |(_, state)| state)
    }

    /// From now on it is in `states`, each after its number of milliseconds.
    pub(crate) fn becomes(&mut self, states: &[(u64, &str)]) {
        let now = now_ms();
        self.schedule = states
            .iter()
            .map(|(after, state)| (now + after, (*state).to_owned()))
            .collect();
    }
}

impl World {
    pub(crate) fn open(called_as: &OsStr) -> Result<Self, Failure> {
        let folder = match std::env::var_os("STAND_IN_DIR") {
            Some(folder) => Some(PathBuf::from(folder)),
            // Called by a link in the folder.
            None => Path::new(called_as)
                .parent()
                .filter(|folder| folder.join("multipass").is_symlink())
                .map(Path::to_owned),
        };
        let folder = folder.ok_or_else(|| {
            Failure::usage("this is a stand-in for Multipass: set STAND_IN_DIR to its folder")
        })?;
        fs::create_dir_all(&folder)
            .map_err(|error| Failure::usage(format!("{}: {error}", folder.display())))?;
        Ok(Self { folder })
    }

    pub(crate) fn knobs(&self) -> Knobs {
        Knobs::read(&self.folder)
    }

    /// The folder that a VM's shell sees as its home.
    pub(crate) fn home(&self, vm: &str) -> PathBuf {
        self.folder.join("vms").join(vm)
    }

    /// Where a snapshot keeps that folder.
    pub(crate) fn kept(&self, vm: &str, snapshot: &str) -> PathBuf {
        self.folder.join("snapshots").join(vm).join(snapshot)
    }

    /// Where all snapshots of a VM do.
    pub(crate) fn all_kept(&self, vm: &str) -> PathBuf {
        self.folder.join("snapshots").join(vm)
    }

    pub(crate) fn log_call(&self, argv: &[String]) -> LoggedCall<'_> {
        let id = std::process::id();
        self.log(&CallRecord {
            id,
            at_ms: now_ms(),
            argv: Some(argv),
            end: false,
        });
        LoggedCall { world: self, id }
    }

    fn log(&self, record: &CallRecord<'_>) {
        let mut line = serde_json::to_vec(record).expect("a record is JSON");
        line.push(b'\n');
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.join("calls.jsonl"));
        // One write a line: lines of calls beside each other stay whole.
        file.and_then(|mut file| file.write_all(&line))
            .expect("the record of calls can be written");
    }

    fn lock(&self, name: &str) -> File {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.folder.join(name))
            .expect("a lock file can be made");
        flock(&file, FlockOperation::LockExclusive).expect("a lock file can be locked");
        file
    }

    /// Looks at or changes the state, alone.
    pub(crate) fn state<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        let _lock = self.lock("state.lock");
        let path = self.folder.join("state.json");
        let before = fs::read(&path).unwrap_or_default();
        let mut state: State = serde_json::from_slice(&before).unwrap_or_default();
        let result = f(&mut state);
        let after = serde_json::to_vec(&state).expect("the state is JSON");
        if after != before {
            let new = self.folder.join("state.json.new");
            fs::write(&new, after)
                .and_then(|()| fs::rename(&new, &path))
                .expect("the state can be written");
        }
        result
    }

    /// The state of a VM now.
    pub(crate) fn vm_state(&self, vm: &str) -> Option<String> {
        self.state(|state| state.vms.get(vm).map(|vm| vm.state().to_owned()))
    }

    pub(crate) fn is_down(&self) -> bool {
        self.knobs().down || self.state(|state| state.down_until > now_ms())
    }

    /// The daemon dies; it will be back.
    pub(crate) fn die(&self) {
        let away = self.knobs().down_ms;
        self.state(|state| {
            state.down_until = now_ms() + away;
            state.busy_until = 0;
        });
    }

    /// The daemon's main thread is at work from now on, until it is done or the daemon dies.
    pub(crate) fn occupy(&self, ms: u64) {
        self.state(|state| state.busy_until = now_ms() + ms);
    }

    /// Waits for the daemon's main thread and for all that a knob makes it do first.
    pub(crate) fn main_thread(&self, command: &str) -> Result<MainThread, Failure> {
        if self.is_down() {
            return Err(Failure::no_daemon(command));
        }
        let thread = MainThread(self.lock("daemon.lock"));
        // What a client set in motion that was killed since.
        while self.state(|state| state.busy_until > now_ms()) {
            sleep(STEP);
        }
        sleep(Duration::from_millis(self.knobs().delay_ms(command)));
        while self.knobs().hangs(command) {
            sleep(STEP);
        }
        if self.knobs().crashes(command) {
            self.die();
        }
        if self.is_down() {
            return Err(Failure::no_daemon(command));
        }
        let knobs = self.knobs();
        if knobs.noise {
            let line =
                "[2026-11-23T02:52:51.607] [error] [daemon] instance \"other\" does not exist\n";
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
        match knobs.rubbish.get(command).map(String::as_str) {
            Some("flood") => loop {
                say(&"rubbish ".repeat(1024));
            },
            Some(rubbish) => {
                say(rubbish);
                std::process::exit(0);
            }
            None => Ok(thread),
        }
    }

    /// Turns the spinner behind `words` until `done`, or fails with status 5 after `limit`.
    pub(crate) fn spin(
        &self,
        words: &str,
        limit: Option<(Instant, &str)>,
        mut done: impl FnMut() -> bool,
    ) -> Outcome {
        say(&format!("{CLEAR}{CLEAR}{words}  "));
        let mut frames = ["/", "-", "\\", "|"].into_iter().cycle();
        let mut next_frame = Instant::now();
        loop {
            let finished = done();
            if Instant::now() >= next_frame || finished {
                say(&format!("\u{8}{}", frames.next().unwrap_or("/")));
                next_frame += FRAME;
            }
            if finished {
                say(&format!("\u{8} {CLEAR}"));
                return Ok(());
            }
            if let Some((until, what)) = limit
                && Instant::now() >= until
            {
                say(&format!("\u{8} {CLEAR}"));
                return Err(Failure {
                    status: 5,
                    stderr: format!("Timed out waiting for instance {what}.\n"),
                });
            }
            sleep(STEP);
        }
    }

    /// Spins for a time.
    pub(crate) fn spin_for(&self, words: &str, ms: u64) {
        let until = Instant::now() + Duration::from_millis(ms);
        let _ = self.spin(words, None, || Instant::now() >= until);
    }
}

impl State {
    pub(crate) fn new_address(&mut self) -> String {
        self.next_address = self.next_address.wrapping_add(1).max(2);
        format!("10.89.54.{}", self.next_address)
    }
}

impl LoggedCall<'_> {
    pub(crate) fn ended(self) {
        self.world.log(&CallRecord {
            id: self.id,
            at_ms: now_ms(),
            argv: None,
            end: true,
        });
    }
}

/// What the spinner writes before each message, into a pipe as well as on a terminal.
pub(crate) const CLEAR: &str = "\u{1b}[2K\u{1b}[0A\u{1b}[0E";
