//! A Multipass that hangs, dies and answers nonsense: only its own row shows it, and it recovers by itself.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::lab::{Lab, Process, batwa, until};

/// The stand-in program with a world of its own, and an agent that drives it.
struct Multipass {
    folder: PathBuf,
    _agent: Process,
}

impl Multipass {
    async fn start(lab: &Lab) -> Self {
        let folder = lab.folder("multipass");
        std::fs::create_dir(&folder).expect("a folder");
        std::os::unix::fs::symlink(stand_in(), folder.join("multipass")).expect("a link");
        let path = format!("{}:/usr/bin:/bin", folder.display());
        let agent = batwa()
            .args([
                "agent",
                "--agent-id",
                "mp",
                "--api-key",
                "k",
                "--driver",
                "multipass",
            ])
            .args([
                "--host",
                "127.0.0.1",
                "--port",
                "0",
                "--master-url",
                &lab.url,
            ])
            .arg("--state-dir")
            .arg(lab.folder("mp"))
            .env("PATH", path)
            .start();
        agent.address("listens on").await;
        lab.approve("mp").await;
        lab.agent_is("mp", "online").await;
        Self {
            folder,
            _agent: agent,
        }
    }

    /// Sets all knobs; see `examples/multipass/knobs.rs` of the agent.
    fn control(&self, knobs: &Value) {
        let new = self.folder.join("control.json.new");
        std::fs::write(&new, knobs.to_string()).expect("written");
        std::fs::rename(new, self.folder.join("control.json")).expect("in place");
    }
}

/// The stand-in program.
pub(crate) fn stand_in() -> PathBuf {
    let tests = std::env::current_exe().expect("a path");
    let target = tests
        .parent()
        .and_then(Path::parent)
        .expect("a target folder");
    let program = target.join("examples/multipass");
    assert!(
        program.exists(),
        "{} is not built: run `cargo build -p batwa-agent --example multipass`",
        program.display()
    );
    program
}

async fn driver(lab: &Lab, status: &str) -> Value {
    until(&format!("the driver is {status}"), async || {
        let agent = lab.admin.try_get("/api/v1/agents/mp").await?.body;
        let driver = agent["info"]["drivers"][0].clone();
        (driver["health"]["status"] == status).then_some(driver)
    })
    .await
}

/// How long the old list takes, the best of some tries: the machine may be busy, the code must not be.
async fn list_takes(lab: &Lab) -> Duration {
    let mut best = Duration::MAX;
    for _ in 0..20 {
        let began = Instant::now();
        lab.admin.get("/api/vm/list").await.expect(200);
        best = best.min(began.elapsed());
    }
    best
}

#[tokio::test]
async fn a_daemon_that_hangs_is_shown_as_stuck_holds_up_nothing_and_recovers() {
    let lab = Lab::up().await;
    let multipass = Multipass::start(&lab).await;
    driver(&lab, "ok").await;
    let made = lab
        .admin
        .post(
            "/api/v1/agents/mp/vms",
            json!({ "name": "web", "image": "24.04" }),
        )
        .await
        .expect(202);
    assert_eq!(lab.finished(&made["id"]).await["state"], "succeeded");
    lab.create_vm("local", "here").await;
    let fast = list_takes(&lab).await;

    multipass.control(&json!({ "hang": ["*"] }));
    let health = driver(&lab, "stuck").await["health"].clone();
    assert!(health["since"].is_string(), "{health}");
    assert!(
        health["message"]
            .as_str()
            .is_some_and(|text| !text.is_empty()),
        "{health}"
    );
    let vm = lab.vm("mp", "web").await.expect("still listed");
    assert_eq!(vm["state"], "running", "as it was last seen: {vm}");
    assert_eq!(vm["stale"], true, "{vm}");
    // Lists are as fast as before (50 ms covers a busy machine; the daemon's own deadline is seconds).
    let stuck = list_takes(&lab).await;
    assert!(
        stuck < fast + Duration::from_millis(50),
        "{stuck:?} instead of {fast:?}"
    );
    // Other machines and their VMs work.
    lab.create_vm("local", "meanwhile").await;
    lab.agent_is("mp", "online").await;

    multipass.control(&json!({}));
    driver(&lab, "ok").await;
    until("the VM is fresh again", async || {
        (lab.vm("mp", "web").await?["stale"] == false).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_daemon_that_dies_in_the_middle_of_a_launch_fails_that_launch_only() {
    let lab = Lab::up().await;
    let multipass = Multipass::start(&lab).await;
    driver(&lab, "ok").await;
    multipass.control(&json!({ "launch": "daemon_dies_early" }));
    let made = lab
        .admin
        .post(
            "/api/v1/agents/mp/vms",
            json!({ "name": "web", "image": "24.04" }),
        )
        .await
        .expect(202);
    let operation = lab.finished(&made["id"]).await;
    assert_eq!(operation["state"], "failed", "{operation}");
    assert!(
        operation["error"]["detail"]
            .as_str()
            .is_some_and(|text| !text.is_empty()),
        "{operation}"
    );
    multipass.control(&json!({}));
    driver(&lab, "ok").await;
    assert!(lab.vm("mp", "web").await.is_none(), "nothing is left over");
    let made = lab
        .admin
        .post(
            "/api/v1/agents/mp/vms",
            json!({ "name": "web", "image": "24.04" }),
        )
        .await
        .expect(202);
    assert_eq!(
        lab.finished(&made["id"]).await["state"],
        "succeeded",
        "the name is free"
    );
}

#[tokio::test]
async fn a_vm_that_is_unknown_for_most_of_its_launch_is_being_created() {
    let lab = Lab::up().await;
    let multipass = Multipass::start(&lab).await;
    driver(&lab, "ok").await;
    multipass.control(&json!({ "boot_ms": 3000 }));
    let made = lab
        .admin
        .post(
            "/api/v1/agents/mp/vms",
            json!({ "name": "web", "image": "24.04" }),
        )
        .await
        .expect(202);
    let mut states = std::collections::BTreeSet::new();
    let path = format!("/api/v1/operations/{}", made["id"].as_str().expect("an id"));
    let operation = until("the launch ends", async || {
        if let Some(vm) = lab.vm("mp", "web").await {
            states.insert(vm["state"].as_str().unwrap_or_default().to_owned());
        }
        let operation = lab.admin.get(&path).await.body;
        (operation["state"] != "queued" && operation["state"] != "running").then_some(operation)
    })
    .await;
    assert_eq!(operation["state"], "succeeded", "{operation}");
    assert!(
        !states.contains("unknown") && !states.contains("error"),
        "{states:?}"
    );
    assert!(states.contains("creating"), "{states:?}");
}
