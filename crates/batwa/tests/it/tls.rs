//! TLS of our own, at the master's port and at an agent's.

use std::{fs, path::Path};

use batwa_api::certificate::CertificateHash;
use batwa_tls::{CertificateSource, ServedCertificate};
use rustix::process::Signal;
use serde_json::json;

use crate::lab::{ADMIN, Caller, INSTANT, Process, Terminal, batwa, until};

/// `batwa up` by TLS, with these flags besides.
async fn up(dir: &Path, port: u16, flags: &[&str]) -> (Process, String) {
    fs::write(dir.join("password"), ADMIN.1).expect("the password file");
    let process = batwa()
        .args(["up", "--driver", "fake", "--fake", INSTANT])
        .args(["--host", "127.0.0.1", "--port", &port.to_string()])
        .arg("--state-dir")
        .arg(dir.join("state"))
        .args(flags)
        .env("BATWA_ADMIN_PASSWORD_FILE", dir.join("password"))
        .start();
    let url = process.address("Batwa is at").await;
    (process, url)
}

/// A certificate in a folder of its own.
fn certificate_in(dir: &Path) -> CertificateHash {
    fs::create_dir_all(dir).expect("a folder");
    let names = vec!["127.0.0.1".to_owned()];
    ServedCertificate::open(&CertificateSource::SelfSigned { names }, dir)
        .expect("a certificate")
        .hash()
}

/// Puts the certificate of one folder in the place of another's, as renewals do.
fn exchange(from: &Path, to: &Path) {
    for name in ["tls-key.pem", "tls-cert.pem"] {
        fs::copy(from.join(name), to.join(name)).expect("copied");
    }
}

#[tokio::test]
async fn a_self_signed_master_is_reached_by_its_hash_and_stays_the_same_over_a_restart() {
    let dir = tempfile::tempdir().expect("a folder");
    let (mut process, url) = up(dir.path(), 0, &["--tls", "self-signed"]).await;
    assert!(url.starts_with("https://"), "{url}");
    let hash = process.certificate();

    // Signed in by the cookie that only TLS gets.
    let nobody = Caller::pinning(&url, hash);
    let answer = nobody
        .post(
            "/api/auth/login",
            json!({ "username": ADMIN.0, "password": ADMIN.1 }),
        )
        .await;
    let cookie = answer.header("set-cookie");
    assert!(cookie.starts_with("__Host-session_id="), "{cookie}");
    assert!(cookie.contains("; Secure"), "{cookie}");
    let browser = nobody.clone().sign_in(ADMIN).await;
    browser.get("/api/v1/vms").await.expect(200);
    let token = browser
        .post("/api/v1/tokens", json!({ "name": "tls" }))
        .await
        .expect(201)["token"]
        .as_str()
        .expect("a token")
        .to_owned();

    // A terminal over it.
    let path = "/api/v1/agents/local/vms";
    let spec = json!({ "name": "web", "image": "tiny", "memory": "256M" });
    browser.post(&format!("{path}?wait=30s"), spec).await.ok();
    until("the VM runs", async || {
        let vm = browser.get(&format!("{path}/web")).await;
        (vm.body["state"] == "running").then_some(())
    })
    .await;
    let mut terminal = Terminal::old(&browser, "null", "web").await;
    terminal.types("echo $((6*7))\n").await;
    terminal.shows("42").await;

    // Who comes without TLS is told; what carried something is refused.
    let plain = Caller::nobody(&url.replacen("https", "http", 1));
    let answer = plain.get("/machines?x=1").await;
    assert_eq!(answer.status, 308);
    assert_eq!(answer.header("location"), format!("{url}/machines?x=1"));
    let answer = plain.post("/api/auth/login", json!({})).await;
    assert_eq!(answer.status, 400);

    // The command line believes the hash and says how to when it is missing.
    let list = |pin: &[&str]| {
        batwa()
            .args(["ls", "--format", "json"])
            .args(pin)
            .env("BATWA_URL", &url)
            .env("BATWA_TOKEN", &token)
    };
    let pin = hash.to_string();
    let listed = list(&["--master-certificate", &pin]).run().await;
    assert_eq!(listed.code, Some(0), "{}", listed.stderr);
    assert!(listed.stdout.contains("\"web\""), "{}", listed.stdout);
    let refused = list(&[]).run().await;
    assert_eq!(refused.code, Some(5), "{}", refused.stderr);
    let hint = format!("--master-certificate {pin}");
    assert!(refused.stderr.contains(&hint), "{}", refused.stderr);
    let other = list(&["--master-certificate", &"00".repeat(32)])
        .run()
        .await;
    assert_eq!(other.code, Some(5), "{}", other.stderr);

    let (status, _) = process.terminate().await;
    assert!(status.success(), "{status}");
    let (process, _) = up(dir.path(), 0, &["--tls", "self-signed"]).await;
    assert_eq!(process.certificate(), hash);
}

