//! The client commands against a real master: data on stdout, talk on stderr, exit codes.

mod at_a_terminal;
mod cloud_init;
mod completions;
mod formats;
mod login;
mod stopping;

use serde_json::Value;

use crate::lab::{INSTANT, Lab, ProcessBuilder, batwa};

pub(crate) fn client(lab: &Lab, args: &[&str]) -> ProcessBuilder {
    batwa()
        .args(args)
        .env("BATWA_URL", &lab.url)
        .env("BATWA_TOKEN", lab.admin.token())
}

pub(crate) async fn json(lab: &Lab, args: &[&str]) -> Value {
    let ended = client(lab, args).args(["--format", "json"]).run().await;
    assert_eq!(ended.code, Some(0), "{args:?}: {}", ended.stderr);
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {}", ended.stdout))
}

pub(crate) async fn run(lab: &Lab, args: &[&str], code: i32) -> String {
    let ended = client(lab, args).run().await;
    assert_eq!(
        ended.code,
        Some(code),
        "{args:?}: {}{}",
        ended.stdout,
        ended.stderr
    );
    assert_eq!(
        ended.stdout, "",
        "{args:?}: commands that act print no data"
    );
    ended.stderr
}

#[tokio::test]
async fn a_vm_lives_and_dies_by_the_command_line() {
    let lab = Lab::up().await;
    let said = run(
        &lab,
        &[
            "launch", "tiny", "--name", "web", "--memory", "256M", "--label", "team=a",
        ],
        0,
    )
    .await;
    assert!(said.contains("create local/web: done"), "{said}");

    let list = json(&lab, &["ls"]).await;
    assert_eq!(list["items"][0]["name"], "web");
    assert_eq!(list["items"][0]["memory"], 256 << 20);
    assert_eq!(list["items"][0]["labels"]["team"], "a");
    let table = client(&lab, &["ls"]).run().await;
    assert!(
        table.stdout.contains("local/web") && table.stdout.contains("running"),
        "{}",
        table.stdout
    );
    assert_eq!(
        json(&lab, &["ls", "--state", "stopped"]).await["items"],
        serde_json::json!([])
    );
    assert_eq!(json(&lab, &["info", "local/web"]).await["state"], "running");
    let info = client(&lab, &["info", "web"]).run().await;
    assert!(info.stdout.contains("running"), "{}", info.stdout);

    let state = async || json(&lab, &["info", "web"]).await["state"].clone();
    for (command, after) in [
        (vec!["stop", "web"], "stopped"),
        (vec!["start", "web"], "running"),
        (vec!["restart", "local/web"], "running"),
        (vec!["suspend", "web"], "suspended"),
        (vec!["resume", "web"], "running"),
        (vec!["stop", "--force", "web"], "stopped"),
        (vec!["delete", "web"], "deleted"),
        (vec!["recover", "web"], "stopped"),
    ] {
        run(&lab, &command, 0).await;
        assert_eq!(state().await, after, "{command:?}");
    }
    run(&lab, &["delete", "--purge", "web"], 0).await;
    assert_eq!(json(&lab, &["ls"]).await["items"], serde_json::json!([]));

    let operations = json(&lab, &["operations"]).await;
    let id = operations["items"][0]["id"]
        .as_str()
        .expect("an operation")
        .to_owned();
    assert_eq!(
        json(&lab, &["operations", "info", &id]).await["state"],
        "succeeded"
    );
    json(&lab, &["operations", "log", &id]).await;
    let images = json(&lab, &["images"]).await;
    assert!(
        images["items"]
            .as_array()
            .is_some_and(|items| !items.is_empty()),
        "{images}"
    );
    let agents = json(&lab, &["agents"]).await;
    assert_eq!(agents["items"][0]["id"], "local");
    for table in ["agents", "images", "operations"] {
        let ended = client(&lab, &[table]).run().await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert!(ended.stdout.lines().count() > 1, "{}", ended.stdout);
    }
}

