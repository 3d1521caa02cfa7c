//! Agents that the master calls.

use serde_json::{Value, json};

use super::{each, printed, stage::Stage};

#[tokio::test]
async fn an_agent_with_a_key_is_registered_by_itself_and_by_hand_as_printed() {
    let Some(mut stage) = Stage::boot("keys").await else {
        return;
    };
    let _master = stage.master(&printed("batwa up")).await;

    let register = printed("curl -X POST http://MASTER:8000/api/agent/register \\");
    stage.run(&register).await;
    let agent = stage.agent_is("office-1", "pending").await;
    let registration = &agent["registrations"][0];
    assert_eq!(registration["api_url"], "http://192.168.1.100:8001");
    stage
        .call("DELETE", "/api/v1/agents/office-1", Value::Null)
        .await;

    // With a key that nobody knows yet it waits, and is known by the fingerprint that the guide lets one compute.
    stage.set("KEY", "a-key-of-its-own");
    let command = printed("batwa agent \\");
    let agent = stage.start(&command).await;
    agent
        .process
        .logged("Successfully registered with master")
        .await;
    agent
        .process
        .logged("to approve it on the Machines page")
        .await;
    let waiting = stage.agent_is("office-1", "pending").await;
    let fingerprint = "printf %s \"$KEY\" | sha256sum | cut -c1-16";
    assert!(super::guide().contains(fingerprint));
    let fingerprint = stage.run(fingerprint).await;
    assert_eq!(
        waiting["registrations"][0]["fingerprint"],
        fingerprint.trim(),
        "{waiting}"
    );
    stage.stop(agent).await;
    stage
        .call("DELETE", "/api/v1/agents/office-1", Value::Null)
        .await;

    let key = stage.key("office-1").await;
    stage.set("KEY", key);
    let agent = stage.start(&command).await;
    stage.agent_is("office-1", "online").await;
    stage.stop(agent).await;

    // Sites: each with its own key, one after another as this is one machine.
    let sites = each("# us-east");
    assert_eq!(sites.len(), 3);
    for (command, (id, site)) in sites.iter().zip([
        ("us-east-1", "us"),
        ("eu-west-1", "eu"),
        ("ap-south-1", "ap"),
    ]) {
        let key = stage.key(id).await;
        stage.machine.write("/etc/batwa.key", "600", &key).await;
        let agent = stage.start(command).await;
        let online = stage.agent_is(id, "online").await;
        assert_eq!(online["labels"], json!({ "site": site }));
        stage.stop(agent).await;
    }
}
