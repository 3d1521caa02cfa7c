//! States of Multipass' that are easily taken for others: shut down soon, asleep in the trash, just being started.

use batwa_agent::driver::{Driver, DriverError, Progress, StopMode};
use batwa_api::vm::VmState;
use serde_json::json;
use tokio::time::timeout;

use crate::{
    multipass_actions::until_listed,
    stand_in::{DEADLINE, StandIn, name, seen},
};

fn quiet() -> Progress {
    Progress::ignored()
}

#[tokio::test]
async fn a_vm_with_a_shutdown_before_it_is_one_that_runs() {
    let multipass = StandIn::new();
    let vms = ["stopped", "restarted", "suspended", "deleted", "kept"];
    multipass.has(&vms).await;
    for vm in vms {
        multipass.run(&["stop", vm, "--time", "5"]).await;
    }
    let driver = multipass.driver();
    driver
        .stop(&name("stopped"), StopMode::Graceful, &quiet())
        .await
        .unwrap();
    assert_eq!(multipass.state("stopped").await, "Stopped");
    driver.restart(&name("restarted"), &quiet()).await.unwrap();
    assert_eq!(multipass.state("restarted").await, "Running");
    driver.suspend(&name("suspended"), &quiet()).await.unwrap();
    assert_eq!(multipass.state("suspended").await, "Suspended");
    driver.delete(&name("deleted"), &quiet()).await.unwrap();
    assert_eq!(multipass.state("deleted").await, "Deleted");
    let first = batwa_api::name::SnapshotName::parse("first").unwrap();
    let refused = driver.snapshot(&name("kept"), &first, "", &quiet()).await;
    assert!(
        matches!(&refused, Err(DriverError::IllegalState(text)) if text.contains("running")),
        "{refused:?}"
    );
    // What somebody else calls off is called off for us too.
    multipass.run(&["stop", "kept", "--cancel"]).await;
    assert_eq!(seen(&driver, "kept").await.unwrap().message, None);
}

#[tokio::test]
async fn a_suspended_vm_comes_out_of_the_trash_suspended() {
    let multipass = StandIn::new();
    multipass.has(&["web"]).await;
    let (driver, web) = (multipass.driver(), name("web"));
    driver.suspend(&web, &quiet()).await.unwrap();
    driver.delete(&web, &quiet()).await.unwrap();
    assert_eq!(multipass.state("web").await, "Deleted");
    driver.recover(&web, &quiet()).await.unwrap();
    assert_eq!(multipass.state("web").await, "Suspended");
    driver.start(&web, &quiet()).await.unwrap();
    assert_eq!(multipass.state("web").await, "Running");
}

#[tokio::test]
async fn a_vm_that_somebody_starts_can_be_thrown_away_at_once() {
    let multipass = StandIn::new();
    multipass.has_stopped(&["web"]).await;
    multipass.control(&json!({"boot_ms": 60_000}));
    let program = multipass.folder().join("multipass");
    let mut start = tokio::task::JoinSet::new();
    start.spawn(async move {
        // It fails when the VM is taken from under it.
        let _ = batwa_agent::driver::command::Command::new(program)
            .args(["start", "web"])
            .run()
            .await;
    });
    let driver = multipass.driver();
    until_listed(&driver, VmState::Starting).await;
    // Multipass itself refuses this until the VM is up.
    let refused = multipass.run(&["delete", "web"]).await;
    assert!(refused.stderr.contains("while starting"), "{refused:?}");
    timeout(DEADLINE, driver.delete(&name("web"), &quiet()))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(multipass.state("web").await, "Deleted");
    assert_eq!(multipass.count("stop web --force"), 1);
}
