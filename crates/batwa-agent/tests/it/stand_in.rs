//! A Multipass that is not there: the stand-in of `examples/multipass` with a folder of its own for each test.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use batwa_agent::{
    driver::{
        Driver, ObservedVm, Progress, ProgressUpdate,
        command::{Command, Output},
        multipass::{CustomImages, Limits, Multipass, Settings},
    },
    policy::PolicyFile,
};
use batwa_api::{name::VmName, operation::Stage, size::ByteSize, vm::VmSpec};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

/// Longer than anything here takes, however busy the machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// The stand-in and its world.
pub(crate) struct StandIn {
    folder: tempfile::TempDir,
}

/// One call that was made of it.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) pid: i32,
    pub(crate) line: String,
    pub(crate) began: u64,
    /// `None` while it runs, and for ever when it was killed.
    pub(crate) ended: Option<u64>,
}

impl StandIn {
    /// A Multipass without VMs that behaves well.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(program(), folder.path().join("multipass")).unwrap();
        Self { folder }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings {
            program: self.folder.path().join("multipass"),
            limits: limits(),
            restart: None,
            custom_images: CustomImages::Refused,
            policy: PolicyFile::default(),
        }
    }

    pub(crate) fn driver(&self) -> Multipass {
        Multipass::new(self.settings())
    }

    /// A driver with other times.
    pub(crate) fn driver_with(&self, change: impl FnOnce(&mut Limits)) -> Multipass {
        let mut settings = self.settings();
        change(&mut settings.limits);
        Multipass::new(settings)
    }

    /// Sets all knobs: those not named behave well.
    pub(crate) fn control(&self, knobs: &Value) {
        let new = self.folder.path().join("control.json.new");
        std::fs::write(&new, knobs.to_string()).unwrap();
        std::fs::rename(new, self.folder.path().join("control.json")).unwrap();
    }

    pub(crate) fn behave(&self) {
        self.control(&json!({}));
    }

    /// Somebody else's command.
    pub(crate) async fn run(&self, args: &[&str]) -> Output {
        Command::new(self.folder.path().join("multipass"))
            .args(args)
            .deadline(DEADLINE)
            .output()
            .await
            .unwrap()
    }

    /// Makes VMs by somebody else's hand; they run.
    pub(crate) async fn has(&self, names: &[&str]) {
        for name in names {
            let output = self.run(&["launch", "--name", name, "24.04"]).await;
            assert!(output.status.success(), "{output:?}");
        }
    }

    /// Makes VMs that are off.
    pub(crate) async fn has_stopped(&self, names: &[&str]) {
        self.has(names).await;
        for name in names {
            let output = self.run(&["stop", name]).await;
            assert!(output.status.success(), "{output:?}");
        }
    }

    /// Makes so many VMs that run, at once: `vm-01` and so on.
    pub(crate) fn has_many(&self, count: usize) {
        let vm = |n: usize| {
            json!({
                "cpus": 1, "memory": 1_u64 << 30, "disk": 5_u64 << 30, "release": "Ubuntu 24.04 LTS",
                "address": format!("10.89.54.{n}"), "schedule": [[0, "Running"]], "trashed": false,
            })
        };
        let vms: serde_json::Map<_, _> =
            (1..=count).map(|n| (format!("vm-{n:02}"), vm(n))).collect();
        let state = json!({"vms": vms, "cached": [], "down_until": 0, "next_address": 100});
        std::fs::write(self.folder.path().join("state.json"), state.to_string()).unwrap();
    }

    /// Whether the daemon is at work on a disk.
    pub(crate) fn is_busy(&self) -> bool {
        let text = std::fs::read_to_string(self.folder.path().join("state.json"));
        let state: Value = serde_json::from_str(&text.unwrap_or_default()).unwrap_or_default();
        let until = state["busy_until"].as_u64().unwrap_or(0);
        let now = batwa_api::Timestamp::now().as_millisecond();
        u64::try_from(now).unwrap_or(0) < until
    }

    /// The calls after the first `skip`, as they were typed.
    pub(crate) fn lines_after(&self, skip: usize) -> Vec<String> {
        let calls = self.calls().into_iter().skip(skip);
        calls.map(|call| call.line).collect()
    }

    /// All calls so far, oldest first.
    pub(crate) fn calls(&self) -> Vec<Call> {
        let mut calls: Vec<Call> = Vec::new();
        let text = std::fs::read_to_string(self.folder.path().join("calls.jsonl"));
        for line in text.unwrap_or_default().lines() {
            let row: Value = serde_json::from_str(line).unwrap();
            let pid = i32::try_from(row["id"].as_i64().unwrap()).unwrap();
            let at = row["at_ms"].as_u64().unwrap();
            if row["end"] == true {
                let call = calls.iter_mut().rev().find(|call| call.pid == pid);
                call.unwrap().ended = Some(at);
            } else {
                let words: Vec<_> = row["argv"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|word| word.as_str().unwrap())
                    .collect();
                calls.push(Call {
                    pid,
                    line: words.join(" "),
                    began: at,
                    ended: None,
                });
            }
        }
        calls
    }

    /// How many calls began with these words.
    pub(crate) fn count(&self, start: &str) -> usize {
        self.calls()
            .iter()
            .filter(|call| call.line.starts_with(start))
            .count()
    }

    /// Waits until a call that begins so has been made.
    pub(crate) async fn called(&self, start: &str) {
        eventually(&format!("a call of `{start}`"), || self.count(start) > 0).await;
    }

    /// The state of a VM, in Multipass' own word; empty when it is not there.
    pub(crate) async fn state(&self, vm: &str) -> String {
        let output = self.run(&["list", "--no-ipv4", "--format", "json"]).await;
        let list: Value = serde_json::from_slice(&output.stdout).unwrap();
        list["list"]
            .as_array()
            .unwrap()
            .iter()
            .find(|row| row["name"] == vm)
            .map(|row| row["state"].as_str().unwrap().to_owned())
            .unwrap_or_default()
    }
}

