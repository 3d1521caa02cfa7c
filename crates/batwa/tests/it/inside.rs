//! Commands, files and ports of VMs, by the command line: of the master's own machine, and through a tunnel.

use std::path::Path;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::lab::{Lab, ProcessBuilder, batwa, until};

/// Fake VMs whose ports are this machine's.
pub(crate) const WITH_PORTS: &str = "vms=0,latency=0ms,ports=host";

pub(crate) fn client(lab: &Lab, args: &[&str]) -> ProcessBuilder {
    batwa()
        .args(args)
        .env("BATWA_URL", &lab.url)
        .env("BATWA_TOKEN", lab.admin.token())
}

async fn a_vm_here() -> Lab {
    let lab = Lab::up_with(WITH_PORTS).await;
    lab.create_vm("local", "web").await;
    lab
}

#[tokio::test]
async fn a_command_has_its_streams_and_its_exit_code() {
    let lab = a_vm_here().await;
    let script = "cat; echo \"$A in $(basename \"$PWD\")\" >&2; exit 3";
    client(&lab, &["exec", "web", "--", "mkdir", "sub"])
        .run()
        .await;
    let args = [
        "exec",
        "web",
        "--env",
        "A=b c",
        "--workdir",
        "sub",
        "--",
        "sh",
        "-c",
        script,
    ];
    let said = client(&lab, &args).stdin("one\ntwo\n").run().await;
    assert_eq!(said.code, Some(3), "{}", said.stderr);
    assert_eq!(said.stdout, "one\ntwo\n");
    assert_eq!(said.stderr, "b c in sub\n");

    let code = async |args: &[&str]| client(&lab, args).run().await.code;
    assert_eq!(
        code(&["exec", "web", "--", "no-such-program"]).await,
        Some(127)
    );
    assert_eq!(
        code(&["exec", "web", "--", "sh", "-c", "kill -9 $$"]).await,
        Some(137)
    );
    assert_eq!(
        code(&["exec", "web", "--timeout", "1s", "--", "sleep", "1000"]).await,
        Some(124)
    );
    // What Batwa could not do is none of the command's codes.
    assert_eq!(code(&["exec", "nothing", "--", "true"]).await, Some(125));
    client(&lab, &["stop", "web"]).run().await;
    let stopped = client(&lab, &["exec", "web", "--", "true"]).run().await;
    assert_eq!(stopped.code, Some(125));
    assert!(stopped.stderr.contains("stopped"), "{}", stopped.stderr);
}

#[tokio::test]
async fn a_command_runs_through_a_tunnel_and_ends_with_the_right_to_it() {
    let lab = Lab::master(&[]).await;
    let _member = lab.member("lab-1").await;
    lab.create_vm("lab-1", "web").await;
    let said = client(&lab, &["exec", "lab-1/web", "--", "echo", "hi"])
        .run()
        .await;
    assert_eq!(
        (said.code, said.stdout.as_str()),
        (Some(0), "hi\n"),
        "{}",
        said.stderr
    );

    // A token that is taken back takes its command along.
    let token = lab
        .admin
        .post("/api/v1/tokens", json!({"name": "short"}))
        .await
        .expect(201);
    let mut running = batwa()
        .args(["exec", "web", "--", "sh", "-c", "echo began; sleep 1000"])
        .env("BATWA_URL", &lab.url)
        .env("BATWA_TOKEN", token["token"].as_str().unwrap())
        .start();
    until("the command's first words", async || {
        running.printed().contains("began").then_some(())
    })
    .await;
    let path = format!("/api/v1/tokens/{}", token["id"].as_str().unwrap());
    lab.admin.delete(&path).await.expect(204);
    assert_eq!(running.ended().await.code(), Some(125), "{}", running.log());

    let audit = lab.admin.get("/api/v1/audit").await.expect(200);
    let lines = audit["items"].as_array().unwrap();
    let exec: Vec<&Value> = lines
        .iter()
        .filter(|line| line["action"] == "vm.exec")
        .collect();
    assert_eq!(exec.len(), 2, "{audit}");
    assert_eq!(exec[1]["target"], "lab-1/web");
    assert_eq!(exec[1]["detail"], "echo hi");
}

#[tokio::test]
async fn one_command_runs_in_many_vms() {
    let lab = a_vm_here().await;
    for name in ["db-1", "db-2"] {
        lab.create_vm("local", name).await;
    }
    let script = "echo from $(basename \"$HOME\"); test $(basename \"$HOME\") != db-2";
    let said = client(&lab, &["exec", "--on", "name:db", "--", "sh", "-c", script])
        .run()
        .await;
    assert_eq!(said.code, Some(1), "{}", said.stderr);
    let mut lines: Vec<&str> = said.stdout.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["local/db-1 | from db-1", "local/db-2 | from db-2"]);
    assert!(said.stderr.contains("1 of 2 succeeded"), "{}", said.stderr);
    assert!(
        said.stderr.contains("local/db-2: ended with 1"),
        "{}",
        said.stderr
    );
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|i| (i * 31 % 251) as u8).collect()
}

async fn transfer(lab: &Lab, folder: &Path, args: &[&str]) {
    let all = [&["transfer"], args].concat();
    let done = client(lab, &all).current_dir(folder).run().await;
    assert_eq!(done.code, Some(0), "{args:?}: {}", done.stderr);
}

