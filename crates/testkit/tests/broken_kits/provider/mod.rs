//! Providers of our own around the simulated one, with a place for each fault.

mod fault;
mod restore;
mod wanted;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use chrono::TimeDelta;
use stillpoint_context::{Cx, HostId, HostPath, Seams};
use stillpoint_storage::{
    Deleted, Discarded, DocName, Exposure, ExposureKey, Found, Listing, Member, NativeSnapshot,
    Placement, PrepareSpec, Prepared, ProviderCaps, ProviderError, ProviderErrorKind as Kind,
    ProviderResult, SetToken, Snapshot, SnapshotProvider, SnapshotRef, SnapshotRestore,
    VolumeFacts, VolumeRef,
};
use stillpoint_testkit::SimStorage;
use stillpoint_testkit::conformance::provider::SimPlaces;

pub(crate) use fault::Fault;
pub(crate) use wanted::WANTED;

/// What a provider knows over all its openings. Tokens, keys and names are never used twice, so one serves all places.
#[derive(Debug, Default)]
struct Memory {
    specs: BTreeMap<SetToken, PrepareSpec>,
    first: BTreeMap<SetToken, Prepared>,
    preparing: BTreeSet<SetToken>,
    committing: BTreeSet<SetToken>,
    under_way: BTreeSet<SetToken>,
    committed: BTreeSet<SetToken>,
    settled: BTreeSet<SetToken>,
    discarded: BTreeSet<SetToken>,
    refused: BTreeSet<SetToken>,
    deleted: BTreeSet<SnapshotRef>,
    exposed: BTreeSet<SnapshotRef>,
    deleted_docs: BTreeSet<DocName>,
    answers: u32,
}

#[derive(Debug)]
pub(crate) struct Faulty {
    fault: Fault,
    inner: SimStorage,
    memory: Arc<Mutex<Memory>>,
    /// What this opening of its place knows.
    prepared: Mutex<BTreeSet<SetToken>>,
    taken: Mutex<BTreeSet<SetToken>>,
    open: Mutex<BTreeSet<ExposureKey>>,
    docs: Mutex<BTreeSet<DocName>>,
    restores: restore::Restores,
}

/// Places of the provider with this fault.
pub(crate) fn places(fault: Fault, seams: Seams) -> SimPlaces {
    let memory = Arc::new(Mutex::new(Memory::default()));
    SimPlaces::new(seams).with(move |storage| {
        let inner = match fault {
            Fault::TakesLogsFirst => storage.with_behaviour(|how| how.data_first = false),
            Fault::RepeatsAtAPage => storage.with_behaviour(|how| how.page = 2),
            Fault::RevertsUnasked | Fault::HidesCollateral | Fault::None => {
                storage.with_caps(|caps| caps.revert = true)
            }
            Fault::FewVolumes => storage.with_caps(|caps| caps.max_volumes = NonZeroU32::new(2)),
            _ => storage,
        };
        Arc::new(Faulty {
            fault,
            inner,
            memory: Arc::clone(&memory),
            prepared: Mutex::default(),
            taken: Mutex::default(),
            open: Mutex::default(),
            docs: Mutex::default(),
            restores: restore::Restores::default(),
        })
    })
}

fn refuse<T>(kind: Kind, message: &str) -> ProviderResult<T> {
    Err(ProviderError::new(kind, message).without_effect())
}

impl Faulty {
    fn is(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap()
    }

    /// Whether this opening prepared the set.
    fn prepared_it(&self, token: &SetToken) -> bool {
        self.prepared.lock().unwrap().contains(token)
    }

    fn answered(&self) -> TimeDelta {
        let mut memory = self.memory();
        memory.answers += 1;
        TimeDelta::seconds(memory.answers.into())
    }

    /// What is told of a snapshot, wrong if that is the fault.
    fn told(&self, mut snapshot: Snapshot, listed: bool) -> Snapshot {
        let Some(token) = snapshot.token.clone() else { return snapshot };
        let memory = self.memory();
        match self.fault {
            Fault::TagsNothing => snapshot.tags.clear(),
            Fault::SettlesNothingForGood if memory.settled.contains(&token) => {
                if let Some(spec) = memory.specs.get(&token) {
                    snapshot.name.clone_from(&spec.name);
                    snapshot.tags.clone_from(&spec.tags);
                }
            }
            Fault::ChangesWhatItExposes if memory.exposed.contains(&snapshot.reference()) => {
                snapshot.tags.insert("exposed".into(), "once".into());
            }
            Fault::ListsWithoutNames if listed => snapshot.name = "?".into(),
            _ => {}
        }
        snapshot
    }

