use batwa_api::{
    agent::AgentStatus,
    size::ByteSize,
    vm::{ListedVm, VmState},
};
use proptest::prelude::*;

use super::*;
use crate::fleet::{
    row::Labels,
    search,
    state::tests::{id, name, now, state_with, vm},
};

fn names(list: &VmList) -> Vec<String> {
    list.items
        .iter()
        .map(|vm| format!("{}/{}", vm.agent_id, vm.vm.name))
        .collect()
}

fn ask(text: &str) -> VmQuery {
    VmQuery {
        terms: search::vms::parse(text).unwrap(),
        limit: 100,
        ..VmQuery::default()
    }
}

/// Three machines, five VMs.
fn lab() -> State {
    let mut state = state_with(&["lab-1", "lab-2", "office"]);
    for (agent, text, vm_state, gib, image, address) in [
        (
            "lab-1",
            "web",
            VmState::Running,
            4,
            "ubuntu:24.04",
            "10.0.0.1",
        ),
        (
            "lab-2",
            "web",
            VmState::Stopped,
            2,
            "ubuntu:24.04",
            "10.0.0.2",
        ),
        ("lab-2", "db", VmState::Running, 16, "debian:12", "10.0.1.1"),
        (
            "office",
            "build",
            VmState::Stopped,
            8,
            "debian:12",
            "10.0.2.1",
        ),
        ("office", "lost", VmState::Running, 1, "tiny", "10.0.2.2"),
    ] {
        let mut vm = vm(text, vm_state);
        vm.memory = Some(ByteSize::gib(gib));
        vm.image = Some(image.to_owned());
        vm.ipv4 = vec![address.to_owned()];
        state.put_vm(&id(agent), vm);
    }
    let label = |state: &mut State, agent: &str, text: &str, labels: &[(&str, &str)]| {
        let labels = labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        state.put_about(&id(agent), &name(text), labels.collect::<Labels>().into());
    };
    label(&mut state, "lab-1", "web", &[("env", "prod"), ("old", "")]);
    label(&mut state, "lab-2", "web", &[("env", "prod")]);
    label(&mut state, "lab-2", "db", &[("env", "test")]);
    let gone = crate::fleet::state::Gone::Unexplained;
    state.vm_gone(&id("office"), &name("lost"), gone, now());
    state
}

#[test]
fn searches_find_what_they_say() {
    let state = lab();
    for (text, expected) in [
        (
            "",
            vec![
                "office/build",
                "lab-2/db",
                "office/lost",
                "lab-1/web",
                "lab-2/web",
            ],
        ),
        (
            "state:running",
            vec!["lab-2/db", "office/lost", "lab-1/web"],
        ),
        ("-state:running", vec!["office/build", "lab-2/web"]),
        ("agent:lab-*", vec!["lab-2/db", "lab-1/web", "lab-2/web"]),
        ("label:env=prod", vec!["lab-1/web", "lab-2/web"]),
        ("label:env", vec!["lab-2/db", "lab-1/web", "lab-2/web"]),
        ("label:env=t*", vec!["lab-2/db"]),
        ("label:env=prod -label:old", vec!["lab-2/web"]),
        ("name:WE", vec!["lab-1/web", "lab-2/web"]),
        ("name=we", vec![]),
        ("name:*b", vec!["lab-2/db", "lab-1/web", "lab-2/web"]),
        ("memory>4G", vec!["office/build", "lab-2/db"]),
        ("memory>=4G memory<16G", vec!["office/build", "lab-1/web"]),
        ("ip:10.0.1", vec!["lab-2/db"]),
        ("image:debian", vec!["office/build", "lab-2/db"]),
        ("10.0.0.", vec!["lab-1/web", "lab-2/web"]),
        ("lab-1/we", vec!["lab-1/web"]),
        ("b-1/web", vec!["lab-1/web"]),
        ("lab-*/w*", vec!["lab-1/web", "lab-2/web"]),
        ("env=", vec![]),
        ("\"env=prod\"", vec!["lab-1/web", "lab-2/web"]),
        ("is:missing", vec!["office/lost"]),
        ("is:stale", vec!["office/lost"]),
        (
            "state:running,stopped name:web,db agent:lab-2",
            vec!["lab-2/db", "lab-2/web"],
        ),
    ] {
        let Ok(terms) = search::vms::parse(text) else {
            assert!(expected.is_empty(), "{text}");
            continue;
        };
        let list = state.list_vms(&VmQuery {
            terms,
            limit: 100,
            ..VmQuery::default()
        });
        let expected: Vec<&str> = expected;
        assert_eq!(names(&list), expected, "{text}");
        assert_eq!(list.counts.total, expected.len() as u64, "{text}");
    }
}