#[tokio::test]
async fn files_and_folders_go_in_and_come_out() {
    let lab = Lab::master(&[]).await;
    let _member = lab.member("lab-1").await;
    lab.create_vm("lab-1", "web").await;
    let dir = tempfile::tempdir().unwrap();
    let here = dir.path();
    std::fs::write(here.join("big"), bytes(5 << 20)).unwrap();
    std::fs::create_dir_all(here.join("site/css")).unwrap();
    std::fs::write(here.join("site/css/x"), "body").unwrap();

    transfer(&lab, here, &["-p", "big", "web:srv/data"]).await;
    transfer(&lab, here, &["lab-1/web:srv/data", "back"]).await;
    assert!(std::fs::read(here.join("back")).unwrap() == bytes(5 << 20));
    // Into a folder that is there, under its own name; by the pipe; a folder.
    transfer(&lab, here, &["big", "web:srv"]).await;
    transfer(&lab, here, &["web:srv/big", "."]).await;
    transfer(&lab, here, &["-r", "site", "web:"]).await;
    transfer(&lab, here, &["-r", "web:site", "copy"]).await;
    assert_eq!(
        std::fs::read_to_string(here.join("copy/css/x")).unwrap(),
        "body"
    );
    let piped = client(&lab, &["transfer", "-", "web:note"])
        .stdin("by pipe\n")
        .run()
        .await;
    assert_eq!(piped.code, Some(0), "{}", piped.stderr);
    let piped = client(&lab, &["transfer", "web:note", "-"]).run().await;
    assert_eq!(piped.stdout, "by pipe\n");

    let fails = async |args: &[&str], code: i32, words: &str| {
        let all = [&["transfer"], args].concat();
        let said = client(&lab, &all).current_dir(here).run().await;
        assert_eq!(said.code, Some(code), "{args:?}: {}", said.stderr);
        assert!(said.stderr.contains(words), "{args:?}: {}", said.stderr);
    };
    fails(&["web:nothing", "x"], 3, "there is no file `nothing`").await;
    fails(&["web:srv", "x"], 2, "is a folder").await;
    fails(&["site", "web:x"], 2, "is a folder").await;
    fails(&["big", "web:no/where"], 3, "there is no folder for").await;
    fails(&["big", "back"], 2, "neither end is in a VM").await;
    fails(&["big", "web:../../x"], 2, "leads out of").await;
    assert!(!here.join("x").exists());
    let left = std::fs::read_dir(here).unwrap().count();
    assert_eq!(left, 4, "no part is left: big, site, back, copy");
}

/// Answers each connection with what it was sent, turned to capitals, after its end.
pub(crate) async fn shouter() -> (u16, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("its number").port();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut all = Vec::new();
            let _ = stream.read_to_end(&mut all).await;
            let _ = stream.write_all(&all.to_ascii_uppercase()).await;
        }
    });
    (port, tasks)
}

#[tokio::test]
async fn a_port_of_a_vm_is_forwarded_and_proxied() {
    let lab = a_vm_here().await;
    let (port, _shouter) = shouter().await;
    let forward = client(&lab, &["forward", "web", &format!("0:{port}")]).start();
    let address = until("where it listens", async || {
        let log = forward.log();
        let line = log.lines().find(|line| line.contains("leads to port"))?;
        Some(line.split(' ').next()?.to_owned())
    })
    .await;
    for word in ["one", "two"] {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream.write_all(word.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut heard = String::new();
        stream.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, word.to_uppercase());
    }
    let port = port.to_string();
    let proxied = client(&lab, &["proxy", "web.local.batwa", &port])
        .stdin("three")
        .run()
        .await;
    assert_eq!(
        (proxied.code, proxied.stdout.as_str()),
        (Some(0), "THREE"),
        "{}",
        proxied.stderr
    );
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = free.local_addr().unwrap().port().to_string();
    drop(free);
    let refused = client(&lab, &["proxy", "web", &port]).run().await;
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stderr.contains(&format!("port {port} of VM `web`")),
        "{}",
        refused.stderr
    );
}

#[tokio::test]
async fn a_shell_ends_with_its_code_and_is_returned_to() {
    let lab = a_vm_here().await;
    let ended = client(&lab, &["shell", "web"])
        .stdin("exit 7\n")
        .run()
        .await;
    assert_eq!(ended.code, Some(7), "{}", ended.stderr);

    let opened = lab
        .admin
        .post(
            "/api/v1/terminals",
            json!({"vm": "web", "cols": 80, "rows": 24}),
        )
        .await
        .expect(201);
    let id = opened["id"].as_str().unwrap().to_owned();
    drop(opened);
    let said = client(&lab, &["attach", &id])
        .stdin("echo mark-$((40+2)); exit 4\n")
        .run()
        .await;
    assert_eq!(said.code, Some(4), "{}", said.stderr);
    assert!(said.stdout.contains("mark-42"), "{}", said.stdout);
    let gone = client(&lab, &["attach", &id]).run().await;
    assert_ne!(gone.code, Some(0));
}

#[tokio::test]
async fn who_may_open_no_terminals_gets_in_by_no_other_way() {
    let lab = a_vm_here().await;
    let viewer = json!({"name": "eve", "password": "correct horse battery", "role": "viewer"});
    lab.admin.post("/api/v1/users", viewer).await.expect(201);
    let eve = crate::lab::Caller::nobody(&lab.url)
        .take_token(("eve", "correct horse battery"))
        .await;
    let said = batwa()
        .args(["exec", "web", "--", "true"])
        .env("BATWA_URL", &lab.url)
        .env("BATWA_TOKEN", eve.token())
        .run()
        .await;
    assert_eq!(said.code, Some(125));
    assert!(said.stderr.contains("open terminals"), "{}", said.stderr);
}
