//! A machine behind NAT: it joins by the pasted line, and a cut of its line loses nothing. Needs root, `iptables`
//! and `curl`; `BATWA_TEST_NETNS=require` makes it an error not to have them.

use std::path::Path;

use serde_json::{Value, json};

use crate::{
    lab::{ADMIN, Caller, Process, ProcessBuilder, Terminal, until},
    namespaces::{run, skipped},
};

/// The master in one namespace, a gateway that hides the third, the agent in that, and a cable from here to the master.
struct Network {
    name: String,
    prefix: String,
}

impl Network {
    async fn new() -> Result<Self, String> {
        let id = std::process::id();
        let network = Self {
            name: format!("bn{}", id % 100_000),
            prefix: format!("10.{}", 50 + id % 50),
        };
        let Self { name, prefix } = &network;
        for command in [
            "curl --version".to_owned(),
            format!("ip netns add {name}m"),
            format!("ip netns add {name}g"),
            format!("ip netns add {name}a"),
            format!(
                "ip link add {name}mg netns {name}m type veth peer name {name}gm netns {name}g"
            ),
            format!(
                "ip link add {name}ga netns {name}g type veth peer name {name}ag netns {name}a"
            ),
            format!("ip -n {name}m addr add {prefix}.1.1/24 dev {name}mg"),
            format!("ip -n {name}g addr add {prefix}.1.2/24 dev {name}gm"),
            format!("ip -n {name}g addr add {prefix}.9.1/24 dev {name}ga"),
            format!("ip -n {name}a addr add {prefix}.9.2/24 dev {name}ag"),
            format!("ip -n {name}m link set {name}mg up"),
            format!("ip -n {name}g link set {name}gm up"),
            format!("ip -n {name}g link set {name}ga up"),
            format!("ip -n {name}a link set {name}ag up"),
            format!("ip -n {name}m link set lo up"),
            format!("ip -n {name}a link set lo up"),
            // The master knows no way to the agent; the gateway lends its own address.
            format!("ip -n {name}a route add default via {prefix}.9.1"),
            format!("ip netns exec {name}g sysctl -q -w net.ipv4.ip_forward=1"),
            format!(
                "ip netns exec {name}g iptables -t nat -A POSTROUTING -s {prefix}.9.0/24 -o {name}gm -j MASQUERADE"
            ),
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
        ProcessBuilder::program("nsenter").arg(format!("--net=/run/netns/{}{namespace}", self.name))
    }

    /// The gateway's way out. What it knows of open connections stays.
    async fn line(&self, state: &str) {
        let Self { name, .. } = self;
        run(&format!("ip -n {name}g link set {name}gm {state}"))
            .await
            .expect("the line");
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // The pasted line made processes of its own.
        let kill = format!("ip netns pids {}a | xargs -r kill -9", self.name);
        ProcessBuilder::program("sh")
            .args(["-c", &kill])
            .start()
            .wait();
        for namespace in ["m", "g", "a"] {
            // Its cables go with it.
            let mut removing = ProcessBuilder::program("ip")
                .args(["netns", "del", &format!("{}{namespace}", self.name)])
                .start();
            removing.wait();
        }
    }
}

async fn start_master(network: &Network, folder: &Path) -> (Process, Caller) {
    std::fs::write(folder.join("password"), ADMIN.1).expect("a file");
    let master = network
        .inside('m')
        .arg(env!("CARGO_BIN_EXE_batwa"))
        .args(["master", "--host", "0.0.0.0", "--port", "8000"])
        .args(["--tunnel-ping", "500ms", "--state-dir"])
        .arg(folder.join("master"))
        .env("BATWA_ADMIN_PASSWORD_FILE", folder.join("password"))
        .start();
    master.address("Batwa is at").await;
    let url = format!("http://{}.2.2:8000", network.prefix);
    let admin = Caller::with_token(&url, ADMIN).await;
    (master, admin)
}

async fn agent_is(admin: &Caller, status: &str) -> Value {
    until(&format!("the agent is {status}"), async || {
        let answer = admin.try_get("/api/v1/agents/laptop").await?;
        (answer.body["status"] == status).then_some(answer.body)
    })
    .await
}

#[tokio::test]
async fn a_machine_behind_nat_joins_by_the_pasted_line_and_a_cut_loses_nothing() {
    let Some(network) = skipped(Network::new().await) else {
        return;
    };
    let dir = tempfile::tempdir().expect("a folder");
    let (_master, admin) = start_master(&network, dir.path()).await;
    // Asked on the master's own machine, by its loopback address.
    let token = admin
        .post("/api/v1/tokens", json!({ "name": "shell" }))
        .await
        .expect(201);
    let created = network
        .inside('m')
        .arg(env!("CARGO_BIN_EXE_batwa"))
        .args(["join-token", "create"])
        .env("BATWA_URL", "http://127.0.0.1:8000")
        .env("BATWA_TOKEN", token["token"].as_str().expect("a token"))
        .run()
        .await;
    let line = created.stdout.trim();
    let address = format!("http://{}.1.1:8000/join.sh", network.prefix);
    assert!(line.contains(&address), "{created:?}");
    // As pasted, with what keeps it from this machine's own folders.
    let line = format!(
        "{line} --agent-id laptop --driver fake --fake vms=0,latency=300ms --tunnel-ping 500ms --tunnel-retry 1s --state-dir {}",
        dir.path().join("agent").display()
    );
    let agent = network
        .inside('a')
        .args(["sh", "-c", &line])
        .env("BATWA_INSTALL_DIR", dir.path().join("bin"))
        .start();
    let online = agent_is(&admin, "online").await;
    assert_eq!(online["link"], "tunnel");
    let gateway = format!("{}.1.2", network.prefix);
    assert_eq!(online["tunnel"]["address"], gateway, "it is behind NAT");
    assert!(agent.log().contains("installed "), "{}", agent.log());

    let create = |name: &str| {
        admin.post(
            "/api/v1/agents/laptop/vms",
            json!({ "name": name, "image": "tiny", "memory": "256M" }),
        )
    };
    let ended = async |id: &Value| {
        let path = format!("/api/v1/operations/{}", id.as_str().expect("an id"));
        until("the operation ends", async || {
            let answer = admin.try_get(&path).await?;
            let over = answer.body["state"] != "queued" && answer.body["state"] != "running";
            over.then_some(answer.body)
        })
        .await
    };
    let web = create("web").await.expect(202)["id"].clone();
    assert_eq!(ended(&web).await["state"], "succeeded");
    let opened = admin
        .post(
            "/api/v1/terminals",
            json!({ "agent_id": "laptop", "vm": "web", "cols": 80, "rows": 24 }),
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

    // The line is cut in the middle of an operation.
    let late = create("late").await.expect(202)["id"].clone();
    network.line("down").await;
    agent_is(&admin, "offline").await;
    assert_eq!(terminal.closed().await.code, Some(4003));
    let vm = admin.get("/api/v1/agents/laptop/vms/web").await.expect(200);
    assert_eq!(
        (&vm["state"], &vm["stale"]),
        (&json!("running"), &json!(true))
    );
    network.line("up").await;
    agent_is(&admin, "online").await;

    let late = ended(&late).await;
    assert_eq!(late["state"], "succeeded", "{late}");
    let list = admin.get("/api/v1/vms").await.expect(200);
    assert_eq!(list["counts"]["total"], 2, "none was made twice: {list}");
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
