//! A machine on which the guide's commands are typed: its names lead to itself, `sudo` is there, and VMs only pretend.

use serde_json::{Value, json};

use crate::lab::{ADMIN, COPY, Machine, Networks, Process, until};

/// The master's and the agent's addresses in the guide's examples.
pub(crate) const MASTER: &str = "192.168.1.10";
const AGENT: &str = "192.168.1.100";
const PASSWORD: &str = "/root/password";

pub(crate) struct Stage {
    /// The machine.
    pub(crate) machine: Machine,
    /// What is set in the shell, besides what every shell has.
    variables: Vec<(&'static str, String)>,
}

/// Something that was typed and goes on.
pub(crate) struct Running {
    /// What it says.
    pub(crate) process: Process,
    group: String,
}

impl Stage {
    pub(crate) async fn boot(name: &str) -> Option<Self> {
        let machine = Machine::boot(name, Networks::Own).await?;
        let hosts = format!("127.0.0.1 localhost\n{MASTER} MASTER\n{AGENT} AGENT\n");
        machine.write("/etc/hosts", "644", &hosts).await;
        machine.write(PASSWORD, "600", ADMIN.1).await;
        let sudo = "#!/bin/sh\nexec \"$@\"\n";
        machine.write("/usr/local/bin/sudo", "755", sudo).await;
        // Networks are made by hand here; nothing would ever call them online.
        let network = format!(
            "ln -s /dev/null /etc/systemd/system/systemd-networkd-wait-online.service
             systemctl daemon-reload
             ip link add eth0 type veth peer name eth1
             ip address add {MASTER}/24 dev eth0
             ip address add {AGENT}/24 dev eth0
             ip link set eth0 up
             ip link set eth1 up
             ip route add default via 192.168.1.1"
        );
        machine.does(&["sh", "-euc", &network]).await;
        let mut stage = Self {
            machine,
            variables: Vec::new(),
        };
        for (name, value) in [
            ("HOME", "/root"),
            ("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"),
            ("BATWA_DRIVER", "fake"),
            ("BATWA_FAKE", "vms=0,latency=0ms"),
        ] {
            stage.set(name, value);
        }
        let install =
            super::printed("sudo install -m 755 target/release/batwa /usr/local/bin/batwa");
        stage.run(&install).await;
        Some(stage)
    }

    /// Sets a variable for everything that is typed from now on.
    pub(crate) fn set(&mut self, name: &'static str, value: impl Into<String>) {
        self.variables.push((name, value.into()));
    }

    fn typed(&self, words: &[&str]) -> crate::lab::ProcessBuilder {
        let mut builder = self.machine.inside(words);
        for (name, value) in &self.variables {
            builder = builder.env(name, value);
        }
        builder.current_dir(std::path::Path::new("/"))
    }

    /// Types commands, each of which must succeed, in a copy of the repository; what they print.
    pub(crate) async fn run(&self, commands: &str) -> String {
        let script = format!("cd {COPY}\n{commands}");
        let ended = self.typed(&["sh", "-euc", &script]).run().await;
        assert_eq!(ended.code, Some(0), "{commands}\n{ended:?}");
        ended.stdout
    }

    /// Types a command that goes on.
    pub(crate) async fn start(&self, command: &str) -> Running {
        let script = format!("cd {COPY}; echo group $$ >&2; {command}");
        let process = self.typed(&["setsid", "sh", "-euc", &script]).start();
        let group = until("it is started", async || {
            let log = process.log();
            let line = log.lines().find_map(|line| line.strip_prefix("group "))?;
            Some(line.to_owned())
        })
        .await;
        Running { process, group }
    }

    /// Ctrl-C, and waits for the end.
    pub(crate) async fn stop(&self, mut running: Running) {
        let group = format!("-{}", running.group);
        self.machine.does(&["kill", "-INT", "--", &group]).await;
        running.process.ended().await;
    }

    /// `batwa up` as the guide has it, with an account, and its token in the shell.
    pub(crate) async fn master(&mut self, command: &str) -> Running {
        self.give_account();
        let master = self.start(command).await;
        master.process.address("Batwa is at").await;
        self.sign_in(command).await;
        master
    }

    /// Has masters make an account at their first start.
    pub(crate) fn give_account(&mut self) {
        self.set("BATWA_ADMIN_PASSWORD_FILE", PASSWORD);
    }

    /// Makes a token of the account, once a master that was started so answers.
    pub(crate) async fn sign_in(&mut self, command: &str) {
        let tls = command.contains("--tls");
        let scheme = if tls { "https" } else { "http" };
        self.set("BATWA_URL", format!("{scheme}://127.0.0.1:8000"));
        let login = json!({ "username": ADMIN.0, "password": ADMIN.1 });
        let curl = "curl -skf -b /root/jar -c /root/jar -H 'Content-Type: application/json'";
        let made = self
            .run(&format!(
                "{curl} -o /dev/null -d '{login}' $BATWA_URL/api/auth/login
                 {curl} -d '{{\"name\":\"shell\"}}' $BATWA_URL/api/v1/tokens"
            ))
            .await;
        let made: Value = serde_json::from_str(&made).expect("JSON");
        let token = made["token"].as_str().expect("a token");
        self.set("BATWA_TOKEN", token);
    }

    /// A call of the API.
    pub(crate) async fn call(&self, method: &str, path: &str, body: Value) -> Value {
        let curl = "curl -skf -H \"Authorization: Bearer $BATWA_TOKEN\" -H 'Content-Type: application/json'";
        let body = match body {
            Value::Null => String::new(),
            body => format!("-d '{body}'"),
        };
        let answer = self
            .run(&format!(
                "{curl} -X {method} {body} $BATWA_URL{path} || echo null"
            ))
            .await;
        serde_json::from_str(&answer).unwrap_or_default()
    }

    /// A key that an admin made for an agent.
    pub(crate) async fn key(&self, agent: &str) -> String {
        let body = json!({ "name": agent, "agent_id": agent });
        let made = self.call("POST", "/api/v1/agent-keys", body).await;
        made["key"].as_str().expect("a key").to_owned()
    }

    /// Waits until an agent stands so.
    pub(crate) async fn agent_is(&self, id: &str, status: &str) -> Value {
        let path = format!("/api/v1/agents/{id}");
        until(&format!("agent {id} is {status}"), async || {
            let agent = self.call("GET", &path, Value::Null).await;
            (agent["status"] == status).then_some(agent)
        })
        .await
    }
}
