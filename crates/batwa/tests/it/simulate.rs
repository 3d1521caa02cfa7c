//! `batwa simulate` against a real master.

use serde_json::{Value, json};

use crate::lab::{Lab, Process, batwa, until};

async fn token(lab: &Lab, uses: u32) -> String {
    let made = lab
        .admin
        .post("/api/v1/join-tokens", json!({"uses": uses}))
        .await
        .ok();
    made["token"].as_str().expect("the token").to_owned()
}

#[tokio::test]
async fn simulated_machines_join_change_crash_and_are_counted() {
    let lab = Lab::master(&[]).await;
    let token = token(&lab, 5).await;
    let simulation = || {
        batwa()
            .args(["simulate", "--master", &lab.url, "--token", &token])
            .args(["--agents", "5", "--vms", "3", "--duration", "3s"])
            .args(["--changes", "20", "--churn", "60"])
            .arg("--state-dir")
            .arg(lab.folder("machines"))
            .env("BATWA_TOKEN", lab.admin.token())
    };
    let ended = simulation().run().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let figures: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_eq!(
        (&figures["agents"], &figures["vms"]),
        (&json!(5), &json!(15))
    );
    assert_eq!(figures["failures"], 0, "{figures}");
    let number = |key: &str| {
        figures[key]
            .as_f64()
            .unwrap_or_else(|| panic!("no {key}: {figures}"))
    };
    assert!(
        number("changes") > 10.0 && number("reconnects") >= 1.0,
        "{figures}"
    );
    assert!(
        number("event_p50_ms") > 0.0 && number("join_p50_ms") > 0.0,
        "{figures}"
    );
    assert!(
        number("memory_mb") > 1.0 && number("cpu_percent") > 0.0,
        "{figures}"
    );
    let agents = lab.admin.get("/api/v1/agents").await.ok();
    let names: Vec<_> = agents["items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|agent| &agent["id"])
        .collect();
    assert_eq!(names, ["sim-1", "sim-2", "sim-3", "sim-4", "sim-5"]);
    let vms = lab.admin.get("/api/v1/vms").await.ok();
    assert_eq!(vms["counts"]["total"], 15, "what was simulated stays known");

    // The token is used up; those who have joined need it no more.
    let again = simulation().run().await;
    assert_eq!(again.code, Some(0), "{}", again.stderr);
}

#[tokio::test]
async fn a_simulation_that_cannot_be_ends_at_once_and_says_why() {
    let lab = Lab::master(&[]).await;
    let token = token(&lab, 1).await;
    let ended = batwa()
        .args([
            "simulate", "--master", &lab.url, "--token", &token, "--agents", "2",
        ])
        .run()
        .await;
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("used once, which is all it allows"),
        "{}",
        ended.stderr
    );
    assert_eq!(ended.stdout, "");
    for wrong in [
        ["--master", &lab.url, "--token", "x"],
        ["--master", "nowhere", "--token", &token],
    ] {
        let ended = batwa().arg("simulate").args(wrong).run().await;
        assert_eq!(ended.code, Some(2), "{wrong:?}: {}", ended.stderr);
    }
}

/// A simulation that goes on until it is dropped.
async fn simulating(lab: &Lab, agents: u32, vms: u32, more: &[&str]) -> Process {
    let token = token(lab, agents).await;
    batwa()
        .args(["simulate", "--master", &lab.url, "--token", &token])
        .args(["--agents", &agents.to_string(), "--vms", &vms.to_string()])
        .args(["--duration", "1h"])
        .args(more)
        .arg("--state-dir")
        .arg(lab.folder("machines"))
        .start()
}

/// Waits until so many machines are online with so many VMs between them, none of them missing or out of date.
async fn all_there(lab: &Lab, agents: u32, vms: u32) {
    until(&format!("{agents} machines are online"), async || {
        let list = lab.admin.try_get("/api/v1/agents?limit=1").await?.body;
        (list["counts"]["statuses"]["online"] == agents).then_some(())
    })
    .await;
    let total = async |search: &str| {
        let path = format!("/api/v1/vms?limit=1&q={search}");
        lab.admin.get(&path).await.ok()["counts"]["total"].clone()
    };
    assert_eq!(total("").await, vms);
    assert_eq!(total("is:missing").await, 0);
    assert_eq!(total("is:stale").await, 0);
}

#[tokio::test]
async fn a_master_killed_under_many_machines_finds_all_of_them_and_their_work_again() {
    const AGENTS: u32 = 150;
    let mut lab = Lab::master(&[]).await;
    // Nobody else changes the VMs meanwhile.
    let flags = ["--latency", "300ms", "--changes", "0"];
    let simulation = simulating(&lab, AGENTS, 3, &flags).await;
    simulation.logged("150 agents with 3 VMs each").await;
    all_there(&lab, AGENTS, AGENTS * 3).await;

    // Killed in the middle of their work.
    let mut operations = Vec::new();
    for n in 1..=20 {
        let path = format!("/api/v1/agents/sim-{n:03}/vms/demo-01/stop");
        let asked = lab.admin.post(&path, json!({})).await.expect(202);
        operations.push(asked["id"].clone());
    }
    lab.kill();
    lab.restart().await;

    all_there(&lab, AGENTS, AGENTS * 3).await;
    for id in &operations {
        let ended = lab.finished(id).await;
        assert_eq!(ended["state"], "succeeded", "{ended}");
    }
    let failed = lab.admin.get("/api/v1/operations?state=failed").await.ok();
    assert_eq!(failed["items"], json!([]));
}

#[tokio::test]
async fn machines_with_very_many_vms_are_known_whole() {
    let lab = Lab::master(&[]).await;
    let _simulation = simulating(&lab, 2, 10_000, &["--changes", "20"]).await;
    all_there(&lab, 2, 20_000).await;
}
