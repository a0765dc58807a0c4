//! Hourly backups of databases for years: everything that happens to them, and a prune now and then, which is checked each time.
//!
//! Each run plays some months of a few databases. The long form plays five years of 200:
//!
//! ```text
//! STILLPOINT_YEARS=5 cargo test --release -p stillpoint-model --lib -- --nocapture databases_live
//! ```

use super::*;
use crate::chain::{Reach, reach};
use crate::point::PointFact;
use crate::seed::{drawn, seed};

/// Databases and hours that a run plays.
fn played() -> (u64, i64) {
    let years = std::env::var("STILLPOINT_YEARS").ok().and_then(|years| years.parse().ok());
    years.map_or((3, 24 * 90), |years: i64| (200, 24 * 365 * years))
}

/// A database whose backups come, go bad, are held, locked and pruned.
struct Life<D> {
    drawn: D,
    policies: Vec<Policy>,
    points: Vec<RestorePoint>,
    protected: BTreeMap<PointId, Protected>,
    holds_until: BTreeMap<PointId, DateTime<Utc>>,
    /// What the clock shows more than it should, and for how many hours still.
    wrong: (i64, i64),
    /// For how many hours still nothing is backed up.
    outage: i64,
    stream: u8,
    generation: u32,
    made: u128,
    prunes: usize,
    gone: usize,
    told: String,
}

impl<D: FnMut(usize) -> usize> Life<D> {
    fn new(mut drawn: D, told: String) -> Self {
        let policies = (1..=1 + drawn(2) as u128).map(|id| drawn_policy(id, &mut drawn)).collect();
        Self {
            drawn,
            policies,
            points: Vec::new(),
            protected: BTreeMap::new(),
            holds_until: BTreeMap::new(),
            wrong: (0, 0),
            outage: 0,
            stream: 1,
            generation: 0,
            made: 0,
            prunes: 0,
            gone: 0,
            told,
        }
    }

    /// Whether something happens that happens once in so many hours.
    fn once_in(&mut self, hours: usize) -> bool {
        (self.drawn)(hours) == 0
    }

    fn some(&mut self, most: usize) -> i64 {
        i64::try_from((self.drawn)(most) + 1).unwrap()
    }

    fn live(&mut self, hour: i64) {
        self.wrong.1 -= 1;
        if self.wrong.1 <= 0 {
            self.wrong = (0, 0);
        }
        if self.once_in(2000) {
            let back = if self.once_in(2) { -1 } else { 1 };
            self.wrong = (back * self.some(24 * 400), self.some(48));
        }
        let clock = hour + self.wrong.0;
        if self.once_in(1500) {
            self.outage = self.some(24 * 40);
        }
        self.outage -= 1;
        if self.outage <= 0 {
            self.back_up(hour, clock);
        }
        let now = epoch() + Span::hours(clock);
        self.protect(now);
        if self.once_in(36) {
            self.prune(now);
        }
    }

    fn back_up(&mut self, hour: i64, clock: i64) {
        let forks = self.once_in(3000);
        if forks {
            (self.stream, self.generation) = (self.stream % 250 + 1, 0);
        }
        if self.once_in(300) {
            // Logs were lost before they were backed up.
            self.generation += 2;
        }
        self.made += 1;
        let first = self.generation + 1;
        self.generation += u32::try_from((self.drawn)(3)).unwrap() + 1;
        let range = first..=self.generation;
        let mut point = if hour % 24 == 0 || forks {
            let mut point = with_logs(point(self.made, clock), range);
            if let Some(logs) = &mut point.logs {
                // The open one, which the next backup brings.
                let last = Generation(self.generation);
                logs.required = Some(last..=Generation(self.generation + 1));
            }
            point
        } else {
            log(self.made, clock, range)
        };
        if let Some(logs) = &mut point.logs {
            logs.signature = signature(self.stream);
        }
        let under = (self.drawn)(self.policies.len());
        point.policy = Some(self.policies[under].reference());
        if self.once_in(40) {
            point.trust = Trust::Suspect { at: later(), reason: "bad".into(), findings: vec![] };
        }
        self.points.push(point);
    }

