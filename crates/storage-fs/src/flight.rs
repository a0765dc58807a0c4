//! Preparations under way in this process, also those whose caller has gone and whose work has not begun.
//!
//! What works on a set holds the lock in its folder. A preparation that waits for a thread has no folder yet: without this,
//! it could make one after its set was discarded, or throw away what its own retry has prepared.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use stillpoint_model::id::SetToken;
use stillpoint_storage::ProviderResult;

use crate::prepare::expired;

/// Every preparation that was asked for and has not ended; at most one for a token.
#[derive(Debug, Default)]
pub(crate) struct Flights(Mutex<BTreeMap<SetToken, Arc<AtomicBool>>>);

impl Flights {
    fn all(&self) -> MutexGuard<'_, BTreeMap<SetToken, Arc<AtomicBool>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Announces a preparation. `None` while an earlier one has not ended, which is asked to stop.
    pub(crate) fn begin(self: &Arc<Self>, token: &SetToken) -> Option<Flight> {
        match self.all().entry(token.clone()) {
            Entry::Occupied(earlier) => {
                earlier.get().store(true, Ordering::SeqCst);
                None
            }
            Entry::Vacant(place) => {
                let stop = Arc::clone(place.insert(Arc::default()));
                Some(Flight { flights: Arc::clone(self), token: token.clone(), stop })
            }
        }
    }

    /// Asks a preparation to stop; `false` if there is none that could still make anything.
    pub(crate) fn stop(&self, token: &SetToken) -> bool {
        let all = self.all();
        let flight = all.get(token);
        if let Some(stop) = flight {
            stop.store(true, Ordering::SeqCst);
        }
        flight.is_some()
    }
}

/// One preparation; it has ended when this is dropped.
#[derive(Debug)]
pub(crate) struct Flight {
    flights: Arc<Flights>,
    token: SetToken,
    stop: Arc<AtomicBool>,
}

impl Flight {
    /// Whether nobody has asked it to stop.
    pub(crate) fn check(&self) -> ProviderResult<()> {
        if self.stop.load(Ordering::SeqCst) { Err(expired(&self.token)) } else { Ok(()) }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.flights.all().remove(&self.token);
    }
}
