//! Watching a run that another process carries: from the journal, now and then.

use std::sync::{Arc, Weak};
use std::time::Duration;

use stillpoint_context::{Clock, RunId};

use super::{Engine, EngineError, RunHandle, RunPhase};
use crate::driver::{RunLink, Status, mailbox};
use crate::journal::Seq;

/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(200);

impl Engine {
    /// A handle that watches a run of the journal. What is asked of it is answered with [`EngineError::Elsewhere`].
    ///
    /// # Errors
    /// [`EngineError::Gone`] when the journal has no such run, [`EngineError::Journal`] when it cannot be read.
    pub async fn watch(&self, run: RunId) -> Result<RunHandle, EngineError> {
        if let Some(handle) = self.run(run) {
            return Ok(handle);
        }
        // Nobody reads this mailbox: there is no driver here to ask.
        let (mail, _) = mailbox();
        let link = RunLink::new(run, mail, Arc::clone(self.journal()), None);
        if !look(&link).await? {
            let (clock, weak) = (Arc::clone(&self.0.shared.seams.clock), Arc::downgrade(&link));
            self.0.shared.seams.spawner.spawn("watch run", Box::pin(follow(weak, clock)));
        }
        Ok(RunHandle::elsewhere(link))
    }
}

/// Follows a run until it has ended or nobody watches it any more.
async fn follow(link: Weak<RunLink>, clock: Arc<dyn Clock>) {
    loop {
        clock.sleep_until(clock.mono() + LOOK).await;
        let Some(link) = link.upgrade() else { return };
        match look(&link).await {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => tracing::warn!(run = %link.run, %error, "a run cannot be watched"),
        }
    }
}

/// Takes note of what the journal has; whether the run has ended.
async fn look(link: &Arc<RunLink>) -> Result<bool, EngineError> {
    let (state, head) = RunHandle::read(link).await?;
    let phase = RunPhase::of(&state);
    let parked = state
        .parked()
        .iter()
        .map(|parked| (state.plan().node(parked.node).name.clone(), parked.clone()));
    let parked = parked.collect();
    let last = state.end().is_some().then(|| Arc::new(state));
    let ended = last.is_some();
    if link.set_head(Seq(head)) {
        link.status.send_modify(|status| {
            *status = Status { phase, parked, last, ..Status::new() };
        });
    }
    Ok(ended)
}
