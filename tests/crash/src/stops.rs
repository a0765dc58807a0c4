//! Places at which the engine's process stops as if it had been suspended, so that it can be killed exactly there.

use std::collections::BTreeSet;
use std::io;

use rustix::process::{Signal, getpid, kill_process, set_parent_process_death_signal};

use crate::engine::Events;

/// The variable that names the places, separated by commas.
pub const VARIABLE: &str = "STILLPOINT_CRASH_STOP_AT";

/// The places at which this process stops.
///
/// There are `freeze.before`, `freeze.after`, and the same for every other call of the agent that a run makes (`begin`,
/// `thaw`, `evidence`, `complete`, `abort`, …), of the storage (`prepare`, `commit`, `settle`, `discard`, …) and of the
/// journal (`append.1`, `append.2`, …).
#[derive(Debug, Clone, Default)]
pub struct Stops {
    at: BTreeSet<String>,
    events: Option<Events>,
}

impl Stops {
    /// No places.
    pub fn none() -> Self {
        Self::default()
    }

    /// The places that the environment names; a stop is told as an event first.
    pub fn from_environment(events: Events) -> Self {
        let names = std::env::var(VARIABLE).unwrap_or_default();
        let at = names.split(',').filter(|name| !name.is_empty()).map(ToOwned::to_owned).collect();
        Self { at, events: Some(events) }
    }

    /// The process has come to `call`, `when` (`before` or `after`) it is made. If that is one of the places, it tells so and
    /// stops with all its threads (SIGSTOP): nothing of it moves, no thaw of a guard either, until it is killed or continued.
    ///
    /// The signal may reach other threads before this one, so this one also waits for a line of standard input, which whoever
    /// [continues](crate::process::EngineProcess::go_on) the process writes first.
    pub fn reached(&self, call: &str, when: &'static str) {
        if self.at.is_empty() {
            return;
        }
        let place = format!("{call}.{when}");
        if !self.at.contains(&place) {
            return;
        }
        if let Some(events) = self.events {
            events.stopped(&place);
        }
        let _stopped = stop();
    }
}

/// Stops this process. If its parent goes, it goes too: who is stopped cannot look for that itself.
fn stop() -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    kill_process(getpid(), Signal::STOP)?;
    let _told = io::stdin().read_line(&mut String::new())?;
    Ok(())
}
