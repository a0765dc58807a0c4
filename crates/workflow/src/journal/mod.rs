//! The journal: what happened, durably and in order.
//!
//! ```text
//!   run streams        r1: Submitted Started Intended Succeeded … Ended
//!                      r2: Submitted Started …
//!   key streams        k1: Taken by r1                 one record each: which run a submission's key belongs to
//!   arbiter's stream       Queued(r1) Granted(r1) Queued(r2) Released(r1) Granted(r2) …
//!   facts              by topic, each with the position of its commit
//! ```

mod codec;
#[cfg(test)]
mod golden;
mod memory;

use std::borrow::Cow;
use std::fmt::{self, Debug};
use std::str::FromStr;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use stillpoint_context::{
    Effect, ErrorClass, ErrorCode, ErrorFacts, IdError, IdempotencyKey, Mono, ProcessId, RunId,
    Subject, text_id,
};
use uuid::Uuid;

pub use codec::{RECORD_FORMAT, decode_records, encode_records};
pub use memory::MemoryJournal;

use crate::machine::{Record, RunState};

/// A stream of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamId {
    /// The arbiter's: all grants of the state store.
    Arbiter,
    /// A run's.
    Run(RunId),
    /// A submission key's: its one record says which run the key belongs to.
    Key(Uuid),
}

impl StreamId {
    /// The stream of a key.
    pub fn of_key(key: &IdempotencyKey) -> Self {
        // The namespace is a constant of ours: UUIDv5 of "stillpoint:key" in the nil namespace.
        let namespace = Uuid::new_v5(&Uuid::nil(), b"stillpoint:key");
        Self::Key(Uuid::new_v5(&namespace, key.as_str().as_bytes()))
    }
}

/// Reads what [`Display`](fmt::Display) writes.
impl FromStr for StreamId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let unknown = || IdError::new("stream", text, "it is not arbiter, run/UUID or key/UUID");
        match text.split_once('/') {
            None if text == "arbiter" => Ok(Self::Arbiter),
            Some(("run", id)) => Ok(Self::Run(id.parse()?)),
            Some(("key", id)) => id.parse().map(Self::Key).map_err(|_| unknown()),
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arbiter => f.write_str("arbiter"),
            Self::Run(run) => write!(f, "run/{run}"),
            Self::Key(key) => write!(f, "key/{key}"),
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
    /// What is appended; each stream at most once.
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

/// The stream of a run that has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenStream {
    /// The stream.
    pub stream: StreamId,
    /// The process whose commit it ends with.
    pub owner: ProcessId,
    /// The number of its records.
    pub head: Seq,
}

/// What nobody needs any more.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Forget {
    /// Streams of runs that have ended, and of keys. That of a run goes with the facts that the run has stated.
    pub streams: Vec<StreamId>,
    /// Of the arbiter's stream, the records before this one.
    pub arbiter: Seq,
}

impl Forget {
    /// These streams.
    pub const fn streams(streams: Vec<StreamId>) -> Self {
        Self { streams, arbiter: Seq(0) }
    }

