//! Chance from a seed, and pauses in real time: what campaigns are made of.

use std::time::Duration;

use stillpoint_context::Ids as _;
use stillpoint_workflow::SystemIds;

/// Numbers from a seed: the same seed gives the same numbers (SplitMix64).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Dice of a seed.
    pub fn of(seed: u64) -> Self {
        Self(seed)
    }

    /// Dice for the n-th part of what a seed stands for, so that each part can be done again alone.
    pub fn part(seed: u64, part: u64) -> Self {
        let mut dice = Self(seed ^ part.wrapping_mul(0xd1b5_4a32_d192_ed03));
        Self(dice.roll())
    }

    /// A seed that nobody knows beforehand.
    pub fn new_seed() -> u64 {
        SystemIds.random() >> 16
    }

    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = self.0;
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound.max(1)
    }

    /// One time in so many.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// A duration below `bound`.
    pub fn within(&mut self, bound: Duration) -> Duration {
        let micros = u64::try_from(bound.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.below(micros))
    }
}

/// Waits in real time: for what is done to processes at an instant that no event marks.
#[allow(clippy::disallowed_methods, reason = "the campaigns are outside the engine and its time")]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// A number from the environment.
pub fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_and_its_parts_others() {
        let rolls = |mut dice: Dice| [dice.roll(), dice.below(10), dice.below(10)];
        assert_eq!(rolls(Dice::of(7)), rolls(Dice::of(7)));
        assert_eq!(rolls(Dice::part(7, 3)), rolls(Dice::part(7, 3)));
        assert_ne!(rolls(Dice::part(7, 3)), rolls(Dice::part(7, 4)));
        assert!((0..100).all(|_| Dice::of(1).below(3) < 3));
    }
}
