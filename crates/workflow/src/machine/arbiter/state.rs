//! Who holds what, who waits for whom.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::time::Duration;

use stillpoint_context::{FencingToken, Mono, RunId};

use super::{ArbiterRecord, Claimant, GrantPolicy, Waiting};
use crate::claim::{Claim, ClaimKey, ClaimMode};

/// How a key is locked. A run may lock one key in several ways at once; they are kept apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Mode {
    IntendsShared,
    IntendsExclusive,
    Shared,
    Exclusive,
}

impl Mode {
    /// The modes that another run must not have on the same key.
    const fn rivals(self) -> &'static [Self] {
        match self {
            Self::IntendsShared => &[Self::Exclusive],
            Self::IntendsExclusive => &[Self::Shared, Self::Exclusive],
            Self::Shared => &[Self::IntendsExclusive, Self::Exclusive],
            Self::Exclusive => {
                &[Self::IntendsShared, Self::IntendsExclusive, Self::Shared, Self::Exclusive]
            }
        }
    }
}

/// Where a run stands in line: by time, head start taken off, then by the order of asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
    /// Nanoseconds; negative with a head start longer than the clock has run.
    at: i128,
    asked: u64,
}

impl Place {
    fn of(at: Mono, head_start: Duration, asked: u64) -> Self {
        let nanos = |time: Duration| i128::try_from(time.as_nanos()).unwrap_or(i128::MAX);
        Self { at: nanos(at.0).saturating_sub(nanos(head_start)), asked }
    }
}

/// By mode, who has a key.
type Modes = BTreeMap<Mode, BTreeSet<Place>>;

#[derive(Debug, Clone, Default, PartialEq)]
struct Key {
    holders: Modes,
    /// Who stands in line for it, to keep it.
    keepers: Modes,
    /// Who stands in line for it, to let go of it early.
    passers: Modes,
}

#[derive(Debug, Clone, PartialEq)]
struct Asker {
    run: RunId,
    claims: Vec<Claim>,
    head_start: Duration,
    since: Mono,
    token: Option<FencingToken>,
    /// Whom it waits for, and over which key.
    blocker: Option<(Place, ClaimKey)>,
    /// All that it is to keep is free, so that it stands in line for what it lets go of early, too.
    in_front: bool,
}

impl Asker {
    /// What it claims to the end, or what it lets go of early.
    fn part(&self, kept: bool) -> impl Iterator<Item = &Claim> {
        self.claims.iter().filter(move |claim| claim.until.is_none() == kept)
    }
}

/// The state of the arbiter.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ArbiterState {
    /// Number of records so far.
    head: u64,
    /// The same at the last snapshot.
    snapshot_at: u64,
    /// When the last run asked.
    latest: Mono,
    places: HashMap<RunId, Place>,
    askers: BTreeMap<Place, Asker>,
    keys: HashMap<String, Key>,
    watchers: HashMap<Place, BTreeSet<Place>>,
}

impl ArbiterState {
    pub(crate) fn head(&self) -> u64 {
        self.head
    }

    pub(super) fn latest(&self) -> Mono {
        self.latest
    }

    pub(super) fn since_snapshot(&self) -> u64 {
        self.head - self.snapshot_at
    }

    pub(super) fn runs(&self) -> u64 {
        self.askers.len() as u64
    }

    pub(crate) fn claimants(&self) -> impl Iterator<Item = Claimant> {
        self.askers.iter().map(|(place, asker)| Claimant {
            run: asker.run,
            claims: asker.claims.clone(),
            head_start: asker.head_start,
            at: asker.since,
            asked: place.asked,
            token: asker.token,
        })
    }

    /// Every run that holds something or waits.
    pub(crate) fn all_runs(&self) -> impl Iterator<Item = RunId> {
        self.places.keys().copied()
    }

    /// The token of a run that holds its claims.
    pub(crate) fn token(&self, run: RunId) -> Option<FencingToken> {
        self.asker(run)?.token
    }

