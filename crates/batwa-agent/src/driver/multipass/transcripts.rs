//! The recorded runs of a real Multipass that the tests compare with; spinner frames that repeat are shortened.

mod coverage;
mod stand_in;

use std::sync::LazyLock;

use batwa_api::{
    name::{SnapshotName, VmName},
    size::ByteSize,
};
use serde::Deserialize;

use super::call::{Call, Launch, NewMount, NewSize, NewSnapshot, Setting, UserDataFrom};
use crate::driver::StopMode;

/// One recorded run.
#[derive(Debug, Deserialize)]
pub(super) struct Row {
    /// Its number in the record.
    pub(super) n: u32,
    /// Program and arguments.
    pub(super) argv: Vec<String>,
    /// Its exit status.
    pub(super) exit: i32,
    /// Standard output, or all that appeared on the terminal.
    pub(super) stdout: String,
    /// Standard error.
    pub(super) stderr: String,
}

static ROWS: LazyLock<Vec<Row>> = LazyLock::new(|| {
    include_str!("../../../tests/fixtures/multipass/transcripts.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).expect("a row of the record"))
        .collect()
});

/// All of them.
pub(super) fn rows() -> &'static [Row] {
    &ROWS
}

/// The one with a number.
pub(super) fn row(n: u32) -> &'static Row {
    ROWS.iter()
        .find(|row| row.n == n)
        .expect("a row with this number")
}

/// What a recorded command line names.
pub(super) struct Names {
    vm: VmName,
    made: VmName,
    snapshot: Option<SnapshotName>,
}

/// The VM in `VM:PATH`.
fn vm_of(place: Option<&String>) -> &str {
    let vm = place.and_then(|place| place.split(':').next());
    vm.unwrap_or("none")
}

impl Names {
    /// Those of a row; `none` where it names no VM.
    pub(super) fn of(row: &Row) -> Self {
        let value = |options: &[&str]| {
            let at = row
                .argv
                .iter()
                .position(|word| options.contains(&word.as_str()));
            at.and_then(|at| row.argv.get(at + 1)).map(String::as_str)
        };
        let vm = |text: &str| {
            VmName::parse(text)
                .or_else(|_| VmName::parse("none"))
                .unwrap()
        };
        let named = value(&["--name", "-n"]).unwrap_or("none");
        let words = row.argv.get(2..).unwrap_or_default();
        let word = words
            .iter()
            .find(|word| !word.starts_with('-'))
            .map_or("none", String::as_str);
        let command = row.argv.get(1).map_or("", String::as_str);
        let (name, snapshot) = match (command, word.split_once('.')) {
            ("launch", _) => (named, None),
            ("get" | "set", Some(("local", key))) => (key.split('.').next().unwrap_or(key), None),
            ("restore" | "delete", Some((vm, snapshot))) => (vm, Some(snapshot)),
            ("snapshot", _) => (word, Some(named)),
            ("mount", _) => (vm_of(words.get(1)), None),
            ("umount", _) => (vm_of(words.first()), None),
            _ => (word, None),
        };
        Self {
            vm: vm(name),
            made: vm(named),
            snapshot: snapshot.map(|name| {
                SnapshotName::parse(name)
                    .or_else(|_| SnapshotName::parse("none"))
                    .unwrap()
            }),
        }
    }

    /// The driver's call that comes nearest to the recorded one; `None` for commands that it never calls.
    pub(super) fn call(&self, row: &Row) -> Option<Call<'_>> {
        let vm = &self.vm;
        Some(match row.argv.get(1)?.as_str() {
            "launch" => Call::Launch(Launch {
                vm,
                image: "24.04",
                cpus: 1,
                memory: ByteSize::gib(1),
                disk: ByteSize::gib(5),
                user_data: UserDataFrom::Nowhere,
                networks: &[],
            }),
            "start" => Call::Start(vm),
            "stop" => Call::Stop(vm, StopMode::Graceful),
            "restart" => Call::Restart(vm),
            "suspend" => Call::Suspend(vm),
            "delete" => match &self.snapshot {
                Some(snapshot) => Call::DeleteSnapshot(vm, snapshot),
                None => Call::Delete(vm),
            },
            "recover" => Call::Recover(vm),
            "info" => Call::Info(vm),
            "list" => Call::List,
            "find" => Call::Find,
            "networks" => Call::Networks,
            "get" => Call::Get(vm, Setting::Cpus),
            "set" => Call::Set(vm, NewSize::Cpus(1)),
            "version" => Call::Version,
            "snapshot" => Call::Snapshot(NewSnapshot {
                vm,
                name: self.snapshot.as_ref()?,
                comment: "",
            }),
            "restore" => Call::Restore(vm, self.snapshot.as_ref()?),
            "clone" => Call::Clone(vm, &self.made),
            "mount" => Call::Mount(NewMount {
                vm,
                source: "/srv/share",
                target: "/mnt/share",
                kind: None,
            }),
            "umount" => Call::Umount(vm, None),
            _ => return None,
        })
    }
}
