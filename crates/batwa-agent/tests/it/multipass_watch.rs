//! What the Multipass driver asks while nothing is done: as little as can be, and never of a VM that boots.

use std::time::Duration;

use batwa_agent::driver::{Driver, Progress};
use batwa_api::{size::ByteSize, vm::VmState};
use serde_json::json;

use crate::stand_in::{StandIn, name, seen};

#[tokio::test]
async fn watching_costs_one_cheap_list_each_time_however_many_vms_there_are() {
    let multipass = StandIn::new();
    multipass.control(&json!({"boot_ms": 1, "image_ms": 0, "init_ms": 0}));
    multipass.has(&["a", "b", "c", "d", "e"]).await;
    let driver = multipass.driver();
    let before = multipass.calls().len();
    for _ in 0..4 {
        assert_eq!(driver.observe().await.unwrap().len(), 5);
    }
    let lines: Vec<_> = multipass.calls()[before..]
        .iter()
        .map(|call| call.line.clone())
        .collect();
    assert_eq!(lines, ["list --no-ipv4 --format json"; 4]);
}

#[tokio::test]
async fn a_look_asks_one_vm_and_is_remembered_while_it_runs() {
    let multipass = StandIn::new();
    multipass.has(&["web", "other"]).await;
    let driver = multipass.driver();
    let vm = driver.inspect(&name("web")).await.unwrap();
    assert_eq!((vm.ipv4.len(), vm.memory), (1, Some(ByteSize::gib(1))));
    assert_eq!(multipass.count("info"), 2);
    assert_eq!(multipass.count("info web --format json"), 1);
    assert_eq!(multipass.count("info web --snapshots"), 1);
    assert_eq!(seen(&driver, "web").await.unwrap().ipv4, vm.ipv4);
    assert_eq!(
        seen(&driver, "web").await.unwrap().disk,
        Some(ByteSize::gib(5))
    );
    assert_eq!(seen(&driver, "other").await.unwrap().ipv4, [""; 0]);

    driver.inspect(&name("web")).await.unwrap();
    assert_eq!(
        (
            multipass.count("get local.web.memory"),
            multipass.count("info web --format json"),
            multipass.count("info web --snapshots")
        ),
        (1, 2, 1)
    );

    multipass.run(&["stop", "web"]).await;
    let vm = driver.inspect(&name("web")).await.unwrap();
    assert_eq!(
        (vm.state, vm.ipv4.len(), vm.usage),
        (VmState::Stopped, 0, None)
    );
    // Nobody is there to log in to, and its sizes may have been changed since.
    assert_eq!(
        (
            multipass.count("get local.web.memory"),
            multipass.count("info web --format json"),
            multipass.count("info web --snapshots")
        ),
        (2, 2, 2)
    );
}

#[tokio::test]
async fn a_vm_that_boots_or_reboots_is_never_logged_in_to() {
    let multipass = StandIn::new();
    multipass.has(&["web"]).await;
    multipass.control(&json!({"boot_ms": 800}));
    let driver = multipass.driver();
    let (web, quiet) = (name("web"), Progress::ignored());
    let mut restart = driver.restart(&web, &quiet);
    let mut looks = 0;
    loop {
        tokio::select! {
            biased;
            result = &mut restart => { result.unwrap(); break; }
            vm = driver.inspect(&web) => {
                vm.unwrap();
                looks += 1;
            }
        }
    }
    assert!(looks > 1, "{looks} looks");
    let calls = multipass.calls();
    let restart = calls
        .iter()
        .find(|call| call.line.starts_with("restart"))
        .unwrap();
    let end = restart.ended.unwrap();
    let logs_in = |call: &&crate::stand_in::Call| call.line == "info web --format json";
    for call in calls.iter().filter(logs_in) {
        let before = call.ended.is_some_and(|ended| ended <= restart.began);
        assert!(before || call.began >= end, "{call:?} beside {restart:?}");
    }
}

#[tokio::test]
async fn a_vm_whose_ssh_is_down_is_shown_as_it_is_listed() {
    let multipass = StandIn::new();
    multipass.has(&["web"]).await;
    multipass.control(&json!({"ssh_down": ["web"]}));
    let driver = multipass.driver();
    let vm = driver.inspect(&name("web")).await.unwrap();
    assert_eq!(
        (vm.state, vm.usage.is_none(), vm.cpus),
        (VmState::Running, true, Some(1))
    );
}