    /// Holds and locks come and end.
    fn protect(&mut self, now: DateTime<Utc>) {
        if !self.points.is_empty() && self.once_in(200) {
            let at = (self.drawn)(self.points.len());
            let (kind, until) = ((self.drawn)(8), now + Span::hours(self.some(24 * 60)));
            let point = self.points[at].id;
            let protected = self.protected.entry(point).or_default();
            match kind {
                0 => protected.unknown = Some("away".into()),
                1..4 => protected.locked_until = Some(until),
                _ => protected.holds = ["case".to_owned()].into(),
            }
            self.holds_until.insert(point, until);
        }
        let over = self.holds_until.extract_if(.., |_, until| *until <= now);
        for (point, _) in over.collect::<Vec<_>>() {
            self.protected.remove(&point);
        }
    }

    fn decide(&self, now: DateTime<Utc>) -> Decisions {
        decide_of(&self.points, &self.policies, &self.protected, now)
    }

    fn prune(&mut self, now: DateTime<Utc>) {
        let decisions = self.decide(now);
        self.check(now, &decisions);
        let order = PruneOrder::of(DATABASE, &decisions, &self.points, None);
        // Once in a while it is cut short, and the next one goes on with it.
        let most = if self.once_in(4) { (self.drawn)(order.points.len() + 1) } else { usize::MAX };
        let is_whole = most >= order.points.len();
        for (point, going) in order.points.iter().take(most) {
            self.delete(*point, going.keeps_logs, now);
        }
        if !is_whole && let Some((point, going)) = order.points.iter().nth(most) {
            let at = self.points.iter().position(|known| known.id == *point).unwrap();
            self.tell(at, |turn| PointFact::Expiring {
                point: *point,
                at: now,
                turn,
                keeps_logs: going.keeps_logs,
            });
        }
        if is_whole {
            let again = self.decide(now);
            let order = PruneOrder::of(DATABASE, &again, &self.points, None);
            assert!(order.is_empty() && again.snapshots.is_empty(), "{}: {order:?}", self.told);
        }
        self.prunes += 1;
        self.gone += order.points.len();
    }

    fn tell(&mut self, at: usize, fact: impl FnOnce(u32) -> PointFact) {
        let known = self.points[at].clone();
        match fact(known.turn()).apply(Some(known)).unwrap() {
            Some(point) => self.points[at] = point,
            None => drop(self.points.remove(at)),
        }
    }

    fn delete(&mut self, point: PointId, keeps_logs: bool, now: DateTime<Utc>) {
        let at = self.points.iter().position(|known| known.id == point).unwrap();
        if self.protected.get(&point).is_some_and(|protected| protected.keeps(now)) {
            // Its deletion had begun when it was held.
            assert_eq!(self.points[at].state, PointState::Expiring, "{}: {point}", self.told);
            return self.tell(at, |turn| PointFact::Spared { point, at: now, turn });
        }
        self.tell(at, |turn| PointFact::Expiring { point, at: now, turn, keeps_logs });
        if keeps_logs {
            self.tell(at, |turn| PointFact::Reduced {
                point,
                at: now,
                turn,
                manifest_digest: None,
            });
        } else {
            self.tell(at, |_| PointFact::Removed { point, at: now });
        }
    }

