//! The events that pages and scripts follow: numbered, kept for a while, given to many.
//!
//! Numbers rise by one and start from the clock, so that a number from before a restart is always older than the
//! oldest kept one: whoever asks from there is told to reload.

pub(crate) mod filter;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, OnceLock},
    time::Instant,
};

use batwa_api::event::Event;
use tokio::sync::broadcast;

/// Events kept for those who come back: some minutes of a busy fleet.
const KEPT: usize = 4096;
/// Most events a second about measurements alone, over the whole fleet; the newest of each thing is in the lists anyway.
const MEASUREMENTS_PER_S: f64 = 100.0;
/// How far a follower may fall behind before it is told to reload.
const BACKLOG: usize = 1024;

/// One event with its number.
#[derive(Debug)]
pub(crate) struct Published {
    /// Its number.
    pub(crate) id: u64,
    /// The event.
    pub(crate) event: Event,
    json: OnceLock<String>,
}

impl Published {
    /// The event as JSON, made once for all followers.
    ///
    /// # Panics
    /// Never: events hold nothing that JSON cannot.
    #[must_use]
    pub(crate) fn json(&self) -> &str {
        self.json.get_or_init(|| {
            serde_json::to_string(&self.event).expect("events hold nothing that JSON cannot")
        })
    }

    /// The event's name on the wire.
    #[must_use]
    pub(crate) fn name(&self) -> &'static str {
        match &self.event {
            Event::Agent { .. } => "agent",
            Event::AgentRemoved { .. } => "agent_removed",
            Event::Vm { .. } => "vm",
            Event::VmRemoved { .. } => "vm_removed",
            Event::AgentVms { .. } => "agent_vms",
            Event::Operation { .. } => "operation",
            Event::Terminal { .. } => "terminal",
            Event::TerminalRemoved { .. } => "terminal_removed",
            Event::Reload => "reload",
        }
    }
}

/// The events of one master.
pub(crate) struct Events {
    ring: Mutex<Ring>,
    sender: broadcast::Sender<Arc<Published>>,
}

struct Ring {
    kept: VecDeque<Arc<Published>>,
    last_id: u64,
    /// How many measurements may be told now, and when that was reckoned.
    measurements: (f64, Instant),
}

/// A follower's place in the events.
pub(crate) struct Subscription {
    missed: VecDeque<Arc<Published>>,
    receiver: broadcast::Receiver<Arc<Published>>,
    /// The number to resume from, for an event that has none of its own.
    last_id: u64,
}

/// What a follower gets.
pub(crate) enum Followed {
    /// The next event.
    Event(Arc<Published>),
    /// Events were missed; those after this number follow.
    Reload(u64),
    /// The master stops.
    End,
}

impl Events {
    /// No events yet; the first is numbered after `first_id`.
    #[must_use]
    pub(crate) fn starting_at(first_id: u64) -> Self {
        Self {
            ring: Mutex::new(Ring {
                kept: VecDeque::new(),
                last_id: first_id,
                measurements: (MEASUREMENTS_PER_S, Instant::now()),
            }),
            sender: broadcast::Sender::new(BACKLOG),
        }
    }

    /// Numbers `event` and gives it to all.
    pub(crate) fn publish(&self, event: Event) {
        let mut ring = self.ring.lock().expect("no holder panics");
        ring.last_id += 1;
        let published = Arc::new(Published {
            id: ring.last_id,
            event,
            json: OnceLock::new(),
        });
        if ring.kept.len() == KEPT {
            ring.kept.pop_front();
        }
        ring.kept.push_back(published.clone());
        // Sent under the lock, so that no follower sees two events in another order than their numbers. Nobody
        // listening is no failure.
        let _ = self.sender.send(published);
    }

    /// Publishes what tells of measurements alone, as long as there is not too much of it.
    pub(crate) fn publish_measurements(&self, events: &mut Vec<Event>) {
        for event in events.drain(..) {
            if self.may_tell_measurement(Instant::now()) {
                self.publish(event);
            }
        }
    }

    fn may_tell_measurement(&self, now: Instant) -> bool {
        let mut ring = self.ring.lock().expect("no holder panics");
        let (left, since) = ring.measurements;
        let more = now.saturating_duration_since(since).as_secs_f64() * MEASUREMENTS_PER_S;
        let left = (left + more).min(MEASUREMENTS_PER_S);
        let may = left >= 1.0;
        ring.measurements = (if may { left - 1.0 } else { left }, now);
        may
    }

