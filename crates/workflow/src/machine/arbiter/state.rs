//! Who holds what, who waits for whom.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use stillpoint_context::{FencingToken, Mono, RunId};

use super::{ArbiterRecord, GrantPolicy, Waiting};
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
    places: HashMap<RunId, Place>,
    askers: BTreeMap<Place, Asker>,
    keys: HashMap<String, Key>,
    watchers: HashMap<Place, BTreeSet<Place>>,
}

impl ArbiterState {
    pub(crate) fn head(&self) -> u64 {
        self.head
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
        let blocked = |asker: &Asker| {
            let (blocker, key) = asker.blocker.clone()?;
            let holder = self.askers.get(&blocker)?.run;
            Some(Waiting { run: asker.run, key, holder, since: asker.since })
        };
        self.askers.values().filter(|asker| asker.token.is_none()).filter_map(blocked).collect()
    }

    /// Takes note of a record: the only mutation. Who watches whom follows from it.
    pub(super) fn apply(&mut self, record: &ArbiterRecord, policy: GrantPolicy) {
        self.head += 1;
        match record {
            ArbiterRecord::Queued { run, claims, head_start, at } => {
                let nanos = |time: std::time::Duration| i128::try_from(time.as_nanos());
                let at_nanos = nanos(at.0).unwrap_or(i128::MAX);
                let head_start = nanos(*head_start).unwrap_or(i128::MAX);
                let place = Place { at: at_nanos.saturating_sub(head_start), asked: self.head };
                self.places.insert(*run, place);
                for claim in claims {
                    self.lock(place, claim, Side::Waiting);
                }
                let asker = Asker {
                    run: *run,
                    claims: claims.clone(),
                    since: *at,
                    token: None,
                    blocker: None,
                };
                self.askers.insert(place, asker);
                self.watch(place, policy);
            }
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
            ArbiterRecord::Released { run, keys } => self.release(*run, keys, policy),
        }
    }

    fn release(&mut self, run: RunId, keys: &[ClaimKey], policy: GrantPolicy) {
        let Some(&place) = self.places.get(&run) else { return };
        let Some(asker) = self.askers.get_mut(&place) else { return };
        let side = if asker.token.is_some() { Side::Holding } else { Side::Waiting };
        let (gone, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut asker.claims)
            .into_iter()
            .partition(|claim| keys.is_empty() || keys.contains(&claim.key));
        asker.claims.clone_from(&kept);
        for claim in &gone {
            self.unlock(place, claim, side);
        }
        // A key above may have been intended for the sake of several claims.
        for claim in &kept {
            self.lock(place, claim, side);
        }
        if keys.is_empty() {
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
