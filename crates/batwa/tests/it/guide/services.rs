//! As services, under a real systemd.

use serde_json::{Value, json};

use super::{each, printed, stage::Stage};

#[tokio::test]
async fn commands_make_themselves_services_as_printed() {
    let Some(mut stage) = Stage::boot("installed").await else {
        return;
    };
    let services = each("sudo batwa up --install-service");
    let [up, join, agent] = &services[..] else {
        panic!("not three: {services:?}");
    };
    stage.give_account();
    stage.run(up).await;
    stage.sign_in(up).await;
    assert_eq!(
        stage.machine.property("batwa", "ActiveState").await,
        "active"
    );

    // Joined: the identity is made first, then the service goes on with it.
    let made = stage.call("POST", "/api/v1/join-tokens", json!({})).await;
    stage.set("TOKEN", made["token"].as_str().expect("a token"));
    let said = stage.run(&format!("{join} 2>&1")).await;
    assert!(said.contains("joined "), "{said}");
    let name = stage.run("hostname").await.trim().to_lowercase();
    let online = stage.agent_is(&name, "online").await;
    assert_eq!(online["link"], "tunnel");
    assert_eq!(agent_service(&stage, "ActiveState").await, "active");
    assert_eq!(agent_service(&stage, "UnitFileState").await, "enabled");
    let identity = stage.run("find /var/lib -name identity.json").await;
    let identity = identity.trim();
    let files = format!("stat -c '%a %U' /etc/batwa-agent.env {identity}");
    assert_eq!(stage.run(&files).await, "600 root\n600 root\n");
    // The token is used up and stands nowhere; a restart, as after a reboot, needs none.
    let settings = stage.run("cat /etc/batwa-agent.env").await;
    assert!(!settings.contains("batwa-join."), "{settings}");
    let since = online["tunnel"]["since"].clone();
    stage.run("systemctl restart batwa-agent").await;
    crate::lab::until("it is back with the same key", async || {
        let path = format!("/api/v1/agents/{name}");
        let agent = stage.call("GET", &path, Value::Null).await;
        let back = agent["status"] == "online" && agent["tunnel"]["since"] != since;
        (back && agent["fingerprint"] == online["fingerprint"]).then_some(())
    })
    .await;
    // Made anew, with a key.
    stage
        .run(&format!(
            "systemctl disable --now batwa-agent; rm {identity} /etc/batwa-agent.env"
        ))
        .await;

    let key = stage.key("office-1").await;
    stage.set("KEY", key);
    stage.run(agent).await;
    stage.agent_is("office-1", "online").await;
    assert_eq!(agent_service(&stage, "ActiveState").await, "active");
}

async fn agent_service(stage: &Stage, property: &str) -> String {
    stage.machine.property("batwa-agent", property).await
}

#[tokio::test]
async fn a_service_is_made_by_hand_as_printed() {
    let Some(mut stage) = Stage::boot("by-hand").await else {
        return;
    };
    let _master = stage.master(&printed("batwa up")).await;
    let by_hand = block_by_hand();
    // It ends with a log that is followed.
    let followed = stage.start(&by_hand).await;
    stage.agent_is("office-1", "pending").await;
    stage
        .call("POST", "/api/v1/agents/office-1/approve", json!({}))
        .await;
    stage.agent_is("office-1", "online").await;
    crate::lab::until("the log is shown", async || {
        let shown = followed.process.printed();
        let both = shown.contains("active (running)") && shown.contains("Successfully registered");
        both.then_some(())
    })
    .await;
}

/// The block of six commands: its first line is also that of the block in step 1.
fn block_by_hand() -> String {
    printed("sudo install -m 600 /dev/stdin /etc/batwa-agent.env <<'END'")
}
