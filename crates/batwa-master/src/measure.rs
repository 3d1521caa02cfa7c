//! A pretended fleet for `benches/lists.rs`, which is another crate and sees only what is public.

use std::time::Duration;

use batwa_api::{
    Timestamp,
    agent::{AgentStatus, DriverKind},
    id::AgentId,
    name::VmName,
    size::ByteSize,
    vm::{Vm, VmSettings, VmState},
};

use crate::fleet::{
    query::{Counted, Direction, Sort, VmQuery},
    record::AgentRecord,
    row::Labels,
    search,
    state::State,
};

/// A fleet that nobody attends to.
#[derive(Debug)]
pub struct PretendedFleet {
    state: State,
    agents: Vec<AgentId>,
    vms_each: usize,
}

impl PretendedFleet {
    /// So many machines that are online, with so many VMs each.
    ///
    /// # Panics
    /// Never: the ids and names made here are good ones.
    #[must_use]
    pub fn new(agents: usize, vms_each: usize) -> Self {
        let now = Timestamp::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let mut fleet = Self {
            state: State::default(),
            agents: Vec::new(),
            vms_each,
        };
        for number in 0..agents {
            let id = AgentId::parse(&format!("lab-{number}")).expect("a good id");
            let record = AgentRecord {
                id: id.clone(),
                ..AgentRecord::local(format!("host-{number}"), now)
            };
            fleet.state.put_record(record, now);
            fleet
                .state
                .set_standing(&id, AgentStatus::Online, None, now);
            fleet.agents.push(id.clone());
            for vm in 0..vms_each {
                let (name, labels) = (name(vm), labels(number * vms_each + vm));
                fleet.state.put_about(&id, &name, labels.into());
                let vm = fleet.vm(number, vm, VmState::Running, now);
                fleet.state.put_vm(&id, vm);
            }
        }
        fleet.state.unsaved.clear();
        fleet.state.link_changes.clear();
        fleet
    }

    fn vm(&self, agent: usize, vm: usize, state: VmState, now: Timestamp) -> Vm {
        let number = agent * self.vms_each + vm;
        let state = match number % 10 {
            0..4 => state,
            4..9 => VmState::Stopped,
            _ => VmState::Suspended,
        };
        Vm {
            name: name(vm),
            state,
            state_since: now - Duration::from_secs(number as u64),
            message: None,
            driver: DriverKind::Qemu,
            readiness: None,
            ipv4: vec![format!(
                "10.{}.{}.{}",
                number >> 16,
                number >> 8 & 255,
                number & 255
            )],
            image: Some(["ubuntu:24.04", "debian:12", "tiny"][number % 3].to_owned()),
            release: Some("Ubuntu 24.04 LTS".to_owned()),
            cpus: Some(1 << (number % 4)),
            memory: Some(ByteSize::gib(1 << (number % 5))),
            disk: Some(ByteSize::gib(10)),
            usage: None,
            acceleration: Some("kvm".to_owned()),
            created_at: Some(now - Duration::from_secs(number as u64)),
            started_at: None,
            shutdown_at: None,
            location: Some(format!("/var/lib/batwa/vms/{}", name(vm))),
            observed_at: now,
            snapshots: Vec::new(),
            mounts: Vec::new(),
            networks: Vec::new(),
            forwards: Vec::new(),
            settings: VmSettings::default(),
            notices: Vec::new(),
            operations: vec![],
        }
    }

    /// The bytes of one page of 100 VMs, searched by `q` and sorted by `sort`.
    ///
    /// # Panics
    /// When `q` is no search, or `sort` no order.
    #[must_use]
    pub fn page(&self, q: &str, sort: &str) -> usize {
        self.list(q, sort, Counted::default())
    }

    /// As [`Self::page`], with counts by agent and label.
    ///
    /// # Panics
    /// When `q` is no search.
    #[must_use]
    pub fn page_with_counts(&self, q: &str) -> usize {
        let counted = Counted {
            agents: true,
            labels: true,
        };
        self.list(q, "name", counted)
    }

    fn list(&self, q: &str, sort: &str, counted: Counted) -> usize {
        let known = Sort::ALL.iter().find(|(name, _)| *name == sort);
        let query = VmQuery {
            terms: search::vms::parse(q).expect("a search"),
            sort: known.expect("an order").1,
            direction: Direction::Up,
            limit: 100,
            counted,
            ..VmQuery::default()
        };
        let list = self.state.list_vms(&query);
        serde_json::to_vec(&list).expect("plain data").len()
    }

    /// One VM changes its state, and the events are made.
    #[must_use]
    pub fn change(&mut self, number: usize) -> usize {
        let agent = number % self.agents.len();
        let vm = number / self.agents.len() % self.vms_each;
        let state = [VmState::Running, VmState::Starting][number / 7 % 2];
        let now = Timestamp::UNIX_EPOCH + Duration::from_secs(1_900_000_000 + number as u64);
        let vm = self.vm(agent, vm, state, now);
        let events = self
            .state
            .put_vm(&self.agents[agent], vm)
            .into_iter()
            .count();
        self.state.unsaved.clear();
        events
    }
}

fn name(vm: usize) -> VmName {
    VmName::parse(&format!("vm-{vm}")).expect("a good name")
}

fn labels(number: usize) -> Labels {
    let env = ["prod", "test", "dev"][number % 3];
    let team = format!("team-{}", number % 50);
    [
        ("env".to_owned(), env.to_owned()),
        ("team".to_owned(), team),
    ]
    .into()
}
