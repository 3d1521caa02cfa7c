//! Many clients at once: one request that is repeated a thousand times, and many that compete for few VMs.

use std::collections::BTreeMap;

use batwa_api::Timestamp;
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};

use crate::lab::{INSTANT, Lab};

/// Requests under way at once: each takes an open file of this process.
const AT_ONCE: usize = 400;

#[tokio::test]
async fn a_thousand_creates_under_one_key_make_one_vm() {
    let lab = Lab::up_with(INSTANT).await;
    let caller = lab
        .admin
        .clone()
        .header("Idempotency-Key", "the-one-and-only");
    let body = json!({ "name": "one", "image": "tiny", "memory": "256M" });
    let ids: Vec<Value> = stream::iter(0..1000)
        .map(|_| caller.post("/api/v1/agents/local/vms", body.clone()))
        .buffer_unordered(AT_ONCE)
        .map(|answer| answer.expect(202)["id"].clone())
        .collect()
        .await;
    assert!(ids.iter().all(|id| *id == ids[0]), "one operation for all");
    let operation = lab.finished(&ids[0]).await;
    assert_eq!(operation["state"], "succeeded", "{operation}");
    let vms = lab.admin.get("/api/v1/vms").await.expect(200);
    assert_eq!(vms["counts"]["total"], 1, "{vms}");
    let operations = lab.admin.get("/api/v1/operations").await.expect(200);
    assert_eq!(operations["counts"]["total"], 1, "{operations}");
}

/// What clients ask for.
const ACTIONS: [&str; 8] = [
    "start", "stop", "restart", "suspend", "resume", "snapshot", "recover", "delete",
];

/// A number that looks like any other, and is the same each time: what fails once fails again.
fn scattered(client: u64, turn: u64) -> usize {
    let mixed = (client * 1_000 + turn + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    usize::try_from(mixed >> 40).expect("24 bits")
}

fn time(operation: &Value, field: &str) -> Timestamp {
    let text = operation[field].as_str().expect("a time");
    text.parse().expect("RFC 3339")
}

/// Asks for one thing, and waits for its end; `None` when it was refused.
async fn ask(lab: &Lab, vm: &str, action: &str) -> Option<Value> {
    let path = format!("/api/v1/agents/local/vms/{vm}");
    let answer = match action {
        "delete" => lab.admin.delete(&path).await,
        "snapshot" => {
            let body = json!({ "stop": true });
            lab.admin.post(&format!("{path}/snapshot"), body).await
        }
        action => lab.admin.post(&format!("{path}/{action}"), json!({})).await,
    };
    if answer.status != 202 {
        assert_eq!(answer.status, 409, "{action} of {vm}: {}", answer.body);
        return None;
    }
    Some(lab.finished(&answer.body["id"]).await)
}

/// The state after an operation that succeeded.
fn after(kind: &str, before: &str) -> String {
    match kind {
        "create" | "start" | "restart" | "resume" => "running",
        "stop" => "stopped",
        "suspend" => "suspended",
        "delete" => "deleted",
        // What was suspended is suspended again; a fake VM remembers.
        "recover" => "stopped",
        _ => before,
    }
    .to_owned()
}

#[tokio::test]
async fn what_many_clients_ask_for_ends_as_if_each_had_come_alone() {
    let lab = Lab::up_with("vms=0,latency=5ms").await;
    let names: Vec<String> = (0..20).map(|n| format!("vm-{n}")).collect();
    for name in &names {
        lab.create_vm("local", name).await;
    }
    let clients = (0..10).map(|client| {
        let (lab, names) = (&lab, &names);
        async move {
            let mut done = 0;
            for turn in 0..20 {
                let number = scattered(client, turn);
                let vm = &names[number % names.len()];
                let action = ACTIONS[number / names.len() % ACTIONS.len()];
                done += usize::from(ask(lab, vm, action).await.is_some());
            }
            done
        }
    });
    let done: usize = futures_util::future::join_all(clients)
        .await
        .into_iter()
        .sum();
    assert!(done > 50, "most is refused: only {done} were accepted");

    let listed = lab
        .admin
        .get("/api/v1/operations?limit=1000")
        .await
        .expect(200);
    let mut of_vms: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for operation in listed["items"].as_array().expect("operations") {
        assert!(operation["finished_at"].is_string(), "{operation}");
        if operation["state"] == "succeeded" {
            let vm = operation["vm"].as_str().expect("a name");
            of_vms.entry(vm).or_default().push(operation);
        }
    }
    for (name, mut operations) in of_vms {
        // One VM's operations are done one after another, so that their ends are in that order.
        operations.sort_by_key(|operation| time(operation, "finished_at"));
        let expected = operations
            .iter()
            .fold("gone".to_owned(), |state, operation| {
                after(operation["kind"].as_str().expect("a kind"), &state)
            });
        let vm = lab.vm("local", name).await.expect("the VM");
        assert_eq!(vm["operations"], json!([]), "{vm}");
        let seen = vm["state"].as_str().expect("a state");
        let woken = expected == "stopped" && seen == "suspended";
        assert!(
            seen == expected || woken,
            "{name} is {seen}, not {expected}: {operations:#?}"
        );
    }
}
