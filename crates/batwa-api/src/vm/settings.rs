//! What people want of one VM by itself: kept and carried out by its agent, whoever asks meanwhile.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use crate::{Timestamp, agent::Capabilities, problem::FieldError};

/// What people want of one VM by itself. Its agent keeps it, goes by it, and says how far it is in the VM's notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct VmSettings {
    /// Whether it can neither be deleted nor purged, nor taken back to a snapshot with its disk thrown away.
    pub protected: bool,
    /// Whether it is started when its machine has booted; `null`: it is not.
    pub autostart: Option<Autostart>,
    /// What is done when it ends without having been asked to.
    pub restart: RestartPolicy,
    /// Until when it is to run, or to be there; `null`: for ever.
    pub lifetime: Option<Lifetime>,
    /// When it is stopped because it does nothing; `null`: never.
    pub idle_stop: Option<IdleStop>,
    /// Counts the changes of these, so that one can see whether a change has come through.
    pub revision: u64,
}

/// When a VM is started after its machine has booted. VMs of a lower order are started first, and have come up, or
/// have failed to, before those of a higher one begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Autostart {
    /// Its place, 0 to 9999; several VMs may share one.
    pub order: u32,
    /// Not before this many seconds after the machine's boot, at most 3600.
    pub delay_s: u64,
}

/// What is done when a VM ends without having been asked to, by itself or by anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RestartPolicy {
    /// Nothing.
    #[default]
    Never,
    /// It is started again, at most [`RestartPolicy::TRIES`] times in a row, each time after a longer pause.
    OnCrash,
}

impl RestartPolicy {
    /// Most times that a VM is started again before somebody has to look.
    pub const TRIES: u32 = 5;
    /// How long a VM has to run before its crashes are forgiven.
    pub const FORGIVEN_AFTER: Duration = Duration::from_secs(600);

    /// The pause before try number `crashes`, counted from 1: 10 s, doubled each time, 160 s at most.
    #[must_use]
    pub fn pause(crashes: u32) -> Duration {
        Duration::from_secs(10 << crashes.saturating_sub(1).min(Self::TRIES - 1))
    }
}

/// Until when a VM is to run, or to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Lifetime {
    /// When it ends, by the machine's clock.
    pub ends_at: Timestamp,
    /// From when on people are warned of that.
    pub warns_at: Timestamp,
    /// What is done then.
    pub end: LifetimeEnd,
}

/// What is done when a VM's lifetime ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LifetimeEnd {
    /// It is stopped.
    #[default]
    Stop,
    /// It is moved to the trash.
    Delete,
}

/// How long a VM is to live from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LifetimeWanted {
    /// Seconds from now on, 60 to ten years.
    pub after_s: u64,
    /// What is done then.
    #[serde(default)]
    pub end: LifetimeEnd,
}

impl LifetimeWanted {
    const LEAST_S: u64 = 60;
    const MOST_S: u64 = 10 * 366 * 24 * 60 * 60;
    /// The longest time ahead that people are warned.
    const MOST_WARNING_S: u64 = 24 * 60 * 60;

    /// The lifetime, begun at `now`: people are warned when a quarter of it is left, at most a day ahead.
    #[must_use]
    pub fn from(self, now: Timestamp) -> Lifetime {
        let ahead = (self.after_s / 4).min(Self::MOST_WARNING_S);
        let at = |seconds: u64| {
            let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
            now.checked_add(jiff::SignedDuration::from_secs(seconds))
                .unwrap_or(Timestamp::MAX)
        };
        Lifetime {
            ends_at: at(self.after_s),
            warns_at: at(self.after_s - ahead),
            end: self.end,
        }
    }
}

/// When a VM counts as doing nothing: its processors were below a share the whole time, and nobody had a terminal,
/// command, file transfer or forwarded port open in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IdleStop {
    /// For how many seconds, 300 to 2592000 (30 days).
    pub after_s: u64,
    /// The share of its processors, in per cent, 1 to 100: measured inside the VM once a minute, or taken from its
    /// load over the last minute where the driver says nothing else.
    #[serde(default = "below_percent")]
    pub below_percent: u32,
}

fn below_percent() -> u32 {
    5
}

/// A change of [`VmSettings`]: what is absent stays as it is, `null` switches off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SettingsChange {
    /// Whether it can be neither deleted nor purged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protected: Option<bool>,
    /// Whether and when it is started after its machine's boot.
    #[serde(
        default,
        deserialize_with = "some",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<Autostart>)]
    pub autostart: Option<Option<Autostart>>,
    /// What is done when it crashes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<RestartPolicy>,
    /// How long it is to live, from now on.
    #[serde(
        default,
        deserialize_with = "some",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<LifetimeWanted>)]
    pub lifetime: Option<Option<LifetimeWanted>>,
    /// When it is stopped because it does nothing.
    #[serde(
        default,
        deserialize_with = "some",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<IdleStop>)]
    pub idle_stop: Option<Option<IdleStop>>,
}

/// Reads a field that is there: `null` is something else than nothing.
fn some<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Some)
}

