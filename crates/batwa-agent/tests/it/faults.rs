//! The agent is killed at every step of operations on fake VMs, and everything is settled truthfully afterwards.
//!
//! Twelve kinds are cut. Start, restart, suspend, resume and recover are not: only the table in `settle.rs` speaks for them.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use batwa_agent::{FakeSettings, driver::fake::StepMode, policy::FILE};
use batwa_api::{
    id::OperationId,
    operation::{Operation, OperationState},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::lab::{DEADLINE, Lab};

/// One operation on VM `web`, which runs and has the snapshot `base` and the mount `/mnt/base`.
struct Scenario {
    request: fn() -> Value,
    /// What is to be seen when it succeeded; what is not there otherwise.
    effect: fn(&World) -> bool,
    /// Whether `web` runs at the end, whatever came of it.
    runs_at_the_end: bool,
}

/// What a machine shows.
struct World {
    vms: Vec<Value>,
    images: Vec<Value>,
}

impl World {
    async fn of(lab: &Lab) -> Self {
        let items = async |path| {
            let body = lab.get(path).await.body;
            body["items"].as_array().unwrap().clone()
        };
        Self {
            vms: items("/api/v1/vms").await,
            images: items("/api/v1/images").await,
        }
    }

    fn vm(&self, name: &str) -> Option<&Value> {
        self.vms.iter().find(|vm| vm["name"] == name)
    }

    fn state(&self, name: &str) -> &str {
        self.vm(name)
            .and_then(|vm| vm["state"].as_str())
            .unwrap_or("gone")
    }

    fn is_kept(&self, name: &str) -> bool {
        self.vm(name).is_some_and(|vm| {
            let settings = &vm["settings"];
            settings["protected"] == true && !settings["lifetime"].is_null()
        })
    }

    fn has_image(&self, name: &str) -> bool {
        let mut images = self.images.iter();
        images.any(|image| image["name"] == name && image["cached"] == true)
    }

    fn has_mount(&self, target: &str) -> bool {
        self.vm("web").is_some_and(|vm| {
            let mounts = vm["mounts"].as_array();
            mounts.is_some_and(|all| all.iter().any(|mount| mount["target"] == target))
        })
    }

    fn has_snapshot(&self, name: &str) -> bool {
        self.vm("web").is_some_and(|vm| {
            let snapshots = vm["snapshots"].as_array();
            snapshots.is_some_and(|all| all.iter().any(|snapshot| snapshot["name"] == name))
        })
    }
}

fn scenarios() -> Vec<(&'static str, Scenario)> {
    vec![
        (
            "new",
            Scenario {
                request: || {
                    let settings = json!({"protected": true, "lifetime": {"after_s": 3600}});
                    json!({"kind": "create", "spec": {"image": "tiny", "disk": "1G", "settings": settings}})
                },
                // It is never there without them.
                effect: |world| world.state("new") == "running" && world.is_kept("new"),
                runs_at_the_end: true,
            },
        ),
        (
            "web",
            Scenario {
                request: || json!({"kind": "stop"}),
                effect: |world| world.state("web") == "stopped",
                runs_at_the_end: false,
            },
        ),
        (
            "web",
            Scenario {
                request: || json!({"kind": "delete"}),
                effect: |world| world.state("web") == "deleted",
                runs_at_the_end: false,
            },
        ),
        (
            "web",
            Scenario {
                request: || json!({"kind": "purge"}),
                effect: |world| world.state("web") == "gone",
                runs_at_the_end: false,
            },
        ),
        (
            "web",
            Scenario {
                request: || json!({"kind": "snapshot", "name": "one", "stop": true}),
                effect: |world| world.has_snapshot("one"),
                runs_at_the_end: true,
            },
        ),
        (
            "web",
            Scenario {
                request: || json!({"kind": "restore", "snapshot": "base", "stop": true}),
                effect: |world| world.has_snapshot("before-restore1"),
                runs_at_the_end: true,
            },
        ),
        (
            "web",
            Scenario {
                request: || json!({"kind": "delete_snapshot", "snapshot": "base", "stop": true}),
                effect: |world| !world.has_snapshot("base"),
                runs_at_the_end: true,
            },
        ),
        (
            "web",
            Scenario {
                request: || json!({"kind": "clone", "name": "twin", "stop": true}),
                effect: |world| world.state("twin") == "stopped",
                runs_at_the_end: true,
            },
        ),
        (
            "web",
            Scenario {
                request: || json!({"kind": "resize", "disk": "3G", "stop": true}),
                effect: |world| {
                    world
                        .vm("web")
                        .is_some_and(|vm| vm["disk"] == json!(3u64 << 30))
                },
                runs_at_the_end: true,
            },
        ),
        (
            "web",
            Scenario {
                request: || json!({"kind": "mount", "source": "/usr/share", "target": "/mnt/one"}),
                effect: |world| world.has_mount("/mnt/one"),
                runs_at_the_end: true,
            },
        ),
        (
            "web",
            Scenario {
                request: || json!({"kind": "umount", "target": "/mnt/base"}),
                effect: |world| !world.has_mount("/mnt/base"),
                runs_at_the_end: true,
            },
        ),
        (
            "web",
            Scenario {
                request: || json!({"kind": "pull_image", "image": "bookworm"}),
                effect: |world| world.has_image("debian:12"),
                runs_at_the_end: true,
            },
        ),
    ]
}

/// A state folder with the running VM `web`, its snapshot and its mount `base`, and no agent.
async fn prepared() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(FILE), "[mounts]\nroots = [\"/usr\"]\n").unwrap();
    let lab = Lab::on(dir, FakeSettings::instant(), |_| ()).await;
    for request in [
        json!({"kind": "create", "spec": {"image": "tiny", "disk": "1G"}}),
        json!({"kind": "snapshot", "name": "base", "stop": true}),
        json!({"kind": "mount", "source": "/usr", "target": "/mnt/base"}),
    ] {
        let operation = lab.run("web", request).await;
        assert_eq!(operation.state, OperationState::Succeeded, "{operation:?}");
    }
    lab.stop().await
}

