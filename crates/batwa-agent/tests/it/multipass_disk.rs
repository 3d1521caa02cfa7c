//! Snapshots, clones and sizes of Multipass' VMs.

use batwa_agent::driver::{Driver, DriverError, ObservedVm, Progress, multipass::Multipass};
use batwa_api::{
    name::SnapshotName,
    operation::Stage,
    size::ByteSize,
    vm::{ResizeOptions, VmState},
};
use serde_json::json;

use crate::stand_in::{StandIn, Told, name, seen};

fn quiet() -> Progress {
    Progress::ignored()
}

pub(crate) fn kept(text: &str) -> SnapshotName {
    SnapshotName::parse(text).unwrap()
}

pub(crate) fn memory(mib: u64) -> ResizeOptions {
    ResizeOptions {
        memory: Some(ByteSize::mib(mib)),
        ..ResizeOptions::default()
    }
}

pub(crate) async fn web(driver: &Multipass) -> ObservedVm {
    driver.inspect(&name("web")).await.unwrap()
}

/// `NAME <- PARENT`, in their order.
pub(crate) fn tree(vm: &ObservedVm) -> Vec<String> {
    let line = |kept: &batwa_api::vm::Snapshot| match &kept.parent {
        Some(parent) => format!("{} <- {parent}", kept.name),
        None => kept.name.to_string(),
    };
    vm.snapshots.iter().map(line).collect()
}

#[tokio::test]
async fn a_snapshot_is_taken_as_it_was_asked_for_and_told_with_its_time_and_size() {
    let multipass = StandIn::new();
    multipass.has_stopped(&["web"]).await;
    let (driver, told) = (multipass.driver(), Told::default());
    let comment = "--destructive \"quotes\", \u{e9}\nand a second line";
    driver
        .snapshot(&name("web"), &kept("zero"), comment, &told.progress())
        .await
        .unwrap();
    driver
        .snapshot(&name("web"), &kept("again"), "", &quiet())
        .await
        .unwrap();
    assert_eq!(told.stages(), [Stage::TakingSnapshot]);
    assert!(!told.is_late());
    let before = format!("snapshot web --name zero --comment {comment}");
    assert_eq!(multipass.count(&before), 1);
    assert!(
        multipass
            .lines_after(0)
            .contains(&"snapshot web --name again".to_owned())
    );

    let vm = web(&driver).await;
    assert_eq!(tree(&vm), ["zero", "again <- zero"]);
    assert_eq!(vm.snapshots[0].comment, comment);
    assert_eq!(vm.snapshots[0].disk, Some(ByteSize::gib(5)));
    let at = vm.snapshots[0].created_at.unwrap();
    let age = batwa_api::Timestamp::now().duration_since(at);
    assert!(age.as_secs() < 120, "{at}");
    // The list alone knows them too, once they were looked at.
    assert_eq!(tree(&seen(&driver, "web").await.unwrap()).len(), 2);
}