    fn check(&mut self, now: DateTime<Utc>, decisions: &Decisions) {
        let told = format!("{} at {now}", self.told);
        let segments: Vec<_> = self.points.iter().filter_map(LogSegment::of).collect();
        let logs = stays(&decisions.segments);
        let kept: Vec<_> = segments.iter().filter(|s| logs.contains(&s.id)).cloned().collect();
        let points = stays(&decisions.points);
        let all = decisions.points.iter().map(|decision| decision.what);
        assert!(all.eq(self.points.iter().map(|point| point.id)), "{told}");
        assert!(decisions.points.iter().all(|decision| !decision.reasons.is_empty()), "{told}");

        // As many as there have to be; the newest good one; nothing that is held or locked.
        let good: Vec<_> = self.points.iter().filter(|point| is_good(point, now)).collect();
        let newest = good.iter().max_by_key(|point| (point.taken_at, point.id));
        assert!(newest.is_none_or(|newest| points.contains(&newest.id)), "{told}");
        for policy in &self.policies {
            let own = good.iter().filter(|point| is_of(point, policy));
            let stay = own.clone().filter(|point| points.contains(&point.id)).count();
            let least = policy.retention.min_keep.get() as usize;
            assert!(stay >= least.min(own.count()), "{told}");
        }
        for point in &self.points {
            let is_protected = self.protected.get(&point.id).is_some_and(|p| p.keeps(now));
            assert!(!is_protected || points.contains(&point.id), "{told}: {}", point.id);
            // What a point needs for itself, and its snapshots.
            let is_kept = points.contains(&point.id) && point.has_database();
            let needs_segment = is_kept && point.has_segment();
            assert!(
                !needs_segment || logs.contains(&SegmentId(point.id.0)),
                "{told}: {}",
                point.id
            );
            let goes = point.members.iter().any(|m| decisions.snapshots.contains(&m.snapshot));
            assert!(!is_kept || !goes, "{told}: {}", point.id);
        }

        // What a policy promises: so many of its points reach as far as before.
        for policy in &self.policies.clone() {
            let mut promised: Vec<_> = self
                .points
                .iter()
                .filter(|point| points.contains(&point.id) && point.has_database())
                .filter(|point| {
                    policy.log_retention == LogRetention::AsFulls || is_of(point, policy)
                })
                .collect();
            promised.sort_by_key(|point| std::cmp::Reverse((point.taken_at, point.id)));
            promised.truncate(match policy.log_retention {
                LogRetention::AsFulls => usize::MAX,
                LogRetention::FollowFulls(count) => count as usize,
                _ => 0,
            });
            // The oldest reaches through most of them, and some other.
            let other = (self.drawn)(promised.len().max(1));
            for point in promised.last().into_iter().chain(promised.get(other)) {
                assert_eq!(far(point, &segments), far(point, &kept), "{told}: {}", point.id);
            }
        }
        if self.once_in(3) {
            self.check_order(now, decisions, &told);
            self.check_generosity(now, decisions, &told);
        }
    }

    /// The order in which points are given changes nothing.
    fn check_order(&mut self, now: DateTime<Utc>, decisions: &Decisions, told: &str) {
        let mut shuffled = self.points.clone();
        for at in (1..shuffled.len()).rev() {
            shuffled.swap(at, (self.drawn)(at + 1));
        }
        let other = decide_of(&shuffled, &self.policies, &self.protected, now);
        let by_id = |decisions: &Decisions| {
            let fates = decisions.points.iter().map(|decision| {
                let reasons: BTreeSet<_> = decision.reasons.iter().cloned().collect();
                (decision.what, decision.fate, reasons)
            });
            fates.collect::<BTreeSet<_>>()
        };
        let (given, turned) = (by_id(decisions), by_id(&other));
        let differ: Vec<_> = given.symmetric_difference(&turned).collect();
        assert!(differ.is_empty(), "{told}: {differ:?}");
        assert_eq!(stays(&other.segments), stays(&decisions.segments), "{told}");
        assert_eq!(other.snapshots, decisions.snapshots, "{told}");
    }