    /// Follows from after `last_seen`; from now on when there is none.
    #[must_use]
    pub(crate) fn subscribe(&self, last_seen: Option<u64>) -> Subscription {
        let ring = self.ring.lock().expect("no holder panics");
        let receiver = self.sender.subscribe();
        let oldest = ring.kept.front().map_or(ring.last_id + 1, |first| first.id);
        let mut missed = VecDeque::new();
        if let Some(seen) = last_seen {
            if seen + 1 < oldest || seen > ring.last_id {
                missed.push_back(Arc::new(Published {
                    id: ring.last_id,
                    event: Event::Reload,
                    json: OnceLock::new(),
                }));
            } else {
                let skip = usize::try_from(seen + 1 - oldest).unwrap_or(usize::MAX);
                missed.extend(ring.kept.iter().skip(skip).cloned());
            }
        }
        let last_id = match missed.is_empty() {
            true => ring.last_id,
            false => last_seen.unwrap_or(ring.last_id),
        };
        Subscription {
            missed,
            receiver,
            last_id,
        }
    }
}

impl Subscription {
    /// The number of the newest event when this began.
    #[must_use]
    pub(crate) fn started_at(&self) -> u64 {
        self.last_id
    }

    /// The number of the newest event that was given out, or passed by.
    #[must_use]
    pub(crate) fn last_id(&self) -> u64 {
        self.last_id
    }

    /// Waits for what comes next. Safe to cancel.
    pub(crate) async fn next(&mut self) -> Followed {
        if let Some(event) = self.missed.pop_front() {
            self.last_id = event.id;
            return Followed::Event(event);
        }
        match self.receiver.recv().await {
            Ok(event) => {
                self.last_id = event.id;
                Followed::Event(event)
            }
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                self.last_id += missed;
                Followed::Reload(self.last_id)
            }
            Err(broadcast::error::RecvError::Closed) => Followed::End,
        }
    }
}

#[cfg(test)]
mod tests {
    use batwa_api::id::AgentId;

    use super::*;

    fn event(n: usize) -> Event {
        Event::AgentRemoved {
            agent_id: AgentId::parse(&format!("a{n}")).unwrap(),
        }
    }

    async fn next_id(subscription: &mut Subscription) -> Option<u64> {
        match subscription.next().await {
            Followed::Event(event) if event.event != Event::Reload => Some(event.id),
            _ => None,
        }
    }

    #[tokio::test]
    async fn a_follower_that_comes_back_misses_nothing() {
        let events = Events::starting_at(100);
        for n in 0..5 {
            events.publish(event(n));
        }
        let mut back = events.subscribe(Some(103));
        events.publish(event(5));
        assert_eq!(next_id(&mut back).await, Some(104));
        assert_eq!(next_id(&mut back).await, Some(105));
        assert_eq!(next_id(&mut back).await, Some(106));
        let mut fresh = events.subscribe(None);
        events.publish(event(6));
        assert_eq!(next_id(&mut fresh).await, Some(107));
    }

    #[tokio::test]
    async fn whoever_asks_for_events_that_are_gone_is_told_to_reload() {
        let events = Events::starting_at(100);
        for n in 0..=KEPT {
            events.publish(event(n));
        }
        // 101 is gone, 102 the oldest kept: 101 as the last seen is just good enough.
        assert_eq!(next_id(&mut events.subscribe(Some(101))).await, Some(102));
        for stale in [0, 100, 1 << 60] {
            assert_eq!(
                next_id(&mut events.subscribe(Some(stale))).await,
                None,
                "{stale}"
            );
        }
    }

    #[test]
    fn measurements_of_ten_thousand_machines_do_not_drown_what_matters() {
        let events = Events::starting_at(0);
        let began = Instant::now();
        let told = |after_ms: u64| {
            let now = began + std::time::Duration::from_millis(after_ms);
            (0..10_000)
                .filter(|_| events.may_tell_measurement(now))
                .count()
        };
        assert_eq!(told(10), 100);
        assert_eq!(told(510), 50);
        assert_eq!(told(60_000), 100);
    }

    #[tokio::test]
    async fn a_follower_that_falls_behind_is_told_to_reload_and_goes_on() {
        let events = Events::starting_at(0);
        let mut slow = events.subscribe(None);
        for n in 0..BACKLOG + 10 {
            events.publish(event(n));
        }
        assert!(matches!(slow.next().await, Followed::Reload(_)));
        assert!(matches!(slow.next().await, Followed::Event(_)));
    }
}
