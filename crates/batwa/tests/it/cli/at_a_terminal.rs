//! What is asked of a person at a terminal, and what is not shown there.

use std::path::Path;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::json;
use crate::lab::{ADMIN, DEADLINE, Lab};

/// The SHA-256 of a disk that nobody downloads.
const HASH: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Runs a command at a terminal, and types each answer once its question is there; its exit code and all that was seen.
async fn at_a_terminal(
    lab: &Lab,
    settings: &Path,
    args: &[&str],
    answers: &[(&str, &str)],
) -> (Option<i32>, String) {
    let (mut terminal, slave) = pty_process::open().expect("a terminal");
    let mut command = pty_process::Command::new(env!("CARGO_BIN_EXE_batwa"))
        .args(args)
        .env_clear()
        .env("XDG_CONFIG_HOME", settings);
    if args.first() != Some(&"login") {
        command = command
            .env("BATWA_URL", &lab.url)
            .env("BATWA_TOKEN", lab.admin.token());
    }
    let mut child = command.spawn(slave).expect("it starts");
    let mut seen = String::new();
    let mut answers = answers.iter().peekable();
    let mut bytes = [0; 4096];
    let talk = async {
        // At the end Linux reports an error rather than nothing.
        while let Ok(count @ 1..) = terminal.read(&mut bytes).await {
            seen.push_str(&String::from_utf8_lossy(&bytes[..count]));
            if let Some((_, answer)) = answers.next_if(|(question, _)| seen.ends_with(question)) {
                terminal
                    .write_all(format!("{answer}\n").as_bytes())
                    .await
                    .expect("it is typed");
            }
        }
        child.wait().await.expect("it ends").code()
    };
    let code = timeout(DEADLINE, talk).await;
    (
        code.unwrap_or_else(|_| panic!("it does not end: {seen}")),
        seen,
    )
}

#[tokio::test]
async fn a_password_is_asked_for_and_not_shown() {
    let lab = Lab::master(&[]).await;
    let settings = lab.folder("settings");
    let answers = [("User: ", ADMIN.0), ("Password: ", ADMIN.1)];
    let (code, seen) = at_a_terminal(&lab, &settings, &["login", &lab.url], &answers).await;
    assert_eq!(code, Some(0), "{seen}");
    assert!(
        seen.contains("User: admin"),
        "what is typed is shown: {seen}"
    );
    assert!(!seen.contains(ADMIN.1), "the password is shown: {seen}");
    assert!(seen.contains("signed in to"), "{seen}");
}

#[tokio::test]
async fn what_is_destroyed_is_asked_about_first() {
    let lab = Lab::up().await;
    for name in ["a", "b"] {
        lab.create_vm("local", name).await;
    }
    let settings = lab.folder("settings");
    let purge = ["delete", "--purge", "a"];
    let (code, seen) = at_a_terminal(&lab, &settings, &purge, &[("[y/N] ", "n")]).await;
    assert_eq!(code, Some(1), "{seen}");
    assert!(seen.contains("nothing was done"), "{seen}");
    assert_eq!(json(&lab, &["info", "a"]).await["state"], "running");
    let (code, seen) = at_a_terminal(&lab, &settings, &purge, &[("[y/N] ", "yes")]).await;
    assert_eq!(code, Some(0), "{seen}");
    let (code, seen) = at_a_terminal(&lab, &settings, &["purge", "--yes", "b"], &[]).await;
    assert_eq!(code, Some(0), "{seen}");
    let left = json(&lab, &["ls"]).await;
    assert_eq!(left["items"], serde_json::json!([]));

    // An image is gone for whoever added it.
    let add = [
        "images",
        "add",
        "mine",
        "https://example.org/disk.qcow2",
        "--sha256",
        HASH,
    ];
    super::run(&lab, &add, 0).await;
    let remove = ["images", "remove", "mine"];
    let (code, seen) = at_a_terminal(&lab, &settings, &remove, &[("[y/N] ", "")]).await;
    assert_eq!(code, Some(1), "{seen}");
    let there = json(&lab, &["images", "mine"]).await;
    assert_eq!(there["items"].as_array().unwrap().len(), 1, "{there}");
    let (code, seen) =
        at_a_terminal(&lab, &settings, &["images", "remove", "mine", "--yes"], &[]).await;
    assert_eq!(code, Some(0), "{seen}");
    let left = json(&lab, &["images", "mine"]).await;
    assert_eq!(left["items"], serde_json::json!([]));
}
