//! Who holds what, who waits for whom.

use std::collections::{BTreeMap, BTreeSet, HashMap};
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

#[derive(Debug, Clone, Default, PartialEq)]
struct Key {
    /// By mode, who holds it and who waits for it.
    holders: BTreeMap<Mode, BTreeSet<Place>>,
    waiters: BTreeMap<Mode, BTreeSet<Place>>,
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
        let side = if claimant.token.is_some() { Side::Holding } else { Side::Waiting };
        self.latest = self.latest.max(claimant.at);
        self.places.insert(claimant.run, place);
        for claim in &claimant.claims {
            self.lock(place, claim, side);
        }
        let asker = Asker {
            run: claimant.run,
            claims: claimant.claims.clone(),
            head_start: claimant.head_start,
            since: claimant.at,
            token: claimant.token,
            blocker: None,
        };
        self.askers.insert(place, asker);
    }

    /// Lets every waiting run watch its blocker.
    pub(super) fn watch_all(&mut self, policy: GrantPolicy) {
        let places: Vec<_> = self.askers.keys().copied().collect();
        for place in places {
            self.watch(place, policy);
        }
    }

    pub(super) fn knows(&self, run: RunId) -> bool {
        self.places.contains_key(&run)
    }

    /// The runs that wait for this one, in line.
    pub(super) fn watchers(&self, run: RunId) -> Vec<RunId> {
        let watchers = self.places.get(&run).and_then(|place| self.watchers.get(place));
        let runs = watchers.into_iter().flatten().filter_map(|place| self.askers.get(place));
        runs.map(|asker| asker.run).collect()
    }

    pub(super) fn waits(&self, run: RunId) -> bool {
        self.asker(run).is_some_and(|asker| asker.token.is_none())
    }

    fn asker(&self, run: RunId) -> Option<&Asker> {
        self.askers.get(self.places.get(&run)?)
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

    /// Takes note of a record: the only mutation. Who watches whom follows from it.
    pub(super) fn apply(&mut self, record: &ArbiterRecord, policy: GrantPolicy) {
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
                self.watch(Place::of(*at, *head_start, asked), policy);
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
                let Some(&place) = self.places.get(run) else { return };
                let token = FencingToken(self.head);
                let claims = match self.askers.get_mut(&place) {
                    Some(asker) => {
                        asker.token = Some(token);
                        asker.claims.clone()
                    }
                    None => return,
                };
                for claim in &claims {
                    self.unlock(place, claim, Side::Waiting);
                    self.lock(place, claim, Side::Holding);
                }
            }
            ArbiterRecord::Released { run, claims } => self.release(*run, claims, policy),
        }
    }

    fn release(&mut self, run: RunId, claims: &[Claim], policy: GrantPolicy) {
        let Some(&place) = self.places.get(&run) else { return };
        let Some(asker) = self.askers.get_mut(&place) else { return };
        let side = if asker.token.is_some() { Side::Holding } else { Side::Waiting };
        let (gone, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut asker.claims)
            .into_iter()
            .partition(|claim| claims.is_empty() || claims.contains(claim));
        asker.claims.clone_from(&kept);
        for claim in &gone {
            self.unlock(place, claim, side);
        }
        // A key above may have been intended for the sake of several claims.
        for claim in &kept {
            self.lock(place, claim, side);
        }
        if claims.is_empty() {
            self.places.remove(&run);
            if let Some((blocker, _)) = self.askers.remove(&place).and_then(|asker| asker.blocker) {
                self.unwatch(place, blocker);
            }
        }
        for watcher in self.watchers.remove(&place).unwrap_or_default() {
            self.watch(watcher, policy);
        }
    }

    fn unwatch(&mut self, watcher: Place, blocker: Place) {
        if let Some(watchers) = self.watchers.get_mut(&blocker) {
            watchers.remove(&watcher);
        }
    }

    /// Lets a waiting run watch its blocker, if it still has one.
    fn watch(&mut self, place: Place, policy: GrantPolicy) {
        let Some(asker) = self.askers.get(&place) else { return };
        if asker.token.is_some() {
            return;
        }
        let blocker = match policy {
            GrantPolicy::Strict => self.blocker(place, &asker.claims),
            #[cfg(any(test, feature = "testing"))]
            GrantPolicy::Always => None,
        };
        if let Some((blocker, _)) = &blocker {
            self.watchers.entry(*blocker).or_default().insert(place);
        }
        if let Some(asker) = self.askers.get_mut(&place) {
            asker.blocker = blocker;
        }
    }

    /// Whether nothing stands in the way of a waiting run.
    pub(super) fn is_free(&self, run: RunId) -> bool {
        self.asker(run).is_some_and(|asker| asker.token.is_none() && asker.blocker.is_none())
    }

    /// The latest conflicting run in line before this one; failing that, one that holds. O(keys · log runs).
    fn blocker(&self, place: Place, claims: &[Claim]) -> Option<(Place, ClaimKey)> {
        let mut found: Option<(Place, ClaimKey)> = None;
        for claim in claims {
            for (text, mode) in locks(claim) {
                let Some(key) = self.keys.get(text) else { continue };
                for rival in mode.rivals() {
                    let waiting =
                        key.waiters.get(rival).and_then(|set| set.range(..place).next_back());
                    let holding = key
                        .holders
                        .get(rival)
                        .and_then(|set| set.iter().rev().find(|holder| **holder != place));
                    for other in waiting.into_iter().chain(holding) {
                        if found.as_ref().is_none_or(|(best, _)| other > best) {
                            found = Some((*other, claim.key.clone()));
                        }
                    }
                }
            }
        }
        found
    }

    fn lock(&mut self, place: Place, claim: &Claim, side: Side) {
        for (text, mode) in locks(claim) {
            if !self.keys.contains_key(text) {
                self.keys.insert(text.to_owned(), Key::default());
            }
            if let Some(key) = self.keys.get_mut(text) {
                key.side(side).entry(mode).or_default().insert(place);
            }
        }
    }

    fn unlock(&mut self, place: Place, claim: &Claim, side: Side) {
        for (text, mode) in locks(claim) {
            let Some(key) = self.keys.get_mut(text) else { continue };
            let modes = key.side(side);
            if let Some(set) = modes.get_mut(&mode) {
                set.remove(&place);
                if set.is_empty() {
                    modes.remove(&mode);
                }
            }
            if key.holders.is_empty() && key.waiters.is_empty() {
                self.keys.remove(text);
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Side {
    Waiting,
    Holding,
}

impl Key {
    fn side(&mut self, side: Side) -> &mut BTreeMap<Mode, BTreeSet<Place>> {
        match side {
            Side::Waiting => &mut self.waiters,
            Side::Holding => &mut self.holders,
        }
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