    fn all(&self, snapshots: Vec<Snapshot>) -> Vec<Snapshot> {
        snapshots.into_iter().map(|snapshot| self.told(snapshot, false)).collect()
    }

    /// Prepares a set once more under its token and commits it.
    async fn bring_back(&self, cx: &Cx, token: &SetToken) -> ProviderResult<Vec<Member>> {
        let spec = self.memory().specs[token].clone();
        let prepared = self.inner.prepare(cx, &spec).await?;
        self.inner.commit(cx, &prepared).await
    }
}

#[async_trait]
impl SnapshotProvider for Faulty {
    fn caps(&self) -> ProviderCaps {
        let mut caps = self.inner.caps();
        match self.fault {
            Fault::ChangesItsCaps => caps.atomic_group = !self.prepared.lock().unwrap().is_empty(),
            Fault::TakesAnyNumberOfVolumes => caps.max_volumes = NonZeroU32::new(2),
            Fault::KeepsUndeclaredDocuments => caps.documents = false,
            Fault::ExposesUndeclared => caps.expose = false,
            _ => {}
        }
        caps
    }

    async fn resolve(&self, cx: &Cx, files: &[HostPath]) -> ProviderResult<Vec<Placement>> {
        let mut placed = self.inner.resolve(cx, files).await?;
        match self.fault {
            Fault::PlacesOnlyWhatExists => {
                placed.retain(|placement| self.inner.world().read(&placement.file).is_some());
            }
            Fault::PlacesByName => placed.sort_by(|a, b| a.file.cmp(&b.file)),
            _ => {}
        }
        Ok(placed)
    }

    async fn volumes(&self, cx: &Cx, volumes: &[VolumeRef]) -> ProviderResult<Vec<VolumeFacts>> {
        let mut volumes = volumes.to_vec();
        match self.fault {
            Fault::TellsOfVolumesInOrder => volumes.sort(),
            Fault::PassesUnknownVolumesBy => {
                let known = self.inner.world().volumes();
                volumes.retain(|volume| known.contains(volume));
            }
            _ => {}
        }
        let mut facts = self.inner.volumes(cx, &volumes).await.map_err(|error| self.bare(error))?;
        if self.is(Fault::CountsNothing) {
            for facts in &mut facts {
                facts.snapshots_used = 0;
            }
        }
        Ok(facts)
    }

    async fn prepare(&self, cx: &Cx, spec: &PrepareSpec) -> ProviderResult<Prepared> {
        let token = &spec.token;
        if self.is(Fault::LeavesWhatWasDropped) {
            if !self.memory().preparing.insert(token.clone()) {
                return refuse(Kind::Invalid, "the set is being prepared");
            }
            cx.sleep(Duration::from_millis(1)).await?;
        }
        if self.is(Fault::RemembersWhatItRefused) && self.memory().refused.contains(token) {
            return refuse(Kind::Invalid, "the set was refused before");
        }
        self.memory().specs.insert(token.clone(), spec.clone());
        let answer = self.inner.prepare(cx, spec).await;
        let made = || Ok(Prepared::new(token.clone(), self.inner.caps().provider));
        let answer = match (self.fault, answer) {
            (Fault::PromisesAnyLimit, Err(e)) if matches!(e.kind(), Kind::TooSlow { .. }) => {
                self.inner.prepare(cx, &spec.clone().with_limit(None)).await
            }
            (Fault::RefusesLimitsAsInvalid, Err(e)) if matches!(e.kind(), Kind::TooSlow { .. }) => {
                refuse(Kind::Invalid, "there is a limit")
            }
            (Fault::SaysIoAtTheLimit, Err(e)) if matches!(e.kind(), Kind::SnapshotLimit { .. }) => {
                refuse(Kind::Io, "it does not work")
            }
            (Fault::SaysIoWithoutRoom, Err(e)) if *e.kind() == Kind::NoSpace => {
                refuse(Kind::Io, "it does not work")
            }
            (Fault::PreparesWhatVanished, Err(e)) if *e.kind() == Kind::Vanished => made(),
            (Fault::RefusesWithUnknownEffect, Err(e)) if *e.kind() == Kind::NotFound => {
                Err(ProviderError::new(Kind::NotFound, "there is no such volume"))
            }
            (_, answer) => answer,
        };
        self.memory().preparing.remove(token);
        let mut prepared = match answer {
            Ok(prepared) => prepared,
            Err(error) => {
                self.memory().refused.insert(token.clone());
                return Err(error);
            }
        };
        self.prepared.lock().unwrap().insert(token.clone());
        self.memory().first.entry(token.clone()).or_insert_with(|| prepared.clone());
        match self.fault {
            Fault::PreparesInAnotherOrder => prepared.members.reverse(),
            Fault::SnapsWhenPreparing => drop(self.inner.commit(cx, &prepared).await?),
            Fault::AnswersTheFirstPreparation => {
                prepared = self.memory().first[token].clone();
            }
            _ => {}
        }
        Ok(prepared)
    }

