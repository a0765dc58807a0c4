//! What a world remembers of what was done to it, for the checks of a test.

use std::collections::BTreeMap;
use std::fmt;

use stillpoint_context::{HostId, RunId};
use stillpoint_exchange::Completion;
use stillpoint_model::id::{CopyId, SessionId};
use stillpoint_model::kind::BackupKind;
use stillpoint_model::verdict::Verdict;

use crate::moment::Moment;

/// What ended a freeze.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    /// `thaw`, or the plug-in's own thaw inside `snap`.
    Thaw,
    /// The limit: it thawed by itself.
    Limit,
    /// `abort`.
    Abort,
    /// The session's lease ran out.
    Lease,
    /// Something happened to the server or its writer.
    Broken,
    /// An operator.
    Operator,
}

/// A time in which databases of a host were frozen.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FreezeWindow {
    /// Where.
    pub host: HostId,
    /// For which session.
    pub session: SessionId,
    /// The run that froze.
    pub run: RunId,
    /// What was frozen.
    pub copies: Vec<CopyId>,
    /// Since when.
    pub from: Moment,
    /// When it ends by itself at the latest.
    pub limit: Option<Moment>,
    /// When somebody first asked for its end (`thaw` or `abort` of this session), whatever came of it; for a `snap` its
    /// beginning, as it sees to its own end.
    pub asked: Option<Moment>,
    /// When and how it ended.
    pub ended: Option<(Moment, Ended)>,
    /// When it began and ended in the order of [`CallRecord::entered`](crate::CallRecord::entered).
    pub order: (u64, Option<u64>),
}

impl FreezeWindow {
    /// Whether the freeze was on at this instant; at its very ends it was.
    pub fn covers(&self, at: Moment) -> bool {
        self.from.mono <= at.mono && self.ended.is_none_or(|(end, _)| at.mono <= end.mono)
    }

    /// How long it lasted; `None` while it lasts.
    pub fn length(&self) -> Option<std::time::Duration> {
        self.ended.map(|(end, _)| end.since(self.from))
    }
}

/// A completion that took effect: the first of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompleteRecord {
    /// Of which session.
    pub session: SessionId,
    /// By which run.
    pub run: RunId,
    /// The session's kind.
    pub kind: BackupKind,
    /// When.
    pub at: Moment,
    /// The verdict for each copy, as it was given.
    pub verdicts: BTreeMap<CopyId, Verdict>,
    /// The answer for each copy.
    pub answers: BTreeMap<CopyId, Completion>,
}

impl CompleteRecord {
    /// The copies that were completed as good.
    pub fn good(&self) -> Vec<&CopyId> {
        self.verdicts
            .iter()
            .filter(|(_, verdict)| verdict.is_good())
            .map(|(copy, _)| copy)
            .collect()
    }

    /// The copies that were completed as bad.
    pub fn bad(&self) -> Vec<&CopyId> {
        self.verdicts.iter().filter(|(_, verdict)| verdict.is_bad()).map(|(copy, _)| copy).collect()
    }
}

/// What a caller did that the contracts forbid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Breach {
    /// Froze a server that was frozen already (X6).
    OverlappingFreeze,
    /// Began a backup of a database that is in a backup already (X6).
    OverlappingBackup,
    /// Restored a database in a backup, or began a backup of one that is being restored.
    BackupDuringRestore,
    /// Aborted a session that was completed.
    AbortAfterComplete,
    /// Completed a session that was never frozen, or is frozen.
    CompleteOutOfOrder,
    /// Completed a copy as good, so that its logs go, though its freeze was broken.
    TruncatesThoughBroken,
    /// Acted under a token older than one that was seen.
    OldToken,
}

/// One breach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// When.
    pub at: Moment,
    /// What.
    pub breach: Breach,
    /// Host, database or session, for people.
    pub about: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of {} at {}", self.breach, self.about, self.at.at)
    }
}
