//! Forks: where the log chain of a database was left for another one.
//!
//! ```text
//!   full ── logs ── logs ── logs          branch 0
//!            └ restored here, in place
//!               └─ full ── logs ── …      branch 1
//! ```
//!
//! After a restore in place Exchange goes on from the restored state. Its next logs may bear the same signature and the same
//! numbers as those that were written before, and hold something else. So each point says on which branch it was taken, and logs
//! are put together only within one.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use stillpoint_context::RunId;

use crate::id::{DatabaseId, PointId};
use crate::inventory::{Generation, LogSignature};
use crate::manifest::ManifestError;

/// The format of a fork beside the data that this version writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// The name of a fork among the documents beside the data.
pub fn document_name(fork: RunId) -> String {
    format!("fork-{fork}.json")
}

/// Whether a document beside the data is a fork.
pub fn is_document(name: &str) -> bool {
    name.strip_prefix("fork-").is_some_and(|name| name.strip_suffix(".json").is_some())
}

/// A stream of logs on one branch: what is stored of it can be put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogChain {
    /// The stream.
    pub signature: LogSignature,
    /// How often the database had been restored in place before.
    #[serde(default, skip_serializing_if = "is_first")]
    pub branch: u32,
}

/// Whether a branch is the one that a database begins with.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
pub(crate) const fn is_first(branch: &u32) -> bool {
    *branch == 0
}

/// That a database was brought back in place: what it writes from then on is another chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ChainFork {
    /// The run that brought it back.
    pub run: RunId,
    /// Which database.
    pub database: DatabaseId,
    /// When.
    pub at: DateTime<Utc>,
    /// To which point.
    pub point: PointId,
    /// Up to which log generation it was replayed, if it was.
    pub replayed_to: Option<Generation>,
}

impl ChainFork {
    /// A database was brought back to a point.
    pub fn new(run: RunId, database: DatabaseId, at: DateTime<Utc>, point: PointId) -> Self {
        Self { run, database, at, point, replayed_to: None }
    }

    /// Its text beside the data: JSON, indented, ending in a line feed.
    ///
    /// # Errors
    /// Never in practice.
    pub fn to_json(&self) -> Result<String, ManifestError> {
        crate::manifest::write(&Stored { format: FORMAT, fork: self.clone() })
    }

    /// Reads what [`ChainFork::to_json`] wrote, in this version or an earlier one.
    ///
    /// # Errors
    /// [`ManifestError`]: it is damaged, or a later version wrote it.
    pub fn from_json(text: &str) -> Result<Self, ManifestError> {
        crate::manifest::read::<Stored>(text, FORMAT).map(|stored| stored.fork)
    }
}

#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    fork: ChainFork,
}

/// The branch that a database is on after these forks of it. They are counted and not dated: whoever takes a point and whoever
/// noted a fork may have clocks that differ, and no restore in place runs beside a backup.
pub fn branch_after(forks: &[ChainFork]) -> u32 {
    u32::try_from(forks.len()).unwrap_or(u32::MAX)
}