    /// The arbiter's records before this one.
    pub const fn arbiter(before: Seq) -> Self {
        Self { streams: Vec::new(), arbiter: before }
    }
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
    /// Somebody else keeps it locked.
    #[error("the journal is locked: {0}")]
    Busy(String),
    /// A newer version of the program wrote it.
    #[error("the journal holds records of format {found}; this version reads up to {known}")]
    Format {
        /// The format that was found.
        found: u32,
        /// The newest that can be read.
        known: u32,
    },
    /// A run was submitted with a plan that a newer version of the program made.
    #[error("the journal holds a plan of format {found}; this version reads up to {known}")]
    PlanFormat {
        /// The format that was found.
        found: u32,
        /// The newest that can be read.
        known: u32,
    },
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
            Self::Busy(_) => "journal.busy",
            Self::Format { .. } => "journal.format",
            Self::PlanFormat { .. } => "journal.plan_format",
            Self::Io(_) => "journal.io",
            Self::Corrupt(_) => "journal.corrupt",
        })
    }
    fn class(&self) -> ErrorClass {
        match self {
            Self::Fenced { .. } | Self::Conflict { .. } => ErrorClass::Conflict,
            Self::Busy(_) => ErrorClass::Busy,
            Self::Full | Self::Io(_) => ErrorClass::Unavailable,
            Self::Format { .. } | Self::PlanFormat { .. } => ErrorClass::Invalid,
            Self::Corrupt(_) => ErrorClass::Integrity,
        }
    }
    fn effect(&self) -> Effect {
        match self {
            Self::Io(_) => Effect::Unknown,
            Self::Fenced { .. }
            | Self::Conflict { .. }
            | Self::Full
            | Self::Busy(_)
            | Self::Format { .. }
            | Self::PlanFormat { .. }
            | Self::Corrupt(_) => Effect::None,
        }
    }
    fn subjects(&self) -> Vec<Subject> {
        match self {
            Self::Fenced { owner, .. } => vec![Subject::new("process", owner)],
            Self::Conflict { stream, .. } => vec![Subject::new("stream", stream)],
            _ => Vec::new(),
        }
    }
    fn remedy(&self) -> Cow<'static, str> {
        match self {
            Self::Fenced { .. } => "Stop this process; its runs are carried on by another.",
            Self::Conflict { .. } => "Read the stream again and decide anew.",
            Self::Full => "Make room on the volume of the state file.",
            Self::Busy(_) => "End what keeps the state file locked.",
            Self::Format { .. } | Self::PlanFormat { .. } => {
                "Use a version of the program that reads this format."
            }
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
/// totally ordered by their [`Position`], which rises; a reader never sees a later one without an earlier one.
///
/// # Owners
/// A journal that keeps [`Leases`](crate::Leases) refuses a commit whose owner does not hold a lease of its epoch with
/// [`JournalError::Fenced`], and looks at that before anything else: a process that was taken over learns that first. Epoch
/// 0 is that of an engine without leases; a journal that several processes may share refuses it.
///
/// # Idempotence
/// A commit whose appends are already there with equal content, from the same owner in the same epoch, answers with their
/// position, so that a writer who does not know whether its commit arrived may repeat it. What another owner wrote, or the
/// same process under another lease, is never a repeat, however equal it is: it is a [`JournalError::Conflict`], and whoever
/// meets it has to read.
///
/// # After an error
/// [`JournalError::Io`] leaves it open whether the commit was written; every other error means that it was not.
///
/// # Cancel safety
/// A dropped `commit` may or may not be written, as after [`JournalError::Io`].
///
/// # Forgetting
/// What is [forgotten](Self::forget) is as if it had never been: the stream of a run or of a key has no records, and may be begun
/// anew; of the arbiter's stream reading gives what is left, and its records keep their places. Positions rise all the same.
///
/// # Stored form
/// A journal that stores bytes keeps records as [`encode_records`] writes them, and gives what [`decode_records`] reads.
///
/// # Example
/// [`MemoryJournal`] is the minimal implementation.
#[async_trait]
pub trait Journal: Debug + Send + Sync + 'static {
    /// Whether records outlive the process. A durable journal takes no plans of closures.
    fn is_durable(&self) -> bool {
        true
    }

    /// Whether other processes may write to it. What they write is then looked for from time to time.
    fn is_shared(&self) -> bool {
        self.is_durable()
    }

    /// Appends records and states facts.
    async fn commit(&self, batch: Batch) -> Result<Position, JournalError>;

    /// At most `max` records of a stream, from a place on. Fewer, or none, at its end.
    ///
    /// # Errors
    /// [`JournalError::Format`] when one of them is of a newer format, [`JournalError::PlanFormat`] when a plan in it is,
    /// [`JournalError::Corrupt`] when it is none.
    async fn read(
        &self,
        stream: &StreamId,
        from: Seq,
        max: usize,
    ) -> Result<Vec<Stored>, JournalError>;

    /// The number of records of a stream; 0 if there is none.
    async fn head(&self, stream: &StreamId) -> Result<Seq, JournalError>;

    /// At most `max` streams of runs that have not ended, in the order of their ids, after one.
    async fn open(
        &self,
        after: Option<StreamId>,
        max: usize,
    ) -> Result<Vec<OpenStream>, JournalError>;

    /// At most `max` facts of a topic from later commits than one, in order. The facts of one commit are never split:
    /// more than `max` come if a single commit holds more.
    async fn facts(
        &self,
        topic: &Topic,
        after: Position,
        max: usize,
    ) -> Result<Vec<Fact>, JournalError>;

    /// Forgets what nobody needs any more, and says how many streams went. Streams of runs that have not ended stay, whoever asks;
    /// so may some others, for the next time: such as the one that holds the last commit. One that keeps everything, as by
    /// default, forgets nothing.
    ///
    /// # Idempotence
    /// May be repeated.
    async fn forget(&self, what: &Forget) -> Result<u64, JournalError> {
        let _kept = what;
        Ok(0)
    }
}