#[tokio::test]
async fn searches_and_machines_are_there_from_the_command_line() {
    let lab = Lab::up().await;
    for name in ["web", "db"] {
        lab.create_vm("local", name).await;
    }
    let found = json(&lab, &["ls", "state:running -name:db"]).await;
    assert_eq!(found["items"].as_array().map(Vec::len), Some(1), "{found}");
    assert_eq!(found["items"][0]["name"], "web");
    let sorted = json(&lab, &["ls", "--sort", "-name", "--limit", "1"]).await;
    assert_eq!(sorted["items"][0]["name"], "web");
    let said = run(&lab, &["ls", "stat:running"], 2).await;
    assert!(said.contains("did you mean `state`"), "{said}");

    run(
        &lab,
        &[
            "agents", "set", "local", "--label", "room=3", "--notes", "here",
        ],
        0,
    )
    .await;
    run(&lab, &["agents", "set", "local"], 2).await;
    let agent = json(&lab, &["agents", "info", "local"]).await;
    assert_eq!(agent["label_sources"]["room"], "admin", "{agent}");
    assert_eq!(agent["notes"], "here");
    let shown = client(&lab, &["agents", "info", "local"]).run().await;
    assert!(
        shown.stdout.contains("room=3 (by an admin)"),
        "{}",
        shown.stdout
    );
    let found = json(&lab, &["agents", "--query", "label:room=3"]).await;
    assert_eq!(found["items"][0]["id"], "local");
    json(&lab, &["agents", "links", "local"]).await;
    run(&lab, &["agents", "cordon", "local"], 0).await;
    run(&lab, &["launch", "--name", "late", "--agent", "local"], 1).await;
    run(&lab, &["agents", "uncordon", "local"], 0).await;
    let said = run(&lab, &["agents", "remove", "local", "--dry-run"], 1).await;
    assert!(said.contains("cannot be removed"), "{said}");
    let said = run(&lab, &["dismiss", "web"], 1).await;
    assert!(said.contains("is not missing"), "{said}");
}

#[tokio::test]
async fn exit_codes_tell_scripts_what_went_wrong() {
    let lab = Lab::up().await;
    let _edge = lab.agent("edge", INSTANT).await;
    lab.create_vm("local", "web").await;
    lab.create_vm("edge", "web").await;

    assert!(run(&lab, &["info", "ghost"], 3).await.contains("ghost"));
    assert!(
        run(&lab, &["stop", "local/ghost"], 3)
            .await
            .contains("ghost")
    );
    let said = run(&lab, &["stop", "web"], 2).await;
    assert!(
        said.contains("local/web") && said.contains("edge/web"),
        "{said}"
    );
    run(&lab, &["launch", "--name", "a b"], 2).await;
    run(&lab, &["launch", "--name", "x", "--memory", "abc"], 2).await;
    let said = run(&lab, &["launch", "no-such-image", "--name", "x"], 2).await;
    assert!(said.contains("image"), "{said}");
    let said = run(&lab, &["launch", "tiny", "--name", "web"], 1).await;
    assert!(said.contains("web"), "{said}");
    run(&lab, &["info", "a/b/c"], 2).await;
    run(&lab, &["frobnicate"], 2).await;
    run(&lab, &["operations", "info", "soon"], 2).await;

    let stranger = batwa().args(["ls"]).env("BATWA_URL", &lab.url).run().await;
    assert_eq!(stranger.code, Some(4), "{}", stranger.stderr);
    assert!(
        stranger.stderr.contains("BATWA_TOKEN"),
        "{}",
        stranger.stderr
    );
    let nobody = batwa()
        .args(["ls", "--url", "http://127.0.0.1:9"])
        .run()
        .await;
    assert_eq!(nobody.code, Some(5), "{}", nobody.stderr);
    let nonsense = batwa().args(["ls", "--url", "localhost"]).run().await;
    assert_eq!(nonsense.code, Some(2), "{}", nonsense.stderr);
    assert!(
        !lab.log().contains(lab.admin.token()),
        "the token is in the log"
    );
}

#[tokio::test]
async fn several_vms_are_handled_at_once_and_one_failure_does_not_stop_the_others() {
    let lab = Lab::up().await;
    for name in ["a", "b"] {
        lab.create_vm("local", name).await;
    }
    run(&lab, &["stop", "a"], 0).await;
    // Restarting what is stopped is refused; the other is restarted all the same.
    let said = run(&lab, &["restart", "a", "b"], 1).await;
    assert!(said.contains("local/a"), "{said}");
    assert!(said.contains("restart local/b: done"), "{said}");
}

#[tokio::test]
async fn waiting_can_be_left_out_and_bounded() {
    let lab = Lab::up_with("vms=0,latency=500ms").await;
    let ended = client(
        &lab,
        &[
            "launch",
            "tiny",
            "-n",
            "web",
            "--memory",
            "256M",
            "--no-wait",
        ],
    )
    .run()
    .await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let id = ended.stdout.trim().to_owned();
    let bounded = client(&lab, &["operations", "wait", &id, "--timeout", "0.1"])
        .run()
        .await;
    assert_eq!(bounded.code, Some(6), "{}", bounded.stderr);
    let waited = client(&lab, &["operations", "wait", &id]).run().await;
    assert_eq!(waited.code, Some(0), "{}", waited.stderr);
    assert_eq!(
        lab.vm("local", "web").await.expect("the VM")["state"],
        "running"
    );
}

#[tokio::test]
async fn a_failed_operation_says_why() {
    let lab = Lab::up_with("vms=0,latency=0ms,fail=stop:1").await;
    lab.create_vm("local", "web").await;
    let said = run(&lab, &["stop", "web"], 1).await;
    assert!(said.contains("error: stop local/web: "), "{said}");
    assert!(
        said.lines().all(|line| !line.contains("{\"")),
        "no JSON for people: {said}"
    );
}
