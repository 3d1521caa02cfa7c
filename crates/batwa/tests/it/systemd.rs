//! Under a real systemd: the units as they are shipped, and the services that commands make of themselves.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::json;

use crate::lab::{
    ADMIN, COPY, Caller, Machine, Networks, ProcessBuilder, REPOSITORY, free_port, until,
};

/// The binary inside.
const BATWA: &str = "/opt/copy/target/release/batwa";

fn units() -> Vec<PathBuf> {
    let mut units: Vec<_> = fs::read_dir(Path::new(REPOSITORY).join("deploy"))
        .expect("deploy/")
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|ending| ending == "service"))
        .collect();
    units.sort();
    units
}

#[tokio::test]
async fn systemd_finds_nothing_wrong_with_the_units() {
    let units = units();
    assert_eq!(units.len(), 3, "{units:?}");
    if !Path::new("/usr/bin/systemd-analyze").exists() {
        let required = std::env::var("BATWA_TEST_SYSTEMD").is_ok_and(|text| text == "require");
        assert!(!required, "there is no systemd-analyze");
        return;
    }
    // The program that they start is not installed where the tests run; everything else is as it is shipped.
    let dir = tempfile::tempdir().expect("a folder");
    for unit in units {
        let text = fs::read_to_string(&unit).expect("a unit");
        assert!(text.contains("\nType=notify\n"), "{}", unit.display());
        let copy = dir.path().join(unit.file_name().expect("a name"));
        let text = text.replace("/usr/local/bin/batwa", env!("CARGO_BIN_EXE_batwa"));
        fs::write(&copy, text).expect("written");
        let verified = ProcessBuilder::program("systemd-analyze")
            .args(["verify", "--man=no"])
            .arg(&copy)
            .run()
            .await;
        assert_eq!(verified.code, Some(0), "{}", verified.stderr);
        assert_eq!(verified.stderr, "", "{}", unit.display());
    }
    // What a master alone may do of a machine is next to nothing; systemd counts it.
    let rated = ProcessBuilder::program("systemd-analyze")
        .args(["security", "--offline=yes", "--threshold=20"])
        .arg(dir.path().join("batwa-master.service"))
        .run()
        .await;
    assert_eq!(rated.code, Some(0), "{}{}", rated.stdout, rated.stderr);
}

#[tokio::test]
async fn a_command_makes_itself_a_service_that_starts_restarts_and_reloads() {
    let Some(machine) = Machine::boot("service", Networks::Shared).await else {
        return;
    };
    let port = free_port().to_string();
    machine.write("/root/password", "600", ADMIN.1).await;
    let install = [
        BATWA,
        "up",
        "--driver",
        "fake",
        "--host",
        "127.0.0.1",
        "--port",
        &port,
        "--tls",
        "self-signed",
        "--admin-password-file",
        "/root/password",
        "--install-service",
    ];
    machine.does(&install).await;
    assert_eq!(machine.property("batwa", "ActiveState").await, "active");
    assert_eq!(machine.property("batwa", "UnitFileState").await, "enabled");
    let mode = machine
        .does(&["stat", "-c", "%a %U", "/etc/batwa.env"])
        .await;
    assert_eq!(mode.trim(), "600 root");
    let mode = machine.does(&["stat", "-c", "%a", "/var/lib/batwa"]).await;
    assert_eq!(mode.trim(), "700");
    // `Type=notify`: once systemctl returned, it answers.
    let line = machine
        .does(&["journalctl", "-u", "batwa", "-o", "cat"])
        .await;
    let hash = line
        .lines()
        .find_map(|line| line.strip_prefix("certificate    SHA-256 "))
        .expect("the hash is printed")
        .parse()
        .expect("a hash");
    let url = format!("https://127.0.0.1:{port}");
    let admin = Caller::pinning(&url, hash).sign_in(ADMIN).await;
    admin.get("/api/v1/vms").await.expect(200);

    // Pulled plug: systemd starts it again.
    let before = machine.property("batwa", "MainPID").await;
    machine.does(&["kill", "-KILL", &before]).await;
    until("it is started again", async || {
        let now = machine.property("batwa", "MainPID").await;
        let active = machine.property("batwa", "ActiveState").await;
        (now != before && now != "0" && active == "active").then_some(())
    })
    .await;
    admin.get("/api/v1/vms").await.expect(200);

    let running = machine.property("batwa", "MainPID").await;
    machine.does(&["systemctl", "reload", "batwa"]).await;
    assert_eq!(
        machine.property("batwa", "MainPID").await,
        running,
        "a reload is no restart"
    );
    until("it has heard", async || {
        let journal = machine
            .does(&["journalctl", "-u", "batwa", "-o", "cat"])
            .await;
        journal
            .contains("told to reload: serving the certificate")
            .then_some(())
    })
    .await;

    // Again with another setting: that is how one changes and upgrades it.
    machine
        .does(&[&install[..], &["--log-level", "debug"]].concat())
        .await;
    assert_ne!(machine.property("batwa", "MainPID").await, running);
    admin.get("/api/v1/vms").await.expect(200);
    machine.does(&["systemctl", "stop", "batwa"]).await;
    assert_eq!(machine.property("batwa", "Result").await, "success");

    // A service that cannot start says where to look.
    let refused = machine
        .run(&[
            BATWA,
            "up",
            "--port",
            &port,
            "--tls-cert",
            "/nowhere",
            "--tls-key",
            "/nowhere",
            "--install-service",
        ])
        .await
        .expect_err("it cannot start");
    assert!(refused.contains("journalctl -u batwa"), "{refused}");
}

