//! Two network namespaces: the master in one, an agent in the other, started as the guide says, and a cable that
//! can be pulled. Needs root; `BATWA_TEST_NETNS=require` makes it an error not to be.

use std::path::Path;

use serde_json::{Value, json};

use crate::lab::{ADMIN, Caller, Process, ProcessBuilder, Terminal, until};

/// Runs a command of the system to its end.
pub(crate) async fn run(words: &str) -> Result<(), String> {
    let mut words_of = words.split_whitespace();
    let program = words_of.next().expect("a program");
    let ended = ProcessBuilder::program(program).args(words_of).run().await;
    if ended.code == Some(0) {
        Ok(())
    } else {
        Err(format!("`{words}`: {}", ended.stderr))
    }
}

/// Namespaces `m` and `a`, a cable between them, and one from here to `m`; gone with this value.
struct Network {
    name: String,
    /// The first two parts of all addresses here.
    prefix: String,
}

impl Network {
    async fn new() -> Result<Self, String> {
        let id = std::process::id();
        let network = Self {
            name: format!("bt{}", id % 100_000),
            prefix: format!("10.{}", 100 + id % 100),
        };
        let Self { name, prefix } = &network;
        for command in [
            format!("ip netns add {name}m"),
            format!("ip netns add {name}a"),
            // The cable between master and agent.
            format!(
                "ip link add {name}ma netns {name}m type veth peer name {name}am netns {name}a"
            ),
            format!("ip -n {name}m addr add {prefix}.1.1/24 dev {name}ma"),
            format!("ip -n {name}a addr add {prefix}.1.2/24 dev {name}am"),
            format!("ip -n {name}m link set {name}ma up"),
            format!("ip -n {name}a link set {name}am up"),
            format!("ip -n {name}m link set lo up"),
            format!("ip -n {name}a link set lo up"),
            // And one for us, as the browser.
            format!("ip link add {name}h type veth peer name {name}mh netns {name}m"),
            format!("ip addr add {prefix}.2.1/24 dev {name}h"),
            format!("ip link set {name}h up"),
            format!("ip -n {name}m addr add {prefix}.2.2/24 dev {name}mh"),
            format!("ip -n {name}m link set {name}mh up"),
        ] {
            run(&command).await?;
        }
        Ok(network)
    }

    fn inside(&self, namespace: char) -> ProcessBuilder {
        ProcessBuilder::program("nsenter")
            .arg(format!("--net=/run/netns/{}{namespace}", self.name))
            .arg(env!("CARGO_BIN_EXE_batwa"))
    }

    async fn cable(&self, state: &str) {
        let Self { name, .. } = self;
        run(&format!("ip -n {name}a link set {name}am {state}"))
            .await
            .expect("the cable");
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for namespace in ["m", "a"] {
            // Its cables go with it.
            let mut removing = ProcessBuilder::program("ip")
                .args(["netns", "del", &format!("{}{namespace}", self.name)])
                .start();
            removing.wait();
        }
    }
}

async fn network() -> Option<Network> {
    skipped(Network::new().await)
}

/// The network; where there can be none, the test is skipped aloud, or fails where it must not be.
#[expect(clippy::print_stdout, reason = "skipping is said aloud")]
pub(crate) fn skipped<T>(network: Result<T, String>) -> Option<T> {
    match network {
        Ok(network) => Some(network),
        Err(error) if std::env::var("BATWA_TEST_NETNS").is_ok_and(|text| text == "require") => {
            panic!("network namespaces cannot be made: {error}")
        }
        Err(error) => {
            println!("SKIPPED: network namespaces: {error}");
            None
        }
    }
}

async fn start_master(network: &Network, folder: &Path) -> (Process, Caller) {
    std::fs::write(folder.join("password"), ADMIN.1).expect("a file");
    let master = network
        .inside('m')
        .args([
            "master",
            "--host",
            "0.0.0.0",
            "--port",
            "8000",
            "--state-dir",
        ])
        .arg(folder.join("master"))
        .env("BATWA_ADMIN_PASSWORD_FILE", folder.join("password"))
        .start();
    master.address("Batwa is at").await;
    let url = format!("http://{}.2.2:8000", network.prefix);
    let admin = Caller::with_token(&url, ADMIN).await;
    (master, admin)
}

/// As the guide has it, but for the master's address; the driver, the folder and a shorter pause come from the environment.
fn start_agent(network: &Network, state: &Path) -> Process {
    let printed = crate::guide::printed("batwa agent \\");
    assert!(printed.contains("http://MASTER:8000"), "{printed}");
    let command = printed.replace("MASTER", &format!("{}.1.1", network.prefix));
    let command = command.replacen("batwa", env!("CARGO_BIN_EXE_batwa"), 1);
    ProcessBuilder::program("nsenter")
        .arg(format!("--net=/run/netns/{}a", network.name))
        .args(["sh", "-c", &format!("exec {command}")])
        .env("KEY", "your-secret-key-123")
        .env("BATWA_HEARTBEAT_INTERVAL", "1")
        .env("BATWA_DRIVER", "fake")
        .env("BATWA_FAKE", crate::lab::INSTANT)
        .env("BATWA_STATE_DIR", state)
        .start()
}

