//! The ends of an engine: drained, or suspended.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{CLOSING, Engine, EngineError, RunHandle};
use crate::driver::{Mail, RunLink};

/// What a drained engine leaves open.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Drained {
    /// Runs that wait for a person, or whose journal failed: they are open in the journal, and keep what they claim.
    pub open: Vec<RunHandle>,
}

impl Engine {
    fn close_gate(&self) -> Vec<Arc<RunLink>> {
        let runs = self.lock();
        self.0.gate.store(CLOSING, Ordering::Release);
        runs.by_id.values().filter(|link| !link.is_over()).cloned().collect()
    }

    /// Takes no more runs, waits until all have ended or wait for a person, and gives the lease back.
    ///
    /// # Errors
    /// [`EngineError::Journal`] when the lease cannot be given back; it ends by itself then.
    ///
    /// # Cancel safety
    /// Dropped, the engine stays closed; it may be called again.
    pub async fn drain(&self) -> Result<Drained, EngineError> {
        let mut drained = Drained::default();
        for link in self.close_gate() {
            let handle = RunHandle::new(link);
            // What cannot end here is open there; nothing else is to be said of it.
            let _settled = handle.settled().await;
            if !matches!(handle.status().phase, super::RunPhase::Ended(_)) {
                drained.open.push(handle);
            }
        }
        self.0.shared.lease.release().await.map_err(EngineError::Journal)?;
        Ok(drained)
    }

    /// Takes no more runs and brings every run to rest at its next boundary: what runs ends, an open guard is left as it
    /// should be, nothing new begins, nothing is undone, nothing is in doubt. Then the lease is given back, so that
    /// [`recover`](Self::recover) of any process carries on at once. What the runs claim they keep.
    ///
    /// A step that takes long is waited for; [cancel](RunHandle::cancel) what cannot wait.
    ///
    /// # Errors
    /// [`EngineError::Journal`] when the lease cannot be given back; it ends by itself then.
    ///
    /// # Cancel safety
    /// Dropped, the runs come to rest all the same, and the engine stays closed; it may be called again.
    pub async fn suspend(&self) -> Result<(), EngineError> {
        let links = self.close_gate();
        for link in &links {
            // Whose driver is gone has come to rest already.
            let _ = link.mail.send(Mail::Suspend);
        }
        for link in links {
            let mut status = link.status.subscribe();
            let _gone = status.wait_for(|s| s.last.is_some() || s.gone).await;
        }
        self.0.shared.lease.release().await.map_err(EngineError::Journal)
    }
}
