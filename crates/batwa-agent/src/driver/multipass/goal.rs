//! When an action on a VM is done, judged by the VM's state: Multipass' exit status is only its opinion.

use batwa_api::vm::VmState;

use super::output::{Listed, Shutdown};

/// What an action is to bring about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    /// Up, with no shutdown before it.
    Running,
    /// Off.
    Stopped,
    /// Off, its memory kept.
    Suspended,
    /// In the trash.
    Trashed,
    /// Out of the trash.
    Recovered,
    /// Not there at all.
    Gone,
}

/// What a look at the list says about a goal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is reached.
    Reached,
    /// It may still be.
    Wait,
    /// The VM is in a state that does not lead there by itself.
    Hopeless,
    /// The VM is not there.
    Vanished,
}

impl Goal {
    /// Judges a VM as the list shows it; `None` when it is not in the list.
    pub(super) fn judge(self, vm: Option<&Listed>) -> Verdict {
        use VmState::{
            Creating, Deleted, Error, Restarting, Running, Starting, Stopped, Stopping, Suspended,
            Suspending, Unknown,
        };
        let Some(vm) = vm else {
            return if self == Self::Gone {
                Verdict::Reached
            } else {
                Verdict::Vanished
            };
        };
        match (self, vm.state) {
            (Self::Running, Running) if vm.shutdown == Shutdown::None => Verdict::Reached,
            (Self::Stopped, Stopped) | (Self::Suspended, Suspended) | (Self::Trashed, Deleted) => {
                Verdict::Reached
            }
            (Self::Recovered, Deleted) => Verdict::Wait,
            (Self::Recovered, _) => Verdict::Reached,
            (Self::Running, Stopped | Suspended | Deleted)
            | (Self::Stopped, Suspended | Deleted)
            | (Self::Suspended, Stopped | Deleted) => Verdict::Hopeless,
            (
                _,
                Creating | Starting | Running | Restarting | Stopping | Stopped | Suspending
                | Suspended | Deleted | Unknown | Error,
            ) => Verdict::Wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use batwa_api::name::VmName;

    use super::*;

    fn vm(state: VmState) -> Listed {
        Listed {
            name: VmName::parse("web").unwrap(),
            state,
            shutdown: Shutdown::None,
            release: None,
        }
    }

    #[test]
    fn each_goal_is_reached_in_its_states_and_given_up_in_others() {
        let goals = [
            Goal::Running,
            Goal::Stopped,
            Goal::Suspended,
            Goal::Trashed,
            Goal::Recovered,
            Goal::Gone,
        ];
        let lines: Vec<String> = goals
            .into_iter()
            .map(|goal| {
                let states = |verdict| {
                    VmState::ALL
                        .into_iter()
                        .filter(|state| goal.judge(Some(&vm(*state))) == verdict)
                        .map(VmState::as_str)
                        .collect::<Vec<_>>()
                        .join(" ")
                };
                format!(
                    "{goal:?}: {} | hopeless: {} | not there: {:?}",
                    states(Verdict::Reached),
                    states(Verdict::Hopeless),
                    goal.judge(None)
                )
            })
            .collect();
        insta::assert_snapshot!(lines.join("\n"), @"
        Running: running | hopeless: stopped suspended deleted | not there: Vanished
        Stopped: stopped | hopeless: suspended deleted | not there: Vanished
        Suspended: suspended | hopeless: stopped deleted | not there: Vanished
        Trashed: deleted | hopeless:  | not there: Vanished
        Recovered: creating starting running restarting stopping stopped suspending suspended unknown error | hopeless:  | not there: Vanished
        Gone:  | hopeless:  | not there: Reached
        ");
    }

    #[test]
    fn a_vm_that_will_be_shut_down_has_not_been_started() {
        let leaving = Listed {
            shutdown: Shutdown::Delayed,
            ..vm(VmState::Running)
        };
        assert_eq!(Goal::Running.judge(Some(&leaving)), Verdict::Wait);
    }
}
