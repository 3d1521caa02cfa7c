//! `set`: a VM's size, what is written about it, and what is done about it by itself.

use std::{str::FromStr, time::Duration};

use batwa_api::{
    size::ByteSize,
    vm::{Autostart, LifetimeEnd, RestartPolicy},
};
use clap::{ArgGroup, Args};

use super::{OffArgs, live};

/// `batwa set`
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).multiple(true))]
pub(crate) struct SetArgs {
    /// The VM: `agent/name`, or the name alone when only one machine has it
    #[arg(value_name = "[AGENT/]VM", add = live::vms())]
    pub(crate) vm: String,
    #[command(flatten)]
    pub(crate) size: SizeArgs,
    #[command(flatten)]
    pub(crate) about: AboutArgs,
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
    #[command(flatten)]
    pub(crate) off: OffArgs,
}

/// Another size.
#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct SizeArgs {
    /// Number of virtual CPUs
    #[arg(long, short, value_name = "N", group = "what")]
    pub(crate) cpus: Option<u32>,
    /// Memory, such as `512M` or `2G`
    #[arg(long, short, value_name = "SIZE", group = "what")]
    pub(crate) memory: Option<ByteSize>,
    /// Disk, such as `10G`; it only grows
    #[arg(long, short, value_name = "SIZE", group = "what")]
    pub(crate) disk: Option<ByteSize>,
}

/// What is written about it.
#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct AboutArgs {
    /// What people call it; empty to go back to its name
    #[arg(long, value_name = "TEXT", group = "what")]
    pub(crate) display_name: Option<String>,
    /// Anything worth writing down about it; empty to remove that
    #[arg(long, value_name = "TEXT", group = "what")]
    pub(crate) notes: Option<String>,
    /// A label to set; may be given again
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = crate::config::label, group = "what")]
    pub(crate) labels: Vec<(String, String)>,
    /// A label to take away; may be given again
    #[arg(
        long = "remove-label",
        visible_alias = "unlabel",
        value_name = "KEY",
        group = "what"
    )]
    pub(crate) remove_labels: Vec<String>,
}

/// What is done about it by itself.
#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct SettingsArgs {
    /// Let it neither be deleted nor purged
    #[arg(long, conflicts_with = "unprotect", group = "what")]
    pub(crate) protect: bool,
    /// Let it be deleted and purged again
    #[arg(long, group = "what")]
    pub(crate) unprotect: bool,
    /// Start it when its machine has booted: `on`, or its place among the others as `ORDER` or `ORDER,DELAY`; `off`
    #[arg(long, value_name = "ORDER[,DELAY]", group = "what")]
    pub(crate) autostart: Option<OrOff<AutostartArg>>,
    /// Start it again when it crashes: `on-crash` or `never`
    #[arg(long, value_name = "WHEN", value_parser = restart_policy, group = "what")]
    pub(crate) restart: Option<RestartPolicy>,
    /// Let it live for this long from now on, such as `8h` or `3d`; `off` for ever
    #[arg(long, value_name = "DURATION", group = "what")]
    pub(crate) lifetime: Option<OrOff<DurationArg>>,
    /// What is done when its lifetime ends: `stop` or `delete`
    #[arg(long, value_name = "WHAT", value_parser = lifetime_end, default_value = "stop", requires = "lifetime")]
    pub(crate) at_end: LifetimeEnd,
    /// Stop it once it has done nothing for this long, such as `30m`; `off` never
    #[arg(long, value_name = "DURATION", group = "what")]
    pub(crate) idle_stop: Option<OrOff<DurationArg>>,
    /// Below which share of its processors it does nothing, in per cent
    #[arg(
        long,
        value_name = "PERCENT",
        default_value_t = 5,
        requires = "idle_stop"
    )]
    pub(crate) idle_below: u32,
}

/// A value, or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OrOff<T> {
    /// Not at all.
    Off,
    /// As said.
    On(T),
}

impl<T> OrOff<T> {
    /// The value, if it is on.
    pub(crate) fn on(self) -> Option<T> {
        match self {
            Self::Off => None,
            Self::On(value) => Some(value),
        }
    }
}

impl<T: FromStr> FromStr for OrOff<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "off" => Ok(Self::Off),
            other => other.parse().map(Self::On),
        }
    }
}

/// When a VM is started after a boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AutostartArg(pub(crate) Autostart);

impl FromStr for AutostartArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "on" {
            return Ok(Self(Autostart::default()));
        }
        let (order, delay) = match text.split_once(',') {
            Some((order, delay)) => (order, delay.parse::<DurationArg>()?.0.as_secs()),
            None => (text, 0),
        };
        let order = order.parse().map_err(|_| {
            "write `on`, `off`, a place such as `10`, or a place and a delay as `10,30s`".to_owned()
        })?;
        Ok(Self(Autostart {
            order,
            delay_s: delay,
        }))
    }
}

/// A duration, in days too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DurationArg(pub(crate) Duration);

impl FromStr for DurationArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const DAY: u64 = 24 * 60 * 60;
        let whole = |unit: char, seconds: u64| {
            let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
            Some(Duration::from_secs(number.checked_mul(seconds)?))
        };
        match whole('d', DAY).or_else(|| whole('w', 7 * DAY)) {
            Some(duration) => Ok(Self(duration)),
            None => crate::config::duration(text).map(Self),
        }
    }
}

fn restart_policy(text: &str) -> Result<RestartPolicy, String> {
    match text {
        "never" | "off" => Ok(RestartPolicy::Never),
        "on-crash" => Ok(RestartPolicy::OnCrash),
        _ => Err("write `on-crash` or `never`".to_owned()),
    }
}

fn lifetime_end(text: &str) -> Result<LifetimeEnd, String> {
    match text {
        "stop" => Ok(LifetimeEnd::Stop),
        "delete" => Ok(LifetimeEnd::Delete),
        _ => Err("write `stop` or `delete`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_in_days_too() {
        let read = |text: &str| text.parse::<DurationArg>().map(|read| read.0.as_secs());
        assert_eq!(read("3d"), Ok(3 * 86_400));
        assert_eq!(read("2w"), Ok(14 * 86_400));
        assert_eq!(read("90m"), Ok(5400));
        for wrong in ["", "d", "-1d", "3 moons", "99999999999999999999d"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn autostart_has_a_place_and_a_delay() {
        let read = |text: &str| text.parse::<OrOff<AutostartArg>>();
        let on = |order, delay_s| Ok(OrOff::On(AutostartArg(Autostart { order, delay_s })));
        assert_eq!(read("on"), on(0, 0));
        assert_eq!(read("10"), on(10, 0));
        assert_eq!(read("10,30s"), on(10, 30));
        assert_eq!(read("off"), Ok(OrOff::Off));
        assert!(read("first").is_err() && read("1,soon").is_err());
    }
}
