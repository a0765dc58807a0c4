//! Calls under way in this process, also those whose caller has gone and whose work has not begun.
//!
//! What works on a set or a restore holds its lock on disk. A call that waits for a thread holds none yet: without this, a
//! preparation could make a set after that was discarded, or throw away what its own retry has prepared, and a restore that
//! was taken back could still be staged or published.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Every call that was asked for and has not ended; at most one for a key.
#[derive(Debug)]
pub(crate) struct Flights<K>(Mutex<BTreeMap<K, Arc<AtomicBool>>>);

impl<K> Default for Flights<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Ord + Clone> Flights<K> {
    fn all(&self) -> MutexGuard<'_, BTreeMap<K, Arc<AtomicBool>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Announces a call. `None` while an earlier one has not ended, which is asked to stop.
    pub(crate) fn begin(self: &Arc<Self>, key: &K) -> Option<Flight<K>> {
        match self.all().entry(key.clone()) {
            Entry::Occupied(earlier) => {
                earlier.get().store(true, Ordering::SeqCst);
                None
            }
            Entry::Vacant(place) => {
                let stop = Arc::clone(place.insert(Arc::default()));
                Some(Flight { flights: Arc::clone(self), key: key.clone(), stop })
            }
        }
    }

    /// Asks a call to stop; `false` if there is none that could still do anything.
    pub(crate) fn stop(&self, key: &K) -> bool {
        let all = self.all();
        let flight = all.get(key);
        if let Some(stop) = flight {
            stop.store(true, Ordering::SeqCst);
        }
        flight.is_some()
    }
}

/// One call; it has ended when this is dropped.
#[derive(Debug)]
pub(crate) struct Flight<K: Ord + Clone> {
    flights: Arc<Flights<K>>,
    key: K,
    stop: Arc<AtomicBool>,
}

impl<K: Ord + Clone> Flight<K> {
    /// Whether nobody has asked it to stop.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.stop.load(Ordering::SeqCst)
    }
}

impl<K: Ord + Clone> Drop for Flight<K> {
    fn drop(&mut self) {
        self.flights.all().remove(&self.key);
    }
}
