//! What tells a real VM's crash from its being stopped, and what an agent makes of it.

use std::time::Duration;

use batwa_agent::driver::{Driver, Progress, StopMode};
use batwa_api::{operation::OperationState, vm::VmState};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{
    agent::AgentProcess,
    lab::{PATIENCE, tiny, vm, within},
    lab_or_skip,
};

fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

#[tokio::test]
async fn only_a_vm_that_nobody_stopped_has_crashed() {
    let mut lab = lab_or_skip!();
    lab.create("web", tiny()).await.unwrap();
    let off = |seen: &batwa_agent::driver::ObservedVm| seen.state == VmState::Stopped;
    let web = vm("web");
    let quiet = Progress::ignored();

    // Stopped by us, in both ways.
    for mode in [StopMode::Graceful, StopMode::Forced] {
        within(lab.driver().stop(&web, mode, &quiet)).await.unwrap();
        let seen = lab.inspect("web").await;
        assert!(off(&seen) && !seen.crashed, "{mode:?}: {seen:?}");
        within(lab.driver().start(&web, &quiet)).await.unwrap();
    }

    // By its own system.
    let mut shell = lab.shell("web").await;
    shell.type_in("poweroff\n").await;
    let seen = lab.see("web", off).await;
    assert!(!seen.crashed, "{seen:?}");
    drop(shell);
    within(lab.driver().start(&web, &quiet)).await.unwrap();

    // By somebody who asks its process to end.
    signal(lab.pid("web"), Signal::TERM);
    let seen = lab.see("web", off).await;
    assert!(!seen.crashed, "{seen:?}");
    within(lab.driver().start(&web, &quiet)).await.unwrap();

    // By nobody; another agent sees that too.
    signal(lab.pid("web"), Signal::KILL);
    let seen = lab.see("web", off).await;
    assert!(seen.crashed, "{seen:?}");
    lab.agent_dies_and_comes_back();
    assert!(lab.inspect("web").await.crashed);
    within(lab.driver().start(&web, &quiet)).await.unwrap();
    assert!(!lab.inspect("web").await.crashed);

    // While no agent watched.
    let pid = lab.pid("web");
    lab.agent_dies_and_comes_back();
    signal(pid, Signal::KILL);
    let seen = lab.see("web", off).await;
    assert!(seen.crashed, "{seen:?}");
    // Thrown away and taken back, it has not.
    within(lab.driver().delete(&web, &quiet)).await.unwrap();
    within(lab.driver().recover(&web, &quiet)).await.unwrap();
    assert!(!lab.inspect("web").await.crashed);
}

#[tokio::test]
async fn a_killed_vm_comes_back_and_one_whose_time_is_over_or_that_does_nothing_is_stopped() {
    let _shared_image = {
        let lab = lab_or_skip!();
        lab.create("first", tiny()).await.unwrap();
        lab
    };
    let mut agent = AgentProcess::new().await.with_clock().await;
    let spec = json!({"image": "tiny", "memory": "192M", "disk": "1G"});
    let create = json!({"kind": "create", "spec": spec});
    let made = agent.run("web", create).await;
    assert_eq!(made.state, OperationState::Succeeded, "{made:?}");
    agent.set("web", json!({"restart": "on_crash"})).await;
    let pid = || {
        let pid = agent.path().join("qemu/vms/web/pid");
        let text = std::fs::read_to_string(pid).unwrap();
        text.trim().parse::<i32>().unwrap()
    };
    let first = pid();
    agent.kill().await;
    signal(first, Signal::KILL);
    agent.start().await;
    agent.until_noticed("web", "crashed").await;
    agent.advance(Duration::from_secs(10));
    let started = agent
        .until_by_itself("agent: crash", |operation| operation.state.is_finished())
        .await;
    assert_eq!(started.state, OperationState::Succeeded, "{started:?}");
    assert_eq!(agent.vm("web").await["state"], "running");
    let pid = std::fs::read_to_string(agent.path().join("qemu/vms/web/pid")).unwrap();
    assert_ne!(pid.trim(), first.to_string());

    // Asked to stop, it stays so: the agent has looked at it when it has taken in that its crash is forgotten.
    let stopped = agent.run("web", json!({"kind": "stop"})).await;
    assert_eq!(stopped.state, OperationState::Succeeded, "{stopped:?}");
    let vm = agent.set("web", json!({"protected": true})).await;
    assert_eq!(vm["state"], "stopped", "{vm}");
    assert!(vm["notices"].is_null(), "{vm}");
    let begun = agent.by_itself("agent: crash").await;
    assert_eq!(begun.len(), 1, "{begun:?}");

    // Its time is over; whoever starts it again keeps it.
    let started = agent.run("web", json!({"kind": "start"})).await;
    assert_eq!(started.state, OperationState::Succeeded, "{started:?}");
    let lifetime = json!({"lifetime": {"after_s": 3600}, "protected": false});
    agent.set("web", lifetime).await;
    agent.advance(Duration::from_secs(3000));
    agent.until_noticed("web", "lifetime_ends").await;
    agent.advance(Duration::from_secs(600));
    let ended = agent
        .until_by_itself("agent: lifetime", |operation| operation.state.is_finished())
        .await;
    assert_eq!(ended.state, OperationState::Succeeded, "{ended:?}");
    assert_eq!(agent.vm("web").await["state"], "stopped");
    let started = agent.run("web", json!({"kind": "start"})).await;
    assert_eq!(started.state, OperationState::Succeeded, "{started:?}");

    // It does nothing, by what is measured inside it. Emulated, even that takes some of the machine.
    let idle = json!({"idle_stop": {"after_s": 300, "below_percent": 90}});
    agent.set("web", idle).await;
    let began = Instant::now();
    while agent.by_itself("agent: idle").await.is_empty() {
        assert!(began.elapsed() < PATIENCE, "{}", agent.vm("web").await);
        agent.advance(Duration::from_secs(60));
        sleep(Duration::from_millis(500)).await;
    }
    let ended = agent
        .until_by_itself("agent: idle", |operation| operation.state.is_finished())
        .await;
    assert_eq!(ended.state, OperationState::Succeeded, "{ended:?}");
    assert_eq!(agent.vm("web").await["state"], "stopped");
    assert_eq!(agent.by_itself("agent: lifetime").await.len(), 1);
}
