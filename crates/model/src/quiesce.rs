//! How far writes were held while a snapshot was taken, and what the result may be called.

use std::fmt;

use serde::{Deserialize, Serialize};
use stillpoint_context::HostPath;

/// How far a freeze reaches. Each level includes those below it, except that data at rest is not
/// written by anybody and needs no freeze.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QuiesceLevel {
    /// Nobody writes the data; the plug-in checks that nobody did.
    AtRest,
    /// The application holds its writes (VSS: the writer is frozen).
    App,
    /// And the file system has been flushed.
    AppFsFlushed,
    /// And I/O is held below the file system (VSS: flush and hold, at most 10 s).
    AppIoHeld,
}

impl QuiesceLevel {
    /// Whether a freeze at this level blocks writes of others to the same volume.
    pub const fn blocks_others(self) -> bool {
        matches!(self, Self::AppFsFlushed | Self::AppIoHeld)
    }
}

impl fmt::Display for QuiesceLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::AtRest => "at rest",
            Self::App => "application",
            Self::AppFsFlushed => "application, file system flushed",
            Self::AppIoHeld => "application, I/O held",
        })
    }
}

/// Why a freeze did not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Cause {
    /// The limit passed and the frozen side thawed by itself.
    LimitPassed,
    /// Thawed before all members were taken (by us or by an operator).
    ThawedEarly,
    /// The writer reported a failure; `state` is its word for it.
    WriterFailed {
        /// The writer's state, e.g. `FailedAtFreeze`.
        state: String,
    },
    /// The server or its replication service went away while it was frozen.
    HostLost,
    /// The active copy moved to another server while it was frozen.
    Failover,
    /// The database was dismounted.
    Dismounted,
    /// A file that should have been at rest changed.
    FileChanged {
        /// Which file.
        file: HostPath,
        /// What changed: size, time, header stamp.
        what: String,
    },
    /// A file that should have been at rest is gone.
    FileVanished {
        /// Which file.
        file: HostPath,
    },
    /// Something else, in the plug-in's words.
    Other {
        /// One sentence.
        message: String,
    },
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LimitPassed => f.write_str("the freeze reached its limit and ended by itself"),
            Self::ThawedEarly => f.write_str("the thaw came before every member was taken"),
            Self::WriterFailed { state } => write!(f, "the writer failed ({state})"),
            Self::HostLost => f.write_str("the server was lost"),
            Self::Failover => f.write_str("the active copy moved"),
            Self::Dismounted => f.write_str("the database was dismounted"),
            Self::FileChanged { file, what } => write!(f, "{file} changed ({what})"),
            Self::FileVanished { file } => write!(f, "{file} vanished"),
            Self::Other { message } => f.write_str(message),
        }
    }
}

/// Whether a freeze held while every member was taken. `Unknown` is an honest answer and is never
/// treated as yes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Held {
    /// It held.
    Yes,
    /// It did not.
    Broken(Cause),
    /// Nobody can say.
    Unknown,
}

impl Held {
    /// `true` only for [`Held::Yes`].
    pub const fn is_yes(&self) -> bool {
        matches!(self, Self::Yes)
    }

    /// The worse of two answers: broken, then unknown, then yes.
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (broken @ Self::Broken(_), _) | (_, broken @ Self::Broken(_)) => broken,
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            (Self::Yes, Self::Yes) => Self::Yes,
        }
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Yes => f.write_str("held"),
            Self::Broken(cause) => write!(f, "broken: {cause}"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

/// What a restore point may be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    /// As after a power cut.
    Crash,
    /// Nobody wrote while it was taken; the application took no part.
    AtRest,
    /// The application held its writes while every member was taken, and the evidence says so.
    Application,
}

impl Consistency {
    /// What a freeze at `level` is worth when the evidence says `held`. Only a yes counts.
    pub const fn of(level: QuiesceLevel, held: &Held) -> Self {
        match (held, level) {
            (Held::Yes, QuiesceLevel::AtRest) => Self::AtRest,
            (Held::Yes, _) => Self::Application,
            (Held::Broken(_) | Held::Unknown, _) => Self::Crash,
        }
    }
}

impl fmt::Display for Consistency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Crash => "crash",
            Self::AtRest => "at rest",
            Self::Application => "application",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_rise() {
        use QuiesceLevel::{App, AppFsFlushed, AppIoHeld, AtRest};
        assert!(AtRest < App && App < AppFsFlushed && AppFsFlushed < AppIoHeld);
    }

    #[test]
    fn only_a_yes_counts() {
        assert_eq!(Consistency::of(QuiesceLevel::App, &Held::Yes), Consistency::Application);
        assert_eq!(Consistency::of(QuiesceLevel::AtRest, &Held::Yes), Consistency::AtRest);
        for held in [Held::Unknown, Held::Broken(Cause::LimitPassed)] {
            assert_eq!(Consistency::of(QuiesceLevel::AppIoHeld, &held), Consistency::Crash);
        }
    }

    #[test]
    fn the_worse_answer_wins() {
        let broken = Held::Broken(Cause::Failover);
        assert_eq!(Held::Yes.and(Held::Unknown), Held::Unknown);
        assert_eq!(Held::Unknown.and(broken.clone()), broken);
        assert_eq!(broken.clone().and(Held::Yes), broken);
        assert_eq!(Held::Yes.and(Held::Yes), Held::Yes);
    }
}
