//! Every action in every state on every driver, through the API: what the one table says is what VMs carry, what calls
//! are answered, and whether the agent is asked at all.

use batwa_api::{
    agent::{Capabilities, DriverKind},
    vm::{VmAction, VmSettings, VmState},
};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::{
    enrolment::{admit, eventually, until_status},
    fake_agent::{FakeAgent, Manner, vm},
    harness::{Caller, TestMaster},
};

/// What an agent says that was asked.
const ASKED: &str = "the agent was asked";

/// What each driver says of itself.
fn drivers() -> [(DriverKind, Capabilities); 3] {
    let multipass = Capabilities {
        console: false,
        display: false,
        clone_snapshots: false,
        crashes: false,
        ..Capabilities::all()
    };
    [
        (DriverKind::Fake, Capabilities::all()),
        (DriverKind::Qemu, Capabilities::all()),
        (DriverKind::Multipass, multipass),
    ]
}

fn name(driver: DriverKind, state: VmState, protected: bool) -> String {
    let protected = if protected { "-protected" } else { "" };
    format!("{driver}-{state}{protected}")
}

/// Asks for an action as somebody would who knows what it needs.
async fn ask(admin: &Caller<'_>, vm: &str, action: VmAction) -> (StatusCode, String) {
    let path = format!("/api/v1/agents/lab/vms/{vm}");
    let body = match action {
        VmAction::Snapshot => json!({"stop": true}),
        VmAction::Restore => json!({"snapshot": "s", "stop": true}),
        VmAction::Clone => json!({"name": "another", "stop": true}),
        VmAction::CloneSnapshot => json!({"name": "another", "snapshot": "s", "stop": true}),
        VmAction::Resize => json!({"cpus": 2, "stop": true}),
        VmAction::Mount => json!({"source": "/srv", "target": "/srv"}),
        _ => json!({}),
    };
    let answer = match action {
        VmAction::Shell | VmAction::Console => {
            let body = json!({"agent_id": "lab", "vm": vm, "kind": action, "cols": 80, "rows": 24});
            admin.post("/api/v1/terminals", body).await
        }
        VmAction::Delete => admin.delete(&path).await,
        VmAction::DeleteSnapshot => admin.delete(&format!("{path}/snapshots/s?stop=true")).await,
        VmAction::CloneSnapshot => admin.post(&format!("{path}/clone"), body).await,
        _ => admin.post(&format!("{path}/{action}"), body).await,
    };
    let body: Value = serde_json::from_str(&answer.text).unwrap_or_default();
    let detail = body["detail"].as_str().unwrap_or_default();
    (answer.status, detail.to_owned())
}

#[tokio::test]
async fn every_action_in_every_state_on_every_driver_is_as_the_table_says() {
    let master = TestMaster::with_admin().await;
    let agent = FakeAgent::start("lab", Manner::Honest, vec![]).await;
    *agent.known.refuse_with.lock().unwrap() =
        Some(json!({"code": "conflict", "status": 409, "title": "", "detail": ASKED}));
    let admin = master.admin().await;
    admit(&admin, "lab", &agent.url()).await;
    until_status(&admin, "lab", "online").await;
    let told: Vec<Value> = drivers()
        .iter()
        .map(|(kind, capabilities)| {
            json!({"kind": kind, "capabilities": capabilities,
                "health": {"status": "ok", "since": "2026-01-01T00:00:00Z"}})
        })
        .collect();
    agent.tell(&json!({"type": "agent", "revision": 2, "agent": {
        "agent_id": "lab", "version": "1", "protocol_version": 1, "started_at": "2026-01-01T00:00:00Z",
        "clock": "2026-01-01T00:00:00Z", "drivers": told,
        "host": {"hostname": "h", "os": "os", "arch": "x86_64", "cpus": 4, "memory": 17_179_869_184_u64}}}));
    let mut cases = Vec::new();
    for (driver, capabilities) in drivers() {
        for state in VmState::ALL {
            for protected in [false, true] {
                cases.push((driver, capabilities, state, protected));
            }
        }
    }
    for (driver, _, state, protected) in &cases {
        let mut told = vm(&name(*driver, *state, *protected), state.as_str());
        told["driver"] = json!(driver);
        told["settings"] = json!({"protected": protected});
        agent.tell(&json!({"type": "vm", "revision": 3, "vm": told}));
        // As many lines as an agent may be ahead by.
        eventually(async || {
            let path = format!(
                "/api/v1/agents/lab/vms/{}",
                name(*driver, *state, *protected)
            );
            let there = admin.get(&path).await;
            (there.status == StatusCode::OK).then_some(())
        })
        .await;
    }

    for (driver, capabilities, state, protected) in cases {
        let vm = name(driver, state, protected);
        let settings = VmSettings {
            protected,
            ..VmSettings::default()
        };
        let path = format!("/api/v1/agents/lab/vms/{vm}");
        let shown = admin.get(&path).await.expect(StatusCode::OK)["actions"].take();
        for action in VmAction::ALL {
            let expected = action.refusal(state, &capabilities, &settings);
            let on_button = shown[action.as_str()].as_str();
            assert_eq!(on_button, expected, "{action} {vm}: the button");
            // A WebSocket, which says so after its handshake: `display.rs` of the whole system's tests.
            if action == VmAction::Display {
                continue;
            }
            // Terminals are opened at once: this agent lets everybody in.
            let terminal = matches!(action, VmAction::Shell | VmAction::Console);
            let (status, detail) = ask(&admin, &vm, action).await;
            match expected {
                Some(reason) => {
                    assert!(status.is_client_error(), "{action} {vm}: {status} {detail}");
                    assert!(detail.ends_with(reason), "{action} {vm}: {detail}");
                }
                None if terminal => {
                    assert_eq!(status, StatusCode::CREATED, "{action} {vm}: {detail}")
                }
                None => assert_eq!(detail, ASKED, "{action} {vm}: {status}"),
            }
        }
    }
}