#[tokio::test]
async fn a_master_alone_runs_as_a_user_of_its_own() {
    let Some(machine) = Machine::boot("master", Networks::Shared).await else {
        return;
    };
    let port = free_port().to_string();
    machine
        .does(&[
            BATWA,
            "master",
            "--host",
            "127.0.0.1",
            "--port",
            &port,
            "--install-service",
        ])
        .await;
    let pid = machine.property("batwa-master", "MainPID").await;
    let user = machine.does(&["ps", "-o", "uid=", "-p", &pid]).await;
    assert_ne!(user.trim(), "0");
    let journal = machine
        .does(&["journalctl", "-u", "batwa-master", "-o", "cat"])
        .await;
    assert!(journal.contains("/setup#"), "{journal}");
    Caller::nobody(&format!("http://127.0.0.1:{port}"))
        .get("/ready")
        .await
        .expect(200);
    machine
        .does(&["systemctl", "restart", "batwa-master"])
        .await;
    let elsewhere = machine
        .run(&[
            BATWA,
            "master",
            "--state-dir",
            "/srv/batwa",
            "--install-service",
        ])
        .await
        .expect_err("its folder is fixed");
    assert!(elsewhere.contains("/var/lib/batwa-master"), "{elsewhere}");
}

#[tokio::test]
async fn vms_of_an_agent_go_on_while_its_service_is_restarted_and_stopped() {
    let Some(machine) = Machine::boot("agent", Networks::Shared).await else {
        return;
    };
    machine
        .does(&["test", "-x", "/usr/bin/qemu-system-x86_64"])
        .await;
    let [port, agent_port] = [free_port(), free_port()].map(|port| port.to_string());
    let master_url = format!("http://127.0.0.1:{port}");
    machine.write("/root/password", "600", ADMIN.1).await;
    let master = [
        BATWA,
        "up",
        "--driver",
        "fake",
        "--host",
        "127.0.0.1",
        "--port",
        &port,
        "--admin-password-file",
        "/root/password",
        "--install-service",
    ];
    machine.does(&master).await;
    let admin = Caller::nobody(&master_url).sign_in(ADMIN).await;
    let key = admin
        .post("/api/v1/agent-keys", json!({ "name": "office-1" }))
        .await
        .expect(201);

    // By hand, as the guide has it.
    let settings = format!(
        "AGENT_ID=office-1\nAPI_KEY={}\nMASTER_URL={master_url}\nAGENT_HOST=127.0.0.1\nAGENT_PORT={agent_port}\nBATWA_DRIVER=qemu\nBATWA_EMULATE=true\n",
        key["key"].as_str().expect("a key"),
    );
    machine
        .write("/etc/batwa-agent.env", "600", &settings)
        .await;
    let unit = format!("{COPY}/deploy/batwa-agent.service");
    machine
        .does(&["install", "-m", "644", &unit, "/etc/systemd/system/"])
        .await;
    machine.does(&["systemctl", "daemon-reload"]).await;
    machine
        .does(&["systemctl", "enable", "--now", "batwa-agent"])
        .await;
    let path = "/api/v1/agents/office-1";
    until("the agent is online", async || {
        let agent = admin.try_get(path).await?;
        (agent.body["status"] == "online").then_some(())
    })
    .await;

    let spec = json!({ "name": "steady", "image": "tiny", "memory": "256M" });
    let operation = admin.post(&format!("{path}/vms"), spec).await.expect(202);
    let operation = format!(
        "/api/v1/operations/{}",
        operation["id"].as_str().expect("an id")
    );
    // Packages are fetched and a machine is emulated.
    let ended = tokio::time::timeout(Duration::from_secs(150), async {
        loop {
            let operation = admin.get(&operation).await.expect(200);
            if !matches!(operation["state"].as_str(), Some("queued" | "running")) {
                return operation;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    })
    .await
    .expect("the VM is made in time");
    assert_eq!(ended["state"], "succeeded", "{ended}");

    let qemu = machine
        .does(&["pgrep", "-f", "qemu-system-x86_64.*steady"])
        .await;
    for action in ["restart", "stop"] {
        machine.does(&["systemctl", action, "batwa-agent"]).await;
        let now = machine
            .does(&["pgrep", "-f", "qemu-system-x86_64.*steady"])
            .await;
        assert_eq!(now, qemu, "the VM goes on through a {action}");
    }
    machine.does(&["systemctl", "start", "batwa-agent"]).await;
    let vm = until("the agent has found its VM again", async || {
        let vm = admin.try_get(&format!("{path}/vms/steady")).await?.body;
        (vm["stale"] == false && vm["state"] == "running").then_some(vm)
    })
    .await;
    assert_eq!(vm["operations"], json!([]), "{vm}");
}