#[test]
fn counts_tell_what_each_choice_would_find() {
    let state = lab();
    let counted = Counted {
        agents: true,
        labels: true,
    };
    let query = VmQuery {
        counted,
        ..ask("state:running agent:lab-* -label:old")
    };
    let counts = state.list_vms(&query).counts;
    assert_eq!(counts.total, 1);
    assert_eq!(
        counts.states,
        [(VmState::Running, 1), (VmState::Stopped, 1)].into()
    );
    let agents: Vec<_> = counts
        .agents
        .unwrap()
        .into_iter()
        .map(|agent| (agent.id, agent.count))
        .collect();
    assert_eq!(
        agents,
        [(id("lab-2"), 1), (id("office"), 1)],
        "whatever agents are asked for"
    );
    let labels: Vec<_> = counts
        .labels
        .unwrap()
        .into_iter()
        .map(|label| (label.key, label.value, label.count))
        .collect();
    assert_eq!(labels, [("env".to_owned(), "test".to_owned(), 1)]);
    let all = state.list_vms(&ask("")).counts;
    assert_eq!(
        (all.agents, all.labels),
        (None, None),
        "they cost, and come when asked for"
    );
}

#[test]
fn a_vm_that_goes_does_not_move_the_next_page() {
    let mut state = lab();
    let first = state.list_vms(&VmQuery {
        limit: 2,
        ..ask("")
    });
    assert_eq!(names(&first), ["office/build", "lab-2/db"]);
    state.remove_vm(&id("lab-2"), &name("db"));
    state.put_vm(&id("lab-1"), vm("aaa", VmState::Running));
    let after = Cursor::decode(first.next_cursor.as_deref().unwrap());
    let second = state.list_vms(&VmQuery {
        limit: 2,
        after,
        ..ask("")
    });
    assert_eq!(names(&second), ["office/lost", "lab-1/web"]);
}

fn word() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "state:running",
        "state:stopped,error",
        "agent:a",
        "agent:a*",
        "name:vm1",
        "name:*2",
        "label:k0",
        "label:k1=v1",
        "label:k0=v*",
        "vm",
        "m3",
        "a/vm",
        "ab/vm4",
        "image0",
        "image:1",
        "cpus>1",
        "memory<=2G",
        "memory>=1G",
        "is:stale",
        "is:missing",
        "is:protected",
        "driver:fake",
        "10.0.0.1",
        "b",
    ])
    .prop_flat_map(|text| {
        any::<bool>().prop_map(move |negated| {
            if negated {
                format!("-{text}")
            } else {
                text.to_owned()
            }
        })
    })
}

prop_compose! {
    fn some_fleet()(
        vms in prop::collection::vec((0..3_usize, 0..8_usize, 0..4_usize, 0..3_u64, any::<bool>()), 0..30),
        offline in any::<bool>(),
    ) -> State {
        let agents = ["a", "b", "ab"];
        let mut state = state_with(&agents);
        for (a, n, s, gib, missing) in vms {
            let mut vm = vm(&format!("vm{n}"), VmState::ALL[s]);
            vm.memory = (gib > 0).then(|| ByteSize::gib(gib));
            vm.cpus = Some(u32::try_from(gib).unwrap());
            vm.image = Some(format!("image{s}"));
            vm.ipv4 = vec![format!("10.0.0.{n}")];
            vm.created_at = (n % 2 == 0).then(now);
            vm.settings.protected = n % 3 == 0;
            let (agent, name) = (id(agents[a]), vm.name.clone());
            state.put_vm(&agent, vm);
            let labels = (0..s).map(|l| (format!("k{l}"), format!("v{n}")));
            state.put_about(&agent, &name, labels.collect::<Labels>().into());
            if missing {
                state.vm_gone(&agent, &name, crate::fleet::state::Gone::Unexplained, now());
            }
        }
        if offline {
            state.set_standing(&id("b"), AgentStatus::Offline, None, now());
        }
        state
    }
}

