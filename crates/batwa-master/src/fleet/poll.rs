//! Agents from before v1: asked for their list, as they tell nothing by themselves.
//!
//! One request at a time, and never beside an operation of ours: such an agent blocks while Multipass works.
//! While we keep it busy it is not asked, and not offline.

use std::{collections::HashMap, sync::Arc, time::Duration};

use batwa_api::{
    Timestamp,
    agent::{AgentStatus, DriverKind},
    legacy::state_from_name,
    name::VmName,
    vm::{Vm, VmSettings, VmState},
};

use super::{
    Fleet,
    contact::{Broken, Contact},
    hygiene,
};
use crate::client::{ClientError, legacy::ListedByOld};

/// Between two questions while somebody looks.
const WATCHED_INTERVAL: Duration = Duration::from_millis(1500);
/// Between two questions while nobody does.
const IDLE_INTERVAL: Duration = Duration::from_secs(15);

/// Asks an old agent again and again until it fails.
pub(super) async fn attend_old(fleet: &Arc<Fleet>, contact: &Contact) -> Broken {
    let mut arrived = false;
    loop {
        if let Ok(_turn) = contact.turn.try_lock() {
            if let Err(broken) = fleet.ask_old(contact).await {
                return broken;
            }
            if !arrived {
                arrived = true;
                tracing::info!("agent `{}` is online (old interface)", contact.id);
                fleet.arrive(&contact.id);
            }
        }
        let interval = if fleet.is_looked_at() {
            WATCHED_INTERVAL
        } else {
            IDLE_INTERVAL
        };
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = fleet.interest.woken.notified() => {}
        }
    }
}

impl Fleet {
    /// Asks an old agent for its list and takes it; the caller holds the agent's turn.
    pub(crate) async fn refresh_old(&self, contact: &Contact) -> Result<(), ClientError> {
        match self.ask_old(contact).await {
            Ok(()) => Ok(()),
            Err(Broken::Client(error)) => Err(error),
            Err(Broken::Nonsense(what)) => Err(ClientError::Garbage(what)),
            Err(Broken::Closed) => Err(ClientError::Garbage("it closed its list".to_owned())),
        }
    }

    async fn ask_old(&self, contact: &Contact) -> Result<(), Broken> {
        let list = contact.client.old_list().await?;
        if list.len() > hygiene::MAX_VMS {
            return Err(Broken::Nonsense(format!(
                "it claims {} VMs; more than {} on one machine are not believed",
                list.len(),
                hygiene::MAX_VMS
            )));
        }
        contact.seen(self);
        let id = &contact.id;
        let now = Timestamp::now();
        let explained = self.explained(id, &[]);
        self.write(|state| {
            let known: HashMap<VmName, Arc<Vm>> = state
                .vms
                .of_agent(id)
                .map(|row| (row.vm.name.clone(), row.vm.clone()))
                .collect();
            let (vms, unusable) = observe(list, &known, now);
            let message = (unusable > 0)
                .then(|| format!("{unusable} of its VMs have names that cannot be used"));
            let mut events = state.set_legacy(id, true);
            events.extend(state.put_vms(id, vms, &explained, now));
            events.extend(state.set_standing(id, AgentStatus::Online, message, now));
            events
        });
        contact.online.send_replace(true);
        Ok(())
    }
}

/// The VMs of an old agent's list, and how many of it have names that no VM can have.
fn observe(
    list: Vec<ListedByOld>,
    known: &HashMap<VmName, Arc<Vm>>,
    now: Timestamp,
) -> (Vec<Vm>, usize) {
    let mut unusable = 0;
    let vms = list
        .into_iter()
        .filter_map(|listed| {
            let Ok(name) = VmName::parse(&listed.name) else {
                unusable += 1;
                return None;
            };
            let state = state_from_name(&listed.state);
            Some(hygiene::vm(match known.get(&name) {
                Some(before) => Vm {
                    state,
                    state_since: if before.state == state {
                        before.state_since
                    } else {
                        now
                    },
                    ipv4: listed.ipv4,
                    release: listed.release,
                    observed_at: now,
                    ..Vm::clone(before)
                },
                None => new_vm(name, state, listed, now),
            }))
        })
        .collect();
    (vms, unusable)
}

fn new_vm(name: VmName, state: VmState, listed: ListedByOld, now: Timestamp) -> Vm {
    Vm {
        name,
        state,
        state_since: now,
        message: None,
        driver: DriverKind::Multipass,
        readiness: None,
        ipv4: listed.ipv4,
        image: None,
        release: listed.release,
        cpus: None,
        memory: None,
        disk: None,
        usage: None,
        acceleration: None,
        created_at: None,
        started_at: None,
        shutdown_at: None,
        location: None,
        observed_at: now,
        snapshots: Vec::new(),
        mounts: Vec::new(),
        networks: Vec::new(),
        forwards: Vec::new(),
        settings: VmSettings::default(),
        notices: Vec::new(),
        operations: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(name: &str, state: &str) -> ListedByOld {
        ListedByOld {
            name: name.to_owned(),
            state: state.to_owned(),
            ipv4: vec!["10.1.2.3".to_owned()],
            release: Some("Ubuntu 22.04 LTS".to_owned()),
        }
    }

    #[test]
    fn an_old_list_becomes_vms_that_remember_since_when() {
        let first = Timestamp::from_second(1_800_000_000).unwrap();
        let later = Timestamp::from_second(1_800_000_060).unwrap();
        let (vms, unusable) = observe(
            vec![
                listed("web", "Running"),
                listed("--all", "Running"),
                listed("db", "Delayed Shutdown"),
            ],
            &HashMap::new(),
            first,
        );
        assert_eq!(unusable, 1);
        assert_eq!(vms.len(), 2);
        assert_eq!(vms[1].state, VmState::Running);
        let known = vms
            .into_iter()
            .map(|vm| (vm.name.clone(), Arc::new(vm)))
            .collect();
        let (again, _) = observe(
            vec![listed("web", "Running"), listed("db", "Stopped")],
            &known,
            later,
        );
        assert_eq!(again[0].state_since, first);
        assert_eq!(again[0].observed_at, later);
        assert_eq!(again[1].state_since, later);
    }
}