#[tokio::test]
async fn a_new_certificate_is_served_after_sighup_and_a_broken_one_is_not() {
    let dir = tempfile::tempdir().expect("a folder");
    let (ours, next) = (dir.path().join("ours"), dir.path().join("next"));
    let (before, after) = (certificate_in(&ours), certificate_in(&next));
    let [certificate, key] = ["tls-cert.pem", "tls-key.pem"].map(|name| ours.join(name));
    let files = [
        "--tls-cert",
        certificate.to_str().expect("a path"),
        "--tls-key",
        key.to_str().expect("a path"),
    ];
    let (process, url) = up(dir.path(), 0, &files).await;
    let healthy = async |hash| {
        Caller::pinning(&url, hash)
            .try_get("/health")
            .await
            .is_some()
    };
    assert!(healthy(before).await);

    fs::write(&certificate, "no certificate").expect("written");
    process.signal(Signal::HUP);
    process.logged("the certificate stays as it was").await;
    assert!(healthy(before).await);

    exchange(&next, &ours);
    process.signal(Signal::HUP);
    process.logged(&format!("SHA-256 {after}")).await;
    assert!(healthy(after).await);
    assert!(!healthy(before).await);

    // What cannot be served is refused at the start, by name, and nothing is made.
    fs::write(&key, "no key").expect("written");
    let refused = batwa()
        .args([
            "up",
            "--driver",
            "fake",
            "--host",
            "127.0.0.1",
            "--port",
            "0",
        ])
        .arg("--state-dir")
        .arg(dir.path().join("other"))
        .args(files)
        .run()
        .await;
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("tls-key.pem` holds no private key"),
        "{}",
        refused.stderr
    );
}

#[tokio::test]
async fn an_agent_is_known_by_the_certificate_it_registers_with_also_when_that_changes() {
    let dir = tempfile::tempdir().expect("a folder");
    let (master, url) = up(dir.path(), 0, &["--tls", "self-signed"]).await;
    let hash = master.certificate();
    let admin = Caller::pinning(&url, hash).sign_in(ADMIN).await;
    let key = admin
        .post("/api/v1/agent-keys", json!({ "name": "edge" }))
        .await
        .expect(201)["key"]
        .as_str()
        .expect("a key")
        .to_owned();
    let (ours, next) = (dir.path().join("ours"), dir.path().join("next"));
    let (_, after) = (certificate_in(&ours), certificate_in(&next));
    let start = |pin: CertificateHash, state: &str| {
        batwa()
            .args([
                "agent",
                "--agent-id",
                "edge",
                "--driver",
                "fake",
                "--fake",
                INSTANT,
            ])
            .args([
                "--host",
                "127.0.0.1",
                "--port",
                "0",
                "--heartbeat-interval",
                "0.2",
            ])
            .args([
                "--master-url",
                &url,
                "--master-certificate",
                &pin.to_string(),
            ])
            .arg("--tls-cert")
            .arg(ours.join("tls-cert.pem"))
            .arg("--tls-key")
            .arg(ours.join("tls-key.pem"))
            .arg("--state-dir")
            .arg(dir.path().join(state))
            .env("BATWA_API_KEY", &key)
            .start()
    };

    // A master with another certificate gets neither key nor registration.
    let wary = start(CertificateHash::from_bytes([0; 32]), "wary");
    wary.logged("is not the one that is pinned").await;
    wary.kill();
    admin.get("/api/v1/agents/edge").await.refused(404);

    let agent = start(hash, "edge");
    let agent_url = agent.address("listens on").await;
    assert!(agent_url.starts_with("https://"), "{agent_url}");
    let stands = async |status: &str| {
        until(&format!("the agent is {status}"), async || {
            let row = admin.try_get("/api/v1/agents/edge").await?.body;
            (row["status"] == status).then_some(row)
        })
        .await
    };
    stands("online").await;
    let path = "/api/v1/agents/edge/vms";
    let spec = json!({ "name": "web", "image": "tiny", "memory": "256M" });
    admin.post(path, spec).await.expect(202);
    until("the VM runs", async || {
        let vm = admin.get(&format!("{path}/web")).await;
        (vm.body["state"] == "running").then_some(())
    })
    .await;
    let mut terminal = Terminal::old(&admin, "edge", "web").await;
    terminal.types("echo $((6*7))\n").await;
    terminal.shows("42").await;

    // A new certificate: the agent says so itself, and the link comes up with it.
    exchange(&next, &ours);
    agent.signal(Signal::HUP);
    agent.logged(&format!("SHA-256 {after}")).await;
    until("it is registered again", async || {
        let registered = agent.log().matches("Successfully registered").count();
        (registered >= 2).then_some(())
    })
    .await;
    stands("online").await;
    let mut terminal = Terminal::old(&admin, "edge", "web").await;
    terminal.types("echo $((6*8))\n").await;
    terminal.shows("48").await;

    // Somebody else at its address, with its key even, is not spoken to.
    let address = agent_url.trim_start_matches("https://").to_owned();
    agent.kill();
    stands("offline").await;
    let impostor = dir.path().join("impostor");
    certificate_in(&impostor);
    exchange(&impostor, &ours);
    let port = address.rsplit(':').next().expect("a port");
    let process = batwa()
        .args([
            "agent",
            "--agent-id",
            "edge",
            "--driver",
            "fake",
            "--fake",
            INSTANT,
        ])
        .args(["--host", "127.0.0.1", "--port", port])
        .arg("--tls-cert")
        .arg(ours.join("tls-cert.pem"))
        .arg("--tls-key")
        .arg(ours.join("tls-key.pem"))
        .arg("--state-dir")
        .arg(dir.path().join("impostor-state"))
        .env("BATWA_API_KEY", &key)
        .start();
    process.address("listens on").await;
    let row = until("the master meets the wrong certificate", async || {
        let row = admin.try_get("/api/v1/agents/edge").await?.body;
        let reason = row.to_string();
        reason
            .contains("is not the one that is pinned")
            .then_some(row)
    })
    .await;
    assert_eq!(row["status"], "offline");
}