#[tokio::test]
async fn what_others_do_to_snapshots_is_seen_by_whoever_looks() {
    let multipass = StandIn::new();
    multipass.has_stopped(&["web"]).await;
    let driver = multipass.driver();
    assert_eq!(tree(&web(&driver).await), [""; 0]);
    multipass
        .run(&["snapshot", "web", "--name", "theirs"])
        .await;
    assert_eq!(tree(&web(&driver).await), ["theirs"]);
    multipass.run(&["start", "web"]).await;
    assert_eq!(tree(&web(&driver).await), ["theirs"]);
    let asked = multipass.count("info web --snapshots");
    web(&driver).await;
    assert_eq!(multipass.count("info web --snapshots"), asked);
    // One that runs tells their number, and that makes us look.
    multipass.run(&["delete", "--purge", "web.theirs"]).await;
    web(&driver).await;
    assert_eq!(tree(&web(&driver).await), [""; 0]);
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_its_reason_and_changes_nothing() {
    let multipass = StandIn::new();
    multipass.has(&["up"]).await;
    multipass.has(&["asleep", "trashed"]).await;
    multipass.run(&["suspend", "asleep"]).await;
    multipass.run(&["delete", "trashed"]).await;
    multipass.has_stopped(&["web"]).await;
    multipass.run(&["snapshot", "web", "--name", "first"]).await;
    let driver = multipass.driver();
    let calls = multipass.calls().len();
    let (quiet, first) = (quiet(), kept("first"));
    for vm in ["up", "asleep", "trashed"] {
        let vm = &name(vm);
        for result in [
            driver.snapshot(vm, &first, "", &quiet).await,
            driver.restore(vm, &first, &quiet).await,
            driver.delete_snapshot(vm, &first, &quiet).await,
            driver.clone_vm(vm, &name("twin"), None, &quiet).await,
            driver.resize(vm, &memory(2048), &quiet).await,
        ] {
            assert!(
                matches!(result, Err(DriverError::IllegalState(_))),
                "{vm}: {result:?}"
            );
        }
    }
    for vm in ["nope", "web.first"] {
        let (vm, missing) = (&name(vm), Err(DriverError::NotFound(name(vm))));
        assert_eq!(driver.snapshot(vm, &first, "", &quiet).await, missing);
        assert_eq!(driver.restore(vm, &first, &quiet).await, missing);
        assert_eq!(driver.delete_snapshot(vm, &first, &quiet).await, missing);
        assert_eq!(
            driver.clone_vm(vm, &name("twin"), None, &quiet).await,
            missing
        );
        assert_eq!(driver.resize(vm, &memory(2048), &quiet).await, missing);
    }
    let vm = &name("web");
    let taken = driver.snapshot(vm, &first, "", &quiet).await;
    assert_eq!(
        taken,
        Err(DriverError::SnapshotTaken {
            vm: vm.clone(),
            snapshot: first.clone()
        })
    );
    for odd in ["none", "first.x", "a_b"] {
        let missing = driver.restore(vm, &kept(odd), &quiet).await;
        assert!(
            matches!(missing, Err(DriverError::NoSnapshot { .. })),
            "{missing:?}"
        );
        assert_eq!(driver.delete_snapshot(vm, &kept(odd), &quiet).await, Ok(()));
    }
    for (target, expected) in [
        ("up", "NameTaken"),
        ("trashed", "NameTaken"),
        ("web", "NameTaken"),
        ("1st", "field: \"name\""),
        ("bad_name", "field: \"name\""),
        ("primary", "field: \"name\""),
    ] {
        let error = driver
            .clone_vm(vm, &name(target), None, &quiet)
            .await
            .unwrap_err();
        assert!(
            format!("{error:?}").contains(expected),
            "{target}: {error:?}"
        );
    }
    let past = driver
        .clone_vm(vm, &name("twin"), Some(&first), &quiet)
        .await;
    assert!(
        matches!(&past, Err(DriverError::Unsupported(text)) if text.contains("restore snapshot `first`")),
        "{past:?}"
    );
    let less = ResizeOptions {
        cpus: Some(4),
        disk: Some(ByteSize::gib(2)),
        ..ResizeOptions::default()
    };
    let less = driver.resize(vm, &less, &quiet).await;
    assert!(
        matches!(less, Err(DriverError::Invalid { field: "disk", .. })),
        "{less:?}"
    );
    // All this only read.
    for line in multipass.lines_after(calls) {
        let reads = ["list ", "info ", "get "];
        assert!(reads.iter().any(|read| line.starts_with(read)), "{line}");
    }
}

#[tokio::test]
async fn what_only_multipass_refuses_names_the_field_too() {
    let multipass = StandIn::new();
    multipass.has_stopped(&["web"]).await;
    let driver = multipass.driver();
    for (size, field) in [
        (memory(64), "memory"),
        (
            ResizeOptions {
                cpus: Some(0),
                ..ResizeOptions::default()
            },
            "cpus",
        ),
    ] {
        let refused = driver.resize(&name("web"), &size, &quiet()).await;
        assert!(
            matches!(&refused, Err(DriverError::Invalid { field: found, .. }) if *found == field),
            "{refused:?}"
        );
    }
    let bad = driver
        .snapshot(&name("web"), &kept("1x"), "", &quiet())
        .await;
    assert!(
        matches!(bad, Err(DriverError::Invalid { field: "name", .. })),
        "{bad:?}"
    );
    multipass.control(&json!({"disk": "full"}));
    let full = driver
        .snapshot(&name("web"), &kept("x"), "", &quiet())
        .await;
    let Err(DriverError::Failed {
        detail,
        hint: Some(hint),
        ..
    }) = &full
    else {
        panic!("{full:?}")
    };
    assert!(detail.contains("No space left"), "{detail}");
    assert!(hint.contains("free space"), "{hint}");
}

#[tokio::test]
async fn a_new_size_is_set_where_it_differs_and_shown_to_the_byte() {
    let multipass = StandIn::new();
    multipass.has_stopped(&["web"]).await;
    let (driver, told) = (multipass.driver(), Told::default());
    let size = ResizeOptions {
        cpus: Some(1),
        memory: Some(ByteSize::mib(1500)),
        disk: Some(ByteSize::bytes(6_000_000_001)),
        stop: false,
    };
    let before = multipass.calls().len();
    driver
        .resize(&name("web"), &size, &told.progress())
        .await
        .unwrap();
    assert_eq!(told.stages(), [Stage::Resizing]);
    let sets: Vec<_> = multipass
        .lines_after(before)
        .into_iter()
        .filter(|line| line.starts_with("set"))
        .collect();
    assert_eq!(
        sets,
        [
            "set local.web.disk=6000000001",
            "set local.web.memory=1500M"
        ]
    );
    let vm = web(&driver).await;
    assert_eq!(
        (vm.cpus, vm.memory, vm.disk),
        (size.cpus, size.memory, size.disk)
    );
}

#[tokio::test]
async fn going_back_brings_disk_and_size_back() {
    let multipass = StandIn::new();
    multipass.has_stopped(&["web"]).await;
    let note = multipass.folder().join("vms/web/note");
    let driver = multipass.driver();
    let vm = &name("web");
    std::fs::write(&note, "old").unwrap();
    driver
        .snapshot(vm, &kept("first"), "", &quiet())
        .await
        .unwrap();
    std::fs::write(&note, "new").unwrap();
    driver.resize(vm, &memory(2048), &quiet()).await.unwrap();
    let told = Told::default();
    driver
        .restore(vm, &kept("first"), &told.progress())
        .await
        .unwrap();
    assert_eq!(told.stages(), [Stage::Restoring]);
    assert_eq!(multipass.count("restore web.first --destructive"), 1);
    assert_eq!(std::fs::read_to_string(note).unwrap(), "old");
    assert_eq!(web(&driver).await.memory, Some(ByteSize::gib(1)));
}

#[tokio::test]
async fn a_clone_is_another_vm_that_is_off_and_has_no_past() {
    let multipass = StandIn::new();
    multipass.has_stopped(&["web"]).await;
    std::fs::write(multipass.folder().join("vms/web/note"), "x").unwrap();
    let (driver, told) = (multipass.driver(), Told::default());
    driver
        .snapshot(&name("web"), &kept("first"), "", &quiet())
        .await
        .unwrap();
    driver
        .clone_vm(&name("web"), &name("twin"), None, &told.progress())
        .await
        .unwrap();
    assert_eq!(told.stages(), [Stage::Cloning]);
    assert_eq!(multipass.count("clone web --name twin"), 1);
    let twin = driver.inspect(&name("twin")).await.unwrap();
    assert_eq!((twin.state, tree(&twin).len()), (VmState::Stopped, 0));
    assert!(multipass.folder().join("vms/twin/note").exists());
    driver.purge(&name("twin"), &quiet()).await.unwrap();
    assert_eq!(tree(&web(&driver).await), ["first"]);
}

#[tokio::test]
async fn an_old_multipass_is_not_asked_for_what_it_does_not_know() {
    let multipass = StandIn::new();
    multipass.has_stopped(&["web"]).await;
    multipass.control(
        &json!({"rubbish": {"version": "{\"multipass\":\"1.12.2\",\"multipassd\":\"1.12.2\"}"}}),
    );
    let driver = multipass.driver();
    let can = driver.probe().await.unwrap().capabilities;
    assert_eq!((can.snapshots, can.clone, can.resize), (false, false, true));
    web(&driver).await;
    assert_eq!(multipass.count("info web --snapshots"), 0);
}

#[tokio::test]
async fn the_daemon_is_free_for_a_list_between_the_steps_of_a_new_size() {
    let multipass = StandIn::new();
    multipass.has_stopped(&["web"]).await;
    multipass.control(&json!({"disk_ms": 300}));
    let driver = std::sync::Arc::new(multipass.driver());
    let size = ResizeOptions {
        cpus: Some(2),
        memory: Some(ByteSize::gib(2)),
        disk: Some(ByteSize::gib(9)),
        stop: false,
    };
    let reads = async {
        multipass.called("set local.web.disk").await;
        driver.observe().await.unwrap();
    };
    let (web, quiet) = (name("web"), quiet());
    let (resized, ()) = tokio::join!(driver.resize(&web, &size, &quiet), reads);
    resized.unwrap();
    let lines = multipass.lines_after(0);
    let at = |start: &str| {
        lines
            .iter()
            .position(|line| line.starts_with(start))
            .unwrap()
    };
    let list = lines
        .iter()
        .rposition(|line| line.starts_with("list"))
        .unwrap();
    assert!(
        at("set local.web.disk") < list && list < at("set local.web.cpus"),
        "{lines:?}"
    );
}
