//! The master is killed at every stage of operations, alone and together with its agent, and each is settled truthfully.
//!
//! `batwa-agent`'s `faults` cuts the agent alone, at every step of the driver.

use std::time::Instant;

use serde_json::{Value, json};

use crate::lab::{DEADLINE, Lab};

/// Each stage takes long enough for a kill to find it.
const SLOW: &str = "vms=0,latency=120ms";
/// More stages than any operation has here.
const MOST_STAGES: usize = 10;

/// A method, what follows `/vms` in the path, and a body.
type Call = (&'static str, String, Value);
/// An action and its body.
type Preparation = (&'static str, fn() -> Value);

/// One kind of operation.
struct Scenario {
    /// What asks for it on a VM of this name.
    request: fn(&str) -> Call,
    /// Brings a VM that runs into the state that it begins from.
    before: &'static [Preparation],
    /// What is to be seen once it succeeded.
    holds: fn(&World, &str) -> bool,
}

/// The VMs of a machine.
struct World(Vec<Value>);

impl World {
    async fn of(lab: &Lab) -> Self {
        let list = lab.admin.get("/api/v1/vms?limit=1000").await.expect(200);
        Self(list["items"].as_array().expect("a list").clone())
    }

    fn all(&self, name: &str) -> impl Iterator<Item = &Value> {
        self.0.iter().filter(move |vm| vm["name"] == name)
    }

    /// The state of the one VM of this name; `None` for none.
    fn state(&self, name: &str) -> Option<&str> {
        assert!(self.all(name).count() < 2, "{name} is there twice");
        self.all(name).next()?["state"].as_str()
    }

    /// How many snapshots of a VM have a name that begins so.
    fn snapshots(&self, name: &str, prefix: &str) -> usize {
        let snapshots = self.all(name).filter_map(|vm| vm["snapshots"].as_array());
        let names = snapshots
            .flatten()
            .filter_map(|snapshot| snapshot["name"].as_str());
        names.filter(|name| name.starts_with(prefix)).count()
    }
}

fn base() -> Value {
    json!({ "name": "base", "stop": true })
}

fn nothing() -> Value {
    json!({})
}

fn action(vm: &str, action: &str, body: Value) -> Call {
    ("POST", format!("/{vm}/{action}"), body)
}

const CREATE: Scenario = Scenario {
    request: |vm| {
        let spec = json!({ "name": format!("new-{vm}"), "image": "tiny", "memory": "256M" });
        ("POST", String::new(), spec)
    },
    before: &[],
    holds: |world, vm| world.state(&format!("new-{vm}")) == Some("running"),
};
const START: Scenario = Scenario {
    request: |vm| action(vm, "start", json!({})),
    before: &[("stop", nothing)],
    holds: |world, vm| world.state(vm) == Some("running"),
};
const RESTART: Scenario = Scenario {
    request: |vm| action(vm, "restart", json!({})),
    before: &[],
    holds: |world, vm| world.state(vm) == Some("running"),
};
const SUSPEND: Scenario = Scenario {
    request: |vm| action(vm, "suspend", json!({})),
    before: &[],
    holds: |world, vm| world.state(vm) == Some("suspended"),
};
const RESUME: Scenario = Scenario {
    request: |vm| action(vm, "resume", json!({})),
    before: &[("suspend", nothing)],
    holds: |world, vm| world.state(vm) == Some("running"),
};
const DELETE: Scenario = Scenario {
    request: |vm| ("DELETE", format!("/{vm}"), Value::Null),
    before: &[],
    holds: |world, vm| world.state(vm) == Some("deleted"),
};
const PURGE: Scenario = Scenario {
    request: |vm| ("DELETE", format!("/{vm}?purge=true"), Value::Null),
    before: &[],
    holds: |world, vm| world.state(vm).is_none(),
};
const SNAPSHOT: Scenario = Scenario {
    request: |vm| action(vm, "snapshot", json!({ "name": "one", "stop": true })),
    before: &[],
    holds: |world, vm| {
        world.snapshots(vm, "") == 1
            && world.snapshots(vm, "one") == 1
            && world.state(vm) == Some("running")
    },
};
const RESTORE: Scenario = Scenario {
    request: |vm| action(vm, "restore", json!({ "snapshot": "base", "stop": true })),
    before: &[("snapshot", base)],
    holds: |world, vm| {
        world.snapshots(vm, "") == 2
            && world.snapshots(vm, "before-restore") == 1
            && world.state(vm) == Some("running")
    },
};
const CLONE: Scenario = Scenario {
    request: |vm| {
        let twin = json!({ "name": format!("twin-{vm}"), "stop": true });
        action(vm, "clone", twin)
    },
    before: &[],
    holds: |world, vm| {
        world.state(&format!("twin-{vm}")) == Some("stopped") && world.state(vm) == Some("running")
    },
};

/// Asks for it on `vm`; the operation's id.
async fn ask(lab: &Lab, agent: &str, scenario: &Scenario, vm: &str) -> Value {
    let (method, path, body) = (scenario.request)(vm);
    let path = format!("/api/v1/agents/{agent}/vms{path}");
    let answer = match method {
        "POST" => lab.admin.post(&path, body).await,
        _ => lab.admin.delete(&path).await,
    };
    answer.expect(202)["id"].clone()
}

/// Waits until it has been at so many stages; false when it came to its end before.
async fn is_at(lab: &Lab, id: &Value, stages: usize) -> bool {
    let path = format!("/api/v1/operations/{}", id.as_str().expect("an id"));
    let began = Instant::now();
    loop {
        let operation = lab.admin.get(&path).await.expect(200);
        let state = operation["state"].as_str().expect("a state");
        if !matches!(state, "queued" | "running") {
            return false;
        }
        if operation["steps"].as_array().map_or(0, Vec::len) >= stages {
            return true;
        }
        assert!(began.elapsed() < DEADLINE, "it does not end: {operation}");
    }
}

/// So many VMs, ready for it.
async fn prepare(lab: &Lab, agent: &str, scenario: &Scenario, vms: usize) {
    let mut asked = Vec::new();
    let path = format!("/api/v1/agents/{agent}/vms");
    for n in 0..vms {
        let name = format!("vm-{n}");
        let create = json!({ "name": name, "image": "tiny", "memory": "256M" });
        let made = lab.admin.post(&path, create).await.expect(202);
        asked.push(made["id"].clone());
    }
    for id in asked.drain(..) {
        assert_eq!(lab.finished(&id).await["state"], "succeeded");
    }
    for (action, body) in scenario.before {
        for n in 0..vms {
            let path = format!("{path}/vm-{n}/{action}");
            asked.push(lab.admin.post(&path, body()).await.expect(202)["id"].clone());
        }
        for id in asked.drain(..) {
            assert_eq!(lab.finished(&id).await["state"], "succeeded");
        }
    }
}

/// Kills the master once before the first stage and once in each that it sees, on another VM each time.
async fn cut(mut lab: Lab, agent: &str, scenario: &Scenario) {
    prepare(&lab, agent, scenario, MOST_STAGES).await;
    for stages in 0.. {
        assert!(stages < MOST_STAGES, "it has no end");
        let vm = format!("vm-{stages}");
        let id = ask(&lab, agent, scenario, &vm).await;
        let is_cut = is_at(&lab, &id, stages).await;
        if is_cut {
            lab.kill();
            lab.restart().await;
            lab.agent_is(agent, "online").await;
        }
        let operation = lab.finished(&id).await;
        let context = format!("cut at stage {stages}: {operation}");
        assert_eq!(operation["state"], "succeeded", "{context}");
        assert_eq!(operation["requested_by"], "admin", "{context}");
        let world = World::of(&lab).await;
        assert!((scenario.holds)(&world, &vm), "{context}: {:?}", world.0);
        let unfinished = |vm: &&Value| vm["state"] == "creating" || vm["operations"] != json!([]);
        assert_eq!(world.0.iter().find(unfinished), None, "{context}");
        if !is_cut {
            assert!(stages > 0, "it was cut nowhere: {context}");
            return;
        }
    }
}

/// Each on a machine of its own, whose agent is another process.
async fn cut_the_master(scenarios: [Scenario; 5]) {
    let cuts = scenarios.iter().map(async |scenario| {
        let lab = Lab::master(&[]).await;
        let _edge = lab.agent("edge", SLOW).await;
        cut(lab, "edge", scenario).await;
    });
    futures_util::future::join_all(cuts).await;
}

/// Each in one process with its agent.
async fn cut_both(scenarios: [Scenario; 5]) {
    let cuts = scenarios.iter().map(async |scenario| {
        cut(Lab::up_with(SLOW).await, "local", scenario).await;
    });
    futures_util::future::join_all(cuts).await;
}

#[tokio::test]
async fn a_master_killed_at_any_stage_of_what_changes_power_learns_how_it_ended() {
    cut_the_master([START, RESTART, SUSPEND, RESUME, DELETE]).await;
}

#[tokio::test]
async fn a_master_killed_at_any_stage_of_what_changes_disks_learns_how_it_ended() {
    cut_the_master([CREATE, PURGE, SNAPSHOT, RESTORE, CLONE]).await;
}

#[tokio::test]
async fn master_and_agent_killed_at_any_stage_of_what_changes_power_settle_it() {
    cut_both([START, RESTART, SUSPEND, RESUME, DELETE]).await;
}

#[tokio::test]
async fn master_and_agent_killed_at_any_stage_of_what_changes_disks_settle_it() {
    cut_both([CREATE, PURGE, SNAPSHOT, RESTORE, CLONE]).await;
}
