//! Templates and SSH keys from the command line.

use std::fs;

use super::{client, json, run};
use crate::lab::Lab;

const TEMPLATE: &str = "\
#cloud-config
hostname: {{host}}
password: {{pw}}
";

#[tokio::test]
async fn a_template_is_saved_used_changed_and_removed() {
    let lab = Lab::up().await;
    fs::create_dir_all(lab.folder("files")).expect("a folder");
    let file = |name: &str, text: &str| {
        let path = lab.folder("files").join(name);
        fs::write(&path, text).expect("a file");
        path.display().to_string()
    };
    let text = file("web.yaml", TEMPLATE);
    let secret = format!("pw=@{}", file("secret", "hunter2\n"));
    run(
        &lab,
        &[
            "templates",
            "save",
            "web",
            &text,
            "--var",
            "host=web",
            "--secret",
            &secret,
            "--description",
            "a web server",
        ],
        0,
    )
    .await;
    let shown = json(&lab, &["templates", "info", "web"]).await;
    assert_eq!(shown["variables"][0]["default"], "web");
    assert_eq!(shown["variables"][1]["has_default"], true);
    for args in [&["templates"][..], &["templates", "info", "web"]] {
        for format in ["table", "json", "yaml", "csv"] {
            let ended = client(&lab, args).args(["--format", format]).run().await;
            assert!(ended.stdout.contains("web"), "{}", ended.stdout);
            assert!(!ended.stdout.contains("hunter2"), "{}", ended.stdout);
        }
    }

    let launch = [
        "launch",
        "tiny",
        "--memory",
        "256M",
        "--template",
        "web",
        "--name",
    ];
    let with = |more: &[&'static str]| [&launch[..], more].concat();
    run(&lab, &with(&["one"]), 0).await;
    run(&lab, &with(&["two", "--var", "host=two"]), 0).await;
    let said = run(&lab, &with(&["three", "--var", "hots=x"]), 2).await;
    assert!(said.contains("hots"), "{said}");
    let said = run(
        &lab,
        &["launch", "tiny", "--name", "x", "--template", "nothing"],
        2,
    )
    .await;
    assert!(said.contains("nothing"), "{said}");
    run(&lab, &["launch", "tiny", "--name", "x", "--var", "a=b"], 2).await;

    // Saved again without a value, the secret is still there; without its name it is not.
    run(
        &lab,
        &[
            "templates",
            "save",
            "web",
            &text,
            "--var",
            "host",
            "--secret",
            "pw",
        ],
        0,
    )
    .await;
    let shown = json(&lab, &["templates", "info", "web"]).await;
    assert_eq!(shown["variables"][1]["has_default"], true);
    assert_eq!(shown["description"], "a web server");
    let said = run(&lab, &with(&["four"]), 2).await;
    assert!(said.contains("`host` has no value"), "{said}");
    let said = run(
        &lab,
        &["templates", "save", "web", &text, "--var", "host"],
        2,
    )
    .await;
    assert!(said.contains("line 3") && said.contains("{{pw}}"), "{said}");

    run(&lab, &["templates", "delete", "web"], 0).await;
    run(&lab, &["templates", "info", "web"], 3).await;
    assert!(!lab.log().contains("hunter2"), "the secret is in the log");
}

#[tokio::test]
async fn user_data_is_checked_line_by_line() {
    let lab = Lab::master(&[]).await;
    let check = async |text: &str| {
        client(&lab, &["templates", "check", "-"])
            .stdin(text)
            .run()
            .await
    };
    let good = check("#cloud-config\npackages: [vim]\n").await;
    assert_eq!(
        (good.code, good.stdout.as_str()),
        (Some(0), ""),
        "{}",
        good.stderr
    );
    let doubtful = check("#cloud-config\n\npackage: [vim]\n").await;
    assert_eq!(doubtful.code, Some(0), "{}", doubtful.stderr);
    assert!(
        doubtful.stdout.contains("3     warning"),
        "{}",
        doubtful.stdout
    );
    assert!(
        doubtful.stdout.contains("`packages`"),
        "{}",
        doubtful.stdout
    );
    let bad = check("#cloud-config\npackages: [vim\n").await;
    assert_eq!(bad.code, Some(2), "{}", bad.stderr);
    assert!(bad.stdout.contains("error"), "{}", bad.stdout);
}

#[tokio::test]
async fn ones_own_ssh_keys_are_listed_added_and_removed() {
    let lab = Lab::master(&[]).await;
    let key =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH ann@home";
    let add = async |text: &str| {
        client(&lab, &["ssh-keys", "add", "-"])
            .stdin(text)
            .run()
            .await
    };
    let added = add(&format!("{key}\n")).await;
    assert_eq!(added.code, Some(0), "{}", added.stderr);
    let again = add(key).await;
    assert_eq!(again.code, Some(1), "{}", again.stderr);
    let private = add("-----BEGIN OPENSSH PRIVATE KEY-----\n").await;
    assert_eq!(private.code, Some(2), "{}", private.stderr);
    assert!(private.stderr.contains("private key"), "{}", private.stderr);
    let keys = json(&lab, &["ssh-keys"]).await;
    assert_eq!(keys["items"][0]["name"], "ann@home");
    assert_eq!(keys["items"][0]["public_key"], key);
    let print = keys["items"][0]["fingerprint"]
        .as_str()
        .expect("a fingerprint");
    assert!(print.starts_with("SHA256:") && print.len() == 50, "{print}");
    run(&lab, &["ssh-keys", "remove", "nobody"], 3).await;
    run(&lab, &["ssh-keys", "remove", "ann@home"], 0).await;
    assert_eq!(
        json(&lab, &["ssh-keys"]).await["items"],
        serde_json::json!([])
    );
}
