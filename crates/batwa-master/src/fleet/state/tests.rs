use batwa_api::{
    agent::DriverKind,
    id::UserId,
    terminal::Terminal,
    vm::{VmAction, VmSettings},
};
use proptest::prelude::*;

use super::*;
use crate::fleet::row::Labels;

pub(crate) fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

pub(crate) fn id(text: &str) -> AgentId {
    AgentId::parse(text).unwrap()
}

pub(crate) fn name(text: &str) -> VmName {
    VmName::parse(text).unwrap()
}

pub(crate) fn vm(text: &str, state: VmState) -> Vm {
    Vm {
        name: name(text),
        state,
        state_since: now(),
        message: None,
        driver: DriverKind::Fake,
        readiness: None,
        ipv4: vec![],
        image: None,
        release: None,
        cpus: None,
        memory: None,
        disk: None,
        usage: None,
        acceleration: None,
        created_at: None,
        started_at: None,
        shutdown_at: None,
        location: None,
        observed_at: now(),
        snapshots: Vec::new(),
        mounts: Vec::new(),
        networks: Vec::new(),
        forwards: Vec::new(),
        settings: VmSettings::default(),
        notices: Vec::new(),
        operations: vec![],
    }
}

fn labelled(key: &str, value: &str) -> About {
    Labels::from([(key.to_owned(), value.to_owned())]).into()
}

fn record(agent: &str) -> AgentRecord {
    AgentRecord {
        id: id(agent),
        ..AgentRecord::local(agent.to_owned(), now())
    }
}

pub(crate) fn state_with(agents: &[&str]) -> State {
    let mut state = State::default();
    for agent in agents {
        state.put_record(record(agent), now());
        state.set_standing(&id(agent), AgentStatus::Online, None, now());
    }
    state
}

pub(crate) fn info(agent: &str) -> AgentInfo {
    AgentInfo {
        agent_id: id(agent),
        version: "1".to_owned(),
        protocol_version: 1,
        host: Default::default(),
        drivers: vec![],
        labels: Labels::new(),
        policy: None,
        started_at: now(),
        clock: now(),
    }
}

fn none() -> BTreeSet<VmName> {
    BTreeSet::new()
}

