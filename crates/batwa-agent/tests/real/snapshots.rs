//! Snapshots, clones and sizes, as they are seen from inside.

use batwa_agent::driver::{Driver, Progress, StopMode};
use batwa_api::{name::SnapshotName, size::ByteSize, vm::ResizeOptions};

use crate::{
    lab::{Lab, tiny, vm, within},
    lab_or_skip,
};

fn snapshot(name: &str) -> SnapshotName {
    SnapshotName::parse_new(name).unwrap()
}

async fn stop(lab: &Lab, name: &str) {
    let (name, quiet) = (vm(name), Progress::ignored());
    let stop = lab.driver().stop(&name, StopMode::Graceful, &quiet);
    within(stop).await.unwrap();
}

async fn start(lab: &Lab, name: &str) {
    within(lab.driver().start(&vm(name), &Progress::ignored()))
        .await
        .unwrap();
}

/// Size of the root file system in MiB.
const ROOT_SIZE: &str = "df -Pm / | awk 'END { print $2 }'";

#[tokio::test]
async fn a_clone_has_what_was_written_and_an_identity_of_its_own() {
    let lab = lab_or_skip!();
    // What the user gave is done once, on the disk that both have.
    let script = "#!/bin/sh\necho run >> /root/runs\n";
    let mut spec = tiny();
    spec.cloud_init = Some(script.to_owned());
    lab.create("mother", spec).await.unwrap();
    let mut shell = lab.shell("mother").await;
    let machine_id = shell.run("cat /etc/machine-id").await;
    assert_eq!(machine_id.len(), 32, "{machine_id}");
    shell.run("echo hers > /root/note; sync").await;
    drop(shell);
    stop(&lab, "mother").await;

    let quiet = Progress::ignored();
    within(
        lab.driver()
            .clone_vm(&vm("mother"), &vm("daughter"), None, &quiet),
    )
    .await
    .unwrap();
    let key = |name: &str| {
        let file = lab.state().join("vms").join(name).join("host_key.pub");
        std::fs::read_to_string(file).unwrap()
    };
    assert_ne!(key("mother"), key("daughter"));
    start(&lab, "daughter").await;
    // That it lets us in proves the new host key: any other is refused.
    let mut shell = lab.shell("daughter").await;
    assert_eq!(shell.run("cat /root/note").await, "hers");
    assert_eq!(shell.run("hostname").await, "daughter");
    assert_eq!(shell.run("grep -c run /root/runs").await, "1");
    let own = shell.run("cat /etc/machine-id").await;
    assert_eq!(own.len(), 32, "{own}");
    assert_ne!(own, machine_id);
}

#[tokio::test]
async fn a_disk_that_grew_is_seen_inside_and_a_snapshot_brings_its_size_back() {
    let lab = lab_or_skip!();
    let (name, quiet) = (vm("grower"), Progress::ignored());
    lab.create("grower", tiny()).await.unwrap();
    stop(&lab, "grower").await;
    within(lab.driver().snapshot(&name, &snapshot("small"), "", &quiet))
        .await
        .unwrap();

    let size = ResizeOptions {
        cpus: Some(2),
        memory: Some(ByteSize::mib(256)),
        disk: Some(ByteSize::gib(2)),
        stop: false,
    };
    within(lab.driver().resize(&name, &size, &quiet))
        .await
        .unwrap();
    start(&lab, "grower").await;
    let mut shell = lab.shell("grower").await;
    assert_eq!(shell.run("nproc").await, "2");
    let root: u32 = shell.run(ROOT_SIZE).await.parse().unwrap();
    assert!((1700..2048).contains(&root), "{root} MiB");
    shell.run("echo large > /root/note; sync").await;
    drop(shell);
    stop(&lab, "grower").await;
    within(lab.driver().snapshot(&name, &snapshot("large"), "", &quiet))
        .await
        .unwrap();

    within(lab.driver().restore(&name, &snapshot("small"), &quiet))
        .await
        .unwrap();
    let seen = lab.inspect("grower").await;
    assert_eq!((seen.cpus, seen.disk), (Some(1), Some(ByteSize::gib(1))));
    start(&lab, "grower").await;
    let mut shell = lab.shell("grower").await;
    assert_eq!(shell.run("nproc").await, "1");
    let root: u32 = shell.run(ROOT_SIZE).await.parse().unwrap();
    assert!(root < 1024, "{root} MiB");
    assert_eq!(shell.run("cat /root/note 2>/dev/null").await, "");
    drop(shell);
    stop(&lab, "grower").await;

    // A clone of the larger one, though the disk is smaller now.
    let (large, grown) = (snapshot("large"), vm("grown"));
    let clone = lab.driver().clone_vm(&name, &grown, Some(&large), &quiet);
    within(clone).await.unwrap();
    let seen = lab.inspect("grown").await;
    assert_eq!((seen.cpus, seen.disk), (Some(2), Some(ByteSize::gib(2))));
    assert!(seen.snapshots.is_empty());
    start(&lab, "grown").await;
    let mut shell = lab.shell("grown").await;
    assert_eq!(shell.run("cat /root/note").await, "large");
    let root: u32 = shell.run(ROOT_SIZE).await.parse().unwrap();
    assert!((1700..2048).contains(&root), "{root} MiB");
}
