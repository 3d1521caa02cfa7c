//! A VM from its making to its end.

use batwa_agent::driver::{Driver, DriverError, Progress, StopMode};
use batwa_api::{
    operation::Stage,
    size::ByteSize,
    vm::{Readiness, VmSpec, VmState},
};

use crate::{
    lab::{is_qemu, kill, tiny, vm, within},
    lab_or_skip,
};

#[tokio::test]
async fn a_vm_is_made_written_to_stopped_started_and_has_what_was_written() {
    let lab = lab_or_skip!();
    let spec = VmSpec {
        cpus: 2,
        disk: ByteSize::mib(1500),
        cloud_init: Some("#!/bin/sh\nhostname > /root/made-by-user-data\n".to_owned()),
        ..tiny()
    };
    let stages = lab.create("web-1", spec).await.unwrap();
    let order = [
        Stage::ResolvingImage,
        Stage::Preparing,
        Stage::Booting,
        Stage::WaitingForSsh,
    ];
    let mut rest = stages.iter();
    assert!(
        order.iter().all(|stage| rest.any(|seen| seen == stage)),
        "{stages:?}"
    );

    let seen = lab.inspect("web-1").await;
    assert_eq!(seen.state, VmState::Running);
    assert_eq!(seen.readiness, Some(Readiness::Ready));
    assert_eq!(seen.ipv4, ["10.0.2.15"]);
    let usage = seen.usage.unwrap();
    assert!(usage.load.is_some() && usage.memory_used.unwrap() < ByteSize::mib(192));

    let mut shell = lab.shell("web-1").await;
    assert!(shell.run("uname -a").await.starts_with("Linux web-1 "));
    assert_eq!(shell.run("nproc").await, "2");
    assert_eq!(shell.run("cat /root/made-by-user-data").await, "web-1");
    let size = shell.run("df -Pm / | awk 'END { print $2 }'").await;
    let size: u32 = size.parse().unwrap();
    assert!((1200..1500).contains(&size), "{size} MiB");
    shell.run("echo kept > /root/file").await;
    drop(shell);

    within(
        lab.driver()
            .stop(&vm("web-1"), StopMode::Graceful, &Progress::ignored()),
    )
    .await
    .unwrap();
    let seen = lab.inspect("web-1").await;
    assert_eq!((seen.state, seen.message), (VmState::Stopped, None));
    // Done already.
    within(
        lab.driver()
            .stop(&vm("web-1"), StopMode::Graceful, &Progress::ignored()),
    )
    .await
    .unwrap();

    within(lab.driver().start(&vm("web-1"), &Progress::ignored()))
        .await
        .unwrap();
    let mut shell = lab.shell("web-1").await;
    assert_eq!(shell.run("cat /root/file").await, "kept");
    let pid = lab.pid("web-1");
    within(lab.driver().purge(&vm("web-1"), &Progress::ignored()))
        .await
        .unwrap();
    assert!(!is_qemu(pid));
    assert_eq!(
        std::fs::read_dir(lab.state().join("vms")).unwrap().count(),
        0
    );
    assert!(lab.driver().observe().await.unwrap().is_empty());
    within(lab.driver().purge(&vm("web-1"), &Progress::ignored()))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_vm_outlives_its_agent_and_one_that_died_says_why() {
    let mut lab = lab_or_skip!();
    lab.create("alive", tiny()).await.unwrap();
    let pid = lab.pid("alive");
    lab.agent_dies_and_comes_back();
    assert!(is_qemu(pid));
    let seen = lab
        .see("alive", |seen| seen.readiness == Some(Readiness::Ready))
        .await;
    assert_eq!(seen.state, VmState::Running);
    let mut shell = lab.shell("alive").await;
    assert_eq!(shell.run("hostname").await, "alive");

    kill(pid);
    let seen = lab
        .see("alive", |seen| {
            seen.state == VmState::Stopped && seen.message.is_some()
        })
        .await;
    assert!(seen.message.unwrap().contains("QEMU ended"));
    shell.drain().await;
    let exit = within(&mut shell.pty.exit).await.unwrap();
    assert_eq!(exit.reason, "the VM was stopped");

    within(lab.driver().start(&vm("alive"), &Progress::ignored()))
        .await
        .unwrap();
    let seen = lab.inspect("alive").await;
    assert_eq!((seen.state, seen.message), (VmState::Running, None));
}

#[tokio::test]
async fn a_vm_goes_on_where_it_was_suspended_and_the_trash_gives_it_back() {
    let lab = lab_or_skip!();
    lab.create("sleeper", tiny()).await.unwrap();
    let name = vm("sleeper");
    let mut shell = lab.shell("sleeper").await;
    shell.run("echo in-memory > /dev/shm/note").await;
    drop(shell);
    within(lab.driver().suspend(&name, &Progress::ignored()))
        .await
        .unwrap();
    assert_eq!(lab.inspect("sleeper").await.state, VmState::Suspended);
    within(lab.driver().start(&name, &Progress::ignored()))
        .await
        .unwrap();
    let mut shell = lab.shell("sleeper").await;
    assert_eq!(shell.run("cat /dev/shm/note").await, "in-memory");
    drop(shell);

    // Suspended again: what was kept the first time is not in the way.
    within(lab.driver().suspend(&name, &Progress::ignored()))
        .await
        .unwrap();
    within(lab.driver().delete(&name, &Progress::ignored()))
        .await
        .unwrap();
    assert_eq!(lab.inspect("sleeper").await.state, VmState::Deleted);
    let refused = lab.driver().check(&name, &tiny()).await.unwrap_err();
    assert_eq!(refused, DriverError::NameTaken(name.clone()));
    within(lab.driver().recover(&name, &Progress::ignored()))
        .await
        .unwrap();
    assert_eq!(lab.inspect("sleeper").await.state, VmState::Stopped);
    within(lab.driver().purge(&name, &Progress::ignored()))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_creation_that_is_cut_off_leaves_nothing_that_purge_does_not_remove() {
    let mut lab = lab_or_skip!();
    lab.create("first", tiny()).await.unwrap();
    within(lab.driver().purge(&vm("first"), &Progress::ignored()))
        .await
        .unwrap();
    let name = vm("cut");
    // At each stage that it passes through, the caller goes away.
    for stage in [
        Stage::ResolvingImage,
        Stage::Preparing,
        Stage::Booting,
        Stage::WaitingForSsh,
    ] {
        let (reached, mut wait) = tokio::sync::mpsc::channel(8);
        let progress = Progress::new(move |update| {
            if update == batwa_agent::driver::ProgressUpdate::Stage(stage) {
                let _ = reached.try_send(());
            }
        });
        {
            let spec = tiny();
            let create = lab.driver().create(&name, &spec, &progress);
            tokio::select! {
                done = within(create) => panic!("{stage:?} never came: {done:?}"),
                _ = wait.recv() => {}
            }
        }
        lab.agent_dies_and_comes_back();
        let pid = std::fs::read_to_string(lab.state().join("vms/cut/pid"));
        lab.driver().observe().await.unwrap();
        within(lab.driver().purge(&name, &Progress::ignored()))
            .await
            .unwrap();
        if let Ok(pid) = pid {
            assert!(!is_qemu(pid.trim().parse().unwrap()), "after {stage:?}");
        }
        let left = std::fs::read_dir(lab.state().join("vms")).unwrap().count();
        assert_eq!(left, 0, "after {stage:?}");
    }
}

#[tokio::test]
async fn what_cannot_work_is_refused_with_its_field_and_leaves_nothing() {
    let lab = lab_or_skip!();
    let field = async |spec: VmSpec| match lab.driver().check(&vm("web"), &spec).await {
        Err(DriverError::Invalid { field, message }) => (field, message),
        other => panic!("{other:?}"),
    };
    let (name, message) = field(VmSpec {
        image: "tinny".to_owned(),
        ..tiny()
    })
    .await;
    assert_eq!(name, "image");
    assert!(message.contains("`tiny`"), "{message}");
    let cloud_config = Some("#cloud-config\npackages: [vim]\n".to_owned());
    let (name, message) = field(VmSpec {
        cloud_init: cloud_config,
        ..tiny()
    })
    .await;
    assert_eq!(name, "cloud_init");
    assert!(message.contains("#!"), "{message}");
    let (name, _) = field(VmSpec {
        disk: ByteSize::mib(100),
        ..tiny()
    })
    .await;
    assert_eq!(name, "disk");
    let missing = lab.driver().inspect(&vm("web")).await.unwrap_err();
    assert_eq!(missing, DriverError::NotFound(vm("web")));
    assert_eq!(
        std::fs::read_dir(lab.state().join("vms")).unwrap().count(),
        0
    );
}

#[tokio::test]
async fn user_data_that_fails_is_told_with_its_last_words_and_the_vm_stays() {
    let lab = lab_or_skip!();
    let spec = VmSpec {
        cloud_init: Some("#!/bin/sh\necho no such luck\nexit 3\n".to_owned()),
        ..tiny()
    };
    match lab.create("unlucky", spec).await.unwrap_err() {
        DriverError::Failed { detail, log, .. } => {
            assert!(detail.contains("cloud-init failed"), "{detail}");
            assert!(log.iter().any(|line| line == "no such luck"), "{log:?}");
        }
        other => panic!("{other:?}"),
    }
    let seen = lab.inspect("unlucky").await;
    assert_eq!(seen.state, VmState::Running);
    assert_eq!(seen.message.as_deref(), Some("cloud-init failed"));
}
