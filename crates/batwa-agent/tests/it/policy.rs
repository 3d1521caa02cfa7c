//! What the owner of a machine does not allow is refused to every master, with the line that would allow it.

use std::path::Path;

use batwa_agent::{Agent, AgentError, FakeSettings, policy::FILE};
use batwa_api::{
    agent::HostFacts, operation::OperationState, problem::ProblemCode, size::ByteSize,
};
use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::lab::{Answer, DEADLINE, Lab, config};

/// An agent on a large machine, with this policy.
async fn agent(policy: &str) -> Lab {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(FILE), policy).unwrap();
    Lab::on(dir, FakeSettings::instant(), |config| {
        config.host = Some(HostFacts {
            cpus: 64,
            memory: ByteSize::gib(256),
            disk_total: Some(ByteSize::gib(4096)),
            ..HostFacts::default()
        });
    })
    .await
}

fn create(cpus: u32) -> Value {
    json!({"kind": "create", "spec": {"image": "tiny", "cpus": cpus, "disk": "1G"}})
}

#[track_caller]
fn is_forbidden(answer: &Answer, field: &str, line: &str) {
    assert_eq!(answer.status, StatusCode::FORBIDDEN, "{}", answer.body);
    assert_eq!(answer.body["code"], json!(ProblemCode::PolicyForbids));
    assert_eq!(answer.body["errors"][0]["field"], field, "{}", answer.body);
    let detail = answer.body["detail"].as_str().unwrap();
    assert!(detail.contains(line) && detail.contains(FILE), "{detail}");
}

#[tokio::test]
async fn a_vm_is_neither_made_nor_grown_beyond_the_policy() {
    let lab = agent("[vms]\ncpus = 4\nmemory = \"8G\"\n").await;
    let refused = lab.start("web", create(5)).await;
    is_forbidden(&refused, "cpus", "`cpus = 5` under `[vms]`");
    assert!(lab.vm_names().await.is_empty());
    let made = lab.run("web", create(4)).await;
    assert_eq!(made.state, OperationState::Succeeded, "{made:?}");
    let grow = json!({"kind": "resize", "memory": "9G", "stop": true});
    is_forbidden(&lab.start("web", grow).await, "memory", "`memory = \"9G\"`");
    let less = json!({"kind": "resize", "memory": "2G", "stop": true});
    let resized = lab.run("web", less).await;
    assert_eq!(resized.state, OperationState::Succeeded, "{resized:?}");
}

#[tokio::test]
async fn many_who_ask_at_once_get_no_more_vms_than_are_allowed() {
    let lab = agent("[vms]\ncount = 3\n").await;
    let names: Vec<String> = (0..12).map(|n| format!("vm{n}")).collect();
    let answers = join_all(names.iter().map(|name| lab.start(name, create(1)))).await;
    let accepted = answers
        .iter()
        .filter(|answer| answer.status == StatusCode::ACCEPTED);
    assert_eq!(accepted.count(), 3);
    let refused = answers
        .iter()
        .find(|answer| answer.status != StatusCode::ACCEPTED)
        .unwrap();
    is_forbidden(refused, "name", "`count = 4`");
    for accepted in answers
        .iter()
        .filter(|answer| answer.status == StatusCode::ACCEPTED)
    {
        let id = serde_json::from_value(accepted.body["id"].clone()).unwrap();
        assert_eq!(lab.finished(id).await.state, OperationState::Succeeded);
    }
    let mut there = lab.vm_names().await;
    assert_eq!(there.len(), 3);
    // Those in the trash count, and a clone is a VM too.
    let first = there.remove(0);
    let deleted = lab.run(&first, json!({"kind": "delete"})).await;
    assert_eq!(deleted.state, OperationState::Succeeded);
    let clone = json!({"kind": "clone", "name": "copy", "stop": true});
    is_forbidden(&lab.start(&there[0], clone).await, "name", "`count = 4`");
    lab.run(&first, json!({"kind": "purge"})).await;
    let clone = json!({"kind": "clone", "name": "copy", "stop": true});
    let cloned = lab.run(&there[0], clone).await;
    assert_eq!(cloned.state, OperationState::Succeeded, "{cloned:?}");
}

#[tokio::test]
async fn a_changed_policy_holds_without_a_restart_and_a_bad_one_changes_nothing() {
    let lab = agent("[vms]\ncpus = 1\n").await;
    let folder = lab.dir().to_owned();
    let shown = lab.get("/api/v1/agent").await.body["policy"].clone();
    assert_eq!(shown["written"], true, "{shown}");
    assert_eq!(shown["vms"]["cpus"], 1);
    assert_eq!(shown["file"], json!(folder.join(FILE)));

    replace(&folder, "[vms]\ncpus = 2\n");
    shown_when(&lab, |policy| policy["vms"]["cpus"] == 2).await;
    let made = lab.run("web", create(2)).await;
    assert_eq!(made.state, OperationState::Succeeded, "{made:?}");

    replace(&folder, "[vms]\ncups = 99\n");
    let kept = shown_when(&lab, |policy| policy["problem"].is_string()).await;
    let problem = kept["problem"].as_str().unwrap();
    assert!(
        problem.contains("line 2: unknown field `cups`"),
        "{problem}"
    );
    assert_eq!(kept["vms"]["cpus"], 2);
    is_forbidden(&lab.start("other", create(3)).await, "cpus", "`cpus = 3`");
}

#[tokio::test]
async fn an_agent_does_not_start_with_a_policy_that_it_cannot_use() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mine.toml");
    std::fs::write(&path, "vms = 3\n").unwrap();
    let mut config = config(dir.path());
    config.policy_file = Some(path.clone());
    config.listen = None;
    let refused = Agent::new(config.clone()).map(drop).unwrap_err();
    assert!(matches!(refused, AgentError::Policy(_)), "{refused}");
    assert!(refused.to_string().contains("mine.toml"), "{refused}");
    std::fs::write(&path, "[vms]\ncount = 3\n").unwrap();
    Agent::new(config).unwrap();
}

fn replace(folder: &Path, text: &str) {
    let new = folder.join("policy.new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, folder.join(FILE)).unwrap();
}

/// Waits until the agent shows a policy as wanted.
async fn shown_when(lab: &Lab, wanted: impl Fn(&Value) -> bool) -> Value {
    let shown = async {
        loop {
            let policy = lab.get("/api/v1/agent").await.body["policy"].clone();
            if wanted(&policy) {
                return policy;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(DEADLINE, shown)
        .await
        .expect("the policy in time")
}