    /// What is kept stays if any rule keeps more. A point that is there only for its logs goes where another one brings them.
    fn check_generosity(&mut self, now: DateTime<Utc>, decisions: &Decisions, told: &str) {
        let at = (self.drawn)(self.policies.len());
        let more = u32::try_from((self.drawn)(5)).unwrap() + 1;
        let mut generous = self.policies.clone();
        let rules = &mut generous[at].retention;
        match (self.drawn)(4) {
            0 => rules.count = Some(rules.count.unwrap_or(0) + more),
            1 => rules.within_days = Some(rules.within_days.unwrap_or(0) + more),
            2 => {
                let gfs = rules.gfs.get_or_insert_default();
                let grids = [
                    &mut gfs.hourly,
                    &mut gfs.daily,
                    &mut gfs.weekly,
                    &mut gfs.monthly,
                    &mut gfs.yearly,
                ];
                for places in grids {
                    *places += more;
                }
            }
            _ => rules.min_keep = rules.min_keep.saturating_add(more),
        }
        if !self.policies[at].retention.keeps_all() {
            let kept = stays(&decide_of(&self.points, &generous, &self.protected, now).points);
            let only_logs = |d: &&Decision<PointId>| {
                d.reasons.iter().all(|why| matches!(why, Why::SegmentStays))
            };
            for decision in decisions.points.iter().filter(|d| d.is_kept() && !only_logs(d)) {
                assert!(kept.contains(&decision.what), "{told}: {decision:?} {generous:?}");
            }
        }
        let mut generous = self.policies.clone();
        let logs = &mut generous[at].log_retention;
        *logs = match *logs {
            LogRetention::FollowFulls(count) if self.once_in(2) => {
                LogRetention::FollowFulls(count + more)
            }
            LogRetention::Days(days) => LogRetention::Days(days + more),
            LogRetention::None => LogRetention::Days(more),
            LogRetention::FollowFulls(_) | LogRetention::AsFulls => LogRetention::AsFulls,
        };
        let kept = stays(&decide_of(&self.points, &generous, &self.protected, now).segments);
        assert!(stays(&decisions.segments).is_subset(&kept), "{told}: {generous:?}");
    }
}

fn decide_of(
    points: &[RestorePoint],
    policies: &[Policy],
    protected: &BTreeMap<PointId, Protected>,
    now: DateTime<Utc>,
) -> Decisions {
    let segments: Vec<_> = points.iter().filter_map(LogSegment::of).collect();
    let zone = "Europe/Berlin".parse().unwrap();
    decide(&RetentionInputs { points, segments: &segments, policies, protected, zone, now })
}

fn drawn_policy(id: u128, drawn: &mut impl FnMut(usize) -> usize) -> Policy {
    let mut number = |most: usize| u32::try_from(drawn(most)).unwrap();
    let mut retention = Retention::default();
    let kinds = number(7) + 1;
    retention.count = (kinds & 1 > 0).then(|| number(20) + 1);
    retention.within_days = (kinds & 2 > 0).then(|| number(30) + 1);
    retention.gfs = (kinds & 4 > 0).then(|| Gfs {
        hourly: number(3),
        daily: number(14),
        weekly: number(8),
        monthly: number(12),
        yearly: number(3),
    });
    retention.min_keep = NonZeroU32::MIN.saturating_add(number(4));
    let log_retention = match number(4) {
        0 => LogRetention::AsFulls,
        1 => LogRetention::FollowFulls(number(7) + 1),
        2 => LogRetention::Days(number(14) + 1),
        _ => LogRetention::None,
    };
    Policy { retention, log_retention, ..policy(id) }
}

fn is_good(point: &RestorePoint, now: DateTime<Utc>) -> bool {
    let is_suspect = matches!(point.trust, Trust::Suspect { .. });
    point.has_database() && !is_suspect && point.taken_at <= now
}

fn is_of(point: &RestorePoint, policy: &Policy) -> bool {
    point.policy.as_ref().is_some_and(|made_under| made_under.id == policy.id)
}

fn stays<T: Ord + Copy>(decisions: &[Decision<T>]) -> BTreeSet<T> {
    decisions.iter().filter(|decision| decision.is_kept()).map(|decision| decision.what).collect()
}

/// How far a point reaches.
fn far(point: &RestorePoint, segments: &[LogSegment]) -> (DateTime<Utc>, Option<Generation>) {
    let Reach { until, last, .. } = reach(point, segments, false);
    (until, last)
}

#[test]
fn databases_live_for_years_and_lose_nothing_that_was_promised() {
    let seed = seed("databases_live");
    let (databases, hours) = played();
    let (mut prunes, mut gone) = (0, 0);
    for number in 0..databases {
        let mut life = Life::new(drawn(seed ^ number), format!("database {number}"));
        (0..hours).for_each(|hour| life.live(hour));
        prunes += life.prunes;
        gone += life.gone;
    }
    println!("{databases} databases, {hours} hours, {prunes} prunes, {gone} deletions");
    assert!(gone > prunes, "there was something to check");
}
