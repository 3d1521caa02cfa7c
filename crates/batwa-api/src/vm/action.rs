//! What can be done with a VM, and the one table of when.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

use super::{VmSettings, VmState};
use crate::agent::Capabilities;

/// Something that can be done with an existing VM.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum VmAction {
    /// Power on.
    Start,
    /// Power off, by the VM's own system or by force.
    Stop,
    /// Reboot.
    Restart,
    /// Write its memory to disk and power off.
    Suspend,
    /// Go on from where it was suspended.
    Resume,
    /// Move to the trash; a running VM is stopped first.
    Delete,
    /// Take out of the trash.
    Recover,
    /// Remove for good.
    Purge,
    /// Keep its disk as it is now, to go back to.
    Snapshot,
    /// Go back to a snapshot.
    Restore,
    /// Remove a snapshot.
    DeleteSnapshot,
    /// Make another VM of it.
    Clone,
    /// Make another VM of one of its snapshots.
    CloneSnapshot,
    /// Change its CPUs, memory or disk.
    Resize,
    /// Let it see a folder of its machine.
    Mount,
    /// Take such a folder out of it.
    Umount,
    /// Open a shell, run a command or move files in it.
    Shell,
    /// Open its serial console.
    Console,
    /// See its display, and use keyboard and mouse there.
    Display,
}

impl VmAction {
    /// Every action.
    pub const ALL: [Self; 19] = [
        Self::Start,
        Self::Stop,
        Self::Restart,
        Self::Suspend,
        Self::Resume,
        Self::Delete,
        Self::Recover,
        Self::Purge,
        Self::Snapshot,
        Self::Restore,
        Self::DeleteSnapshot,
        Self::Clone,
        Self::CloneSnapshot,
        Self::Resize,
        Self::Mount,
        Self::Umount,
        Self::Shell,
        Self::Console,
        Self::Display,
    ];

    /// The action as a verb in v1's words.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Suspend => "suspend",
            Self::Resume => "resume",
            Self::Delete => "delete",
            Self::Recover => "recover",
            Self::Purge => "purge",
            Self::Snapshot => "snapshot",
            Self::Restore => "restore",
            Self::DeleteSnapshot => "delete_snapshot",
            Self::Clone => "clone",
            Self::CloneSnapshot => "clone_snapshot",
            Self::Resize => "resize",
            Self::Mount => "mount",
            Self::Umount => "umount",
            Self::Shell => "shell",
            Self::Console => "console",
            Self::Display => "display",
        }
    }

    /// Why this action is not possible now; `None` when it is.
    ///
    /// This is the one table of legal actions: agents and the master answer from it, page and command line
    /// show what they answer.
    #[must_use]
    pub fn refusal(
        self,
        state: VmState,
        capabilities: &Capabilities,
        settings: &VmSettings,
    ) -> Option<&'static str> {
        self.refusal_of_state(state, capabilities).or_else(|| {
            let ends_it = matches!(self, Self::Delete | Self::Purge);
            (ends_it && settings.protected).then_some(Self::PROTECTED)
        })
    }

    /// Why a VM that is protected is not deleted.
    pub const PROTECTED: &'static str =
        "VM is protected from deletion: take the protection away in its settings first";

    /// Why no VM is made of a snapshot where one is made of a VM.
    pub const ONLY_AS_IT_IS: &'static str = "this machine's driver cannot clone a snapshot, only a VM as it is now: restore the snapshot first, then clone";

    /// Whether a VM's driver can never do this.
    #[must_use]
    pub fn is_unsupported(self, capabilities: &Capabilities) -> bool {
        VmState::ALL
            .into_iter()
            .all(|state| self.refusal_of_state(state, capabilities).is_some())
    }

    fn refusal_of_state(self, state: VmState, capabilities: &Capabilities) -> Option<&'static str> {
        use VmState::{
            Creating, Deleted, Error, Restarting, Running, Starting, Stopped, Stopping, Suspended,
            Suspending, Unknown,
        };
        let unsupported = match self {
            Self::Suspend | Self::Resume => !capabilities.suspend,
            Self::Delete | Self::Recover => !capabilities.trash,
            Self::Shell => !capabilities.shell,
            Self::Console => !capabilities.console,
            Self::Display => !capabilities.display,
            Self::Snapshot | Self::Restore | Self::DeleteSnapshot => !capabilities.snapshots,
            Self::Clone => !capabilities.clone,
            Self::CloneSnapshot => !(capabilities.clone && capabilities.clone_snapshots),
            Self::Resize => !capabilities.resize,
            Self::Mount | Self::Umount => !capabilities.mounts,
            Self::Start | Self::Stop | Self::Restart | Self::Purge => false,
        };
        if unsupported {
            return Some(match self {
                Self::Display => "this machine's driver cannot show displays",
                Self::CloneSnapshot if capabilities.clone => Self::ONLY_AS_IT_IS,
                _ => "this machine's driver cannot do this",
            });
        }
        let in_trash = "VM is in the trash";
        match (self, state) {
            // Purge is the way out of every state, a half-made VM included.
            (Self::Purge, _) => None,

            (Self::Recover, Deleted) => None,
            (Self::Recover, _) => Some("VM is not in the trash"),
            (Self::Delete, Deleted) => Some("VM is in the trash already"),
            (_, Deleted) => Some(in_trash),

            (Self::Delete, Creating) => Some("VM is being created: cancel that, or purge it"),
            (Self::Delete, _) => None,

            (Self::Start, Stopped | Suspended | Error | Unknown) => None,
            (Self::Start, Running) => Some("VM is running"),
            (Self::Start, Creating | Starting | Restarting) => Some("VM is starting"),
            (Self::Start, Stopping) => Some("VM is stopping"),
            (Self::Start, Suspending) => Some("VM is being suspended"),

            (Self::Stop, Running | Starting | Restarting | Stopping | Unknown | Error) => None,
            (Self::Stop, Stopped) => Some("VM is stopped"),
            (Self::Stop, Suspended) => Some("VM is suspended"),
            (Self::Stop, Suspending) => Some("VM is being suspended"),
            (Self::Stop, Creating) => Some("VM is being created"),

            // Stopped first where that is asked for: see `needs_stop`.
            (
                Self::Snapshot
                | Self::Restore
                | Self::DeleteSnapshot
                | Self::Clone
                | Self::CloneSnapshot
                | Self::Resize,
                Stopped | Running,
            ) => None,
            (Self::Mount | Self::Umount, Stopped | Running) => None,

            (Self::Restart | Self::Suspend | Self::Shell, Running) => None,
            // Both speak from the first boot message on.
            (
                Self::Console | Self::Display,
                Running | Starting | Restarting | Stopping | Creating | Unknown,
            ) => None,
            (Self::Resume, Suspended) => None,
            (Self::Resume, _) => Some("VM is not suspended"),

            // What is left needs a VM that runs or is off, and this one is neither.
            (_, Creating | Starting | Restarting) => Some("VM is starting"),
            (_, Stopping) => Some("VM is stopping"),
            (_, Stopped) => Some("VM is stopped"),
            (_, Suspended) => Some("VM is suspended"),
            (_, Suspending) => Some("VM is being suspended"),
            (_, Unknown) => Some("the VM's state is unknown"),
            (_, Error) => Some("VM is broken"),
        }
    }
}

