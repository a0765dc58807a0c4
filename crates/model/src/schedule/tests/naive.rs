//! When something is due, found by a look at every minute of real time and at what clocks show then.

use super::*;

/// No clock is put forward or back by more.
const MARGIN: i64 = 1500;

/// What clocks of a zone show in a stretch of time, and some time before and after.
pub(super) struct Look {
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    minutes: Vec<(DateTime<Utc>, NaiveDateTime)>,
    /// When a civil time is shown the first and the last time.
    showings: HashMap<NaiveDateTime, (DateTime<Utc>, DateTime<Utc>)>,
    /// Civil times that are never shown, and when they would have been.
    skipped: Vec<(NaiveDateTime, DateTime<Utc>)>,
}

/// How a civil time comes to be shown at an instant.
#[derive(Clone, Copy)]
pub(super) enum Shown {
    Once,
    First,
    Last,
    Never,
}

impl Look {
    /// From a whole minute on; neither end is part of it.
    pub(super) fn at(zone: Zone, from: DateTime<Utc>, to: DateTime<Utc>) -> Self {
        let minutes = -MARGIN..(to - from).num_minutes() + MARGIN;
        let minutes = minutes.map(|minute| from + TimeDelta::minutes(minute));
        let minutes: Vec<_> = minutes.map(|at| (at, zone.civil(at))).collect();
        let mut look = Self { from, to, minutes, showings: HashMap::new(), skipped: Vec::new() };
        for (at, civil) in &look.minutes {
            look.showings.entry(*civil).or_insert((*at, *at)).1 = *at;
        }
        for pair in look.minutes.windows(2) {
            // Clocks jump: what they skip is as far behind the jump as it is behind their last minute.
            let next = pair[0].1 + TimeDelta::minutes(1);
            for skip in 0..(pair[1].1 - next).num_minutes().max(0) {
                let skip = TimeDelta::minutes(skip);
                look.skipped.push((next + skip, pair[1].0 + skip));
            }
        }
        look
    }

    /// The instants at which a civil time is due that matches.
    pub(super) fn events(
        &self,
        matches: impl Fn(NaiveDateTime) -> bool,
    ) -> Vec<(DateTime<Utc>, Shown)> {
        let shown = self.minutes.iter().filter(|(_, civil)| matches(*civil)).map(|(at, civil)| {
            let (first, last) = self.showings[civil];
            let shown = if first == last {
                Shown::Once
            } else if *at == first {
                Shown::First
            } else {
                Shown::Last
            };
            (*at, shown)
        });
        let skipped = self.skipped.iter().filter(|(civil, _)| matches(*civil));
        shown.chain(skipped.map(|(_, at)| (*at, Shown::Never))).collect()
    }

    /// Those of the stretch that take place.
    pub(super) fn due(
        &self,
        events: &[(DateTime<Utc>, Shown)],
        gap: Gap,
        overlap: Overlap,
    ) -> Vec<DateTime<Utc>> {
        let takes_place = |shown: Shown| match shown {
            Shown::Once => true,
            Shown::First => overlap != Overlap::Last,
            Shown::Last => overlap != Overlap::First,
            Shown::Never => gap == Gap::ShiftForward,
        };
        let due = events.iter().filter(|(at, _)| self.from < *at && *at < self.to);
        let due: BTreeSet<_> =
            due.filter(|(_, shown)| takes_place(*shown)).map(|(at, _)| *at).collect();
        due.into_iter().collect()
    }
}