/// Lets the operation make `steps` steps, or come to its end before; whether it did.
async fn goes(lab: &Lab, id: OperationId, steps: usize) -> bool {
    lab.driver.step(steps);
    let gone = timeout(DEADLINE, async {
        loop {
            let answer = lab.get(&format!("/api/v1/operations/{id}")).await;
            let operation: Operation = serde_json::from_value(answer.body).unwrap();
            if operation.state.is_finished() {
                return true;
            }
            if lab.driver.steps_left() == 0 && operation.state == OperationState::Running {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    gone.await.expect("the operation takes its steps")
}

/// Folders that belong to no VM.
fn orphans(dir: &Path, world: &World) -> Vec<String> {
    let known: BTreeSet<&str> = world
        .vms
        .iter()
        .filter_map(|vm| vm["name"].as_str())
        .collect();
    ["homes", "snapshots"]
        .into_iter()
        .filter_map(|kind| fs::read_dir(dir.join("fake").join(kind)).ok())
        .flatten()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| !known.contains(name.as_str()))
        .collect()
}

/// Runs `work` on a runtime of its own. With it everything ends that it had begun, wherever it is: what `kill -9` does.
fn until_killed<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(work)
}

/// One operation, cut off after so many steps; whether it had come to its end by then.
fn cut(vm: &str, scenario: &Scenario, steps: usize) -> bool {
    let stepped = FakeSettings {
        mode: StepMode::Stepped,
        ..FakeSettings::instant()
    };
    let request = (scenario.request)();
    let context = format!("{request} killed after {steps} steps");
    let id = OperationId::new();
    let dir = until_killed(prepared());
    let (dir, came_to_its_end) = until_killed(async {
        let lab = Lab::on(dir, stepped, |_| ()).await;
        let accepted = lab.put(id, vm, request).await;
        assert_eq!(
            accepted.status.as_u16(),
            202,
            "{context}: {}",
            accepted.body
        );
        let came_to_its_end = goes(&lab, id, steps).await;
        (lab.abandon(), came_to_its_end)
    });
    until_killed(async {
        let lab = Lab::on(dir, FakeSettings::instant(), |_| ()).await;
        let operation = lab.finished(id).await;
        let world = World::of(&lab).await;
        let done = operation.state == OperationState::Succeeded;
        assert_eq!((scenario.effect)(&world), done, "{context}: {operation:?}");
        assert!(done, "nothing hindered it: {context}: {operation:?}");
        if scenario.runs_at_the_end {
            assert_eq!(world.state("web"), "running", "{context}");
        }
        let mut half = world.vms.iter().filter(|vm| vm["state"] == "creating");
        assert_eq!(half.next(), None, "{context}");
        let dir = lab.stop().await;
        assert_eq!(orphans(dir.path(), &world), [""; 0], "{context}");
    });
    came_to_its_end
}

#[test]
fn an_agent_killed_at_any_step_of_twelve_operations_settles_them_truthfully() {
    let mut cuts = 0;
    for (vm, scenario) in scenarios() {
        cuts += 1
            + (0..)
                .take_while(|steps| !cut(vm, &scenario, *steps))
                .count();
    }
    // Each operation has steps between which it can be cut.
    assert!(cuts > 2 * scenarios().len(), "only {cuts} cuts");
}
