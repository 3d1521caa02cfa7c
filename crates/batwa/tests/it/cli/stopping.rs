//! `stop --time`, `stop --cancel`, `--when-online`, `--yes`.

use serde_json::Value;

use super::{client, json, run};
use crate::lab::{INSTANT, Lab, until};

#[tokio::test]
async fn a_stop_can_be_put_off_and_taken_back() {
    let lab = Lab::up().await;
    lab.create_vm("local", "web").await;
    let asked = client(&lab, &["stop", "web", "--time", "+60"]).run().await;
    assert_eq!(asked.code, Some(0), "{}", asked.stderr);
    let id = asked.stdout.trim().to_owned();
    let due = async || json(&lab, &["info", "web"]).await["shutdown_at"].clone();
    until("the VM says when it stops", async || {
        due().await.is_string().then_some(())
    })
    .await;
    let said = run(&lab, &["stop", "--cancel", "web"], 0).await;
    assert!(said.contains("taken back"), "{said}");
    let operation = json(&lab, &["operations", "info", &id]).await;
    assert_eq!(operation["state"], "cancelled");
    let vm = json(&lab, &["info", "web"]).await;
    assert_eq!(vm["state"], "running");
    until("nothing is due any more", async || {
        due().await.is_null().then_some(())
    })
    .await;
    // As in Multipass: nothing to be done is no failure.
    let said = run(&lab, &["stop", "--cancel", "web"], 0).await;
    assert!(said.contains("no stop is waiting"), "{said}");
    run(&lab, &["stop", "web", "--time", "5m"], 2).await;
    run(&lab, &["stop", "web", "--time", "5", "--force"], 2).await;
    let said = run(&lab, &["stop", "web", "--time", "0"], 0).await;
    assert!(said.contains("stop local/web: done"), "at once: {said}");
}

#[tokio::test]
async fn an_operation_is_kept_for_a_machine_that_is_offline_when_that_is_said() {
    let lab = Lab::master(&[]).await;
    let mut edge = lab.agent("edge", INSTANT).await;
    lab.create_vm("edge", "web").await;
    edge.kill();
    lab.agent_is("edge", "offline").await;
    run(&lab, &["stop", "web"], 1).await;
    let kept = client(&lab, &["stop", "web", "--when-online", "--no-wait"])
        .run()
        .await;
    assert_eq!(kept.code, Some(0), "{}", kept.stderr);
    let id = kept.stdout.trim().to_owned();
    let operation = json(&lab, &["operations", "info", &id]).await;
    assert!(operation["waits_until"].is_string(), "{operation}");
    let other = client(&lab, &["restart", "web", "--when-online=2h", "--no-wait"])
        .run()
        .await;
    run(&lab, &["operations", "cancel", other.stdout.trim()], 0).await;
    edge.start().await;
    run(&lab, &["operations", "wait", &id], 0).await;
    assert_eq!(json(&lab, &["info", "web"]).await["state"], "stopped");
}

#[tokio::test]
async fn where_nobody_can_answer_nothing_is_asked() {
    let lab = Lab::up().await;
    for name in ["a", "b"] {
        lab.create_vm("local", name).await;
    }
    run(&lab, &["purge", "a"], 0).await;
    run(&lab, &["delete", "--purge", "--yes", "b"], 0).await;
    assert_eq!(json(&lab, &["ls"]).await["items"], Value::Array(Vec::new()));
}