    async fn commit(&self, cx: &Cx, prepared: &Prepared) -> ProviderResult<Vec<Member>> {
        let token = &prepared.token;
        match self.fault {
            Fault::ForgetsWhatWasPrepared if !self.prepared_it(token) => {
                return refuse(Kind::Expired, "nobody knows the set");
            }
            Fault::SnapsWhenSettling => {
                if self.memory().discarded.contains(token) {
                    return refuse(Kind::Expired, "the set was discarded");
                }
                self.memory().committed.insert(token.clone());
                let member = |m: &stillpoint_storage::PreparedMember| {
                    Member::new(m.volume.clone(), m.role, cx.now())
                };
                return Ok(prepared.members.iter().map(member).collect());
            }
            Fault::RefusesToCommitWhatIsSettled if self.memory().settled.contains(token) => {
                return refuse(Kind::Expired, "the set is settled");
            }
            Fault::OneSetAtATime => {
                let mut memory = self.memory();
                memory.under_way.insert(token.clone());
                if memory.under_way.len() > 1 {
                    return refuse(Kind::Fenced, "another set is under way");
                }
            }
            Fault::RefusesToRepeatADrop if self.memory().committing.contains(token) => {
                return refuse(Kind::Expired, "the set was left half way");
            }
            Fault::BringsBackWhatWasDiscarded if self.memory().discarded.contains(token) => {
                return self.bring_back(cx, token).await;
            }
            Fault::BringsBackAtACrash
                if self.memory().discarded.contains(token) && !self.prepared_it(token) =>
            {
                return self.bring_back(cx, token).await;
            }
            _ => {}
        }
        self.memory().committing.insert(token.clone());
        let answer = self.inner.commit(cx, prepared).await;
        self.memory().committing.remove(token);
        let mut members = match answer {
            Err(error) if self.is(Fault::LiesAboutEffects) => return Err(error.without_effect()),
            Err(error) => return Err(error),
            Ok(members) => members,
        };
        self.taken.lock().unwrap().insert(token.clone());
        match self.fault {
            Fault::LeavesOutAMember => drop(members.pop()),
            Fault::TakesLongerThanItSays => cx.sleep(Duration::from_secs(1)).await?,
            Fault::CommitsAnewEachTime => {
                let later = self.answered();
                for member in &mut members {
                    member.taken_at += later;
                }
            }
            _ => {}
        }
        Ok(members)
    }

    async fn adopt(
        &self,
        cx: &Cx,
        prepared: &Prepared,
        natives: &[NativeSnapshot],
    ) -> ProviderResult<Vec<Member>> {
        let of = |native: &NativeSnapshot| {
            let role = prepared.members.iter().find(|m| m.volume == native.volume)?.role;
            Some(Member::new(native.volume.clone(), role, native.taken_at))
        };
        let words = || Ok(natives.iter().filter_map(of).collect::<Vec<_>>());
        if self.is(Fault::AdoptsInWordsOnly) {
            return words();
        }
        let answer = self.inner.adopt(cx, prepared, natives).await;
        let is_there = |native: &NativeSnapshot| {
            let mut all = self.inner.world().snapshots().into_iter();
            all.any(|snapshot| snapshot.id.as_str() == native.native_id)
        };
        match (self.fault, answer) {
            (Fault::AdoptsWhatIsNotThere, Err(_)) if !natives.iter().all(is_there) => words(),
            (Fault::AdoptsTheRest, Err(_)) if natives.len() < prepared.members.len() => words(),
            (Fault::AdoptsOfAnySet, Err(_))
                if natives.len() == prepared.members.len() && natives.iter().all(is_there) =>
            {
                words()
            }
            (Fault::AdoptsAnewEachTime, Ok(mut members)) => {
                let later = self.answered();
                for member in &mut members {
                    member.taken_at += later;
                }
                Ok(members)
            }
            (_, answer) => answer,
        }
    }

