//! Work on the disks of Multipass' VMs, and every way in which the daemon, or we, go away in the middle of it.

use std::time::Duration;

use batwa_agent::driver::{Driver, DriverError, Progress, multipass::Multipass};
use batwa_api::size::ByteSize;
use serde_json::json;

use crate::{
    multipass_disk::{kept, memory, tree, web},
    stand_in::{DEADLINE, StandIn, Told, eventually, name},
};

fn quiet() -> Progress {
    Progress::ignored()
}

/// The five kinds of work, each on a VM of its own that has a snapshot `old`.
const WORK: [&str; 5] = ["snapshot", "restore", "delete_snapshot", "clone", "resize"];

async fn prepared(vm: &str) -> StandIn {
    let multipass = StandIn::new();
    multipass.has_stopped(&[vm]).await;
    multipass.run(&["snapshot", vm, "--name", "old"]).await;
    multipass
        .run(&["set", &format!("local.{vm}.memory=2G")])
        .await;
    multipass
}

async fn work(driver: &Multipass, work: &str, progress: &Progress) -> Result<(), DriverError> {
    let (vm, old) = (&name("web"), &kept("old"));
    match work {
        "snapshot" => driver.snapshot(vm, &kept("new"), "", progress).await,
        "restore" => driver.restore(vm, old, progress).await,
        "delete_snapshot" => driver.delete_snapshot(vm, old, progress).await,
        "clone" => driver.clone_vm(vm, &name("twin"), None, progress).await,
        _ => driver.resize(vm, &memory(3072), progress).await,
    }
}

/// Whether the work is done, by Multipass' own words to a driver that remembers nothing.
async fn is_done(multipass: &StandIn, work: &str) -> bool {
    let driver = multipass.driver();
    let vm = web(&driver).await;
    match work {
        "snapshot" => tree(&vm).contains(&"new <- old".to_owned()),
        "restore" => vm.memory == Some(ByteSize::gib(1)),
        "delete_snapshot" => tree(&vm).is_empty(),
        "clone" => multipass.state("twin").await == "Stopped",
        _ => vm.memory == Some(ByteSize::gib(3)),
    }
}

#[tokio::test]
async fn a_daemon_that_did_the_work_and_died_before_it_said_so_makes_it_late() {
    for kind in WORK {
        let multipass = prepared("web").await;
        multipass.control(&json!({"disk": "dies_after", "down_ms": 1500}));
        let (driver, told) = (multipass.driver(), Told::default());
        let progress = told.progress();
        let program = async {
            let died = |call: &crate::stand_in::Call| {
                call.line.starts_with("restore") && call.ended.is_some()
            };
            eventually("its death", || multipass.calls().iter().any(died)).await;
            // It is asked once more where nothing shows whether it was done.
            multipass.behave();
        };
        let result = if kind == "restore" {
            tokio::join!(work(&driver, kind, &progress), program).0
        } else {
            work(&driver, kind, &progress).await
        };
        assert_eq!(result, Ok(()), "{kind}");
        assert!(told.is_late(), "{kind}");
        multipass.behave();
        assert!(is_done(&multipass, kind).await, "{kind}");
    }
}

