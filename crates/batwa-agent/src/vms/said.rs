//! What is said of VMs beside what their drivers see: settings, notices, forwards, the
//! network cards that they were made with.

use std::collections::BTreeSet;

use batwa_api::{
    name::VmName,
    vm::{Forward, NetworkCard, Notice, VmSettings},
};

use super::{Inventory, merge::Shown};

impl Inventory {
    /// The settings of a VM, which decide what can be done with it.
    pub(crate) fn settings(&self, name: &VmName) -> VmSettings {
        let state = self.state();
        state
            .shown
            .get(name)
            .map_or(VmSettings::default(), |shown| shown.settings)
    }

    /// Shows a VM with these settings from now on.
    pub(crate) fn show_settings(&self, name: &VmName, settings: VmSettings) {
        self.show(name, |shown| shown.settings = settings);
    }

    /// Shows a VM with these notices from now on.
    pub(crate) fn show_notices(&self, name: &VmName, notices: Vec<Notice>) {
        self.show(name, |shown| shown.notices = notices);
    }

    /// Shows a VM with these forwards from now on.
    pub(crate) fn show_forwards(&self, name: &VmName, forwards: Vec<Forward>) {
        self.show(name, |shown| shown.forwards = forwards);
    }

    /// Shows a VM as made with these network cards, where its driver does not tell of them.
    pub(crate) fn show_cards(&self, name: &VmName, cards: Vec<NetworkCard>) {
        self.show(name, |shown| shown.cards = cards);
    }

    /// Takes the notices of all VMs but these away.
    pub(crate) fn keep_notices_of(&self, names: &BTreeSet<VmName>) {
        for name in self.others(names, |shown| !shown.notices.is_empty()) {
            self.show_notices(&name, Vec::new());
        }
    }

    /// Takes the forwards of all VMs but these away.
    pub(crate) fn keep_forwards_of(&self, names: &BTreeSet<VmName>) {
        for name in self.others(names, |shown| !shown.forwards.is_empty()) {
            self.show_forwards(&name, Vec::new());
        }
    }

    /// The VMs beside `names` of which such a thing is said.
    fn others(&self, names: &BTreeSet<VmName>, is_said: fn(&Shown) -> bool) -> Vec<VmName> {
        let state = self.state();
        let said = state.shown.iter();
        said.filter(|(name, shown)| is_said(shown) && !names.contains(*name))
            .map(|(name, _)| name.clone())
            .collect()
    }

    fn show(&self, name: &VmName, change: impl FnOnce(&mut Shown)) {
        let mut state = self.state();
        let before = state.shown.get(name).cloned().unwrap_or_default();
        let mut after = before.clone();
        change(&mut after);
        if after == before {
            return;
        }
        match after == Shown::default() {
            true => state.shown.remove(name),
            false => state.shown.insert(name.clone(), after),
        };
        self.publish_vm(&state, name);
    }
}
