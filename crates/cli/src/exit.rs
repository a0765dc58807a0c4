//! Exit codes: what a script learns without reading a word.

use crate::model::job::JobState;

/// How the command ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything that was asked for is done.
    #[default]
    Done,
    /// It failed, or was cancelled, and left nothing behind.
    Failed,
    /// The command line makes no sense.
    Usage,
    /// It is done, and something is worth a look.
    Warnings,
    /// Somebody has to act: a run is parked, or left something behind.
    Attention,
}

impl Exit {
    /// The number that the process ends with.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Warnings => 3,
            Self::Attention => 4,
        }
    }

    /// What the state of a job is worth. One that is still open cannot go on without somebody.
    pub(crate) const fn of(state: JobState) -> Self {
        match state {
            JobState::Succeeded => Self::Done,
            JobState::SucceededWithWarnings => Self::Warnings,
            JobState::Failed | JobState::Cancelled => Self::Failed,
            _ => Self::Attention,
        }
    }

    /// The one that matters more: attention, then failure, then warnings.
    pub(crate) const fn worse(self, other: Self) -> Self {
        if self.weight() >= other.weight() { self } else { other }
    }

    const fn weight(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Warnings => 1,
            Self::Usage => 2,
            Self::Failed => 3,
            Self::Attention => 4,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_its_code() {
        assert_eq!(Exit::of(JobState::Succeeded).code(), 0);
        assert_eq!(Exit::of(JobState::Failed).code(), 1);
        assert_eq!(Exit::of(JobState::Cancelled).code(), 1);
        assert_eq!(Exit::of(JobState::SucceededWithWarnings).code(), 3);
        for state in [JobState::Parked, JobState::NeedsAttention, JobState::Running] {
            assert_eq!(Exit::of(state).code(), 4, "{state}");
        }
        assert_eq!(Exit::Warnings.worse(Exit::Failed), Exit::Failed);
        assert_eq!(Exit::Failed.worse(Exit::Attention), Exit::Attention);
        assert_eq!(Exit::Done.worse(Exit::Done), Exit::Done);
    }
}
