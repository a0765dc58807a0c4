//! Instants and deadlines of a monotonic clock.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// An instant of a monotonic clock, as the time since that clock's own origin.
///
/// Two of them compare only if they come from the same clock. It never goes backwards and is not civil time: deadlines
/// and time-outs use it, so that setting the wall clock moves none of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct Mono(pub Duration);

impl Mono {
    /// The origin of the clock.
    pub const ZERO: Self = Self(Duration::ZERO);

    /// The time from `earlier` to this; zero if `earlier` is later.
    pub fn saturating_since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Mono {
    type Output = Self;

    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(by))
    }
}

impl Sub<Duration> for Mono {
    type Output = Self;

    fn sub(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(by))
    }
}

impl fmt::Debug for Mono {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mono({:?})", self.0)
    }
}

/// Until when a call may take, on the monotonic clock; possibly without end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Deadline(Option<Mono>);

impl Deadline {
    /// No deadline.
    pub const fn never() -> Self {
        Self(None)
    }

    /// A deadline at this instant.
    pub const fn at(instant: Mono) -> Self {
        Self(Some(instant))
    }

    /// The instant, if there is one.
    pub const fn instant(self) -> Option<Mono> {
        self.0
    }

    /// The earlier of the two.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        match (self.0, other.0) {
            (Some(a), Some(b)) => Self(Some(a.min(b))),
            (a, b) => Self(a.or(b)),
        }
    }

    /// The time left at `now`: `None` without a deadline, zero once it has passed.
    pub fn remaining(self, now: Mono) -> Option<Duration> {
        self.0.map(|at| at.saturating_since(now))
    }

    /// Whether it has passed at `now`.
    pub fn is_past(self, now: Mono) -> bool {
        self.0.is_some_and(|at| at <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earlier_deadline_wins_and_never_is_latest() {
        let one = Deadline::at(Mono(Duration::from_secs(1)));
        let two = Deadline::at(Mono(Duration::from_secs(2)));
        assert_eq!(one.min(two), one);
        assert_eq!(Deadline::never().min(two), two);
        assert_eq!(Deadline::never().remaining(Mono::ZERO), None);
        assert!(one.is_past(Mono(Duration::from_secs(1))));
        assert_eq!(one.remaining(Mono(Duration::from_secs(5))), Some(Duration::ZERO));
    }
}
