//! `batwa doctor`: troubles of the guide, each provoked, found, and named with its repair.

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinSet,
};

use crate::{
    lab::{Caller, Lab, batwa, free_port},
    stuck_multipass::stand_in,
};

/// What the doctor says, with these flags and variables.
fn doctor(flags: &[&str], variables: &[(&str, &str)]) -> impl Future<Output = Vec<Value>> + use<> {
    let dir = tempfile::tempdir().expect("a folder");
    let mut builder = batwa()
        .args(["doctor", "--format", "json"])
        .arg("--state-dir")
        .arg(dir.path().join("state"))
        .args(flags)
        .env("TMPDIR", dir.path());
    for (name, value) in variables {
        builder = builder.env(name, value);
    }
    async move {
        let ended = builder.run().await;
        drop(dir);
        let report: Value = serde_json::from_str(&ended.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}{}", ended.stdout, ended.stderr));
        report["checks"].as_array().expect("checks").clone()
    }
}

/// The one check of that name.
fn finding<'a>(checks: &'a [Value], name: &str) -> &'a Value {
    let check = checks.iter().find(|check| check["name"] == name);
    check.unwrap_or_else(|| panic!("no check {name}: {checks:?}"))
}

/// It is wrong, and says what repairs it.
#[track_caller]
fn is_bad(checks: &[Value], name: &str, finding_has: &str, repair_has: &str) {
    let check = finding(checks, name);
    assert_eq!(check["verdict"], "bad", "{check}");
    let text = |key: &str| check[key].as_str().unwrap_or_default().to_owned();
    assert!(text("finding").contains(finding_has), "{check}");
    assert!(text("repair").contains(repair_has), "{check}");
}

#[tokio::test]
async fn a_way_that_works_is_found_to_work_and_keys_are_tried() {
    let lab = Lab::master(&[]).await;
    let made = lab
        .admin
        .post("/api/v1/agent-keys", json!({ "name": "edge" }))
        .await
        .expect(201);
    let key = made["key"].as_str().expect("a key");
    let register = json!({
        "agent_id": "edge", "hostname": "edge", "api_url": "http://127.0.0.1:9", "api_key": key,
    });
    Caller::nobody(&lab.url)
        .post("/api/agent/register", register)
        .await
        .expect(200);
    let ask = async |key: &str, id: &str| {
        let flags = ["--master-url", &lab.url, "--agent-id", id];
        doctor(&flags, &[("API_KEY", key)]).await
    };
    let (good, wrong, unknown) =
        tokio::join!(ask(key, "edge"), ask("guess", "edge"), ask(key, "nobody"));
    for name in ["name", "master", "WebSockets", "clock", "key"] {
        assert_eq!(finding(&good, name)["verdict"], "ok", "{good:?}");
    }
    is_bad(
        &wrong,
        "key",
        "not the one this agent enrolled with",
        "/api/v1/agent-keys",
    );
    let unknown = finding(&unknown, "key");
    assert_eq!(unknown["verdict"], "note", "{unknown}");
    assert!(
        unknown["repair"]
            .as_str()
            .is_some_and(|text| text.contains("start the agent"))
    );
}

#[tokio::test]
async fn names_ports_and_certificates_that_lead_nowhere_are_told_apart() {
    let port = free_port();
    let nowhere = format!("http://127.0.0.1:{port}");
    let lab = Lab::master(&["--tls", "self-signed"]).await;
    let plain = lab.url.replacen("https", "http", 1);
    let pin = lab
        .master
        .as_ref()
        .expect("it runs")
        .certificate()
        .to_string();
    let other = "00".repeat(32);
    let (refused, unnamed, untrusted, pinned, mistaken, elsewhere) = tokio::join!(
        doctor(&["--master-url", &nowhere], &[]),
        doctor(&["--master-url", "http://no-such-host.invalid:8000"], &[]),
        doctor(&["--master-url", &lab.url], &[]),
        doctor(
            &["--master-url", &lab.url, "--master-certificate", &pin],
            &[]
        ),
        doctor(
            &["--master-url", &lab.url, "--master-certificate", &other],
            &[]
        ),
        doctor(&["--master-url", &plain], &[]),
    );
    is_bad(&refused, "connection", "nothing listens", "--host 0.0.0.0");
    is_bad(&unnamed, "name", "no-such-host.invalid", "DNS");
    is_bad(
        &untrusted,
        "TLS",
        "not trusted by this system",
        &format!("--master-certificate {pin}"),
    );
    is_bad(
        &mistaken,
        "TLS",
        "not the one that is pinned",
        "printed at its start",
    );
    is_bad(&elsewhere, "master", "sends elsewhere", "https://");
    assert_eq!(finding(&pinned, "master")["verdict"], "ok", "{pinned:?}");
    assert_eq!(
        finding(&pinned, "WebSockets")["verdict"],
        "ok",
        "{pinned:?}"
    );
}

