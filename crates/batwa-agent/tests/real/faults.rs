//! Agents that are killed in the middle of what they do: what the next one makes of it.

use std::collections::BTreeSet;

use batwa_agent::driver::command::Command;
use batwa_api::operation::{Operation, OperationState, Stage};
use serde_json::{Value, json};

use crate::{agent::AgentProcess, lab::is_qemu, lab_or_skip};

fn succeeded(operation: &Operation) {
    assert_eq!(operation.state, OperationState::Succeeded, "{operation:?}");
}

fn create() -> Value {
    json!({"kind": "create", "spec": {"image": "tiny", "memory": "192M", "disk": "1G"}})
}

/// The tags in a VM's disk file.
async fn tags(agent: &AgentProcess, vm: &str) -> BTreeSet<String> {
    let disk = agent.path().join("qemu/vms").join(vm).join("disk.qcow2");
    let said = Command::new("qemu-img")
        .args(["info", "--output=json"])
        .arg(disk)
        .run()
        .await
        .unwrap();
    let info: Value = serde_json::from_slice(&said.stdout).unwrap();
    let tags = info["snapshots"].as_array().cloned().unwrap_or_default();
    tags.iter()
        .map(|tag| tag["name"].as_str().unwrap().to_owned())
        .collect()
}

/// The names of a VM's snapshots; each has its data, and there is no other.
async fn snapshots(agent: &AgentProcess, vm: &str) -> Vec<String> {
    let record = agent.path().join("qemu/vms").join(vm).join("vm.json");
    let record: Value = serde_json::from_slice(&std::fs::read(record).unwrap()).unwrap();
    assert!(record["unsettled"].is_null(), "{record}");
    let kept = record["history"]["kept"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let text = |kept: &Value, field: &str| kept[field].as_str().unwrap().to_owned();
    let known: BTreeSet<String> = kept.iter().map(|kept| text(kept, "tag")).collect();
    assert_eq!(tags(agent, vm).await, known);
    kept.iter().map(|kept| text(kept, "name")).collect()
}

fn folders(agent: &AgentProcess, of: &str) -> Vec<String> {
    let mut found: Vec<String> = std::fs::read_dir(agent.path().join("qemu").join(of))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort();
    found
}

#[tokio::test]
async fn an_agent_killed_at_any_step_leaves_nothing_half_done_to_the_next() {
    let _shared_image = {
        let lab = lab_or_skip!();
        lab.create("first", crate::lab::tiny()).await.unwrap();
        lab
    };
    let mut agent = AgentProcess::new().await;

    // Killed twice: before the disk is made, and while the VM boots.
    let made = agent.cut("before create", "web", create()).await;
    succeeded(&made);
    let again = agent.ask("other", create()).await;
    agent
        .when(again, |operation| operation.stage == Some(Stage::Booting))
        .await;
    agent.kill().await;
    agent.start().await;
    let made = agent
        .when(again, |operation| operation.state.is_finished())
        .await;
    succeeded(&made);
    assert_eq!(folders(&agent, "vms"), ["other", "web"]);
    assert_eq!(agent.vm("other").await["state"], "running");

    // Deleted while it runs, and purged.
    let pid = std::fs::read_to_string(agent.path().join("qemu/vms/other/pid")).unwrap();
    let pid: i32 = pid.trim().parse().unwrap();
    for kind in ["delete", "purge"] {
        let id = agent.ask("other", json!({ "kind": kind })).await;
        agent
            .when(id, |operation| operation.state != OperationState::Queued)
            .await;
        agent.kill().await;
        agent.start().await;
        let ended = agent
            .when(id, |operation| operation.state.is_finished())
            .await;
        succeeded(&ended);
        assert!(!is_qemu(pid), "after {kind}");
    }
    assert_eq!(folders(&agent, "vms"), ["web"]);

    succeeded(&agent.run("web", json!({"kind": "stop"})).await);
    for (at, name) in [("before snapshot -c", "one"), ("after snapshot -c", "two")] {
        let taken = json!({"kind": "snapshot", "name": name});
        succeeded(&agent.cut(at, "web", taken).await);
    }
    assert_eq!(snapshots(&agent, "web").await, ["one", "two"]);

    for at in ["before snapshot -a", "after snapshot -a"] {
        let back = json!({"kind": "restore", "snapshot": "one"});
        succeeded(&agent.cut(at, "web", back).await);
    }
    assert_eq!(
        snapshots(&agent, "web").await,
        ["one", "two", "before-restore1", "before-restore2"]
    );

    for (at, name) in [("before snapshot -d", "two"), ("after snapshot -d", "one")] {
        let delete = json!({"kind": "delete_snapshot", "snapshot": name});
        succeeded(&agent.cut(at, "web", delete).await);
    }
    assert_eq!(
        snapshots(&agent, "web").await,
        ["before-restore1", "before-restore2"]
    );

    for at in ["before resize", "after resize"] {
        let disk = if at.starts_with("before") { "2G" } else { "3G" };
        let grow = json!({"kind": "resize", "disk": disk});
        succeeded(&agent.cut(at, "web", grow).await);
    }
    assert_eq!(agent.vm("web").await["disk"], 3_u64 << 30);

    for (at, name) in [("before convert", "twin"), ("after convert", "triplet")] {
        let clone = json!({"kind": "clone", "name": name});
        succeeded(&agent.cut(at, "web", clone).await);
        assert_eq!(agent.vm(name).await["state"], "stopped");
    }

    // All of it still works, and nothing else is there.
    assert_eq!(folders(&agent, "vms"), ["triplet", "twin", "web"]);
    assert_eq!(folders(&agent, "images/work"), [""; 0]);
    assert!(agent.commands().is_empty());
    succeeded(&agent.run("web", json!({"kind": "start"})).await);
    succeeded(&agent.run("web", json!({"kind": "purge"})).await);
}
