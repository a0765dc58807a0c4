//! The side that writes: rounds over the databases while nothing is frozen, and the truncation of logs.

use std::path::PathBuf;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use stillpoint_context::{Cx, HostPath};
use stillpoint_exchange::{CopyId, Truncation};
use stillpoint_model::inventory::{CopyFile, FileRole, Generation};

use super::{Inner, SimulatedExchange, lock};
use crate::ledger::What;

impl SimulatedExchange {
    /// Writes the databases, round after round, until it is stopped. For a thread of its own.
    pub fn write(&self, cx: &Cx) {
        let inner = &*self.0;
        loop {
            self.write_once(cx);
            let state = lock(&inner.state);
            if state.stopped {
                return;
            }
            let rested = inner.news.wait_timeout(state, inner.setup.rest);
            drop(rested.unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Writes one round, unless something is frozen: then nothing is written, and nothing is removed.
    pub fn write_once(&self, cx: &Cx) {
        let inner = &*self.0;
        let mut mail = lock(&inner.pen);
        let to_truncate = {
            let mut state = lock(&inner.state);
            inner.expire(&mut state, cx);
            if state.freeze.is_some() {
                return;
            }
            std::mem::take(&mut state.to_truncate)
        };
        // From here on a freeze may be asked for; it waits for the pen.
        match mail.round() {
            Ok(()) => {
                inner.beat.store(mail.beat(), Ordering::SeqCst);
                inner.ledger.note(What::Wrote { beat: mail.beat() });
            }
            Err(error) => inner.ledger.note(What::Trouble { message: error.to_string() }),
        }
        for copy in to_truncate {
            let became = inner.truncate(&copy);
            lock(&inner.state).truncated.insert(copy, (cx.now(), became));
        }
        drop(mail);
    }
}

impl Inner {
    /// Removes the logs of a copy that it does not need any more.
    fn truncate(&self, copy: &CopyId) -> Truncation {
        let (needed, logs) = match self.logs_of(copy) {
            Ok(found) => found,
            Err(message) => {
                self.ledger.note(What::Trouble { message });
                return Truncation::Unknown;
            }
        };
        let mut removed = 0;
        let mut oldest_present = needed;
        for (generation, path) in logs {
            if generation >= needed {
                oldest_present = oldest_present.min(generation);
            } else if let Err(error) = std::fs::remove_file(&path) {
                self.ledger.note(What::Trouble { message: error.to_string() });
                oldest_present = oldest_present.min(generation);
            } else {
                removed += 1;
            }
        }
        if removed == 0 {
            let why = "recovery needs every log that is there".to_owned();
            return Truncation::NothingEligible { why };
        }
        self.ledger.note(What::Truncated { copy: copy.clone(), files: removed });
        Truncation::Confirmed { oldest_present }
    }

    /// The lowest generation that a copy needs, and its closed logs.
    fn logs_of(&self, copy: &CopyId) -> Result<(Generation, Vec<(Generation, PathBuf)>), String> {
        let state = lock(&self.state);
        let session = state.sessions.values().rev().find_map(|entry| {
            let needed = *entry.log_states.get(copy)?.required.as_ref()?.start();
            Some((needed, entry.session.files.clone()))
        });
        drop(state);
        let (needed, files) = session.ok_or_else(|| format!("{copy} needs no logs"))?;
        let logs =
            files.into_iter().filter(|file| file.copy == *copy && file.role == FileRole::Log);
        let logs = logs.filter_map(|file| {
            let path: PathBuf = file.path.to_native().ok()?;
            path.exists().then_some((file.generation?, path))
        });
        Ok((needed, logs.collect()))
    }
}

/// The file that beats beside a database.
pub(super) fn pulse_of(database: &HostPath) -> Option<CopyFile> {
    let native = database.to_native().ok()?.with_extension(crate::mail::PULSE);
    let path = HostPath::from_native(database.host().clone(), &native).ok()?;
    let bytes = std::fs::metadata(&native).ok()?.len();
    Some(CopyFile::new(path, FileRole::Other).with_bytes(bytes))
}
