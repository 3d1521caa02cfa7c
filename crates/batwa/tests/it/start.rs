//! Starting and stopping: settings, exit codes, one clear line, nothing half-made.

use std::time::Duration;

use crate::lab::{ADMIN, Caller, INSTANT, Lab, LabAgent, Terminal, batwa};

#[tokio::test]
async fn a_taken_port_is_one_line_exit_2_and_nothing_made() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let dir = tempfile::tempdir().expect("a folder");
    for role in [
        vec!["up", "--driver", "fake"],
        vec!["master"],
        vec!["agent", "--agent-id", "a", "--driver", "fake"],
    ] {
        let state = dir.path().join("state");
        let ended = batwa()
            .args(&role)
            .args([
                "--host",
                "127.0.0.1",
                "--port",
                &port,
                "--log-level",
                "error",
            ])
            .arg("--state-dir")
            .arg(&state)
            .run()
            .await;
        assert_eq!(ended.code, Some(2), "{role:?}: {}", ended.stderr);
        let errors: Vec<_> = ended
            .stderr
            .lines()
            .filter(|line| line.starts_with("error: "))
            .collect();
        assert_eq!(errors.len(), 1, "{}", ended.stderr);
        assert!(errors[0].contains(&port), "{}", ended.stderr);
        assert!(!state.exists(), "{role:?} made its folder");
        assert_eq!(ended.stdout, "", "{role:?}");
    }
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("file");
    std::fs::write(&file, "in the way").expect("a file");
    for role in [
        vec!["up", "--driver", "fake"],
        vec!["master"],
        vec!["agent", "--agent-id", "a", "--driver", "fake"],
    ] {
        let ended = batwa()
            .args(&role)
            .args(["--host", "127.0.0.1", "--port", "0"])
            .arg("--state-dir")
            .arg(file.join("state"))
            .run()
            .await;
        assert_eq!(ended.code, Some(2), "{role:?}: {}", ended.stderr);
        assert!(
            ended.stderr.contains("file/state"),
            "{role:?}: {}",
            ended.stderr
        );
    }
}

#[tokio::test]
async fn a_database_that_is_not_ours_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("batwa.db");
    std::fs::write(&file, "my diary, not a database").expect("a file");
    let ended = batwa()
        .args(["master", "--host", "127.0.0.1", "--port", "0"])
        .arg("--state-dir")
        .arg(dir.path())
        .run()
        .await;
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("batwa.db"), "{}", ended.stderr);
    let after = std::fs::read_to_string(&file).expect("the file");
    assert_eq!(after, "my diary, not a database");
}

#[tokio::test]
async fn wrong_settings_end_with_2_and_say_where_they_came_from() {
    let dir = tempfile::tempdir().expect("a folder");
    let toml = dir.path().join("batwa.toml");
    std::fs::write(&toml, "prot = 8000\n").expect("a file");
    type Case<'a> = (Vec<&'a str>, &'a [(&'a str, &'a str)], &'a str);
    let cases: [Case<'_>; 9] = [
        (
            vec!["master"],
            &[("PORT", "http")],
            "environment variable `PORT`",
        ),
        (
            vec!["up"],
            &[("BATWA_DRIVER", "vmware")],
            "environment variable `BATWA_DRIVER`",
        ),
        (
            vec!["up", "--operation-timeout", "soon"],
            &[],
            "`--operation-timeout`",
        ),
        (
            vec!["master", "--public-url", "batwa.example"],
            &[],
            "`--public-url`",
        ),
        (
            vec!["master", "--trusted-proxy", "10.0.0.0/99"],
            &[],
            "`--trusted-proxy`",
        ),
        (
            vec!["master", "--config", toml.to_str().expect("a path")],
            &[],
            "unknown key `prot`",
        ),
        (vec!["agent"], &[], "`--agent-id`"),
        (
            vec!["agent", "--agent-id", "a", "--master-url", "master"],
            &[],
            "`--master-url`",
        ),
        (vec!["agent", "--agent-id", "null"], &[], "`--agent-id`"),
    ];
    for (args, environment, words) in cases {
        let mut builder = batwa()
            .args(&args)
            .arg("--state-dir")
            .arg(dir.path().join("s"));
        for (name, value) in environment {
            builder = builder.env(name, value);
        }
        let ended = builder.run().await;
        assert_eq!(ended.code, Some(2), "{args:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(words), "{args:?}: {}", ended.stderr);
        assert!(!dir.path().join("s").exists(), "{args:?}");
    }
}