    async fn settle(&self, cx: &Cx, prepared: &Prepared) -> ProviderResult<Vec<Snapshot>> {
        let token = &prepared.token;
        match self.fault {
            Fault::SettlesNothingForGood => {
                if let Found::Complete(snapshots) = self.inner.find(cx, token).await? {
                    self.memory().settled.insert(token.clone());
                    return Ok(self.all(snapshots));
                }
            }
            Fault::SnapsWhenSettling if self.memory().committed.contains(token) => {
                self.inner.commit(cx, prepared).await?;
            }
            Fault::SettlesWhatWasNeverTaken if !self.memory().discarded.contains(token) => {
                self.inner.commit(cx, prepared).await?;
            }
            _ => {}
        }
        let mut snapshots = SnapshotProvider::settle(&self.inner, cx, prepared).await?;
        let is_new = {
            let mut memory = self.memory();
            memory.under_way.remove(token);
            memory.settled.insert(token.clone())
        };
        if self.is(Fault::SettlesAnewEachTime) && !is_new {
            snapshots.reverse();
        }
        Ok(self.all(snapshots))
    }

    async fn discard(&self, cx: &Cx, token: &SetToken) -> ProviderResult<Discarded> {
        let known = self.memory().discarded.contains(token);
        self.memory().under_way.remove(token);
        match self.fault {
            Fault::DiscardsOnce if known => return refuse(Kind::NotFound, "there is no such set"),
            Fault::DiscardsOnlyWhatIsThere
                if self.inner.find(cx, token).await? == Found::Absent && !known =>
            {
                return refuse(Kind::NotFound, "there is no such set");
            }
            Fault::DiscardsNothingInFlight
                if matches!(self.inner.find(cx, token).await?, Found::InFlight { .. }) =>
            {
                return Ok(Discarded::Gone);
            }
            Fault::DiscardsByTheBeginning => {
                for snapshot in self.inner.world().snapshots() {
                    let other = snapshot.token.as_ref().map(SetToken::as_str).unwrap_or_default();
                    if other.starts_with(token.as_str()) {
                        self.inner.world().lose_snapshot(&snapshot.reference());
                    }
                }
            }
            Fault::DiscardsByName => {
                for snapshot in self.inner.world().foreign_snapshots() {
                    if snapshot.name.starts_with(token.as_str()) {
                        self.inner.world().lose_snapshot(&snapshot.reference());
                    }
                }
            }
            _ => {}
        }
        let answer = self.inner.discard(cx, token).await;
        let answer = match (self.fault, answer) {
            (Fault::SaysGoneTooEarly, Ok(_)) => Ok(Discarded::Gone),
            (Fault::SaysGoneAfterACrash, Ok(_)) if !self.prepared_it(token) => Ok(Discarded::Gone),
            (Fault::DiscardsWhatIsHeld, Err(e)) if *e.kind() == Kind::Held => Ok(Discarded::Gone),
            (_, answer) => answer,
        };
        if answer.is_ok() {
            self.memory().discarded.insert(token.clone());
        }
        answer
    }

    async fn find(&self, cx: &Cx, token: &SetToken) -> ProviderResult<Found> {
        let settled = self.memory().settled.contains(token);
        let known = self.memory().specs.contains_key(token);
        match self.fault {
            Fault::FindsWhatNeverWas if !known => return Ok(Found::Partial(Vec::new())),
            Fault::FindsOnlyWhatIsSettled if !settled => return Ok(Found::Absent),
            Fault::ForgetsUnsettledAtACrash if !settled && !self.prepared_it(token) => {
                return Ok(Found::Absent);
            }
            Fault::ForgetsAllAtACrash if !self.prepared_it(token) => return Ok(Found::Absent),
            Fault::FindsByTheBeginning => {
                for snapshot in self.inner.world().snapshots() {
                    let other = snapshot.token.clone().unwrap();
                    if other.as_str().starts_with(token.as_str()) {
                        return self.inner.find(cx, &other).await;
                    }
                }
            }
            _ => {}
        }
        Ok(match self.inner.find(cx, token).await? {
            Found::Complete(snapshots) if self.is(Fault::FindsInPart) => {
                Found::Partial(self.all(snapshots))
            }
            Found::Complete(snapshots) => Found::Complete(self.all(snapshots)),
            Found::Partial(snapshots) => Found::Partial(self.all(snapshots)),
            other => other,
        })
    }

