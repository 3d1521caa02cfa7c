//! The stand-in complains as the real Multipass was recorded to: every complaint that the driver may meet is one that
//! the stand-in makes too, at the driver's own calls, so that the driver's tests meet it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};

use super::{Names, coverage::handled, rows};
use crate::driver::{
    DriverError, StopMode,
    command::Command,
    multipass::{
        Limits,
        call::{Call, Launch, NewMount, NewSize, NewSnapshot, UserDataFrom},
        error::explain,
    },
};
use batwa_api::{
    name::{SnapshotName, VmName},
    size::ByteSize,
    vm::{MountKind, NetworkCard},
};

const DEADLINE: Duration = Duration::from_secs(30);

/// Recorded complaints that no call of the driver can bring about, by what [`meaning`] makes of them.
const NEVER_MET: &[(&str, &str)] = &[
    ("find: InvalidField image", "`find` is never given a word"),
    ("set: InvalidField memory write", "sizes are always numbers"),
    ("set: InvalidField disk write", "sizes are always numbers"),
    (
        "launch: InvalidField memory write",
        "sizes are always numbers",
    ),
    ("list: Failed none", "the owner's settings are wrong"),
    (
        "start: Failed sshfs",
        "a start without a name, which mounts the home folder",
    ),
];

/// A complaint without what differs from one VM to the next.
fn meaning(command: &str, error: &DriverError) -> String {
    let words = match error {
        DriverError::Invalid { field, message } => {
            let unreadable = message.starts_with("write a size");
            format!("{field}{}", if unreadable { " write" } else { "" })
        }
        DriverError::IllegalState(text) => text
            .split('`')
            .enumerate()
            .filter_map(|(n, part)| (n % 2 == 0).then_some(part.trim()))
            .collect::<Vec<_>>()
            .join(" "),
        DriverError::Failed { hint, .. } => {
            let hint = hint.as_deref().unwrap_or("none");
            let about = ["memory", "force", "sshfs", "network"];
            let word = about.into_iter().find(|word| hint.contains(word));
            word.unwrap_or("none").to_owned()
        }
        _ => String::new(),
    };
    let code = format!("{:?}", error.code());
    let code = match error {
        DriverError::Failed { .. } => "Failed",
        _ => &code,
    };
    format!("{command}: {code} {words}").trim_end().to_owned()
}

/// What the record holds of complaints that become an error or are told as they are.
fn recorded() -> BTreeMap<String, u32> {
    let mut all = BTreeMap::new();
    for row in rows().iter().filter(|row| row.exit > 0) {
        let way = handled(row).unwrap_or_default();
        let names = Names::of(row);
        let Some(call) = names.call(row).filter(|_| !way.starts_with("never")) else {
            continue;
        };
        let error = explain(&call, Some(row.exit), &row.stderr);
        all.entry(meaning(call.command(), &error)).or_insert(row.n);
    }
    all
}

/// The example that the test run builds beside this program.
fn program() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let program = tests.parent().unwrap().parent().unwrap();
    let program = program.join("examples/multipass");
    assert!(
        program.exists(),
        "{} is not built: run `cargo build -p batwa-agent --example multipass`",
        program.display()
    );
    program
}

/// A world with a VM in every state, made anew before each call.
fn write_world(folder: &Path, knobs: &Value) {
    let state = |state: &str| json!([[0, state]]);
    let vm = |schedule: Value, trashed: bool| {
        json!({
            "cpus": 1, "memory": 1_u64 << 30, "disk": 5_u64 << 30, "release": "Ubuntu 24.04 LTS",
            "address": "10.89.54.1", "schedule": schedule, "trashed": trashed,
            "snapshots": {"one": {
                "comment": "", "parent": null, "created": 0, "cpus": 1, "memory": 1_u64 << 30,
                "disk": 5_u64 << 30,
            }},
            "mounts": {"/mnt/taken": "/srv"},
        })
    };
    let vms = json!({
        "on": vm(state("Running"), false),
        "off": vm(state("Stopped"), false),
        "asleep": vm(state("Suspended"), false),
        "booting": vm(state("Starting"), false),
        "lost": vm(state("Unknown"), false),
        "trashed": vm(state("Stopped"), true),
    });
    let world = json!({"vms": vms, "cached": [], "down_until": 0, "next_address": 9});
    std::fs::write(folder.join("state.json"), world.to_string()).unwrap();
    std::fs::write(folder.join("control.json"), knobs.to_string()).unwrap();
}

/// What the stand-in answers to a call; nothing when it does it.
async fn complaint(program: &Path, folder: &Path, call: &Call<'_>) -> Option<String> {
    let limits = Limits {
        boot: Duration::from_secs(1),
        launch: Duration::from_secs(1),
        ..Limits::default()
    };
    let output = Command::new(program)
        .args(call.argv(&limits))
        .env("STAND_IN_DIR", folder)
        .stdin("#cloud-config\n- [".as_bytes())
        .deadline(DEADLINE)
        .output()
        .await
        .unwrap();
    let stderr = output.stderr;
    (!output.status.success()).then(|| {
        let error = explain(call, output.status.code(), &stderr);
        meaning(call.command(), &error)
    })
}