#[tokio::test]
async fn an_agent_that_anybody_could_reach_needs_a_key_or_permission() {
    let dir = tempfile::tempdir().expect("a folder");
    let agent = |more: &[&str]| {
        batwa()
            .args([
                "agent",
                "--agent-id",
                "a",
                "--host",
                "0.0.0.0",
                "--port",
                "0",
            ])
            .args(["--driver", "fake"])
            .args(more)
            .arg("--state-dir")
            .arg(dir.path().join("state"))
    };
    let refused = agent(&[]).run().await;
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(refused.stderr.contains("--api-key"), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("--allow-unauthenticated"),
        "{}",
        refused.stderr
    );
    assert!(!dir.path().join("state").exists());

    let allowed = agent(&["--allow-unauthenticated"]).start();
    let url = allowed
        .address("listens on")
        .await
        .replace("0.0.0.0", "127.0.0.1");
    Caller::nobody(&url).get("/api/vm/list").await.expect(200);
}

#[tokio::test]
async fn two_processes_on_one_folder_are_refused() {
    let lab = Lab::up().await;
    let second = batwa()
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
        .arg(lab.state_dir())
        .run()
        .await;
    assert_eq!(second.code, Some(2), "{}", second.stderr);
    assert!(second.stderr.contains("--state-dir"), "{}", second.stderr);

    let mut agent = LabAgent::new(&lab.folder("a"), "a", "");
    agent.start().await;
    let second = batwa()
        .args([
            "agent",
            "--agent-id",
            "b",
            "--driver",
            "fake",
            "--host",
            "127.0.0.1",
            "--port",
            "0",
        ])
        .arg("--state-dir")
        .arg(lab.folder("a"))
        .run()
        .await;
    assert_eq!(second.code, Some(2), "{}", second.stderr);
}

#[tokio::test]
async fn the_first_start_prints_a_link_that_works_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let state = dir.path().join("state");
    let start = || {
        batwa()
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
            .arg(&state)
            .start()
    };
    let process = start();
    let url = process.address("Batwa is at").await;
    let link = process.address("/setup#").await;
    let (before, code) = link.split_once("/setup#").expect("a link with a code");
    assert_eq!(before, url);
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(&state).expect("the folder").permissions(),
    );
    assert_eq!(
        mode & 0o777,
        0o700,
        "only its user may look into the state folder"
    );

    let nobody = Caller::nobody(&url);
    let body =
        |code: &str| serde_json::json!({ "code": code, "username": ADMIN.0, "password": ADMIN.1 });
    let wrong = nobody.post("/api/v1/setup", body("guess")).await;
    assert!((400..500).contains(&wrong.status), "{wrong:?}");
    nobody.post("/api/v1/setup", body(code)).await.ok();
    let again = nobody.post("/api/v1/setup", body(code)).await;
    assert!((400..500).contains(&again.status), "{again:?}");
    Caller::with_cookie(&url, ADMIN).await;
    drop(process);

    let process = start();
    process.address("Batwa is at").await;
    assert!(
        !process.printed().contains("/setup#"),
        "{}",
        process.printed()
    );
}

#[tokio::test]
async fn sigterm_ends_everything_in_order_while_terminals_and_streams_are_open() {
    let mut lab = Lab::up().await;
    let mut agent = lab.agent("edge", INSTANT).await;
    lab.create_vm("local", "web").await;
    lab.create_vm("edge", "web").await;
    let mut here = Terminal::old(&lab.admin, "null", "web").await;
    let mut there = Terminal::old(&lab.admin, "edge", "web").await;
    here.types("echo $((6*7))\n").await;
    here.shows("42").await;
    there.types("echo $((6*7))\n").await;
    there.shows("42").await;
    let events = lab
        .admin
        .request(reqwest::Method::GET, "/api/v1/events")
        .send()
        .await
        .expect("a stream");
    assert_eq!(events.status(), 200);

    let process = lab.master.as_mut().expect("it runs");
    let (status, took) = process.terminate().await;
    assert!(status.success(), "{status}\n{}", process.log());
    assert!(took < Duration::from_secs(10), "{took:?}");
    here.closed().await;
    there.closed().await;

    let process = agent.process.as_mut().expect("it runs");
    let (status, took) = process.terminate().await;
    assert!(status.success(), "{status}\n{}", process.log());
    assert!(took < Duration::from_secs(10), "{took:?}");

    // No VM was touched.
    lab.master = None;
    lab.restart().await;
    agent.process = None;
    agent.start().await;
    lab.agent_is("edge", "online").await;
    for machine in ["local", "edge"] {
        let vm = lab.vm(machine, "web").await.expect("the VM");
        assert_eq!(vm["state"], "running", "{machine}");
    }
}