impl VmAction {
    /// Whether a VM in this state has to be stopped for it: what touches its disk is done while nobody else does.
    #[must_use]
    pub fn needs_stop(self, state: VmState) -> bool {
        let offline = matches!(
            self,
            Self::Snapshot
                | Self::Restore
                | Self::DeleteSnapshot
                | Self::Clone
                | Self::CloneSnapshot
                | Self::Resize
        );
        offline && state == VmState::Running
    }
}

impl fmt::Display for VmAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Every action with the reason why it is not possible now; `null` when it is.
// One place an action, in the order of `VmAction::ALL`, and no allocation: a list makes one for each VM.
#[derive(Debug, Clone, PartialEq, Eq, Default, ToSchema)]
#[schema(value_type = BTreeMap<String, Option<String>>)]
pub struct Actions([Option<Reason>; VmAction::ALL.len()]);

/// Why something is not possible now. Our own reasons are sentences of the program.
pub type Reason = Cow<'static, str>;

impl Actions {
    /// The table of legal actions for one VM.
    #[must_use]
    pub fn of(state: VmState, capabilities: &Capabilities, settings: &VmSettings) -> Self {
        Self(VmAction::ALL.map(|action| {
            action
                .refusal(state, capabilities, settings)
                .map(Cow::Borrowed)
        }))
    }

    /// No action is possible, for one reason.
    #[must_use]
    pub fn none_because(reason: &'static str) -> Self {
        Self(VmAction::ALL.map(|_| Some(Cow::Borrowed(reason))))
    }

    /// Why `action` is not possible now; `None` when it is.
    #[must_use]
    pub fn refusal(&self, action: VmAction) -> Option<&str> {
        self.0[action as usize].as_deref()
    }

    /// Whether a VM in this state has to be stopped for what touches its disk.
    #[must_use]
    pub fn need_stop(state: VmState) -> bool {
        VmAction::ALL
            .into_iter()
            .any(|action| action.needs_stop(state))
    }
}

