//! What a shell completes with.

use std::net::TcpListener;

use super::client;
use crate::lab::{Lab, ProcessBuilder, batwa};

/// What bash's script asks when the last word is to be completed.
fn asked(command: ProcessBuilder, words: &[&str]) -> ProcessBuilder {
    command
        .args(["--"])
        .args(words)
        .env("BATWA_COMPLETE", "bash")
        .env("_CLAP_IFS", "\n")
        .env("_CLAP_COMPLETE_INDEX", (words.len() - 1).to_string())
        .env("_CLAP_COMPLETE_COMP_TYPE", "9")
        .env("_CLAP_COMPLETE_SPACE", "true")
}

async fn completed(lab: &Lab, words: &[&str]) -> Vec<String> {
    let ended = asked(client(lab, &[]), words).run().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(ended.stderr, "", "a shell's line is no place for talk");
    ended.stdout.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn names_are_those_that_the_master_has_now() {
    let lab = Lab::up().await;
    for name in ["web-1", "web-2", "db"] {
        lab.create_vm("local", name).await;
    }
    assert_eq!(
        completed(&lab, &["batwa", "info", "web"]).await,
        ["web-1", "web-2"]
    );
    assert_eq!(
        completed(&lab, &["batwa", "stop", "local/d"]).await,
        ["local/db"]
    );
    assert_eq!(
        completed(&lab, &["batwa", "agents", "info", "lo"]).await,
        ["local"]
    );
    assert!(
        completed(&lab, &["batwa", "launch", "ti"])
            .await
            .contains(&"tiny".to_owned())
    );
    assert!(
        !completed(&lab, &["batwa", "operations", "show", ""])
            .await
            .is_empty()
    );
    assert_eq!(completed(&lab, &["batwa", "restore", "db"]).await, ["db."]);
    super::run(&lab, &["snapshot", "db", "--name", "first", "--stop"], 0).await;
    assert_eq!(
        completed(&lab, &["batwa", "restore", "db."]).await,
        ["db.first"]
    );
    assert!(
        completed(&lab, &["batwa", "susp"])
            .await
            .contains(&"suspend".to_owned())
    );
}

#[tokio::test]
async fn a_master_that_is_away_or_silent_completes_nothing_and_holds_nobody_up() {
    // It takes connections, and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent = format!("http://{}", silent.local_addr().expect("an address"));
    for url in ["http://127.0.0.1:9", &silent, "nonsense"] {
        let command = batwa().env("BATWA_URL", url).env("BATWA_TOKEN", "x");
        let ended = asked(command, &["batwa", "info", "web"]).run().await;
        assert_eq!(ended.code, Some(0), "{url}: {}", ended.stderr);
        assert_eq!(
            (ended.stdout.as_str(), ended.stderr.as_str()),
            ("", ""),
            "{url}"
        );
    }
}