/// The example that the test run builds beside this program.
fn program() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let program = tests
        .parent()
        .unwrap()
        .parent()
        .unwrap()
        .join("examples/multipass");
    assert!(
        program.exists(),
        "{} is not built: run `cargo build -p batwa-agent --example multipass`",
        program.display()
    );
    program
}

/// Times for VMs that boot within moments.
pub(crate) fn limits() -> Limits {
    Limits {
        quick: Duration::from_secs(5),
        look: Duration::from_secs(10),
        heavy: Duration::from_secs(20),
        boot: Duration::from_secs(20),
        copy: Duration::from_secs(20),
        launch: Duration::from_secs(20),
        late: Duration::from_secs(10),
        settle: Duration::from_secs(5),
        comeback: Duration::from_secs(5),
        appear: Duration::from_secs(1),
        patience: Duration::from_secs(1),
        retry: Duration::from_millis(200),
        poll: Duration::from_millis(20),
        ..Limits::default()
    }
}

pub(crate) fn name(text: &str) -> VmName {
    VmName::parse(text).unwrap()
}

pub(crate) fn spec() -> VmSpec {
    VmSpec {
        image: "24.04".into(),
        memory: ByteSize::mib(600),
        ..VmSpec::default()
    }
}

/// One VM as the driver sees it.
pub(crate) async fn seen(driver: &dyn Driver, vm: &str) -> Option<ObservedVm> {
    let all = driver.observe().await.unwrap();
    all.into_iter().find(|seen| seen.name == name(vm))
}

/// Waits for a condition.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < until, "waited in vain for {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// What an operation was told.
#[derive(Clone, Default)]
pub(crate) struct Told(Arc<Mutex<Vec<ProgressUpdate>>>);

impl Told {
    pub(crate) fn progress(&self) -> Progress {
        let told = Arc::clone(&self.0);
        Progress::new(move |update| told.lock().unwrap().push(update))
    }

    pub(crate) fn stages(&self) -> Vec<Stage> {
        let mut stages: Vec<Stage> = self
            .0
            .lock()
            .unwrap()
            .iter()
            .filter_map(|update| match update {
                ProgressUpdate::Stage(stage) => Some(*stage),
                _ => None,
            })
            .collect();
        stages.dedup();
        stages
    }

    pub(crate) fn percents(&self) -> Vec<f64> {
        let told = self.0.lock().unwrap();
        told.iter()
            .filter_map(|update| match update {
                ProgressUpdate::Percent(percent) => Some(*percent),
                _ => None,
            })
            .collect()
    }

    pub(crate) fn is_late(&self) -> bool {
        self.0.lock().unwrap().contains(&ProgressUpdate::Late)
    }
}
