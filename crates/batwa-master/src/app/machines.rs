//! What is told of machines: lists, the log of their links, what removing one takes away.

use batwa_api::{
    agent::{LinkChange, Removal},
    id::AgentId,
    list::AgentList,
};

use super::{
    App, Error,
    agents::{for_caller, unknown},
    auth::{Caller, Right},
    vms::TOO_MANY_SEARCHES,
};
use crate::{
    fleet::{agent_list::AgentQuery, searching::TooManySearches},
    store::links::KEPT_LINKS,
};

impl App {
    /// One page of agents.
    pub(crate) async fn list_agents(
        &self,
        caller: &Caller,
        query: AgentQuery,
    ) -> Result<AgentList, Error> {
        let mut list = self
            .fleet()
            .list_agents(query)
            .await
            .map_err(|TooManySearches| TOO_MANY_SEARCHES)?;
        list.items = list
            .items
            .into_iter()
            .map(|agent| for_caller(caller, agent))
            .collect();
        Ok(list)
    }

    /// The last changes of an agent's link, the newest first.
    pub(crate) async fn agent_links(&self, id: &AgentId) -> Result<Vec<LinkChange>, Error> {
        if self.fleet().status(id).is_none() {
            return Err(unknown(id));
        }
        // What is not written down yet is newer than everything that is. Read first: a change that is written down
        // in between is told twice rather than not at all, and then once.
        let mut links = self.fleet().unsaved_links(id);
        for change in self.store().links(id).await? {
            if !links.contains(&change) {
                links.push(change);
            }
        }
        links.truncate(usize::try_from(KEPT_LINKS).unwrap_or(usize::MAX));
        Ok(links)
    }

    /// What removing an agent would take away, and what it would leave.
    pub(crate) fn agent_removal(&self, caller: &Caller, id: &AgentId) -> Result<Removal, Error> {
        caller.require(Right::Administer)?;
        super::agents::refuse_local(id, "removed")?;
        let operations = self.fleet().unsettled_operations(id).len() as u64;
        let counts = self.fleet().read(|state| {
            let entry = state.agents.get(id)?;
            let missing = state.vms.missing_of(id);
            Some((
                state.vms.count_of(id) - missing,
                missing,
                entry.terminals.len() as u64,
                entry.pending.len() as u64,
            ))
        });
        let (vms, missing_vms, terminals, registrations) = counts.ok_or_else(|| unknown(id))?;
        Ok(removal(
            vms,
            missing_vms,
            terminals,
            operations,
            registrations,
        ))
    }
}

fn removal(
    vms: u64,
    missing_vms: u64,
    terminals: u64,
    operations: u64,
    registrations: u64,
) -> Removal {
    let some = |count: u64, one: &str, many: &str| match count {
        0 => None,
        1 => Some(one.to_owned()),
        count => Some(many.replace('N', &count.to_string())),
    };
    let says = [
        some(
            vms,
            "1 VM is forgotten here with its labels; it stays on its machine as it is, and can be managed there",
            "N VMs are forgotten here with their labels; they stay on their machine as they are, and can be managed there",
        ),
        some(
            missing_vms,
            "1 VM that is missing is forgotten, and with it where its disk was",
            "N VMs that are missing are forgotten, and with them where their disks were",
        ),
        some(
            terminals,
            "1 terminal session cannot be reached from here any more and ends when its time is over",
            "N terminal sessions cannot be reached from here any more and end when their time is over",
        ),
        some(
            operations,
            "1 operation goes on there, but nobody hears how it ends",
            "N operations go on there, but nobody hears how they end",
        ),
        some(
            registrations,
            "1 registration that waits is refused",
            "N registrations that wait are refused",
        ),
        Some(
            "its labels, notes and the log of its link are forgotten; it may register again"
                .to_owned(),
        ),
    ];
    Removal {
        vms,
        missing_vms,
        terminals,
        operations,
        registrations,
        says: says.into_iter().flatten().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removing_a_machine_says_what_goes_and_nothing_else() {
        assert_eq!(removal(0, 0, 0, 0, 0).says.len(), 1);
        let says = removal(12, 1, 0, 2, 0).says.join("\n");
        assert!(says.contains("12 VMs are forgotten"), "{says}");
        assert!(says.contains("1 VM that is missing"), "{says}");
        assert!(says.contains("2 operations go on"), "{says}");
        assert!(!says.contains("terminal"), "{says}");
    }
}
