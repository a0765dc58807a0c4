//! The journal: what happened, durably and in order.
//!
//! ```text
//!   run streams        r1: Submitted Started Intended Succeeded … Ended
//!                      r2: Submitted Started …
//!   arbiter's stream       Queued(r1) Granted(r1) Queued(r2) Released(r1) Granted(r2) …
//!   facts              by topic, each with the position of its commit
//! ```

mod memory;

use std::borrow::Cow;
use std::fmt::{self, Debug};
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use stillpoint_context::{
    Effect, ErrorClass, ErrorCode, ErrorFacts, Mono, ProcessId, RunId, Subject, text_id,
};

pub use memory::MemoryJournal;

use crate::machine::Record;

/// A stream of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamId {
    /// The arbiter's: all grants of the state store.
    Arbiter,
    /// A run's.
    Run(RunId),
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arbiter => f.write_str("arbiter"),
            Self::Run(run) => write!(f, "run/{run}"),
        }
    }
}

/// The place of a record in its stream; the first is 0, and none is left out.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
#[serde(transparent)]
pub struct Seq(pub u64);

/// The place of a commit among all commits of the journal; 0 is before the first.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
#[serde(transparent)]
pub struct Position(pub u64);

/// The two clocks at the time of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Now {
    /// The monotonic time: what deadlines count in.
    pub mono: Mono,
    /// The civil time: what people read.
    pub civil: DateTime<Utc>,
}

text_id!(
    /// The topic of a fact, such as `restore-point`: 1 to 80 characters of `a-z 0-9 . -`.
    Topic,
    "topic",
    |text| {
        if text.is_empty() || text.len() > 80 {
            Err("it is empty or longer than 80 characters")
        } else if !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-".contains(&b)) {
            Err("it has a character other than a-z 0-9 . -")
        } else {
            Ok(())
        }
    }
);

/// A fact on its way into the journal: the engine keeps it and never reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FactDraft {
    /// What it is about.
    pub topic: Topic,
    /// The key within the topic; a later fact of the same key replaces an earlier one in the reader's eyes.
    pub key: String,
    /// The content, opaque.
    pub body: Arc<[u8]>,
}

impl FactDraft {
    /// A fact.
    pub fn new(topic: Topic, key: impl Into<String>, body: impl Into<Arc<[u8]>>) -> Self {
        Self { topic, key: key.into(), body: body.into() }
    }
}

/// A fact in the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// The commit that brought it.
    pub position: Position,
    /// The run that stated it.
    pub run: RunId,
    /// What was stated.
    pub fact: FactDraft,
}

/// Records for one stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Append {
    /// The stream.
    pub stream: StreamId,
    /// The place of the first of them: the number of records that the stream has.
    pub expected: Seq,
    /// When.
    pub at: Now,
    /// The records, in order.
    pub records: Vec<Record>,
}

/// One commit: all of it or nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// The process that writes.
    pub owner: ProcessId,
    /// Its epoch: the journal refuses one that has been fenced off.
    pub epoch: u64,
    /// What is appended.
    pub appends: Vec<Append>,
    /// What is stated along with it, and by which run.
    pub facts: Vec<(RunId, FactDraft)>,
}

/// A record in the journal.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// Its stream.
    pub stream: StreamId,
    /// Its place there.
    pub seq: Seq,
    /// The commit that brought it.
    pub position: Position,
    /// When.
    pub at: Now,
    /// The record.
    pub record: Record,
}

/// Why the journal did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The owner's epoch has been fenced off: another process has taken over.
    #[error("another process has taken over: epoch {epoch} of {owner} is fenced off")]
    Fenced {
        /// The owner that asked.
        owner: ProcessId,
        /// Its epoch.
        epoch: u64,
    },
    /// The stream does not end where the writer thought.
    #[error("stream {stream} has {} records, the writer expected another number", head.0)]
    Conflict {
        /// The stream.
        stream: StreamId,
        /// How many records it has.
        head: Seq,
    },
    /// There is no room.
    #[error("the journal is full")]
    Full,
    /// Input or output failed; it may have been written all the same.
    #[error("the journal cannot be reached: {0}")]
    Io(String),
    /// What is stored cannot be understood.
    #[error("the journal is damaged: {0}")]
    Corrupt(String),
}

