//! The agent's log: what was asked of it and what it did, a line for each, in the order in which it happened.
//!
//! It lies outside the folder that is frozen, and is what the checks from outside read.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::marker::PhantomData;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use stillpoint_context::{FencingToken, OsClock, RunId, StepName};
use stillpoint_exchange::{CopyId, SessionId};

/// A line of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line<W = What> {
    /// Microseconds since the machine was started, suspend counted: the same clock in every process.
    pub at: u64,
    /// What happened.
    pub what: W,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum What {
    /// The agent serves.
    Started {
        /// Its process.
        pid: u32,
    },
    /// A call came in.
    Called {
        /// Its number.
        call: u64,
        /// Its name.
        ask: String,
        /// The run that called.
        run: RunId,
        /// Its step.
        step: StepName,
        /// Its token.
        fence: FencingToken,
        /// The session, if it is about one.
        session: Option<SessionId>,
    },
    /// A call that changes a session was let in: its token is as new as any that was seen. In the order of their effects.
    Admitted {
        /// The session.
        session: SessionId,
        /// The run that called.
        run: RunId,
        /// Its token.
        fence: FencingToken,
    },
    /// A call was answered.
    Answered {
        /// Its number.
        call: u64,
        /// Its name.
        ask: String,
        /// The run that called.
        run: RunId,
        /// Its token.
        fence: FencingToken,
        /// The session, if it is about one.
        session: Option<SessionId>,
        /// `ok`, or the code of the error.
        outcome: String,
    },
    /// Writes are quiesced.
    Frozen {
        /// For this session.
        session: SessionId,
        /// By this run.
        run: RunId,
        /// Under this token.
        fence: FencingToken,
        /// When it will end by itself, on the clock of [`Line::at`].
        until: u64,
        /// The number that every file bears now.
        beat: u64,
    },
    /// Writes go on.
    Thawed {
        /// The session whose freeze it was.
        session: SessionId,
        /// Who ended it.
        by: EndedBy,
        /// The run that asked for it, if one did.
        run: Option<RunId>,
        /// The number that every file bears still, if nobody wrote.
        beat: u64,
    },
    /// The databases were written.
    Wrote {
        /// The number that every file bears now.
        beat: u64,
    },
    /// A session was completed.
    Completed {
        /// Which.
        session: SessionId,
        /// By this run.
        run: RunId,
        /// Under this token.
        fence: FencingToken,
        /// Whether each copy counted as backed up.
        good: BTreeMap<CopyId, bool>,
    },
    /// A session ended without being completed.
    Ended {
        /// Which.
        session: SessionId,
        /// Because it was aborted, or because its lease ran out.
        by: EndedBy,
    },
    /// Log files were removed.
    Truncated {
        /// Of this copy.
        copy: CopyId,
        /// How many.
        files: u64,
    },
    /// A defect of the agent or its disk.
    Trouble {
        /// What.
        message: String,
    },
}

/// Who ended a freeze or a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndedBy {
    /// A call of `thaw`.
    Thaw,
    /// A call of `abort`.
    Abort,
    /// The agent, as the limit of the freeze had passed.
    Limit,
    /// The agent, as the lease of the session had run out.
    Lease,
}

/// Now, on the clock of [`Line::at`].
pub fn now() -> u64 {
    u64::try_from(OsClock.boot().0.as_micros()).unwrap_or(u64::MAX)
}

/// A log, open for appending.
#[derive(Debug)]
pub struct Ledger<W = What> {
    file: Mutex<File>,
    lines: PhantomData<fn(W)>,
}

impl<W: Serialize> Ledger<W> {
    /// Opens the log, or makes it.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self { file: Mutex::new(file), lines: PhantomData })
    }

    /// Appends a line, with one write. Lines of one process stand in the order of their instants.
    ///
    /// A line that cannot be written is a line that the checks miss, so they fail; there is nobody else to tell.
    pub fn note(&self, what: W) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken under the lock: the order of lines is that of time.
        let line = Line { at: now(), what };
        if let Ok(mut bytes) = serde_json::to_vec(&line) {
            bytes.push(b'\n');
            let _written = file.write(&bytes);
        }
    }
}

/// Reads a log. A last line that was cut short by the end of its writer is left out.
///
/// # Errors
/// What the file system says, and for a line that is none.
pub fn read<W: DeserializeOwned>(path: &Path) -> io::Result<Vec<Line<W>>> {
    let text = std::fs::read_to_string(path)?;
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole
        .lines()
        .map(|line| {
            serde_json::from_str(line).map_err(|error| io::Error::other(format!("{line}: {error}")))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_is_noted_is_read_in_order_and_a_cut_line_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.log");
        let ledger = Ledger::open(&path).unwrap();
        for beat in 1..=3 {
            ledger.note(What::Wrote { beat });
        }
        ledger.file.lock().unwrap().write_all(b"{\"at\":1,").unwrap();
        let lines = read::<What>(&path).unwrap();
        assert_eq!(lines.len(), 3);
        assert!(lines.is_sorted_by_key(|line| line.at));
        assert_eq!(lines[2].what, What::Wrote { beat: 3 });
    }
}