    /// The runs that hold claims, in line, with what they hold.
    pub(crate) fn holders(&self) -> impl Iterator<Item = (RunId, &[Claim])> {
        let holding = self.askers.values().filter(|asker| asker.token.is_some());
        holding.map(|asker| (asker.run, asker.claims.as_slice()))
    }

    /// An empty state at this place of the stream.
    pub(super) fn at(head: u64) -> Self {
        Self { head, snapshot_at: head, ..Self::default() }
    }

    /// Puts a run in its place, watching nobody yet.
    pub(super) fn insert(&mut self, claimant: &Claimant) {
        let place = Place::of(claimant.at, claimant.head_start, claimant.asked);
        self.latest = self.latest.max(claimant.at);
        self.places.insert(claimant.run, place);
        let asker = Asker {
            run: claimant.run,
            claims: claimant.claims.clone(),
            head_start: claimant.head_start,
            since: claimant.at,
            token: claimant.token,
            blocker: None,
            in_front: false,
        };
        self.askers.insert(place, asker);
        self.lock_all(place);
    }

    /// Lets every waiting run watch its blocker.
    pub(super) fn watch_all(&mut self, policy: GrantPolicy) {
        let places = self.askers.keys().copied().collect();
        let _all = self.watch(places, policy);
    }

    pub(super) fn knows(&self, run: RunId) -> bool {
        self.places.contains_key(&run)
    }

    pub(super) fn waits(&self, run: RunId) -> bool {
        self.asker(run).is_some_and(|asker| asker.token.is_none())
    }

    fn asker(&self, run: RunId) -> Option<&Asker> {
        self.askers.get(self.places.get(&run)?)
    }

    /// Who waits, in line, and whether it is in front.
    #[cfg(test)]
    pub(super) fn line(&self) -> Vec<(RunId, bool)> {
        let waiting = self.askers.values().filter(|asker| asker.token.is_none());
        waiting.map(|asker| (asker.run, asker.in_front)).collect()
    }

    /// Everything that waits, in line.
    pub(crate) fn waiting(&self) -> Vec<Waiting> {
        self.askers.values().filter_map(|asker| self.blocked(asker)).collect()
    }

    /// What a run waits for.
    pub(crate) fn waits_for(&self, run: RunId) -> Option<Waiting> {
        self.blocked(self.asker(run)?)
    }

    fn blocked(&self, asker: &Asker) -> Option<Waiting> {
        if asker.token.is_some() {
            return None;
        }
        let (blocker, key) = asker.blocker.clone()?;
        let holder = self.askers.get(&blocker)?.run;
        Some(Waiting { run: asker.run, key, holder, since: asker.since })
    }

    /// The runs that hold what they claim, with their tokens.
    pub(crate) fn claimants_with_token(&self) -> impl Iterator<Item = (RunId, FencingToken)> {
        self.askers.values().filter_map(|asker| Some((asker.run, asker.token?)))
    }

    /// Takes note of a record: the only mutation. Who watches whom follows from it. Gives the waiting runs that were looked at
    /// anew, in line.
    pub(super) fn apply(&mut self, record: &ArbiterRecord, policy: GrantPolicy) -> Vec<RunId> {
        self.head += 1;
        match record {
            ArbiterRecord::Queued { run, claims, head_start, at } => {
                let asked = self.head;
                self.insert(&Claimant {
                    run: *run,
                    claims: claims.clone(),
                    head_start: *head_start,
                    at: *at,
                    asked,
                    token: None,
                });
                let place = Place::of(*at, *head_start, asked);
                let mut again = self.overtaken(place, true);
                again.insert(place);
                return self.watch(again, policy);
            }
            ArbiterRecord::Regranted { run } => {
                let token = FencingToken(self.head);
                let place = self.places.get(run);
                if let Some(asker) = place.and_then(|place| self.askers.get_mut(place)) {
                    asker.token = Some(token);
                }
            }
            ArbiterRecord::Snapshot(_) => self.snapshot_at = self.head,
            ArbiterRecord::Granted { run } => {
                let token = FencingToken(self.head);
                if let Some(&place) = self.places.get(run) {
                    self.unlock_all(place);
                    if let Some(asker) = self.askers.get_mut(&place) {
                        asker.token = Some(token);
                        asker.in_front = false;
                    }
                    // Whoever comes after it waited for it before: it stood in line for all of this.
                    self.lock_all(place);
                }
            }
            ArbiterRecord::Released { run, claims } => return self.release(*run, claims, policy),
        }
        Vec::new()
    }

