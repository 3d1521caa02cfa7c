//! How many handshakes may be under way.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

/// Handshakes under way at a time.
const MAX_HANDSHAKES: usize = 1024;
/// The same from one address; a whole site may be behind one.
const MAX_HANDSHAKES_PER_ADDRESS: usize = 256;
/// Handshakes under way.
#[derive(Debug, Default)]
pub(crate) struct Handshakes(Mutex<HashMap<IpAddr, usize>>);

/// One handshake under way; dropping it makes room for another.
#[derive(Debug)]
pub(crate) struct Place {
    handshakes: Arc<Handshakes>,
    address: IpAddr,
}

impl Handshakes {
    /// Room for one more from `address`; none when there are too many.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let mut under_way = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if under_way.values().sum::<usize>() >= MAX_HANDSHAKES {
            return None;
        }
        let here = under_way.entry(address).or_default();
        if *here >= MAX_HANDSHAKES_PER_ADDRESS {
            return None;
        }
        *here += 1;
        Some(Place {
            handshakes: Arc::clone(self),
            address,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut under_way = self
            .handshakes
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(here) = under_way.get_mut(&self.address) {
            *here -= 1;
            if *here == 0 {
                under_way.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handshakes_are_bounded_by_address_and_in_all() {
        let handshakes = Arc::new(Handshakes::default());
        let here = IpAddr::from([10, 0, 0, 1]);
        let mut places: Vec<_> = (0..MAX_HANDSHAKES_PER_ADDRESS)
            .map(|_| handshakes.enter(here).unwrap())
            .collect();
        assert!(handshakes.enter(here).is_none());
        let others = (0..MAX_HANDSHAKES - MAX_HANDSHAKES_PER_ADDRESS)
            .map(|n| IpAddr::from([10, 1, (n / 256) as u8, (n % 256) as u8]));
        places.extend(others.map(|address| handshakes.enter(address).unwrap()));
        assert!(handshakes.enter(IpAddr::from([10, 2, 0, 1])).is_none());
        places.clear();
        assert!(handshakes.enter(here).is_some());
        assert!(
            handshakes.0.lock().unwrap().len() <= 1,
            "nobody is remembered"
        );
    }
}
