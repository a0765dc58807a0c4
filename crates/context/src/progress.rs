//! Telling how far a call has come.

use std::borrow::Cow;
use std::fmt::Debug;

use serde::{Deserialize, Serialize};

/// What the numbers of a [`Progress`] count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ProgressUnit {
    /// Bytes.
    Bytes,
    /// Things, such as files or volumes.
    Items,
}

/// How far a call has come. Lossy by nature: only the latest matters, and none needs to arrive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What is being worked on, such as the name of a file.
    pub what: Cow<'static, str>,
    /// How much is done.
    pub done: u64,
    /// How much there is, where that is known.
    pub total: Option<u64>,
    /// What the numbers count.
    pub unit: ProgressUnit,
}

impl Progress {
    /// So many bytes of so many.
    pub fn bytes(what: impl Into<Cow<'static, str>>, done: u64, total: Option<u64>) -> Self {
        Self { what: what.into(), done, total, unit: ProgressUnit::Bytes }
    }

    /// So many things of so many.
    pub fn items(what: impl Into<Cow<'static, str>>, done: u64, total: Option<u64>) -> Self {
        Self { what: what.into(), done, total, unit: ProgressUnit::Items }
    }
}

/// Where progress goes. Must neither block nor fail.
pub trait ProgressSink: Debug + Send + Sync + 'static {
    /// Takes note of it.
    fn report(&self, progress: Progress);
}