impl ErrorFacts for JournalError {
    fn code(&self) -> ErrorCode {
        ErrorCode::new(match self {
            Self::Fenced { .. } => "journal.fenced",
            Self::Conflict { .. } => "journal.conflict",
            Self::Full => "journal.full",
            Self::Io(_) => "journal.io",
            Self::Corrupt(_) => "journal.corrupt",
        })
    }
    fn class(&self) -> ErrorClass {
        match self {
            Self::Fenced { .. } | Self::Conflict { .. } => ErrorClass::Conflict,
            Self::Full | Self::Io(_) => ErrorClass::Unavailable,
            Self::Corrupt(_) => ErrorClass::Integrity,
        }
    }
    fn effect(&self) -> Effect {
        match self {
            Self::Io(_) => Effect::Unknown,
            Self::Fenced { .. } | Self::Conflict { .. } | Self::Full | Self::Corrupt(_) => {
                Effect::None
            }
        }
    }
    fn subjects(&self) -> Vec<Subject> {
        match self {
            Self::Fenced { owner, .. } => vec![Subject::new("process", owner)],
            Self::Conflict { stream, .. } => vec![Subject::new("stream", stream)],
            Self::Full | Self::Io(_) | Self::Corrupt(_) => Vec::new(),
        }
    }
    fn remedy(&self) -> Cow<'static, str> {
        match self {
            Self::Fenced { .. } => "Stop this process; its runs are carried on by another.",
            Self::Conflict { .. } => "Read the stream again and decide anew.",
            Self::Full => "Make room on the volume of the state file.",
            Self::Io(_) => "Look at the volume of the state file.",
            Self::Corrupt(_) => "Restore the state file from a copy, or rebuild it from storage.",
        }
        .into()
    }
}

/// Keeps records and facts.
///
/// # Atomicity and ordering
/// [`commit`](Self::commit) is all or nothing over all its streams and facts, and durable when it returns. Commits are
/// totally ordered by their [`Position`]; a reader never sees a later one without an earlier one.
///
/// # Idempotence
/// A commit whose appends are already there with equal content answers with their position, so that a writer who does
/// not know whether its commit arrived may repeat it.
///
/// # After an error
/// [`JournalError::Io`] leaves it open whether the commit was written; every other error means that it was not.
///
/// # Cancel safety
/// A dropped `commit` may or may not be written, as after [`JournalError::Io`].
///
/// # Example
/// [`MemoryJournal`] is the minimal implementation.
#[async_trait]
pub trait Journal: Debug + Send + Sync + 'static {
    /// Whether records outlive the process. A durable journal takes no plans of closures.
    fn is_durable(&self) -> bool {
        true
    }

    /// Appends records and states facts.
    async fn commit(&self, batch: Batch) -> Result<Position, JournalError>;

    /// At most `max` records of a stream, from a place on. Fewer, or none, at its end.
    async fn read(
        &self,
        stream: &StreamId,
        from: Seq,
        max: usize,
    ) -> Result<Vec<Stored>, JournalError>;

    /// At most `max` streams of runs that have not ended, in the order of their ids, after one.
    async fn open(
        &self,
        after: Option<StreamId>,
        max: usize,
    ) -> Result<Vec<StreamId>, JournalError>;

    /// At most `max` facts of a topic from later commits than one, in order. The facts of one commit are never split:
    /// more than `max` come if a single commit holds more.
    async fn facts(
        &self,
        topic: &Topic,
        after: Position,
        max: usize,
    ) -> Result<Vec<Fact>, JournalError>;
}