/// What stands in for another machine's web server: answers every request so, and passes no upgrade.
async fn answers(head: &'static str, body: &'static str) -> (String, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 {head}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (url, tasks)
}

#[tokio::test]
async fn a_proxy_that_eats_websockets_a_wrong_clock_and_a_stranger_are_found() {
    // As a proxy answers that takes the upgrade for a plain request, at a master whose clock stands still.
    let eater = "200 OK\r\ncontent-type: application/json\r\ndate: Fri, 01 Jan 2021 00:00:00 GMT";
    let (eating, _one) = answers(eater, r#"{"status":"ok","version":"0.1.0"}"#).await;
    let (stranger, _two) = answers("200 OK\r\ncontent-type: text/html", "<h1>It works!</h1>").await;
    let (eaten, strange) = tokio::join!(
        doctor(&["--master-url", &eating], &[]),
        doctor(&["--master-url", &stranger], &[]),
    );
    is_bad(&eaten, "WebSockets", "answered 200", "nginx");
    let clock = finding(&eaten, "clock");
    assert!(
        clock["finding"]
            .as_str()
            .is_some_and(|text| text.contains("ahead of")),
        "{clock}"
    );
    assert!(
        clock["repair"]
            .as_str()
            .is_some_and(|text| text.contains("set-ntp")),
        "{clock}"
    );
    is_bad(&strange, "master", "is no master", "host and port");
}

#[tokio::test]
async fn a_folder_that_cannot_be_used_and_a_machine_without_programs_are_told_with_the_repair() {
    // A file where the folder should be: root, too, cannot write below it.
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("file"), "").expect("a file");
    let ended = batwa()
        .args(["doctor", "--format", "json"])
        .arg("--state-dir")
        .arg(dir.path().join("file/state"))
        .env("PATH", dir.path())
        .env("TMPDIR", dir.path())
        .run()
        .await;
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let report: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    let checks = report["checks"].as_array().expect("checks");
    is_bad(checks, "state folder", "cannot be written", "--state-dir");
    is_bad(checks, "VMs", "nothing here can run VMs", "qemu-system-x86");
    let table = batwa()
        .args(["doctor", "--state-dir"])
        .arg(dir.path().join("state"))
        .env("PATH", dir.path())
        .env("TMPDIR", dir.path())
        .run()
        .await;
    assert!(
        table.stdout.contains("to repair it: install QEMU"),
        "{}",
        table.stdout
    );
}

#[tokio::test]
async fn a_multipass_that_hangs_or_whose_daemon_is_down_is_told_with_what_helps() {
    let ask = async |knobs: Value| {
        let dir = tempfile::tempdir().expect("a folder");
        std::os::unix::fs::symlink(stand_in(), dir.path().join("multipass")).expect("a link");
        std::fs::write(dir.path().join("control.json"), knobs.to_string()).expect("knobs");
        let path = format!("{}:/usr/bin:/bin", dir.path().display());
        doctor(&[], &[("PATH", &path)]).await
    };
    let (hangs, down) = tokio::join!(ask(json!({ "hang": ["*"] })), ask(json!({ "down": true })));
    is_bad(
        &hangs,
        "multipass",
        "does not answer",
        "snap restart multipass",
    );
    let down = finding(&down, "multipass");
    assert_eq!(down["verdict"], "note", "{down}");
    let has = |key: &str, words: &str| down[key].as_str().is_some_and(|text| text.contains(words));
    assert!(
        has("finding", "cannot connect to the Multipass daemon"),
        "{down}"
    );
    assert!(has("repair", "snap start multipass"), "{down}");
}

#[tokio::test]
async fn the_policy_is_told_and_one_that_cannot_be_used_is_named_with_its_line() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("policy.toml");
    let file = path.to_str().expect("UTF-8");
    let none = doctor(&["--policy", file], &[]).await;
    let none = finding(&none, "policy");
    assert_eq!(none["verdict"], "ok", "{none}");
    std::fs::write(&path, "[vms]\ncpus = 3\n").expect("written");
    let good = doctor(&[], &[("BATWA_POLICY", file)]).await;
    let good = finding(&good, "policy");
    assert!(
        good["finding"]
            .as_str()
            .unwrap_or_default()
            .contains("at most 3 CPUs"),
        "{good}"
    );
    std::fs::write(&path, "[vms]\nrams = 3\n").expect("written");
    let bad = doctor(&["--policy", file], &[]).await;
    is_bad(
        &bad,
        "policy",
        "line 2: unknown field `rams`",
        "docs/policy.md",
    );
}
