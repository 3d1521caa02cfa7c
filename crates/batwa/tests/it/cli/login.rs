//! Signing in from the command line: what is kept, what is sent where, and what is taken back.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use serde_json::Value;

use crate::lab::{Finished, Lab, ProcessBuilder, batwa};

/// The admin of every lab.
const ADMIN: (&str, &str) = crate::lab::ADMIN;

/// A command of somebody who has a folder for settings, and nothing else.
fn at(settings: &Path, args: &[&str]) -> ProcessBuilder {
    batwa().args(args).env("XDG_CONFIG_HOME", settings)
}

async fn ok(command: ProcessBuilder) -> Finished {
    let ended = command.run().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended
}

async fn tokens_of_cli(lab: &Lab) -> Vec<Value> {
    let all = lab.admin.get("/api/v1/tokens").await.expect(200);
    let items = all["items"].as_array().expect("items").clone();
    let of_cli = |token: &Value| {
        token["name"]
            .as_str()
            .is_some_and(|name| name.starts_with("cli on "))
    };
    items.into_iter().filter(of_cli).collect()
}

#[tokio::test]
async fn who_signed_in_needs_no_environment_and_leaves_nothing_after_signing_out() {
    let lab = Lab::up().await;
    lab.create_vm("local", "web").await;
    let settings = lab.folder("settings");
    let login = ["login", &lab.url, "--user", ADMIN.0, "--name", "home"];
    let said = ok(at(&settings, &login).stdin(&format!("{}\n", ADMIN.1))).await;
    assert!(
        said.stderr.contains("signed in to `home`"),
        "{}",
        said.stderr
    );
    assert_eq!(said.stdout, "");
    let file = settings.join("batwa/masters.toml");
    let mode = fs::metadata(&file).expect("the file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let kept = fs::read_to_string(&file).expect("the file");
    assert!(
        kept.contains("batwa_pat_") && !kept.contains(ADMIN.1),
        "{kept}"
    );

    let listed = ok(at(&settings, &["ls"])).await;
    assert!(listed.stdout.contains("local/web"), "{}", listed.stdout);
    // The token goes with its address, however that is written.
    ok(at(&settings, &["ls"]).env("BATWA_URL", &lab.url)).await;
    // A flag wins over the environment, which wins over the file.
    let away = ("BATWA_URL", "http://127.0.0.1:9");
    let lost = at(&settings, &["ls"]).env(away.0, away.1).run().await;
    assert_eq!(lost.code, Some(5), "{}", lost.stderr);
    ok(at(&settings, &["ls", "--master", "home"]).env(away.0, away.1)).await;
    ok(at(&settings, &["ls", "--url", &lab.url]).env(away.0, away.1)).await;
    let nobody = at(&settings, &["ls", "--master", "away"]).run().await;
    assert_eq!(nobody.code, Some(3), "{}", nobody.stderr);
    let masters = ok(at(&settings, &["masters", "--format", "json"])).await;
    let masters: Value = serde_json::from_str(&masters.stdout).expect("JSON");
    assert_eq!(masters["items"][0]["name"], "home");
    assert_eq!(masters["items"][0]["user"], ADMIN.0);
    assert_eq!(masters["items"][0]["in_use"], true);
    assert!(!masters.to_string().contains("batwa_pat_"), "{masters}");

    // Signing in again takes the place of the first token.
    let first = tokens_of_cli(&lab).await;
    ok(at(&settings, &login).stdin(&format!("{}\n", ADMIN.1))).await;
    let second = tokens_of_cli(&lab).await;
    assert_eq!((first.len(), second.len()), (1, 1));
    assert_ne!(first[0]["id"], second[0]["id"]);

    ok(at(&settings, &["logout"])).await;
    assert_eq!(tokens_of_cli(&lab).await, [] as [Value; 0]);
    let kept = fs::read_to_string(&file).expect("the file");
    assert!(!kept.contains("batwa_pat_"), "{kept}");
    let again = at(&settings, &["logout"]).run().await;
    assert_eq!(again.code, Some(3), "{}", again.stderr);
    assert!(!lab.log().contains(ADMIN.1), "the password is in the log");
}

#[tokio::test]
async fn a_wrong_password_or_token_keeps_nothing() {
    let lab = Lab::master(&[]).await;
    let settings = lab.folder("settings");
    let login = ["login", &lab.url, "--user", ADMIN.0];
    for (args, input, code) in [
        (&login[..], "wrong\n", 4),
        (&login[..], "", 2),
        (&login[..2], "x\n", 2),
        (
            &["login", &lab.url, "--token", "-"][..],
            "batwa_pat_wrong\n",
            4,
        ),
        (&["login", "nonsense"][..], "", 2),
    ] {
        let ended = at(&settings, args).stdin(input).run().await;
        assert_eq!(ended.code, Some(code), "{args:?}: {}", ended.stderr);
        assert!(
            !ended.stderr.contains("batwa_pat_wrong"),
            "{}",
            ended.stderr
        );
    }
    assert!(!settings.exists());
    assert_eq!(tokens_of_cli(&lab).await, [] as [Value; 0]);
}

#[tokio::test]
async fn a_token_made_elsewhere_is_kept_and_not_taken_back() {
    let lab = Lab::master(&[]).await;
    let settings = lab.folder("settings");
    let given = format!("{}\n", lab.admin.token());
    ok(at(&settings, &["login", &lab.url, "--token", "-"]).stdin(&given)).await;
    ok(at(&settings, &["agents"])).await;
    let said = ok(at(&settings, &["logout"])).await;
    assert!(said.stderr.contains("stays good"), "{}", said.stderr);
    lab.admin.get("/api/v1/session").await.expect(200);
}

#[tokio::test]
async fn a_master_that_is_gone_is_forgotten_only_when_that_is_said() {
    let mut lab = Lab::master(&[]).await;
    let settings = lab.folder("settings");
    let login = ["login", &lab.url, "--user", ADMIN.0];
    ok(at(&settings, &login).stdin(&format!("{}\n", ADMIN.1))).await;
    lab.kill();
    let ended = at(&settings, &["logout"]).run().await;
    assert_eq!(ended.code, Some(5), "{}", ended.stderr);
    assert!(ended.stderr.contains("--forget"), "{}", ended.stderr);
    ok(at(&settings, &["logout", "--forget"])).await;
    let masters = ok(at(&settings, &["masters", "--format", "csv"])).await;
    assert_eq!(masters.stdout, "name,url,user,in_use\n");
}
