//! An instant on both clocks of the seam.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use stillpoint_context::{Clock, Cx, Mono};

/// An instant on both clocks: limits and order go by `mono`, what is reported by `at`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Moment {
    /// The monotonic time.
    pub mono: Mono,
    /// The civil time.
    pub at: DateTime<Utc>,
}

impl Moment {
    /// Now, by the clock of this call.
    pub fn of(cx: &Cx) -> Self {
        Self { mono: cx.mono(), at: cx.now() }
    }

    pub(crate) fn read(clock: &dyn Clock) -> Self {
        Self { mono: clock.mono(), at: clock.now() }
    }

    /// This much later.
    pub fn plus(self, time: Duration) -> Self {
        let civil = TimeDelta::from_std(time).ok().and_then(|by| self.at.checked_add_signed(by));
        Self { mono: self.mono + time, at: civil.unwrap_or(DateTime::<Utc>::MAX_UTC) }
    }

    /// The time since `earlier`; zero if that is later.
    pub fn since(self, earlier: Self) -> Duration {
        self.mono.saturating_since(earlier.mono)
    }
}