impl SettingsChange {
    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What is wrong with it for a VM that has `before` on a driver that can do this, field by field.
    #[must_use]
    pub fn check(&self, before: &VmSettings, capabilities: &Capabilities) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut refuse = |field: &str, message: &str| {
            errors.push(FieldError::new(format!("settings.{field}"), message));
        };
        if let Some(Some(autostart)) = self.autostart
            && (autostart.order > 9999 || autostart.delay_s > 3600)
        {
            refuse(
                "autostart",
                "the order is a number from 0 to 9999, the delay at most 3600 s",
            );
        }
        if self.restart == Some(RestartPolicy::OnCrash) && !capabilities.crashes {
            refuse("restart", Self::NO_CRASHES);
        }
        if let Some(Some(lifetime)) = self.lifetime
            && !(LifetimeWanted::LEAST_S..=LifetimeWanted::MOST_S).contains(&lifetime.after_s)
        {
            refuse(
                "lifetime",
                "a lifetime is 60 s at least and ten years at most",
            );
        }
        if let Some(Some(idle)) = self.idle_stop
            && (!(300..=30 * 24 * 60 * 60).contains(&idle.after_s)
                || !(1..=100).contains(&idle.below_percent))
        {
            refuse(
                "idle_stop",
                "the time is 300 s at least and 30 days at most, the share 1 to 100 per cent",
            );
        }
        let protected = self.protected.unwrap_or(before.protected);
        let end = match self.lifetime {
            Some(wanted) => wanted.map(|wanted| wanted.end),
            None => before.lifetime.map(|lifetime| lifetime.end),
        };
        if end == Some(LifetimeEnd::Delete) {
            let field = if self.lifetime.is_some() {
                "lifetime"
            } else {
                "protected"
            };
            if protected {
                refuse(
                    field,
                    "a protected VM cannot be deleted when its lifetime ends: let it be stopped then",
                );
            } else if !capabilities.trash {
                refuse(
                    field,
                    "this machine's driver has no trash: let the VM be stopped when its lifetime ends",
                );
            }
        }
        errors
    }

    /// Why no VM of a driver is started again when it crashes.
    pub const NO_CRASHES: &'static str =
        "this machine's driver cannot tell a crash from a stop that somebody asked for";

    /// The settings after it, made at `now`.
    #[must_use]
    pub fn apply(&self, before: &VmSettings, now: Timestamp) -> VmSettings {
        VmSettings {
            protected: self.protected.unwrap_or(before.protected),
            autostart: self.autostart.unwrap_or(before.autostart),
            restart: self.restart.unwrap_or(before.restart),
            lifetime: match self.lifetime {
                Some(wanted) => wanted.map(|wanted| wanted.from(now)),
                None => before.lifetime,
            },
            idle_stop: self.idle_stop.unwrap_or(before.idle_stop),
            revision: before.revision + 1,
        }
    }
}

impl VmSettings {
    /// The settings that a clone begins with: how it is run, but not what is to become of its original.
    #[must_use]
    pub fn for_clone(&self) -> Self {
        Self {
            restart: self.restart,
            idle_stop: self.idle_stop,
            ..Self::default()
        }
    }

    /// Whether nothing was asked for.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Something that people should know of what an agent does about a VM by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Notice {
    /// What it is about.
    pub kind: NoticeKind,
    /// When it happened, or is going to.
    pub at: Timestamp,
    /// What happened or is going to, for people.
    pub text: String,
}

/// What a notice is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NoticeKind {
    /// Its lifetime ends soon, at `at`.
    LifetimeEnds,
    /// It does nothing, and is stopped for that at `at`.
    Idle,
    /// It crashed, and is started again at `at`.
    Crashed,
    /// It crashed too often, the last time at `at`: it is left off.
    GivenUp,
    /// It is removed from the trash at `at`.
    Purges,
    /// Something that was to be done could not be, at `at`.
    Failed,
}

/// Why an agent started an operation by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentReason {
    /// The machine has booted.
    Autostart,
    /// The VM crashed.
    Crash,
    /// Its lifetime has ended.
    Lifetime,
    /// It does nothing.
    Idle,
    /// It has been in the trash long enough.
    Trash,
}

impl AgentReason {
    /// Every reason.
    pub const ALL: [Self; 5] = [
        Self::Autostart,
        Self::Crash,
        Self::Lifetime,
        Self::Idle,
        Self::Trash,
    ];

