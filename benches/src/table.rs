//! Measuring, and saying what came of it.

use std::time::{Duration, Instant};

/// How long it takes.
pub fn time(run: impl FnOnce()) -> Duration {
    let before = Instant::now();
    run();
    before.elapsed()
}

/// The best of so many runs: what is left of the noise of other programs.
pub fn best(times: usize, mut run: impl FnMut()) -> Duration {
    (0..times).map(|_| time(&mut run)).min().unwrap_or_default()
}

/// The median of so many single times: a disk has outliers of a hundred times.
pub fn median(times: usize, mut run: impl FnMut(u64)) -> Duration {
    let mut all: Vec<_> = (0..times as u64).map(|at| time(|| run(at))).collect();
    all.sort_unstable();
    all[times / 2]
}

/// Microseconds.
pub fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Microseconds for each of so many.
pub fn micros_each(time: Duration, count: usize) -> f64 {
    micros(time) / f64::from(u32::try_from(count).unwrap())
}

/// Whether a goal was met, in a word.
pub const fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "MISSED" }
}

/// `cargo test` runs benches once to see that they work; tables are for `cargo bench`.
pub fn is_wanted() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}