    fn release(&mut self, run: RunId, claims: &[Claim], policy: GrantPolicy) -> Vec<RunId> {
        let Some(&place) = self.places.get(&run) else { return Vec::new() };
        self.unlock_all(place);
        if claims.is_empty() {
            self.places.remove(&run);
            if let Some((blocker, _)) = self.askers.remove(&place).and_then(|asker| asker.blocker) {
                self.unwatch(place, blocker);
            }
        } else if let Some(asker) = self.askers.get_mut(&place) {
            asker.claims.retain(|claim| !claims.contains(claim));
        }
        self.lock_all(place);
        let mut again = self.watchers.remove(&place).unwrap_or_default();
        again.insert(place);
        self.watch(again, policy)
    }

    fn unwatch(&mut self, watcher: Place, blocker: Place) {
        if let Some(watchers) = self.watchers.get_mut(&blocker) {
            watchers.remove(&watcher);
            if watchers.is_empty() {
                self.watchers.remove(&blocker);
            }
        }
    }

    /// Lets waiting runs watch their blockers, if they still have one, and those further back to whom that makes a difference.
    /// What is true of a run follows from those that hold and those before it, so that each is looked at once. Gives those
    /// that were looked at, in line.
    fn watch(&mut self, mut again: BTreeSet<Place>, policy: GrantPolicy) -> Vec<RunId> {
        let mut looked_at = Vec::new();
        while let Some(place) = again.pop_first() {
            let Some(asker) = self.askers.get(&place) else { continue };
            if asker.token.is_some() {
                continue;
            }
            looked_at.push(asker.run);
            let (before, was_in_front) = (asker.blocker.clone(), asker.in_front);
            let (blocker, in_front) = match policy {
                GrantPolicy::Strict => match self.blocker(place, asker.part(true)) {
                    None => (self.blocker(place, asker.part(false)), true),
                    blocker => (blocker, false),
                },
                #[cfg(any(test, feature = "testing"))]
                GrantPolicy::Always => (None, true),
            };
            if let Some((before, _)) = before {
                self.unwatch(place, before);
            }
            if let Some((blocker, _)) = &blocker {
                self.watchers.entry(*blocker).or_default().insert(place);
            }
            if in_front != was_in_front {
                self.unlock_all(place);
            }
            if let Some(asker) = self.askers.get_mut(&place) {
                asker.blocker = blocker;
                asker.in_front = in_front;
            }
            if in_front != was_in_front {
                self.lock_all(place);
                if in_front {
                    again.append(&mut self.overtaken(place, false));
                } else {
                    again.append(&mut self.watchers.remove(&place).unwrap_or_default());
                }
            }
        }
        looked_at
    }

    /// The runs in front, but behind this one, of which something that they are to keep is not free any more for what this one
    /// stands in line for, to keep it or else to let go of it early. O(runs behind it at these keys).
    fn overtaken(&self, place: Place, kept: bool) -> BTreeSet<Place> {
        let mut found = BTreeSet::new();
        let Some(asker) = self.askers.get(&place) else { return found };
        for (text, mode) in asker.part(kept).flat_map(locks) {
            let Some(key) = self.keys.get(text) else { continue };
            for rivals in mode.rivals().iter().filter_map(|rival| key.keepers.get(rival)) {
                let behind = rivals.range((Bound::Excluded(place), Bound::Unbounded));
                let in_front =
                    |place: &&Place| self.askers.get(place).is_some_and(|asker| asker.in_front);
                found.extend(behind.filter(in_front).copied());
            }
        }
        found
    }

