//! How far a point has come, and how it goes.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{PointMember, RestorePoint};
use crate::handover::MemberRole;
use crate::id::SnapshotRef;
use crate::inventory::FileRole;

/// How far a point has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PointState {
    /// Published; Exchange has not been told yet, or has not answered.
    Provisional,
    /// The session is over.
    Available,
    /// It is to be deleted, and some of it may be gone: never restored from, and counted by no rule.
    Expiring,
    /// Its database has been deleted. Its logs stay, as other points need them.
    LogsOnly,
}

impl PointState {
    /// Whether nothing of it was deleted, nor is to be.
    pub const fn is_whole(self) -> bool {
        matches!(self, Self::Provisional | Self::Available)
    }

    /// The word that stored forms use.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Provisional => "provisional",
            Self::Available => "available",
            Self::Expiring => "expiring",
            Self::LogsOnly => "logs_only",
        }
    }
}

impl fmt::Display for PointState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::LogsOnly => "logs only",
            other => other.word(),
        })
    }
}

/// How the deletion of a point stands that was begun.
///
/// A point is deleted in turns. Each begins with the intent and ends when the point is gone, is reduced to its logs, or is
/// spared. What is told of a turn that is over, or of an earlier one, changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Expiry {
    /// Which turn it is, from 1.
    pub turn: u32,
    /// When it began.
    pub since: DateTime<Utc>,
    /// What the point was before.
    pub from: PointState,
    /// Its logs stay.
    pub keeps_logs: bool,
    /// The turn is over.
    pub is_over: bool,
}

impl RestorePoint {
    /// The turn that a deletion of it belongs to that begins or goes on now.
    pub fn turn(&self) -> u32 {
        match &self.expiry {
            None => 1,
            Some(expiry) if expiry.is_over => expiry.turn.saturating_add(1),
            Some(expiry) => expiry.turn,
        }
    }

    /// Whether it has a log segment of its own: its logs, unless they are to be deleted.
    pub fn has_segment(&self) -> bool {
        let goes = self.state == PointState::Expiring
            && self.expiry.as_ref().is_some_and(|expiry| !expiry.keeps_logs);
        !goes && self.logs.as_ref().is_some_and(|logs| logs.range.is_some())
    }

    /// The snapshots that go with it: all of them, or those of its database alone if its logs stay.
    pub fn goes_with(&self, keeps_logs: bool) -> impl Iterator<Item = &SnapshotRef> {
        let goes = move |member: &&PointMember| !keeps_logs || member.role == MemberRole::Data;
        self.members.iter().filter(goes).map(|member| &member.snapshot)
    }

    /// Whether a snapshot has to stay for its sake. One that is expiring needs nothing but the logs that it keeps, unless it
    /// is held: then it is about to be spared.
    pub fn needs(&self, snapshot: &SnapshotRef, is_held: bool) -> bool {
        let going = self.expiry.as_ref().filter(|_| self.state == PointState::Expiring && !is_held);
        let mine = |member: &PointMember| member.snapshot == *snapshot;
        match going {
            None => self.members.iter().any(mine),
            Some(expiry) => {
                self.members.iter().any(mine)
                    && !self.goes_with(expiry.keeps_logs).any(|going| going == snapshot)
            }
        }
    }

    pub(super) fn expire(&mut self, turn: u32, at: DateTime<Utc>, keeps_logs: bool) {
        match &mut self.expiry {
            Some(known) if known.turn > turn || (known.turn == turn && known.is_over) => {}
            // What has gone once does not come back.
            Some(known) if known.turn == turn => known.keeps_logs &= keeps_logs,
            known => {
                // A turn that nobody ended goes on as the next one.
                let from = known.as_ref().filter(|known| !known.is_over).map(|known| known.from);
                let from = from.unwrap_or(self.state);
                self.expiry = Some(Expiry { turn, since: at, from, keeps_logs, is_over: false });
                self.state = PointState::Expiring;
            }
        }
    }

    /// The end of a turn, if it is under way: what the point was before.
    fn end_turn(&mut self, turn: u32) -> Option<PointState> {
        let expiry = self.expiry.as_mut().filter(|known| known.turn == turn && !known.is_over)?;
        expiry.is_over = true;
        Some(expiry.from)
    }

    pub(super) fn spare(&mut self, turn: u32) {
        if let Some(before) = self.end_turn(turn) {
            self.state = before;
        }
    }

    pub(super) fn reduce(&mut self, turn: u32, manifest_digest: Option<&String>) {
        if self.end_turn(turn).is_none() {
            return;
        }
        self.state = PointState::LogsOnly;
        self.manifest_digest = manifest_digest.cloned();
        self.members.retain(|member| member.role != MemberRole::Data);
        for member in &mut self.members {
            // The database in it is nobody's any more.
            member.role = MemberRole::Log;
        }
        self.files.retain(|file| file.role == FileRole::Log);
    }
}