#[tokio::test]
async fn help_of_every_command_fits_its_reader() {
    for args in [
        vec!["--help"],
        vec!["up", "--help"],
        vec!["master", "--help"],
        vec!["agent", "--help"],
        vec!["launch", "--help"],
        vec!["admin", "reset-password", "--help"],
    ] {
        let ended = batwa().args(&args).env("COLUMNS", "100").run().await;
        assert_eq!(ended.code, Some(0), "{args:?}: {}", ended.stderr);
        assert!(ended.stdout.contains("Usage: batwa"), "{args:?}");
    }
    let nothing = batwa().run().await;
    assert_eq!(nothing.code, Some(2), "no command is wrong usage");
    for shell in ["bash", "zsh", "fish"] {
        let ended = batwa().args(["completions", shell]).run().await;
        assert_eq!(ended.code, Some(0));
        assert!(ended.stdout.contains("BATWA_COMPLETE"), "{shell}");
    }
}

#[tokio::test]
async fn a_forgotten_password_is_set_anew_on_the_masters_machine() {
    let lab = Lab::up().await;
    let browser = Caller::with_cookie(&lab.url, ADMIN).await;
    let mut reset = batwa()
        .args(["admin", "reset-password", ADMIN.0])
        .arg("--state-dir")
        .arg(lab.state_dir());
    reset = reset.stdin("a new password\n");
    let ended = reset.run().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    Caller::with_cookie(&lab.url, (ADMIN.0, "a new password")).await;
    let check = browser.get("/api/auth/check").await.expect(200);
    assert_eq!(check["authenticated"], false, "its sessions are ended");

    let unknown = batwa()
        .args(["admin", "reset-password", "nobody"])
        .arg("--state-dir")
        .arg(lab.state_dir())
        .stdin("a new password\n")
        .run()
        .await;
    assert_eq!(unknown.code, Some(2), "{}", unknown.stderr);
    assert!(unknown.stderr.contains("`nobody`"), "{}", unknown.stderr);
}

#[tokio::test]
async fn a_changed_line_of_the_audit_is_found_on_the_masters_machine() {
    let mut lab = Lab::up().await;
    lab.create_vm("local", "tampered-vm").await;
    let lab_dir = lab.state_dir();
    let verify = async || {
        batwa()
            .args(["admin", "verify-audit", "--state-dir"])
            .arg(&lab_dir)
            .run()
            .await
    };
    let whole = verify().await;
    assert_eq!(
        whole.code,
        Some(0),
        "beside a running master: {}",
        whole.stderr
    );
    lab.kill();
    // Brings what the killed master left in the journal into the file.
    assert_eq!(verify().await.code, Some(0));
    let file = lab_dir.join("batwa.db");
    let mut bytes = std::fs::read(&file).expect("the store");
    let (before, after) = (b"local/tampered-vm", b"local/tempered-vm");
    let places: Vec<usize> = (0..bytes.len() - before.len())
        .filter(|at| bytes[*at..].starts_with(before))
        .collect();
    assert!(!places.is_empty(), "the audit names the VM");
    for at in places {
        bytes[at..at + after.len()].copy_from_slice(after);
    }
    std::fs::write(&file, bytes).expect("the store");
    let changed = verify().await;
    assert_eq!(changed.code, Some(1), "{}", changed.stderr);
    assert!(
        changed.stderr.contains("of the audit was changed"),
        "{}",
        changed.stderr
    );
}

#[tokio::test]
async fn the_doctor_says_what_this_machine_has_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().expect("a folder");
    let state = dir.path().join("state");
    let doctor = |format: &str| {
        batwa()
            .args(["doctor", "--format", format])
            .arg("--state-dir")
            .arg(&state)
            .env("TMPDIR", dir.path())
    };
    let ended = doctor("json").run().await;
    let report: serde_json::Value = serde_json::from_str(&ended.stdout).expect("JSON");
    let checks = report["checks"].as_array().expect("checks");
    let verdict = |name: &str| {
        let check = checks.iter().find(|check| check["name"] == name);
        check.unwrap_or_else(|| panic!("no check {name}: {report}"))["verdict"].clone()
    };
    assert_eq!(verdict("state folder"), "ok");
    for name in ["port 8000", "port 8001", "machine", "multipass", "qemu"] {
        assert!(verdict(name).is_string());
    }
    let qemu = &report["agent"]["drivers"][1];
    assert_eq!(qemu["kind"], "qemu");
    if qemu["health"]["status"] == "ok" {
        assert!(qemu["version"].is_string(), "it was really asked: {qemu}");
        assert!(qemu["acceleration"]["reason"].is_string(), "{qemu}");
    }
    let bad = checks.iter().any(|check| check["verdict"] == "bad");
    assert_eq!(ended.code, Some(i32::from(bad)), "{}", ended.stderr);
    let left: Vec<_> = std::fs::read_dir(dir.path()).expect("the folder").collect();
    assert!(left.is_empty(), "{left:?}");
    let people = doctor("table").run().await;
    assert!(people.stdout.contains("state folder"), "{}", people.stdout);
}
