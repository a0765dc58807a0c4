//! How often, and after how long, something is tried again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Attempts with exponential backoff and full jitter: before attempt `n + 1` a time drawn evenly from zero to
/// `base · 2^(n-1)`, at most `cap`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// Attempts in all; at least one.
    pub attempts: u32,
    /// The longest first wait.
    pub base: Duration,
    /// The longest wait at all.
    pub cap: Duration,
}

impl Retry {
    /// One attempt, no more.
    pub const NEVER: Self = Self { attempts: 1, base: Duration::ZERO, cap: Duration::ZERO };

    /// So many attempts, waiting up to half a second at first and up to half a minute later.
    pub const fn times(attempts: u32) -> Self {
        Self {
            attempts: if attempts == 0 { 1 } else { attempts },
            base: Duration::from_millis(500),
            cap: Duration::from_secs(30),
        }
    }

    /// The same with these longest first and longest waits.
    pub const fn backoff(mut self, base: Duration, cap: Duration) -> Self {
        self.base = base;
        self.cap = cap;
        self
    }

    /// The wait after `failed` attempts, drawn by `seed`; the same seed draws the same wait.
    pub(crate) fn wait(&self, failed: u32, seed: u64) -> Duration {
        let doublings = failed.saturating_sub(1).min(31);
        let most = self.base.saturating_mul(1 << doublings).min(self.cap);
        let nanos = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
        let drawn = (u128::from(mix(seed ^ u64::from(failed))) * u128::from(nanos)) >> 64;
        Duration::from_nanos(u64::try_from(drawn).unwrap_or(u64::MAX))
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self::NEVER
    }
}

/// SplitMix64's finaliser: spreads a counter-like seed over all 64 bits.
pub(crate) const fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_the_cap_and_depend_on_the_seed_alone() {
        let retry = Retry::times(9).backoff(Duration::from_secs(1), Duration::from_secs(8));
        for failed in 1..9 {
            let most = Duration::from_secs(1 << (failed - 1).min(3));
            let drawn: Vec<_> = (0..200).map(|seed| retry.wait(failed, seed)).collect();
            assert!(drawn.iter().all(|wait| *wait <= most));
            assert!(drawn.iter().any(|wait| *wait > most / 2), "full jitter uses the whole range");
            assert!(drawn.iter().any(|wait| *wait < most / 2));
            assert_eq!(retry.wait(failed, 7), retry.wait(failed, 7));
        }
    }
}