    async fn list(
        &self,
        cx: &Cx,
        volume: &VolumeRef,
        page: Option<String>,
    ) -> ProviderResult<Listing> {
        if self.is(Fault::ListsUnknownVolumes) && !self.inner.world().volumes().contains(volume) {
            return Ok(Listing::default());
        }
        let mark = page.clone();
        let listing = self.inner.list(cx, volume, page).await;
        let mut listing = match listing {
            Err(e) if self.is(Fault::TakesAnyPageMark) && *e.kind() == Kind::Invalid => {
                self.inner.list(cx, volume, None).await?
            }
            Err(error) => return Err(self.bare(error)),
            Ok(listing) => listing,
        };
        match self.fault {
            Fault::ListsInReverse => listing.snapshots.reverse(),
            Fault::HidesWhatIsNotOurs => listing.snapshots.retain(|s| s.token.is_some()),
            Fault::RepeatsAtAPage if mark.is_some() => {
                let first = self.inner.list(cx, volume, None).await?;
                listing.snapshots.splice(0..0, first.snapshots.into_iter().take(1));
            }
            _ => {}
        }
        listing.snapshots = listing.snapshots.into_iter().map(|s| self.told(s, true)).collect();
        Ok(listing)
    }

    async fn delete(&self, cx: &Cx, snapshot: &SnapshotRef) -> ProviderResult<Deleted> {
        let world = self.inner.world();
        let of_same = |wanted: bool| {
            let all = world.snapshots();
            let token =
                all.iter().find(|s| s.reference() == *snapshot).and_then(|s| s.token.clone());
            let those = all.into_iter().filter(move |s| (s.token == token) == wanted);
            those.map(|snapshot| snapshot.reference()).collect::<Vec<_>>()
        };
        match self.fault {
            Fault::DeletesOnce if !self.memory().deleted.insert(snapshot.clone()) => {
                return refuse(Kind::NotFound, "there is no such snapshot");
            }
            Fault::DeletesInWordsOnly => return Ok(Deleted::Gone),
            Fault::DeletesTheWholeSet => {
                for other in &of_same(true) {
                    world.lose_snapshot(other);
                }
            }
            Fault::DeletesTheNewest => {
                of_same(false).last().into_iter().for_each(|other| world.lose_snapshot(other));
            }
            _ => {}
        }
        let wrong = |kind: &Kind| match self.fault {
            Fault::DeletesWhatIsHeld => *kind == Kind::Held,
            Fault::DeletesWhatIsLocked => matches!(kind, Kind::Locked { .. }),
            Fault::DeletesWhatIsExposed => *kind == Kind::Dependents,
            Fault::DeletesAnything => *kind == Kind::Invalid,
            _ => false,
        };
        match self.inner.delete(cx, snapshot).await {
            Err(error) if wrong(error.kind()) => {
                world.lose_snapshot(snapshot);
                Ok(Deleted::Gone)
            }
            Err(error) if self.is(Fault::NamesAnotherDate) => match error.kind() {
                Kind::Locked { until } => {
                    let until = *until + TimeDelta::hours(2);
                    refuse(Kind::Locked { until }, "the snapshot is locked")
                }
                _ => Err(error),
            },
            answer => answer,
        }
    }

    async fn expose(
        &self,
        cx: &Cx,
        snapshots: &[SnapshotRef],
        to: &HostId,
        key: &ExposureKey,
    ) -> ProviderResult<Exposure> {
        let mut wanted = snapshots.to_vec();
        match self.fault {
            Fault::RefusesToExposeAgain if self.open.lock().unwrap().contains(key) => {
                return refuse(Kind::NameTaken, "the key is taken");
            }
            Fault::ExposesWhatIsThere => {
                let all = self.inner.world().snapshots();
                wanted.retain(|wanted| all.iter().any(|s| s.reference() == *wanted));
            }
            _ => {}
        }
        let mut exposure = self.inner.expose(cx, &wanted, to, key).await?;
        self.open.lock().unwrap().insert(key.clone());
        self.memory().exposed.extend(wanted);
        match self.fault {
            Fault::ExposesWhatIsLive => {
                for root in &mut exposure.roots {
                    root.exposed = root.original.clone();
                }
            }
            Fault::ExposesInPart => drop(exposure.roots.pop()),
            _ => {}
        }
        Ok(exposure)
    }