#[async_trait]
impl<J: Journal + ?Sized> Journal for Arc<J> {
    fn is_durable(&self) -> bool {
        (**self).is_durable()
    }

    fn is_shared(&self) -> bool {
        (**self).is_shared()
    }

    async fn commit(&self, batch: Batch) -> Result<Position, JournalError> {
        (**self).commit(batch).await
    }

    async fn read(
        &self,
        stream: &StreamId,
        from: Seq,
        max: usize,
    ) -> Result<Vec<Stored>, JournalError> {
        (**self).read(stream, from, max).await
    }

    async fn head(&self, stream: &StreamId) -> Result<Seq, JournalError> {
        (**self).head(stream).await
    }

    async fn open(
        &self,
        after: Option<StreamId>,
        max: usize,
    ) -> Result<Vec<OpenStream>, JournalError> {
        (**self).open(after, max).await
    }

    async fn facts(
        &self,
        topic: &Topic,
        after: Position,
        max: usize,
    ) -> Result<Vec<Fact>, JournalError> {
        (**self).facts(topic, after, max).await
    }

    async fn forget(&self, what: &Forget) -> Result<u64, JournalError> {
        (**self).forget(what).await
    }
}

/// How many records are read at once.
const PAGE: usize = 1024;

/// A whole stream, without a hole.
pub(crate) async fn read_stream(
    journal: &dyn Journal,
    stream: StreamId,
) -> Result<Vec<Stored>, JournalError> {
    let mut stored: Vec<Stored> = Vec::new();
    loop {
        let from = stored.len() as u64;
        let page = journal.read(&stream, Seq(from), PAGE).await?;
        if page.is_empty() {
            return Ok(stored);
        }
        if page.iter().zip(from..).any(|(stored, seq)| stored.seq.0 != seq) {
            return Err(JournalError::Corrupt(format!("stream {stream} has a hole after {from}")));
        }
        stored.extend(page);
    }
}

/// The state of a run as the journal has it, and its records.
pub(crate) async fn read_run(
    journal: &dyn Journal,
    run: RunId,
) -> Result<Option<(RunState, Vec<Stored>)>, JournalError> {
    let stored = read_stream(journal, StreamId::Run(run)).await?;
    if stored.is_empty() {
        return Ok(None);
    }
    match RunState::replay(stored.iter().map(|stored| (stored.at.mono, &stored.record))) {
        Some(state) => Ok(Some((state, stored))),
        None => {
            Err(JournalError::Corrupt(format!("the stream of run {run} does not begin with one")))
        }
    }
}

/// The stream of a run as it stands, unless it has ended: who wrote last, and how many records it has.
pub(crate) async fn open_stream(
    journal: &dyn Journal,
    run: RunId,
) -> Result<Option<OpenStream>, JournalError> {
    let before = run.0.as_u128().checked_sub(1);
    let before = before.map(|before| StreamId::Run(RunId(Uuid::from_u128(before))));
    let next = journal.open(before, 1).await?;
    Ok(next.into_iter().find(|open| open.stream == StreamId::Run(run)))
}