    /// Who asked for such an operation, as it is shown. No account can be called so: it has a space.
    #[must_use]
    pub fn requested_by(self) -> &'static str {
        match self {
            Self::Autostart => "agent: autostart",
            Self::Crash => "agent: crash",
            Self::Lifetime => "agent: lifetime",
            Self::Idle => "agent: idle",
            Self::Trash => "agent: trash",
        }
    }

    /// The reason that is shown so.
    #[must_use]
    pub fn parse(requested_by: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|reason| reason.requested_by() == requested_by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(change: SettingsChange, before: &VmSettings, can: &Capabilities) -> Vec<String> {
        let errors = change.check(before, can);
        errors.into_iter().map(|error| error.field).collect()
    }

    #[test]
    fn absent_stays_and_null_switches_off() {
        let read = |text| serde_json::from_str::<SettingsChange>(text).unwrap();
        assert!(read("{}").is_empty());
        let off = read(r#"{"autostart": null, "lifetime": null}"#);
        assert_eq!((off.autostart, off.lifetime), (Some(None), Some(None)));
        assert_eq!(off.idle_stop, None);
        let text = serde_json::to_string(&off).unwrap();
        assert_eq!(text, r#"{"autostart":null,"lifetime":null}"#);
        let before = VmSettings {
            autostart: Some(Autostart::default()),
            protected: true,
            ..VmSettings::default()
        };
        let after = off.apply(&before, Timestamp::UNIX_EPOCH);
        assert_eq!(after.autostart, None);
        assert!(after.protected);
        assert!(serde_json::from_str::<SettingsChange>(r#"{"protcted": true}"#).is_err());
    }

    #[test]
    fn wrong_settings_name_their_field() {
        let all = Capabilities::all();
        let none = VmSettings::default();
        let lifetime = |after_s, end| SettingsChange {
            lifetime: Some(Some(LifetimeWanted { after_s, end })),
            ..SettingsChange::default()
        };
        let idle = |after_s, below_percent| SettingsChange {
            idle_stop: Some(Some(IdleStop {
                after_s,
                below_percent,
            })),
            ..SettingsChange::default()
        };
        let autostart = |order, delay_s| SettingsChange {
            autostart: Some(Some(Autostart { order, delay_s })),
            ..SettingsChange::default()
        };
        for good in [
            SettingsChange::default(),
            lifetime(60, LifetimeEnd::Delete),
            idle(300, 1),
            autostart(9999, 3600),
        ] {
            assert_eq!(fields(good, &none, &all), [""; 0], "{good:?}");
        }
        assert_eq!(
            fields(lifetime(59, LifetimeEnd::Stop), &none, &all),
            ["settings.lifetime"]
        );
        assert_eq!(
            fields(lifetime(u64::MAX, LifetimeEnd::Stop), &none, &all),
            ["settings.lifetime"]
        );
        for wrong in [
            idle(299, 5),
            idle(300, 0),
            idle(300, 101),
            idle(u64::MAX, 5),
        ] {
            assert_eq!(fields(wrong, &none, &all), ["settings.idle_stop"]);
        }
        for wrong in [autostart(10_000, 0), autostart(0, 3601)] {
            assert_eq!(fields(wrong, &none, &all), ["settings.autostart"]);
        }
        let no_crashes = Capabilities {
            crashes: false,
            ..all
        };
        let on_crash = SettingsChange {
            restart: Some(RestartPolicy::OnCrash),
            ..SettingsChange::default()
        };
        assert_eq!(fields(on_crash, &none, &no_crashes), ["settings.restart"]);
    }

    #[test]
    fn what_is_protected_is_not_deleted_by_its_lifetime_either() {
        let all = Capabilities::all();
        let protect = SettingsChange {
            protected: Some(true),
            ..SettingsChange::default()
        };
        let deletes = SettingsChange {
            lifetime: Some(Some(LifetimeWanted {
                after_s: 3600,
                end: LifetimeEnd::Delete,
            })),
            ..SettingsChange::default()
        };
        let now = Timestamp::UNIX_EPOCH;
        let protected = protect.apply(&VmSettings::default(), now);
        assert_eq!(fields(deletes, &protected, &all), ["settings.lifetime"]);
        let ends = deletes.apply(&VmSettings::default(), now);
        assert_eq!(fields(protect, &ends, &all), ["settings.protected"]);
        let both = SettingsChange {
            protected: Some(false),
            ..deletes
        };
        assert_eq!(fields(both, &protected, &all), [""; 0]);
    }

    #[test]
    fn people_are_warned_ahead_of_the_end() {
        let now = Timestamp::UNIX_EPOCH;
        let warned = |after_s| {
            let end = LifetimeEnd::Stop;
            let lifetime = LifetimeWanted { after_s, end }.from(now);
            lifetime.ends_at.as_second() - lifetime.warns_at.as_second()
        };
        assert_eq!(warned(60), 15);
        assert_eq!(warned(3600), 900);
        assert_eq!(warned(30 * 24 * 3600), 24 * 3600);
    }

    #[test]
    fn pauses_between_restarts_grow_to_a_bound() {
        let pauses: Vec<u64> = (0..8).map(|n| RestartPolicy::pause(n).as_secs()).collect();
        assert_eq!(pauses, [10, 10, 20, 40, 80, 160, 160, 160]);
    }

    #[test]
    fn who_asked_is_read_back() {
        for reason in AgentReason::ALL {
            assert_eq!(AgentReason::parse(reason.requested_by()), Some(reason));
        }
        assert_eq!(AgentReason::parse("agent: anything"), None);
    }
}