#[tokio::test]
async fn a_daemon_that_died_before_it_did_the_work_is_said_so_and_the_work_can_be_asked_for_again()
{
    for kind in WORK {
        let multipass = prepared("web").await;
        multipass.control(&json!({"disk": "dies_before", "down_ms": 200}));
        let driver = multipass.driver_with(|limits| limits.settle = Duration::from_millis(300));
        let error = work(&driver, kind, &quiet()).await.unwrap_err();
        match kind {
            // It was tried twice, and the daemon died twice.
            "restore" => {
                assert!(matches!(error, DriverError::Missing(_)), "{error:?}");
                assert_eq!(multipass.count("restore web.old"), 2);
            }
            _ => assert!(
                matches!(error, DriverError::Failed { .. }),
                "{kind}: {error:?}"
            ),
        }
        multipass.behave();
        let until = tokio::time::Instant::now() + DEADLINE;
        while driver.observe().await.is_err() {
            assert!(tokio::time::Instant::now() < until, "{kind}: never back");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(!is_done(&multipass, kind).await, "{kind}");
        work(&driver, kind, &quiet()).await.unwrap();
        assert!(is_done(&multipass, kind).await, "{kind}");
    }
}

#[tokio::test]
async fn work_that_was_cut_off_goes_on_in_the_daemon_and_is_found_done() {
    for kind in WORK {
        let multipass = prepared("web").await;
        multipass.control(&json!({"disk_ms": 700}));
        let driver = multipass.driver();
        {
            let quiet = quiet();
            let mut cut = Box::pin(work(&driver, kind, &quiet));
            let verb = match kind {
                "delete_snapshot" => "delete",
                "resize" => "set local.web.memory=3G",
                other => other,
            };
            let began = async {
                // The record has the call before the daemon is at it: its spinner is what shows that.
                let before = multipass.count(verb);
                eventually("the call", || multipass.count(verb) > before).await;
                eventually("the daemon at work", || multipass.is_busy()).await;
            };
            tokio::select! {
                biased;
                result = &mut cut => panic!("{kind} ended: {result:?}"),
                () = began => {}
            }
        }
        // Whoever looks waits for the daemon, and sees it done.
        assert!(is_done(&multipass, kind).await, "{kind}");
        let again = work(&driver, kind, &quiet()).await;
        match kind {
            "snapshot" => assert!(
                matches!(again, Err(DriverError::SnapshotTaken { .. })),
                "{again:?}"
            ),
            _ => assert_eq!(again, Ok(()), "{kind}"),
        }
    }
}

#[tokio::test]
async fn a_clone_that_was_cut_off_is_removed_by_purge_although_the_daemon_is_still_at_it() {
    let multipass = prepared("web").await;
    multipass.control(&json!({"disk_ms": 1500}));
    // Shorter than the clone: the daemon counts as silent meanwhile.
    let driver = multipass.driver_with(|limits| {
        limits.quick = Duration::from_millis(300);
        limits.comeback = DEADLINE;
    });
    {
        let quiet = quiet();
        let mut cut = Box::pin(work(&driver, "clone", &quiet));
        tokio::select! {
            biased;
            result = &mut cut => panic!("it ended: {result:?}"),
            () = eventually("the daemon at work", || multipass.is_busy()) => {}
        }
    }
    driver.purge(&name("twin"), &quiet()).await.unwrap();
    assert_eq!(multipass.state("twin").await, "");
    assert_eq!(multipass.count("delete --purge twin"), 1);
}

#[tokio::test]
async fn a_daemon_that_hangs_in_the_middle_is_waited_for_and_then_said_to_be_silent() {
    let calls = [
        "snapshot web --name new",
        "restore",
        "delete",
        "clone",
        "set local.web.memory=3G",
    ];
    for (kind, call) in WORK.into_iter().zip(calls) {
        let verb = call.split(' ').next().unwrap();
        let multipass = prepared("web").await;
        let driver = multipass.driver_with(|limits| {
            limits.quick = Duration::from_millis(600);
            limits.heavy = Duration::from_millis(700);
            limits.copy = Duration::from_millis(700);
            limits.comeback = Duration::from_millis(300);
        });
        driver.observe().await.unwrap();
        multipass.control(&json!({"hang": [verb]}));
        let program = async {
            multipass.called(call).await;
            multipass.control(&json!({"hang": ["*"]}));
        };
        let quiet = quiet();
        let (result, ()) = tokio::join!(work(&driver, kind, &quiet), program);
        assert!(
            matches!(result, Err(DriverError::Stuck(_))),
            "{kind}: {result:?}"
        );
        multipass.behave();
        assert!(!is_done(&multipass, kind).await, "{kind}");
    }
}
