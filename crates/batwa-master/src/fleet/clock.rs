//! An agent's clock against ours: measured, never trusted. Pure.
//!
//! What an agent says of times is brought to the master's clock as it comes in, and is never later than now; so ages
//! are right on machines whose clock is wrong, and nobody's clock decides anything.

use std::time::Duration;

use batwa_api::{Timestamp, agent::AgentInfo, operation::Operation, terminal::Terminal, vm::Vm};
use jiff::SignedDuration;

/// Differences below this are the way of the message as much as the clock.
const NOTABLE: SignedDuration = SignedDuration::from_secs(1);

/// What is known of an agent's clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Clock {
    /// How far it is ahead of ours; negative when it is behind.
    ahead: Option<SignedDuration>,
}

impl Clock {
    /// Takes what the agent's clock showed in a message that came in `now`.
    ///
    /// A message is always a little old, so that the clock seems behind by that: of measurements that agree, the
    /// one with the clock farthest ahead came the quickest way.
    pub(crate) fn measure(&mut self, shown: Timestamp, now: Timestamp) {
        let ahead = shown.duration_since(now);
        self.ahead = Some(match self.ahead {
            Some(before) if (ahead - before).abs() < NOTABLE => before.max(ahead),
            _ => ahead,
        });
    }

    /// How far it is ahead of ours, in milliseconds.
    pub(crate) fn ahead_ms(self) -> Option<i64> {
        let ms = self.ahead?.as_millis();
        Some(i64::try_from(ms).unwrap_or(if ms < 0 { i64::MIN } else { i64::MAX }))
    }

    /// A time in the agent's past by our clock, never after `now`.
    pub(crate) fn past(self, time: Timestamp, now: Timestamp) -> Timestamp {
        self.shifted(time).min(now)
    }

    fn shifted(self, time: Timestamp) -> Timestamp {
        match self.ahead {
            Some(ahead) if ahead.abs() >= NOTABLE => time.checked_sub(ahead).unwrap_or(time),
            _ => time,
        }
    }

    /// An agent's word on itself by our clock.
    pub(crate) fn info(self, mut info: AgentInfo, now: Timestamp) -> AgentInfo {
        info.started_at = self.past(info.started_at, now);
        for driver in &mut info.drivers {
            driver.health.since = self.past(driver.health.since, now);
        }
        info
    }

    /// A VM by our clock.
    pub(crate) fn vm(self, mut vm: Vm, now: Timestamp) -> Vm {
        vm.state_since = self.past(vm.state_since, now);
        vm.observed_at = self.past(vm.observed_at, now);
        vm.created_at = vm.created_at.map(|time| self.past(time, now));
        vm.started_at = vm.started_at.map(|time| self.past(time, now));
        vm.shutdown_at = vm.shutdown_at.map(|time| self.shifted(time));
        if let Some(lifetime) = &mut vm.settings.lifetime {
            lifetime.ends_at = self.shifted(lifetime.ends_at);
            lifetime.warns_at = self.shifted(lifetime.warns_at);
        }
        for notice in &mut vm.notices {
            notice.at = self.shifted(notice.at);
        }
        if let Some(usage) = &mut vm.usage {
            usage.measured_at = self.past(usage.measured_at, now);
        }
        vm
    }

    /// An operation by our clock.
    pub(crate) fn operation(self, mut operation: Operation, now: Timestamp) -> Operation {
        operation.created_at = self.past(operation.created_at, now);
        operation.started_at = operation.started_at.map(|time| self.past(time, now));
        operation.finished_at = operation.finished_at.map(|time| self.past(time, now));
        for step in &mut operation.steps {
            step.began_at = self.past(step.began_at, now);
        }
        operation
    }

    /// A terminal session by our clock.
    pub(crate) fn terminal(self, mut terminal: Terminal, now: Timestamp) -> Terminal {
        terminal.created_at = self.past(terminal.created_at, now);
        terminal
    }
}

/// From which difference on a clock is worth a warning.
pub(crate) const WORTH_A_WARNING: Duration = Duration::from_secs(5);

/// What to say of a clock that is so far ahead; nothing when that is all right.
pub(crate) fn warning(ahead_ms: i64) -> Option<String> {
    let apart = Duration::from_millis(ahead_ms.unsigned_abs());
    if apart < WORTH_A_WARNING {
        return None;
    }
    let which = if ahead_ms > 0 { "ahead of" } else { "behind" };
    Some(format!(
        "its clock is {} s {which} the master's: switch on time synchronisation there (`timedatectl set-ntp true`)",
        apart.as_secs()
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(1_800_000_000_000 + ms).unwrap()
    }

    #[test]
    fn the_quickest_of_measurements_that_agree_counts_and_a_clock_that_was_set_counts_at_once() {
        let mut clock = Clock::default();
        assert_eq!(clock.ahead_ms(), None);
        for (shown, now, ahead) in [
            (9_700, 0, 9_700),
            (19_990, 10_000, 9_990),
            (29_500, 20_000, 9_990),
            (30_000, 30_000, 0),
        ] {
            clock.measure(at(shown), at(now));
            assert_eq!(clock.ahead_ms(), Some(ahead), "{shown} at {now}");
        }
    }

    #[test]
    fn only_a_clock_that_is_seconds_off_is_warned_of() {
        assert_eq!(warning(4_999), None);
        assert!(warning(-42_000).unwrap().contains("42 s behind"));
        assert!(warning(i64::MIN).is_some());
    }

    proptest! {
        #[test]
        fn no_time_of_an_agent_is_later_than_now_and_ages_hold(
            ahead in -1_000_000_000_000_i64..1_000_000_000_000, age in 0..1_000_000_i64,
        ) {
            let now = at(0);
            let mut clock = Clock::default();
            clock.measure(at(ahead), now);
            let ours = clock.past(at(ahead - age), now);
            prop_assert!(ours <= now);
            let off = (now.as_millisecond() - ours.as_millisecond() - age).abs();
            prop_assert!(off < 1000, "off by {off} ms");
        }

        #[test]
        fn whatever_clock_an_agent_shows_nothing_breaks(shown in any::<i64>(), time in any::<i64>()) {
            let (Ok(shown), Ok(time)) = (Timestamp::from_millisecond(shown), Timestamp::from_millisecond(time)) else {
                return Ok(());
            };
            let mut clock = Clock::default();
            clock.measure(shown, at(0));
            prop_assert!(clock.past(time, at(0)) <= at(0));
        }
    }
}