#[tokio::test]
async fn unknown_is_creating_only_while_we_create() {
    let multipass = StandIn::new();
    multipass.control(&json!({"boot_ms": 600}));
    let driver = multipass.driver();
    let (web, spec, quiet) = (name("web"), crate::stand_in::spec(), Progress::ignored());
    let mut create = driver.create(&web, &spec, &quiet);
    let mut states = Vec::new();
    loop {
        tokio::select! {
            biased;
            result = &mut create => { result.unwrap(); break; }
            vm = seen(&driver, "web") => states.extend(vm.map(|vm| vm.state)),
        }
    }
    states.dedup();
    assert!(
        states == [VmState::Creating] || states == [VmState::Creating, VmState::Running],
        "{states:?}"
    );
    assert_eq!(seen(&driver, "web").await.unwrap().state, VmState::Running);
}

#[tokio::test]
async fn the_catalogue_is_asked_for_once_and_shows_our_names() {
    let multipass = StandIn::new();
    let driver = multipass.driver();
    let images = driver.images().await.unwrap();
    assert_eq!(images[0].name, "ubuntu:24.04");
    assert!(images[0].default && images[0].aliases.contains(&"24.04".to_owned()));
    for _ in 0..3 {
        assert_eq!(driver.images().await.unwrap(), images);
    }
    assert_eq!(multipass.count("find"), 1);
}

#[tokio::test]
async fn a_catalogue_that_cannot_be_had_is_said_so_and_asked_for_no_more_than_now_and_again() {
    let multipass = StandIn::new();
    multipass.control(&json!({"rubbish": {"find": "nothing"}}));
    let driver = multipass.driver();
    assert!(driver.images().await.is_err());
    assert!(driver.images().await.is_err());
    assert_eq!(multipass.count("find"), 1);
}

#[tokio::test]
async fn the_probe_tells_version_and_what_multipass_can_do() {
    let multipass = StandIn::new();
    let probe = multipass.driver().probe().await.unwrap();
    assert_eq!(probe.version.as_deref(), Some("1.16.3"));
    let can = probe.capabilities;
    assert!(can.shell && can.suspend && can.trash && can.cloud_init && !can.console);
    assert!(can.snapshots && can.clone && can.resize);
}

#[tokio::test]
async fn reads_overtake_work_and_heavy_work_is_done_one_at_a_time() {
    let multipass = StandIn::new();
    multipass.control(&json!({"boot_ms": 1, "image_ms": 0, "init_ms": 0}));
    multipass.has(&["a", "b", "c"]).await;
    multipass.control(&json!({"stop_ms": 300}));
    let driver = std::sync::Arc::new(multipass.driver());
    let mut work = tokio::task::JoinSet::new();
    for vm in ["a", "b", "c"] {
        let driver = std::sync::Arc::clone(&driver);
        work.spawn(async move {
            driver
                .delete(&name(vm), &Progress::ignored())
                .await
                .unwrap();
        });
    }
    multipass.called("delete").await;
    let mut reads = 0;
    while work.try_join_next().is_none() || !work.is_empty() {
        driver.observe().await.unwrap();
        reads += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(reads > 1, "{reads} reads");
    let calls = multipass.calls();
    let mut deletes: Vec<_> = calls
        .iter()
        .filter(|call| call.line.starts_with("delete"))
        .collect();
    deletes.sort_by_key(|call| call.began);
    assert_eq!(deletes.len(), 3);
    for pair in deletes.windows(2) {
        assert!(pair[0].ended.unwrap() <= pair[1].began, "{pair:?}");
        // Work that was waiting let a read go first.
        let between = |call: &&crate::stand_in::Call| {
            call.line.starts_with("list")
                && (pair[0].ended.unwrap()..=pair[1].began).contains(&call.began)
        };
        assert!(calls.iter().any(|call| between(&call)), "{pair:?}");
    }
}

#[tokio::test]
async fn at_most_two_launches_are_under_way() {
    let multipass = StandIn::new();
    multipass.control(&json!({"boot_ms": 300}));
    let driver = std::sync::Arc::new(multipass.driver());
    let mut work = tokio::task::JoinSet::new();
    for vm in ["a", "b", "c", "d"] {
        let driver = std::sync::Arc::clone(&driver);
        work.spawn(async move {
            driver
                .create(&name(vm), &crate::stand_in::spec(), &Progress::ignored())
                .await
                .unwrap();
        });
    }
    while let Some(done) = work.join_next().await {
        done.unwrap();
    }
    let launches: Vec<_> = multipass
        .calls()
        .into_iter()
        .filter(|call| call.line.starts_with("launch"))
        .collect();
    assert_eq!(launches.len(), 4);
    let mut most = 0;
    for launch in &launches {
        let beside = launches
            .iter()
            .filter(|other| other.began <= launch.began && other.ended.unwrap() > launch.began)
            .count();
        most = most.max(beside);
    }
    assert_eq!(most, 2);
}
