//! Times as data.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use serde::Serialize;
use stillpoint_storage::SetToken;

/// How many of the latest values a median is of, and how many sets are told one by one.
pub(super) const KEPT: usize = 1000;

/// How some durations are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Spread {
    /// How many there were.
    pub count: u64,
    /// The shortest of all.
    pub min: Duration,
    /// The median of the latest thousand; of an even number the upper one.
    pub median: Duration,
    /// The longest of all.
    pub max: Duration,
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.count == 0 {
            return f.write_str("never");
        }
        let [min, median, max] = [self.min, self.median, self.max].map(short);
        write!(f, "{}×  min {min}  median {median}  max {max}", self.count)
    }
}

/// A duration to three digits or so.
fn short(time: Duration) -> String {
    let nanos = time.as_nanos();
    let (unit, name) = match nanos {
        0..1_000 => return format!("{nanos} ns"),
        1_000..1_000_000 => (1_000, "µs"),
        1_000_000..1_000_000_000 => (1_000_000, "ms"),
        _ => (1_000_000_000, "s"),
    };
    format!("{}.{} {name}", nanos / unit, nanos % unit * 10 / unit)
}

/// The values of which a spread is told; what it keeps is bounded.
#[derive(Debug, Default)]
pub(super) struct Values {
    count: u64,
    min: Duration,
    max: Duration,
    latest: VecDeque<Duration>,
}

impl Values {
    pub(super) fn add(&mut self, value: Duration) {
        self.min = if self.count == 0 { value } else { self.min.min(value) };
        self.max = self.max.max(value);
        self.count += 1;
        if self.latest.len() == KEPT {
            let _oldest = self.latest.pop_front();
        }
        self.latest.push_back(value);
    }

    pub(super) fn spread(&self) -> Spread {
        let mut sorted: Vec<_> = self.latest.iter().copied().collect();
        sorted.sort_unstable();
        let median = sorted.get(sorted.len() / 2).copied().unwrap_or_default();
        Spread { count: self.count, min: self.min, median, max: self.max }
    }
}

/// The calls of one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct CallTimes {
    /// Those that answered, and how long they took.
    pub answered: Spread,
    /// How many failed.
    pub failed: u64,
    /// How many were dropped, or panicked.
    pub dropped: u64,
}

/// The commit of one set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SetTime {
    /// The set.
    pub token: SetToken,
    /// Its snapshots.
    pub members: usize,
    /// How long the commit took.
    pub took: Duration,
}

/// What [`Times`](super::Times) have seen so far.
///
/// `Display` is the short form: the freezes, the commits, and a line for each call that came to something else than an answer
/// or was the slowest of all.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct Timings {
    /// How long writes were held, as seen from outside: from the call of `freeze` to the end of the `thaw` or `abort` that ended
    /// it, or the whole of a `snap`. What Exchange held lies inside.
    pub freezes: Spread,
    /// How long the commits of sets took.
    pub commits: Spread,
    /// The latest thousand commits.
    pub sets: Vec<SetTime>,
    /// All calls, by name.
    pub calls: BTreeMap<&'static str, CallTimes>,
}

impl fmt::Display for Timings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "freezes  {}", self.freezes)?;
        write!(f, "commits  {}", self.commits)?;
        let slowest = self.calls.iter().max_by_key(|(_, times)| times.answered.max);
        if let Some((name, times)) = slowest {
            write!(f, "\nslowest  {name}  {}", times.answered)?;
        }
        for (name, CallTimes { failed, dropped, .. }) in &self.calls {
            if failed + dropped > 0 {
                write!(f, "\n{name}  {failed} failed, {dropped} dropped")?;
            }
        }
        Ok(())
    }
}
