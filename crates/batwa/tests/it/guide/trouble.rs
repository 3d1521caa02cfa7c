//! Troubles of a machine itself, provoked on one, found by `batwa doctor`, and named with their repair.

use serde_json::Value;

use super::stage::Stage;

/// What the doctor finds, run so.
async fn checks(stage: &Stage, command: &str) -> Vec<Value> {
    // Its exit code says whether something is wrong; the report says what.
    let printed = stage.run(&format!("{command} --format json || true")).await;
    let report: Value = serde_json::from_str(&printed).unwrap_or_else(|_| panic!("{printed}"));
    report["checks"].as_array().expect("checks").clone()
}

#[track_caller]
fn finds(checks: &[Value], name: &str, verdict: &str, finding: &str, repair: &str) {
    let check = checks.iter().find(|check| check["name"] == name);
    let check = check.unwrap_or_else(|| panic!("no check {name}: {checks:?}"));
    assert_eq!(check["verdict"], verdict, "{check}");
    let has = |key: &str, words: &str| check[key].as_str().is_some_and(|text| text.contains(words));
    assert!(has("finding", finding) && has("repair", repair), "{check}");
}

#[tokio::test]
async fn a_full_disk_a_taken_port_a_locked_socket_and_a_machine_without_kvm_are_found() {
    let Some(stage) = Stage::boot("trouble").await else {
        return;
    };
    stage
        .run("mkdir /srv/small && mount -t tmpfs -o size=16m,mode=777 small /srv/small")
        .await;
    // Multipass' daemon listens for its own group only.
    let socket = "systemd-socket-activate -l /run/multipass_socket cat";
    let _socket = stage.start(socket).await;
    let _port = stage
        .start("systemd-socket-activate -l 0.0.0.0:8000 cat")
        .await;
    stage
        .run("for n in $(seq 100); do [ -S /run/multipass_socket ] && break; sleep 0.05; done; chmod 600 /run/multipass_socket")
        .await;
    let somebody = "setpriv --reuid=65534 --regid=65534 --clear-groups";
    let command = format!("{somebody} batwa doctor --state-dir /srv/small/state");
    let found = checks(&stage, &command).await;
    finds(&found, "disk", "note", "M free", "--state-dir");
    finds(&found, "port 8000", "note", "not free", "ss -ltnp");
    finds(
        &found,
        "multipass socket",
        "bad",
        "cannot be used by this user",
        "usermod -aG",
    );
    finds(&found, "acceleration", "note", "tcg", "/dev/kvm");
}