#[derive(Debug, Clone)]
enum Step {
    Put(usize, usize, usize),
    Label(usize, usize, usize),
    Gone(usize, usize, bool),
    Snapshot(usize, Vec<(usize, usize)>),
    RemoveAgent(usize),
    AddAgent(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let agent = 0..3_usize;
    let name = 0..6_usize;
    let state = 0..VmState::ALL.len();
    let step = prop_oneof![
        6 => (agent.clone(), name.clone(), state.clone()).prop_map(|(a, n, s)| Step::Put(a, n, s)),
        2 => (agent.clone(), name.clone(), 0..3_usize).prop_map(|(a, n, l)| Step::Label(a, n, l)),
        3 => (agent.clone(), name.clone(), any::<bool>()).prop_map(|(a, n, asked)| Step::Gone(a, n, asked)),
        2 => (agent.clone(), prop::collection::vec((name, state), 0..6))
            .prop_map(|(a, vms)| Step::Snapshot(a, vms)),
        1 => agent.clone().prop_map(Step::RemoveAgent),
        1 => agent.prop_map(Step::AddAgent),
    ];
    prop::collection::vec(step, 0..60)
}

proptest! {
    #[test]
    fn the_index_agrees_with_the_rows_whatever_agents_say(steps in steps()) {
        let agents = ["a", "b", "c"];
        let mut state = state_with(&agents);
        for step in steps {
            let named = |n: usize, s: usize| vm(&format!("vm{n}"), VmState::ALL[s]);
            match step {
                Step::Put(a, n, s) => {
                    let mut vm = named(n, s);
                    vm.memory = (s % 2 == 0).then(|| batwa_api::size::ByteSize::gib(s as u64));
                    vm.image = Some(format!("image{}", s % 3));
                    state.put_vm(&id(agents[a]), vm);
                }
                Step::Label(a, n, l) => {
                    let labels: Labels = (0..l).map(|l| (format!("k{l}"), format!("v{n}"))).collect();
                    state.put_about(&id(agents[a]), &named(n, 0).name, About::from(labels));
                }
                Step::Gone(a, n, asked) => {
                    let why = if asked { Gone::Asked } else { Gone::Unexplained };
                    state.vm_gone(&id(agents[a]), &named(n, 0).name, why, now());
                }
                Step::Snapshot(a, vms) => {
                    let vms = vms.into_iter().map(|(n, s)| named(n, s)).collect();
                    state.put_vms(&id(agents[a]), vms, &none(), now());
                }
                Step::RemoveAgent(a) => {
                    state.remove_record(&id(agents[a]), now());
                }
                Step::AddAgent(a) => {
                    state.put_record(record(agents[a]), now());
                }
            }
            state.vms.check();
        }
    }
}

#[test]
fn an_agent_that_goes_offline_makes_all_its_vms_stale_by_one_event() {
    let mut state = state_with(&["a"]);
    for n in 0..1000 {
        state.put_vm(&id("a"), vm(&format!("vm{n}"), VmState::Running));
    }
    let events = state.set_standing(&id("a"), AgentStatus::Offline, Some("gone".into()), now());
    let [Event::Agent { .. }, Event::AgentVms { agent_id, stale }] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert_eq!(*agent_id, id("a"));
    assert_eq!(stale.as_deref(), Some("the machine is offline"));
    let row = state.vms.get(&id("a"), &name("vm7")).unwrap();
    let listed = state.listed(row);
    assert!(listed.stale);
    assert_eq!(listed.vm.state, VmState::Running);
    assert!(
        VmAction::ALL
            .into_iter()
            .all(|action| listed.actions.refusal(action).is_some())
    );
    // Back with the same VMs: nothing is told of each of them.
    let vms = (0..1000).map(|n| vm(&format!("vm{n}"), VmState::Running));
    assert_eq!(state.put_vms(&id("a"), vms.collect(), &none(), now()), []);
    let back = state.set_standing(&id("a"), AgentStatus::Online, None, now());
    assert!(matches!(
        back.as_slice(),
        [Event::Agent { .. }, Event::AgentVms { stale: None, .. }]
    ));
}

#[test]
fn a_vm_that_vanishes_is_kept_as_missing_and_one_that_was_asked_to_go_is_not() {
    let mut state = state_with(&["a"]);
    for (text, vm_state) in [
        ("web", VmState::Running),
        ("purged", VmState::Stopped),
        ("trash", VmState::Deleted),
        ("half-made", VmState::Creating),
    ] {
        state.put_vm(&id("a"), vm(text, vm_state));
    }
    state.put_about(&id("a"), &name("web"), labelled("k", "v"));
    state.unsaved.clear();
    let explained = [name("purged")].into();
    let events = state.put_vms(&id("a"), vec![], &explained, now());
    assert_eq!(events.len(), 4);
    let row = state.vms.get(&id("a"), &name("web")).unwrap();
    assert_eq!(row.missing_since, Some(now()));
    assert_eq!(state.vms.count_of(&id("a")), 1);
    assert_eq!(
        state.unsaved.len(),
        4,
        "it survives a restart of the master"
    );
    let listed = state.listed(row);
    assert!(listed.stale);
    assert_eq!(listed.missing_since, Some(now()));
    let agent = state.agent(&id("a")).unwrap();
    assert_eq!((agent.vm_count, agent.missing_count), (0, 1));
    // Told again that it is gone: it is missing since the first time.
    let later = Timestamp::from_second(1_900_000_000).unwrap();
    assert_eq!(state.put_vms(&id("a"), vec![], &none(), later), []);
    // It comes back as it was, with its labels.
    state.put_vm(&id("a"), vm("web", VmState::Stopped));
    let row = state.vms.get(&id("a"), &name("web")).unwrap();
    assert_eq!(row.missing_since, None);
    assert_eq!(row.about.labels["k"], "v");
}

#[test]
fn a_vm_made_under_the_name_of_a_missing_one_has_the_labels_it_was_made_with() {
    let mut state = state_with(&["a"]);
    state.put_about(&id("a"), &name("web"), labelled("old", "1"));
    state.put_vm(&id("a"), vm("web", VmState::Running));
    state.vm_gone(&id("a"), &name("web"), Gone::Unexplained, now());
    state.put_about(&id("a"), &name("web"), labelled("new", "2"));
    state.put_vm(&id("a"), vm("web", VmState::Creating));
    let row = state.vms.get(&id("a"), &name("web")).unwrap();
    assert_eq!(
        row.about.labels,
        [("new".to_owned(), "2".to_owned())].into()
    );
}

#[test]
fn an_agent_that_invents_vms_and_drops_them_fills_no_memory() {
    let mut state = state_with(&["a"]);
    for n in 0..3 * MAX_MISSING {
        let text = format!("vm{n}");
        state.put_vm(&id("a"), vm(&text, VmState::Running));
        state.vm_gone(&id("a"), &name(&text), Gone::Unexplained, now());
    }
    assert_eq!(state.vms.len(), MAX_MISSING);
}

#[test]
fn a_measurement_alone_is_not_written_down_and_told_only_in_quiet_times() {
    let mut state = state_with(&["a"]);
    state.put_vm(&id("a"), vm("web", VmState::Running));
    state.unsaved.clear();
    let revision = state.list_revision;
    let mut measured = vm("web", VmState::Running);
    measured.usage = Some(Default::default());
    assert_eq!(state.put_vm(&id("a"), measured.clone()), None);
    assert!(matches!(state.measurements.as_slice(), [Event::Vm { .. }]));
    assert!(state.unsaved.is_empty());
    assert_eq!(state.list_revision, revision);
    measured.observed_at = Timestamp::from_second(1_900_000_000).unwrap();
    assert_eq!(state.put_vm(&id("a"), measured), None);
    assert_eq!(state.measurements.len(), 1, "being seen again is no change");
    assert!(
        state
            .put_vm(&id("a"), vm("web", VmState::Stopped))
            .is_some()
    );
    assert_eq!(state.unsaved.len(), 1);
}

#[test]
fn load_and_free_memory_of_a_machine_are_measurements_and_its_labels_are_not() {
    let mut state = state_with(&["a"]);
    let mut told = info("a");
    assert_eq!(state.put_info(&id("a"), told.clone()).len(), 1);
    told.host.load = Some([1.0, 2.0, 3.0]);
    told.clock = Timestamp::from_second(1_900_000_000).unwrap();
    assert_eq!(state.put_info(&id("a"), told.clone()), []);
    assert_eq!(state.measurements.len(), 1);
    told.labels.insert("gpu".into(), "yes".into());
    assert_eq!(state.put_info(&id("a"), told).len(), 1);
}

#[test]
fn revoked_agents_stay_revoked_whatever_their_link_says() {
    let mut state = state_with(&["a"]);
    let record = AgentRecord {
        revoked: true,
        ..record("a")
    };
    state.put_record(record, now());
    state.set_standing(&id("a"), AgentStatus::Online, None, now());
    assert_eq!(state.agents[&id("a")].standing.status, AgentStatus::Revoked);
}

#[test]
fn changes_of_a_link_are_noted_with_their_reason_and_repeated_ones_are_not() {
    let mut state = state_with(&["a"]);
    state.link_changes.clear();
    for reason in ["refused", "refused", "no route"] {
        state.set_standing(&id("a"), AgentStatus::Offline, Some(reason.into()), now());
    }
    state.set_standing(&id("a"), AgentStatus::Online, None, now());
    let noted: Vec<_> = state
        .link_changes
        .iter()
        .map(|(_, change)| (change.status, change.reason.as_deref()))
        .collect();
    assert_eq!(
        noted,
        [
            (AgentStatus::Offline, Some("refused")),
            (AgentStatus::Online, None)
        ]
    );
}

fn terminal(of: TerminalId) -> Terminal {
    serde_json::from_value(serde_json::json!({
        "id": of, "vm": "web", "kind": "shell", "cols": 80, "rows": 24, "created_at": now(), "viewers": 0,
        "offset": 0, "oldest_offset": 0, "ttl_s": 1800, "resumable": true,
    }))
    .unwrap()
}

#[test]
fn no_agent_takes_over_or_ends_a_session_of_another() {
    let mut state = state_with(&["honest", "liar"]);
    let (honest, liar) = (id("honest"), id("liar"));
    let (owned, unowned, to_come) = (TerminalId::new(), TerminalId::new(), TerminalId::new());
    for session in [owned, to_come] {
        let ownership = Ownership::new(honest.clone(), UserId::new(), "ann");
        state.ownerships.insert(session, ownership);
    }
    for session in [owned, unowned] {
        state.put_terminal(&honest, terminal(session)).unwrap();
    }
    // The last is known from the store alone, as after a restart of the master.
    for session in [owned, unowned, to_come] {
        assert_eq!(state.put_terminal(&liar, terminal(session)), None);
        assert_eq!(state.remove_terminal(&liar, session), None);
        let held = state.terminal(session).map(|(agent, _)| agent);
        assert_eq!(held, (session != to_come).then(|| honest.clone()));
    }
    let lies = [owned, unowned, to_come].map(terminal).into();
    assert_eq!(state.put_terminals(&liar, lies), []);
    assert!(state.agents[&liar].terminals.is_empty());
    assert_eq!(state.ownerships.len(), 2);

    state.put_terminal(&honest, terminal(to_come)).unwrap();
    assert_eq!(state.put_terminals(&honest, Vec::new()).len(), 3);
    assert!(state.ownerships.is_empty() && state.known_terminals().next().is_none());
}
