//! A recording as lines of JSON.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use stillpoint_context::{Attempt, FencingToken, RunId, StepName};
use stillpoint_exchange::PluginCaps;
use stillpoint_storage::ProviderCaps;

use super::error::{RecordedError, RecordingError};
use crate::call::Side;
use crate::moment::Moment;

/// What a recording begins with. It changes when the lines do.
pub const SCHEMA: &str = "stillpoint.recording/1";

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
    /// The first.
    Schema(String),
    /// A provider that was recorded.
    Provider { caps: ProviderCaps, restore: bool, lock: bool },
    /// A plug-in that was recorded.
    Plugin { caps: PluginCaps, restore: bool },
    /// A call.
    Call(Box<RecordedCall>),
}

impl Line {
    /// The side that it says something of, and its name.
    pub(super) fn side(&self) -> Option<(Side, &str)> {
        match self {
            Self::Schema(_) => None,
            Self::Provider { caps, .. } => Some((Side::Storage, caps.provider.as_str())),
            Self::Plugin { caps, .. } => Some((Side::Exchange, &caps.name)),
            Self::Call(call) => Some((call.side, &call.of)),
        }
    }
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Said {
    Answered(Value),
    Failed(RecordedError),
    Dropped,
    Panicked,
    Running,
}

/// A call, with the order of its beginning and its end among all of the recording.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct RecordedCall {
    pub(super) entered: u64,
    pub(super) left: Option<u64>,
    pub(super) side: Side,
    /// Which plug-in or provider.
    pub(super) of: String,
    /// For people.
    pub(super) about: String,
    pub(super) run: RunId,
    pub(super) step: StepName,
    pub(super) attempt: Attempt,
    pub(super) fence: FencingToken,
    pub(super) started: Moment,
    pub(super) ended: Option<Moment>,
    pub(super) asked: Value,
    pub(super) said: Said,
}

pub(super) fn write(lines: &[Line]) -> String {
    let mut text = String::new();
    for line in lines {
        // What a recording holds was made into JSON before.
        text.push_str(&serde_json::to_string(line).unwrap_or_default());
        text.push('\n');
    }
    text
}

pub(super) fn read(text: &str) -> Result<Vec<Line>, RecordingError> {
    let first = text.lines().next().unwrap_or_default();
    if serde_json::from_str::<Line>(first).ok() != Some(Line::Schema(SCHEMA.to_owned())) {
        return Err(RecordingError::Schema { found: first.chars().take(80).collect() });
    }
    let lines = text.lines().enumerate().skip(1).filter(|(_, line)| !line.trim().is_empty());
    let read = |(at, line)| {
        serde_json::from_str(line).map_err(|source| RecordingError::Line { number: at + 1, source })
    };
    lines.map(read).collect()
}