proptest! {
    #[test]
    fn the_index_finds_what_looking_at_every_vm_finds(
        state in some_fleet(),
        words in prop::collection::vec(word(), 0..4),
        (limit, skip) in (1..5_usize, 0..8_usize),
        sort in prop::sample::select(Sort::ALL.map(|(_, sort)| sort).to_vec()),
        direction in prop_oneof![Just(Direction::Up), Just(Direction::Down)],
    ) {
        let terms = search::vms::parse(&words.join(" ")).unwrap();
        let mut query = VmQuery { terms, sort, direction, limit, ..VmQuery::default() };
        let matches = |vm: &ListedVm| {
            let row = state.vms.get(&vm.agent_id, &vm.vm.name).unwrap();
            let entry = &state.agents[&vm.agent_id];
            query.terms.iter().all(|term| term.test.matches(row, entry) != term.negated)
        };
        let all: Vec<ListedVm> = state
            .vms
            .by_name()
            .values()
            .map(|slot| state.listed(state.vms.row(*slot)))
            .collect();
        let key = |vm: &ListedVm| {
            let row = state.vms.get(&vm.agent_id, &vm.vm.name).unwrap();
            let group = sort.group().map(|group| group.of(row));
            let (name, agent) = (vm.vm.name.to_string(), vm.agent_id.to_string());
            match sort {
                Sort::Agent => (group, agent, name),
                _ => (group, name, agent),
            }
        };
        let mut expected: Vec<_> = all.iter().filter(|vm| matches(vm)).map(key).collect();
        expected.sort();
        if direction == Direction::Down {
            expected.reverse();
        }
        let mut seen = Vec::new();
        loop {
            let list = state.list_vms(&query);
            prop_assert!(list.items.len() <= limit);
            prop_assert_eq!(list.counts.total, expected.len() as u64);
            seen.extend(list.items.iter().map(key));
            match list.next_cursor {
                Some(cursor) => query.after = Cursor::decode(&cursor),
                None => break,
            }
            prop_assert!(seen.len() < 100);
        }
        prop_assert_eq!(&seen, &expected);
        let jump = state.list_vms(&VmQuery { after: None, skip, ..query.clone() });
        let rest: Vec<_> = expected.iter().skip(skip).take(limit).cloned().collect();
        prop_assert_eq!(jump.items.iter().map(key).collect::<Vec<_>>(), rest);
        prop_assert_eq!(jump.next_cursor.is_some(), skip + limit < expected.len());
    }

    #[test]
    fn few_matches_among_many_come_in_the_same_order_as_many(
        wanted in prop::collection::btree_set(0..300_usize, 0..12),
        limit in 1..5_usize,
        sort in prop::sample::select(Sort::ALL.map(|(_, sort)| sort).to_vec()),
        direction in prop_oneof![Just(Direction::Up), Just(Direction::Down)],
    ) {
        let mut state = state_with(&["a", "b"]);
        for n in 0..300 {
            let mut vm = vm(&format!("vm{:03}", n * 7 % 300), VmState::ALL[n % 4]);
            vm.memory = (n % 3 > 0).then(|| ByteSize::gib(n as u64 % 3));
            if wanted.contains(&n) {
                vm.image = Some("wanted".to_owned());
            }
            state.put_vm(&id(["a", "b"][n % 2]), vm);
        }
        let whole = VmQuery { sort, direction, limit: 1000, ..ask("") };
        let expected: Vec<_> = names(&state.list_vms(&whole))
            .into_iter()
            .filter(|key| {
                let (agent, vm) = key.split_once('/').unwrap();
                state.vms.get(&id(agent), &name(vm)).unwrap().vm.image.is_some()
            })
            .collect();
        let mut query = VmQuery { sort, direction, limit, ..ask("image:wanted") };
        let mut seen = Vec::new();
        loop {
            let list = state.list_vms(&query);
            seen.extend(names(&list));
            match list.next_cursor {
                Some(cursor) => query.after = Cursor::decode(&cursor),
                None => break,
            }
            prop_assert!(seen.len() < 100);
        }
        prop_assert_eq!(seen, expected);
    }
}

#[test]
fn cursors_that_nobody_made_are_refused() {
    for bad in ["", "x", "e30", "AAAA", &"a".repeat(10_000)] {
        assert_eq!(Cursor::decode(bad), None);
    }
}