    async fn unexpose(&self, cx: &Cx, key: &ExposureKey) -> ProviderResult<()> {
        let was_open = self.open.lock().unwrap().remove(key);
        match self.fault {
            Fault::EndsAnExposureOnce if !was_open => {
                return refuse(Kind::NotFound, "there is no such exposure");
            }
            Fault::EndsAllExposures => {
                for exposure in self.inner.exposures(cx).await? {
                    self.inner.unexpose(cx, &exposure.key).await?;
                }
            }
            Fault::EndsExposuresInWords => return Ok(()),
            _ => {}
        }
        self.inner.unexpose(cx, key).await
    }

    async fn exposures(&self, cx: &Cx) -> ProviderResult<Vec<Exposure>> {
        let mut exposures = self.inner.exposures(cx).await?;
        match self.fault {
            Fault::ListsNoExposures => exposures.clear(),
            Fault::ForgetsExposures => {
                let open = self.open.lock().unwrap();
                exposures.retain(|exposure| open.contains(&exposure.key));
            }
            _ => {}
        }
        Ok(exposures)
    }

    async fn put_doc(&self, cx: &Cx, name: &DocName, bytes: &[u8]) -> ProviderResult<()> {
        self.docs.lock().unwrap().insert(name.clone());
        self.memory().deleted_docs.remove(name);
        let bytes = match self.fault {
            Fault::ShortensDocuments => bytes[..bytes.len().min(65_536)].to_vec(),
            Fault::AppendsDocuments => {
                let before = self.inner.get_doc(cx, name).await?.unwrap_or_default();
                [before.as_slice(), bytes].concat()
            }
            Fault::StoresDocumentsInPieces => {
                self.inner.put_doc(cx, name, &bytes[..bytes.len() / 2]).await?;
                cx.sleep(Duration::from_millis(1)).await?;
                bytes.to_vec()
            }
            _ => bytes.to_vec(),
        };
        self.inner.put_doc(cx, &self.doc(name), &bytes).await
    }

    async fn get_doc(&self, cx: &Cx, name: &DocName) -> ProviderResult<Option<Vec<u8>>> {
        if self.is(Fault::ForgetsDocuments) && !self.docs.lock().unwrap().contains(name) {
            return Ok(None);
        }
        self.inner.get_doc(cx, &self.doc(name)).await
    }

    async fn list_docs(&self, cx: &Cx) -> ProviderResult<Vec<DocName>> {
        let mut names = self.inner.list_docs(cx).await?;
        if self.is(Fault::ListsDocumentsInReverse) {
            names.reverse();
        }
        Ok(names)
    }

    async fn delete_doc(&self, cx: &Cx, name: &DocName) -> ProviderResult<()> {
        let is_there = self.inner.get_doc(cx, name).await?.is_some();
        match self.fault {
            Fault::DeletesDocumentsOnce if !is_there => {
                return refuse(Kind::NotFound, "there is no such document");
            }
            Fault::DeletesNoDocuments => return Ok(()),
            _ => {}
        }
        self.inner.delete_doc(cx, &self.doc(name)).await
    }

    fn restore(&self) -> Option<&dyn SnapshotRestore> {
        let caps = self.inner.caps();
        (!self.is(Fault::HasNoSideToRestore) && (caps.clone || caps.revert)).then_some(self)
    }
}

impl Faulty {
    fn doc(&self, name: &DocName) -> DocName {
        if self.is(Fault::FoldsDocumentNames) {
            return DocName::new(name.as_str().to_lowercase()).unwrap();
        }
        name.clone()
    }

    /// An error as this provider tells it.
    fn bare(&self, error: ProviderError) -> ProviderError {
        match self.fault {
            Fault::NamesNoVolume => {
                ProviderError::new(error.kind().clone(), error.to_string()).without_effect()
            }
            Fault::SaysNothing => ProviderError::new(error.kind().clone(), ""),
            Fault::HasNoRemedy => error.with_remedy(""),
            _ => error,
        }
    }
}