async fn agent_is(admin: &Caller, status: &str) -> Value {
    // Broken links are noticed by silence, which takes its time: twice the usual wait.
    for attempt in [1, 2] {
        let asking = until_status(admin, status);
        match tokio::time::timeout(crate::lab::DEADLINE * 9 / 10, asking).await {
            Ok(agent) => return agent,
            Err(_) if attempt == 1 => {}
            Err(_) => panic!("the agent did not become {status}"),
        }
    }
    unreachable!("the second attempt ends it")
}

async fn until_status(admin: &Caller, status: &str) -> Value {
    until(&format!("the agent is {status}"), async || {
        let answer = admin.try_get("/api/v1/agents/office-1").await?;
        (answer.body["status"] == status).then_some(answer.body)
    })
    .await
}

#[tokio::test]
async fn a_cable_pulled_and_put_back_loses_nothing() {
    let Some(network) = network().await else {
        return;
    };
    let dir = tempfile::tempdir().expect("a folder");
    let (_master, admin) = start_master(&network, dir.path()).await;
    let agent = start_agent(&network, &dir.path().join("agent"));
    agent.logged("Successfully registered with master").await;
    let pending = agent_is(&admin, "pending").await;
    let here = format!("http://{}.1.2:8001", network.prefix);
    assert_eq!(
        pending["registrations"][0]["api_url"], here,
        "it found its address by itself: {pending}"
    );
    admin
        .post("/api/v1/agents/office-1/approve", json!({}))
        .await
        .ok();
    agent_is(&admin, "online").await;

    let created = admin
        .post(
            "/api/vm/create",
            json!({ "name": "web", "agent_id": "office-1" }),
        )
        .await
        .expect(200);
    assert_eq!(created["agent_id"], "office-1");

    // An old terminal, and one of ours, which will outlive the cut.
    let mut old = Terminal::old(&admin, "office-1", "web").await;
    old.types("echo $((6*7))\n").await;
    old.shows("42").await;
    let opened = admin
        .post(
            "/api/v1/terminals",
            json!({ "agent_id": "office-1", "vm": "web", "cols": 80, "rows": 24 }),
        )
        .await
        .expect(201);
    let attach = |from: usize| {
        format!(
            "/api/v1/terminals/{}/attach?from={from}",
            opened["id"].as_str().expect("an id")
        )
    };
    let mut terminal = Terminal::open(&admin, &attach(0)).await.expect("attached");
    terminal
        .types_bytes(b"stty -echo; PS1=; echo go$((1+1))\n")
        .await;
    terminal.shows("go2").await;
    terminal
        .types_bytes(
            b"i=0; while [ $i -lt 60 ]; do echo line-$i-; i=$((i+1)); sleep 0.1; done; echo all\n",
        )
        .await;
    terminal.shows("line-3-").await;

    network.cable("down").await;
    let offline = agent_is(&admin, "offline").await;
    assert!(
        offline["message"].is_string() || offline["status_since"].is_string(),
        "{offline}"
    );
    let closed = terminal.closed().await;
    assert_eq!(closed.code, Some(4003), "{closed:?}");
    old.closed().await;
    let list = admin.get("/api/vm/list").await.expect(200);
    assert_eq!(list["vms"][0]["name"], "web");
    assert_eq!(
        list["vms"][0]["state"], "Running",
        "a cut link changes no state: {list}"
    );
    assert_eq!(list["vms"][0]["stale"], true);
    assert_eq!(list["unreachable"], json!(["office-1"]));
    let began = std::time::Instant::now();
    admin
        .post(
            "/api/vm/stop",
            json!({ "name": "web", "agent_id": "office-1" }),
        )
        .await
        .refused(503);
    assert!(began.elapsed().as_secs() < 2, "refused at once");

    network.cable("up").await;
    agent_is(&admin, "online").await;
    let vm = admin
        .get("/api/v1/agents/office-1/vms/web")
        .await
        .expect(200);
    assert_eq!(
        (&vm["state"], &vm["stale"]),
        (&json!("running"), &json!(false))
    );

    let before = terminal.output.clone();
    let mut again = Terminal::open(&admin, &attach(before.len()))
        .await
        .expect("attached again");
    again.shows("all").await;
    let text = String::from_utf8([before, again.output.clone()].concat()).expect("whole UTF-8");
    let lines: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("line-"))
        .collect();
    let expected: Vec<_> = (0..60).map(|i| format!("line-{i}-")).collect();
    assert_eq!(lines, expected, "no byte lost and none twice");
}