    /// Whether nothing stands in the way of a waiting run.
    pub(super) fn is_free(&self, run: RunId) -> bool {
        self.asker(run).is_some_and(|asker| asker.token.is_none() && asker.blocker.is_none())
    }

    /// The latest conflicting run in line before this one; failing that, one that holds. O(keys · log runs).
    fn blocker<'a>(
        &self,
        place: Place,
        claims: impl Iterator<Item = &'a Claim>,
    ) -> Option<(Place, ClaimKey)> {
        let mut found: Option<(Place, ClaimKey)> = None;
        for claim in claims {
            for (text, mode) in locks(claim) {
                let Some(key) = self.keys.get(text) else { continue };
                for rival in mode.rivals() {
                    let before = |modes: &Modes| {
                        modes.get(rival).and_then(|set| set.range(..place).next_back()).copied()
                    };
                    let holding = key
                        .holders
                        .get(rival)
                        .and_then(|set| set.iter().rev().find(|holder| **holder != place))
                        .copied();
                    let waiting = [before(&key.keepers), before(&key.passers)];
                    for other in waiting.into_iter().flatten().chain(holding) {
                        if found.as_ref().is_none_or(|(best, _)| other > *best) {
                            found = Some((other, claim.key.clone()));
                        }
                    }
                }
            }
        }
        found
    }

    /// Locks all that a run holds, or stands in line for.
    fn lock_all(&mut self, place: Place) {
        let Some(asker) = self.askers.get(&place) else { return };
        for claim in &asker.claims {
            let Some(side) = asker.side(claim) else { continue };
            for (text, mode) in locks(claim) {
                if !self.keys.contains_key(text) {
                    self.keys.insert(text.to_owned(), Key::default());
                }
                if let Some(key) = self.keys.get_mut(text) {
                    key.side(side).entry(mode).or_default().insert(place);
                }
            }
        }
    }

    fn unlock_all(&mut self, place: Place) {
        let Some(asker) = self.askers.get(&place) else { return };
        for claim in &asker.claims {
            let Some(side) = asker.side(claim) else { continue };
            for (text, mode) in locks(claim) {
                let Some(key) = self.keys.get_mut(text) else { continue };
                let modes = key.side(side);
                if let Some(set) = modes.get_mut(&mode) {
                    set.remove(&place);
                    if set.is_empty() {
                        modes.remove(&mode);
                    }
                }
                if key.is_unused() {
                    self.keys.remove(text);
                }
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Side {
    Holding,
    Keeping,
    Passing,
}

impl Asker {
    /// Where a claim of it counts, if anywhere.
    fn side(&self, claim: &Claim) -> Option<Side> {
        match (self.token, &claim.until) {
            (Some(_), _) => Some(Side::Holding),
            (None, None) => Some(Side::Keeping),
            (None, Some(_)) => self.in_front.then_some(Side::Passing),
        }
    }
}

impl Key {
    fn side(&mut self, side: Side) -> &mut Modes {
        match side {
            Side::Holding => &mut self.holders,
            Side::Keeping => &mut self.keepers,
            Side::Passing => &mut self.passers,
        }
    }

    fn is_unused(&self) -> bool {
        self.holders.is_empty() && self.keepers.is_empty() && self.passers.is_empty()
    }
}

/// What a claim locks: the keys above it by intention, and its own.
fn locks(claim: &Claim) -> impl Iterator<Item = (&str, Mode)> {
    let (own, above) = match claim.mode {
        ClaimMode::Shared => (Mode::Shared, Mode::IntendsShared),
        ClaimMode::Exclusive => (Mode::Exclusive, Mode::IntendsExclusive),
    };
    let intentions = claim.key.ancestors().map(move |key| (key, above));
    intentions.chain([(claim.key.as_str(), own)])
}
