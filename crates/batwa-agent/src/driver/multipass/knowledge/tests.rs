//! What is remembered, and for how long.

use batwa_api::Timestamp;

use super::*;

fn web() -> VmName {
    VmName::parse("web").unwrap()
}

fn listed(state: VmState) -> Listed {
    Listed {
        name: web(),
        state,
        shutdown: Shutdown::None,
        release: Some("Ubuntu 24.04 LTS".to_owned()),
    }
}

fn details() -> Details {
    Details {
        ipv4: vec!["10.0.0.2".to_owned()],
        image_release: Some("24.04 LTS".to_owned()),
        release: Some("Ubuntu 24.04.1 LTS".to_owned()),
        cpus: Some(1),
        mounts: Vec::new(),
        snapshots: Some(0),
        usage: Some(VmUsage {
            measured_at: Timestamp::UNIX_EPOCH,
            ..VmUsage::default()
        }),
    }
}

#[test]
fn addresses_and_usage_last_as_long_as_the_vm_runs() {
    let knowledge = Knowledge::default();
    knowledge.take_in(&listed(VmState::Running));
    knowledge.learn(&web(), details());
    assert_eq!(
        knowledge.take_in(&listed(VmState::Running)).ipv4,
        ["10.0.0.2"]
    );
    let stopped = knowledge.take_in(&listed(VmState::Stopped));
    assert_eq!((stopped.ipv4.len(), stopped.usage), (0, None));
    let again = knowledge.take_in(&listed(VmState::Running));
    assert_eq!((again.ipv4.len(), again.usage), (0, None));
}

#[test]
fn sizes_are_asked_once_and_again_after_the_vm_was_off() {
    let knowledge = Knowledge::default();
    knowledge.learn_spec(&web(), &VmSpec::default());
    knowledge.take_in(&listed(VmState::Running));
    assert!(knowledge.to_ask(&listed(VmState::Running)).sizes);
    let last = knowledge.sizes(&web());
    assert_eq!(last.memory, Some(ByteSize::gib(1)));
    knowledge.learn_sizes(&web(), last);
    assert!(!knowledge.to_ask(&listed(VmState::Running)).sizes);
    knowledge.take_in(&listed(VmState::Stopped));
    assert!(knowledge.to_ask(&listed(VmState::Stopped)).sizes);
}

#[test]
fn nobody_logs_in_to_a_vm_that_is_not_up_or_that_we_reboot() {
    let knowledge = Knowledge::default();
    for state in VmState::ALL {
        assert_eq!(
            knowledge.to_ask(&listed(state)).info,
            state == VmState::Running,
            "{state}"
        );
    }
    let mark = knowledge.mark(&web(), Work::Boot);
    assert!(!knowledge.to_ask(&listed(VmState::Running)).info);
    mark.finish();
    assert!(knowledge.to_ask(&listed(VmState::Running)).info);
}

#[test]
fn unknown_is_creating_during_our_launch_starting_during_our_start_and_explained_otherwise() {
    let knowledge = Knowledge::default();
    let launch = knowledge.mark(&web(), Work::Launch);
    let seen = knowledge.take_in(&listed(VmState::Unknown));
    assert_eq!((seen.state, seen.message), (VmState::Creating, None));
    launch.finish();
    let start = knowledge.mark(&web(), Work::Boot);
    assert_eq!(
        knowledge.take_in(&listed(VmState::Unknown)).state,
        VmState::Starting
    );
    drop(start);
    let seen = knowledge.take_in(&listed(VmState::Unknown));
    assert_eq!(seen.state, VmState::Unknown);
    assert!(seen.message.is_some());
}

#[test]
fn a_launch_dropped_before_its_end_is_remembered_until_settled() {
    let knowledge = Knowledge::default();
    drop(knowledge.mark(&web(), Work::Launch));
    assert!(knowledge.cut_off(&web()).is_some());
    knowledge.settle_cut_off(&web());
    assert_eq!(knowledge.cut_off(&web()), None);
    knowledge.mark(&web(), Work::Launch).finish();
    assert_eq!(knowledge.cut_off(&web()), None);
}

#[test]
fn a_vm_that_vanished_is_forgotten_unless_we_are_making_it() {
    let knowledge = Knowledge::default();
    knowledge.learn_spec(&web(), &VmSpec::default());
    let launch = knowledge.mark(&web(), Work::Launch);
    assert!(knowledge.observe(&[]).is_empty());
    assert_eq!(knowledge.take_in(&listed(VmState::Starting)).cpus, Some(1));
    launch.finish();
    assert!(knowledge.observe(&[]).is_empty());
    assert_eq!(knowledge.take_in(&listed(VmState::Running)).cpus, None);
}

#[test]
fn snapshots_of_a_vm_that_is_off_are_always_asked_for_and_of_one_that_runs_when_it_may_have_others()
{
    let knowledge = Knowledge::default();
    let ask = |state| {
        knowledge.take_in(&listed(state));
        knowledge.to_ask(&listed(state)).snapshots
    };
    assert!(ask(VmState::Running) && !ask(VmState::Starting) && ask(VmState::Running));
    knowledge.learn_snapshots(&web(), Vec::new());
    assert!(!ask(VmState::Running));
    knowledge.learn(&web(), details());
    assert!(!ask(VmState::Running));
    let one_more = Details {
        snapshots: Some(1),
        ..details()
    };
    knowledge.learn(&web(), one_more);
    assert!(ask(VmState::Running));
    for state in [VmState::Stopped, VmState::Suspended] {
        assert!(ask(state));
        knowledge.learn_snapshots(&web(), Vec::new());
        assert!(ask(state), "{state}");
    }
    let clone = knowledge.mark(&web(), Work::Clone);
    assert!(!ask(VmState::Stopped));
    clone.finish();
    knowledge.has_snapshots(false);
    assert!(!ask(VmState::Stopped));
}

#[test]
fn a_copy_is_being_made_whatever_multipass_calls_it_and_remembered_when_cut_off() {
    let knowledge = Knowledge::default();
    let clone = knowledge.mark(&web(), Work::Clone);
    let seen = knowledge.take_in(&listed(VmState::Stopped));
    assert_eq!(seen.state, VmState::Creating);
    drop(clone);
    let seen = knowledge.take_in(&listed(VmState::Stopped));
    assert_eq!(seen.state, VmState::Stopped);
    assert!(knowledge.cut_off(&web()).is_some());
}