/// Every call about one VM; `file` is no folder, and the machine has no network `nowhere`.
fn calls<'a>(
    vm: &'a VmName,
    other: &'a VmName,
    snapshot: &'a SnapshotName,
    file: &'a str,
    nowhere: &'a [NetworkCard],
) -> Vec<Call<'a>> {
    let launch = Launch {
        vm,
        image: "24.04",
        cpus: 1,
        memory: ByteSize::gib(1),
        disk: ByteSize::gib(5),
        user_data: UserDataFrom::Nowhere,
        networks: &[],
    };
    let mount = NewMount {
        vm,
        source: "/",
        target: "/mnt/taken",
        kind: None,
    };
    let kept = NewSnapshot {
        vm,
        name: snapshot,
        comment: "",
    };
    vec![
        Call::List,
        Call::Find,
        Call::Networks,
        Call::Info(vm),
        Call::Get(vm, super::Setting::Cpus),
        Call::Launch(launch),
        Call::Launch(Launch { cpus: 0, ..launch }),
        Call::Launch(Launch {
            memory: ByteSize::mib(10),
            ..launch
        }),
        Call::Launch(Launch {
            disk: ByteSize::mib(100),
            ..launch
        }),
        Call::Launch(Launch {
            image: "nosuch",
            ..launch
        }),
        Call::Launch(Launch {
            networks: nowhere,
            ..launch
        }),
        Call::Launch(Launch {
            user_data: UserDataFrom::Stdin,
            ..launch
        }),
        Call::Start(vm),
        Call::Stop(vm, StopMode::Graceful),
        Call::Restart(vm),
        Call::Suspend(vm),
        Call::Delete(vm),
        Call::Recover(vm),
        Call::Snapshot(kept),
        Call::Restore(vm, snapshot),
        Call::DeleteSnapshot(vm, snapshot),
        Call::Clone(vm, other),
        Call::Set(vm, NewSize::Cpus(2)),
        Call::Set(vm, NewSize::Cpus(0)),
        Call::Set(vm, NewSize::Memory(ByteSize::mib(10))),
        Call::Set(vm, NewSize::Disk(ByteSize::gib(1))),
        Call::Mount(mount),
        Call::Mount(NewMount {
            target: "/mnt/free",
            kind: Some(MountKind::Native),
            ..mount
        }),
        Call::Mount(NewMount {
            source: "/nonexistent",
            ..mount
        }),
        Call::Mount(NewMount {
            source: file,
            ..mount
        }),
        Call::Mount(NewMount {
            target: "/mnt/free",
            ..mount
        }),
        Call::Umount(vm, Some("/mnt/free")),
    ]
}

#[tokio::test]
async fn every_recorded_complaint_that_the_driver_may_meet_is_made_by_the_stand_in_too() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let (program, file) = (program(), file.to_str().unwrap().to_owned());
    let quick = json!({"boot_ms": 60, "init_ms": 10, "image_ms": 10, "stop_ms": 10, "disk_ms": 0, "unheard_ms": 20});
    let with = |key: &str, value: Value| {
        let mut knobs = quick.clone();
        knobs[key] = value;
        knobs
    };
    let vm = |text: &str| VmName::parse(text).unwrap();
    let snapshot = |text: &str| SnapshotName::parse(text).unwrap();
    let nowhere = ["name=nosuchbr".parse().unwrap()];
    let mut made = BTreeSet::new();
    let mut meet = async |knobs: &Value, name: &str, other: &str, kept: &str| {
        let (name, other, kept) = (vm(name), vm(other), snapshot(kept));
        for call in calls(&name, &other, &kept, &file, &nowhere) {
            write_world(folder.path(), knobs);
            made.extend(complaint(&program, folder.path(), &call).await);
        }
    };
    for state in ["on", "off", "asleep", "booting", "lost", "trashed", "none"] {
        meet(&quick, state, "new", "two").await;
    }
    // Names that are taken, and that cannot be.
    meet(&quick, "off", "on", "one").await;
    meet(&quick, "b_ad", "n_ew", "t_wo").await;
    meet(&quick, "off", "n_ew", "t_wo").await;
    meet(&with("down", json!(true)), "off", "new", "two").await;
    meet(&with("ssh_down", json!(["on"])), "on", "new", "two").await;
    meet(&with("no_sshfs", json!(["on"])), "on", "new", "two").await;
    meet(&with("boot", json!("times_out")), "off", "new", "two").await;
    meet(&with("boot", json!("times_out")), "on", "new", "two").await;
    for fate in ["times_out", "fails_late", "no_network"] {
        meet(&with("launch", json!(fate)), "new", "newer", "two").await;
    }

    let recorded = recorded();
    let never_met = |said: &str| NEVER_MET.iter().any(|(never, _)| *never == said);
    let missing: Vec<_> = recorded
        .iter()
        .filter(|(said, _)| !made.contains(*said) && !never_met(said))
        .map(|(said, row)| format!("{said} (row {row})"))
        .collect();
    assert!(
        missing.is_empty(),
        "no call of the driver meets these at the stand-in:\n{}\nit met:\n{}",
        missing.join("\n"),
        made.into_iter().collect::<Vec<_>>().join("\n")
    );
    let stale: Vec<_> = NEVER_MET
        .iter()
        .filter(|(never, _)| !recorded.contains_key(*never) || made.contains(*never))
        .collect();
    assert!(stale.is_empty(), "listed without need: {stale:?}");
}