impl Serialize for Actions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(VmAction::ALL.into_iter().zip(&self.0))
    }
}

impl<'de> Deserialize<'de> for Actions {
    /// An action that is not told of is possible, as far as that tells; one that is not known here is passed over.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut told = BTreeMap::<Cow<'de, str>, Option<Reason>>::deserialize(deserializer)?;
        Ok(Self(
            VmAction::ALL.map(|action| told.remove(action.as_str()).flatten()),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_can_be_left_and_every_refusal_has_a_reason() {
        let capabilities = Capabilities::all();
        let settings = VmSettings::default();
        for state in VmState::ALL {
            assert_eq!(
                VmAction::Purge.refusal(state, &capabilities, &settings),
                None,
                "{state}"
            );
            for action in VmAction::ALL {
                if let Some(reason) = action.refusal(state, &capabilities, &settings) {
                    assert!(!reason.is_empty(), "{action} {state}");
                }
            }
        }
    }

    #[test]
    fn protection_refuses_what_ends_a_vm_and_nothing_else() {
        let capabilities = Capabilities::all();
        let free = VmSettings::default();
        let protected = VmSettings {
            protected: true,
            ..free
        };
        for state in VmState::ALL {
            for action in VmAction::ALL {
                let before = action.refusal(state, &capabilities, &free);
                let after = action.refusal(state, &capabilities, &protected);
                let ends_it = matches!(action, VmAction::Delete | VmAction::Purge);
                let expected = before.or(ends_it.then_some(VmAction::PROTECTED));
                assert_eq!(after, expected, "{action} {state}");
            }
        }
        assert!(
            VmAction::ALL
                .into_iter()
                .all(|action| !action.is_unsupported(&capabilities))
        );
        let bare = Capabilities::default();
        assert!(VmAction::Delete.is_unsupported(&bare) && !VmAction::Purge.is_unsupported(&bare));
    }

    #[test]
    fn a_driver_that_copies_only_what_is_there_says_what_to_do_about_a_snapshot() {
        let refusal = |clone, clone_snapshots| {
            let capabilities = Capabilities {
                clone,
                clone_snapshots,
                ..Capabilities::all()
            };
            let settings = VmSettings::default();
            VmAction::CloneSnapshot.refusal(VmState::Stopped, &capabilities, &settings)
        };
        assert_eq!(refusal(true, true), None);
        assert_eq!(refusal(true, false), Some(VmAction::ONLY_AS_IT_IS));
        assert_eq!(
            refusal(false, false),
            Some("this machine's driver cannot do this")
        );
    }

    #[test]
    fn actions_are_found_by_their_name_and_come_back_as_they_went() {
        for (place, action) in VmAction::ALL.into_iter().enumerate() {
            assert_eq!(action as usize, place, "{action}");
        }
        let actions = Actions::of(
            VmState::Stopped,
            &Capabilities::all(),
            &VmSettings::default(),
        );
        let json = serde_json::to_value(&actions).unwrap();
        assert_eq!(json["stop"], "VM is stopped");
        assert_eq!(json["start"], serde_json::Value::Null);
        assert_eq!(serde_json::from_value::<Actions>(json).unwrap(), actions);
        assert_eq!(actions.refusal(VmAction::Stop), Some("VM is stopped"));
        assert_eq!(actions.refusal(VmAction::Start), None);
        let newer = serde_json::json!({ "teleport": "not today", "stop": null });
        let newer: Actions = serde_json::from_value(newer).unwrap();
        assert_eq!(newer, Actions::default());
    }

    #[test]
    fn the_table_of_legal_actions() {
        let capabilities = Capabilities::all();
        let settings = VmSettings::default();
        let table: Vec<String> = VmState::ALL
            .into_iter()
            .map(|state| {
                let legal: Vec<_> = VmAction::ALL
                    .into_iter()
                    .filter(|action| action.refusal(state, &capabilities, &settings).is_none())
                    .map(VmAction::as_str)
                    .collect();
                format!("{state}: {}", legal.join(" "))
            })
            .collect();
        insta::assert_snapshot!(table.join("\n"), @"
        creating: purge console display
        starting: stop delete purge console display
        running: stop restart suspend delete purge snapshot restore delete_snapshot clone clone_snapshot resize mount umount shell console display
        restarting: stop delete purge console display
        stopping: stop delete purge console display
        stopped: start delete purge snapshot restore delete_snapshot clone clone_snapshot resize mount umount
        suspending: delete purge
        suspended: start resume delete purge
        deleted: recover purge
        unknown: start stop delete purge console display
        error: start stop delete purge
        ");
    }
}
