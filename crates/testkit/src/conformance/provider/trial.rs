//! A provider under test.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Debug};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use stillpoint_context::{Cx, ErrorClass, ErrorFacts, HostPath};
use stillpoint_model::capability::{ProviderCaps, ProviderCoordination};
use stillpoint_model::handover::{Exposure, Member, MemberRole, NativeSnapshot, Prepared};
use stillpoint_model::id::{ExposureKey, SetToken, SnapshotRef, VolumeRef};
use stillpoint_storage::{
    Discarded, DocName, Found, MemberSpec, PrepareSpec, ProviderError, ProviderErrorKind,
    ProviderResult, RestoreKey, Snapshot, SnapshotProvider,
};

use super::super::frame::{Flaw, ensure, same};
use super::super::store::BoxError;
use super::left::Left;
use super::place::{Can, Ground, ProviderFactory, ProviderPlace, TestVolume};

impl From<ProviderError> for Flaw {
    fn from(error: ProviderError) -> Self {
        Self::new(format!("a call failed: {error} ({})", error.code()))
    }
}

/// The bytes of files.
pub(super) type Bytes = BTreeMap<HostPath, Vec<u8>>;

/// How often a call that is told to come again later is made at most. Most of these are a second apart: what counts is that
/// somebody who is slow comes to an end.
const TRIES: u32 = 300;
/// After so many the calls are a second apart.
const SOON: u32 = 100;
/// How long a suite waits for what is under way, at most.
pub(super) const PATIENCE: Duration = Duration::from_mins(15);

/// What a call answers that is made until it is not told any more that somebody else is at it.
macro_rules! patiently {
    ($trial:expr, $call:expr) => {{
        let mut tries = 0;
        loop {
            match $call.await {
                Err(error) if $trial.again(&error, &mut tries).await => {}
                result => break result,
            }
        }
    }};
}

pub(super) use patiently;

/// What is known of the sets of a case.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// How many names there are.
    pub(super) count: u32,
    natives: BTreeMap<SetToken, Vec<NativeSnapshot>>,
}

/// A provider under test, and the place at which it works.
pub struct Trial {
    // Dropped before the place.
    provider: Mutex<Option<Arc<dyn SnapshotProvider>>>,
    known: Arc<Mutex<Known>>,
    pub(super) caps: ProviderCaps,
    pub(super) ground: Ground,
    can: BTreeSet<Can>,
    serial: String,
    cx: Cx,
    pub(super) place: Arc<dyn ProviderPlace>,
}

impl Debug for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Trial").field(&self.caps).finish()
    }
}

/// A name that a case uses: nobody else's.
pub(super) fn name(serial: &str, number: u32) -> String {
    format!("sp-{serial}-{number}")
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the place could not do is no fault of the provider; the case has failed all the same.
pub(super) fn placed<T>(what: &str, found: Result<T, BoxError>) -> Result<T, Flaw> {
    found.map_err(|error| Flaw::new(format!("the place failed to {what}: {error}")))
}

/// A refusal of this kind.
pub(super) fn refused<T: Debug>(
    what: &str,
    found: ProviderResult<T>,
    wanted: &ProviderErrorKind,
) -> Result<ProviderError, Flaw> {
    refused_as(what, found, &format!("{wanted:?}"), |kind| kind == wanted)
}

/// A refusal that is one of several.
pub(super) fn refused_as<T: Debug>(
    what: &str,
    found: ProviderResult<T>,
    wanted: &str,
    is_it: impl Fn(&ProviderErrorKind) -> bool,
) -> Result<ProviderError, Flaw> {
    match found {
        Ok(answer) => Err(Flaw::new(format!("{what} answers {answer:?}, and not {wanted}"))),
        Err(error) if is_it(error.kind()) => Ok(error),
        Err(error) => {
            Err(Flaw::new(format!("{what} fails as {:?} ({error}), not {wanted}", error.kind())))
        }
    }
}

impl Trial {
    pub(super) async fn open(factory: &dyn ProviderFactory) -> Result<Self, Flaw> {
        let place: Arc<dyn ProviderPlace> = placed("be made", factory.place().await)?.into();
        let provider = opened(&*place).await?;
        let (caps, ground) = (provider.caps(), place.ground());
        let seams = factory.seams();
        let serial = seams.ids.uuid().simple().to_string();
        ensure(
            !ground.volumes.is_empty() && ground.volumes.iter().all(|v| !v.files.is_empty()),
            || "the place has no volume with a file on it".to_owned(),
        )?;
        Ok(Self {
            provider: Mutex::new(Some(provider)),
            known: Arc::default(),
            caps,
            ground,
            can: factory.can(),
            serial,
            cx: Cx::builder(&seams).build(),
            place,
        })
    }

    /// Closes the provider and opens it again. Handles that the case has are dropped before.
    pub(super) async fn reopen(&self) -> Result<(), Flaw> {
        drop(lock(&self.provider).take());
        let provider = opened(&*self.place).await?;
        *lock(&self.provider) = Some(provider);
        Ok(())
    }

    /// What the case may leave.
    pub(super) fn left(&self) -> Left {
        Left {
            place: Arc::clone(&self.place),
            known: Arc::clone(&self.known),
            volumes: self.ground.volumes.iter().map(|volume| volume.volume.clone()).collect(),
            serial: self.serial.clone(),
            cx: self.cx.clone(),
        }
    }

    /// The provider.
    pub(super) fn provider(&self) -> Result<Arc<dyn SnapshotProvider>, Flaw> {
        lock(&self.provider).clone().ok_or_else(|| Flaw::new("the provider is closed"))
    }

    pub(super) fn cx(&self) -> &Cx {
        &self.cx
    }

    pub(super) fn can(&self, what: Can) -> bool {
        self.can.contains(&what)
    }

    pub(super) fn commits(&self) -> bool {
        self.caps.coordination.contains(&ProviderCoordination::Commit)
    }

    pub(super) fn adopts(&self) -> bool {
        self.caps.coordination.contains(&ProviderCoordination::Adopt)
    }

    /// A name that nobody has had before.
    pub(super) fn name(&self) -> String {
        let mut known = lock(&self.known);
        known.count += 1;
        name(&self.serial, known.count)
    }

    pub(super) fn token(&self) -> Result<SetToken, Flaw> {
        SetToken::new(self.name()).map_err(|error| Flaw::new(error.to_string()))
    }

    pub(super) fn exposure_key(&self) -> Result<ExposureKey, Flaw> {
        ExposureKey::new(self.name()).map_err(|error| Flaw::new(error.to_string()))
    }

    pub(super) fn doc_name(&self) -> Result<DocName, Flaw> {
        DocName::new(self.name()).map_err(|error| Flaw::new(error.to_string()))
    }

    pub(super) fn restore_key(&self) -> Result<RestoreKey, Flaw> {
        RestoreKey::new(self.name()).map_err(|error| Flaw::new(error.to_string()))
    }

    /// The first volume.
    pub(super) fn first(&self) -> Result<&TestVolume, Flaw> {
        self.ground.volumes.first().ok_or_else(|| Flaw::new("the place has no volume"))
    }

    /// A new set of these volumes with all their files.
    pub(super) fn spec_of(&self, volumes: &[TestVolume]) -> Result<PrepareSpec, Flaw> {
        let token = self.token()?;
        let name = format!("conformance-{token}");
        let mut spec = PrepareSpec::new(token, name).with_tag("run", self.serial.clone());
        for (index, volume) in volumes.iter().enumerate() {
            let role = match index {
                _ if volumes.len() == 1 => MemberRole::DataAndLog,
                0 => MemberRole::Data,
                1 => MemberRole::Log,
                _ => MemberRole::DataAndLog,
            };
            spec = spec.with_member(MemberSpec::new(
                volume.volume.clone(),
                role,
                volume.files.clone(),
            ));
        }
        Ok(spec)
    }

    /// A new set of the first volume.
    pub(super) fn one(&self) -> Result<PrepareSpec, Flaw> {
        self.spec_of(self.ground.volumes.get(..1).unwrap_or_default())
    }

    /// A new set of the first two volumes, of the only one if a set has no more.
    pub(super) fn spec(&self) -> Result<PrepareSpec, Flaw> {
        let most = self.caps.max_volumes.map_or(usize::MAX, |most| most.get() as usize).min(2);
        let count = self.ground.volumes.len().min(most);
        self.spec_of(self.ground.volumes.get(..count).unwrap_or_default())
    }

    pub(super) async fn prepare(&self, spec: &PrepareSpec) -> ProviderResult<Prepared> {
        let provider = self.provider().map_err(|flaw| closed(&flaw))?;
        patiently!(self, provider.prepare(&self.cx, spec))
    }

    /// Commits, or has the place snap and adopts; repeated, it adopts the same.
    pub(super) async fn commit(&self, prepared: &Prepared) -> ProviderResult<Vec<Member>> {
        let provider = self.provider().map_err(|flaw| closed(&flaw))?;
        if self.commits() {
            return patiently!(self, provider.commit(&self.cx, prepared));
        }
        let natives = self.natives(prepared).await.map_err(|flaw| closed(&flaw))?;
        patiently!(self, provider.adopt(&self.cx, prepared, &natives))
    }

    /// What the place has snapped, or snaps now, for a set.
    pub(super) async fn natives(&self, prepared: &Prepared) -> Result<Vec<NativeSnapshot>, Flaw> {
        let known = lock(&self.known).natives.get(&prepared.token).cloned();
        if let Some(natives) = known {
            return Ok(natives);
        }
        let natives = placed("snap", self.place.snap(prepared).await)?;
        lock(&self.known).natives.insert(prepared.token.clone(), natives.clone());
        Ok(natives)
    }

    pub(super) async fn settle(&self, prepared: &Prepared) -> ProviderResult<Vec<Snapshot>> {
        let provider = self.provider().map_err(|flaw| closed(&flaw))?;
        patiently!(self, provider.settle(&self.cx, prepared))
    }

    /// Prepares and commits.
    pub(super) async fn take(&self, spec: &PrepareSpec) -> Result<Prepared, Flaw> {
        let prepared = self.prepare(spec).await?;
        self.commit(&prepared).await?;
        Ok(prepared)
    }

    /// Prepares, commits and settles.
    pub(super) async fn settled(&self, spec: &PrepareSpec) -> Result<Vec<Snapshot>, Flaw> {
        let prepared = self.take(spec).await?;
        Ok(self.settle(&prepared).await?)
    }

    pub(super) async fn find(&self, token: &SetToken) -> Result<Found, Flaw> {
        let provider = self.provider()?;
        Ok(patiently!(self, provider.find(&self.cx, token))?)
    }

    /// Whether a call that failed is to be made again, which it is while somebody else is at it; waits for that.
    pub(super) async fn again(&self, error: &ProviderError, tries: &mut u32) -> bool {
        if error.class() != ErrorClass::Busy || *tries >= TRIES {
            return false;
        }
        *tries += 1;
        let time = error.retry_after().unwrap_or(Duration::from_millis(20));
        let time = if *tries > SOON { time.max(Duration::from_secs(1)) } else { time };
        self.wait(time).await;
        true
    }

    pub(super) async fn wait(&self, time: Duration) {
        // The context of a trial has no deadline and is never cancelled.
        let _slept = self.cx.sleep(time).await;
    }

    /// Lets pass what may still be under way, where that costs nothing.
    pub(super) async fn let_pass(&self) {
        if self.can(Can::Virtual) {
            self.wait(Duration::from_hours(1)).await;
        }
    }

    /// Discards a set, watches as long as it is asked to, and looks that nothing of it is there.
    pub(super) async fn clear(&self, token: &SetToken) -> Result<(), Flaw> {
        let began = self.cx.mono();
        loop {
            let provider = self.provider()?;
            let answer = patiently!(self, provider.discard(&self.cx, token))?;
            let Discarded::WatchUntil(until) = answer else {
                self.let_pass().await;
                return self.nothing_of(token, "after it was discarded").await;
            };
            let now = self.cx.now();
            let time = (until - now).to_std().unwrap_or_default();
            ensure(self.cx.mono().saturating_since(began) + time <= PATIENCE, || {
                format!("discard asks to watch until {until}, at {now}")
            })?;
            self.wait(time.max(Duration::from_millis(1))).await;
        }
    }

    /// Nothing of a token is there.
    pub(super) async fn nothing_of(&self, token: &SetToken, when: &str) -> Result<(), Flaw> {
        same(&format!("what is found of a set {when}"), &self.find(token).await?, &Found::Absent)?;
        for volume in &self.ground.volumes {
            let left = self.of_token(&volume.volume, token).await?;
            ensure(left.is_empty(), || format!("{when} it is listed: {left:?}"))?;
        }
        Ok(())
    }

    /// The listed snapshots of a token.
    pub(super) async fn of_token(
        &self,
        volume: &VolumeRef,
        token: &SetToken,
    ) -> Result<Vec<Snapshot>, Flaw> {
        let mut listed = self.listed(volume).await?;
        listed.retain(|snapshot| snapshot.token.as_ref() == Some(token));
        Ok(listed)
    }

    /// All snapshots of a volume.
    pub(super) async fn listed(&self, volume: &VolumeRef) -> Result<Vec<Snapshot>, Flaw> {
        let provider = self.provider()?;
        let (mut found, mut page) = (Vec::new(), None);
        for _ in 0..100_000 {
            let listing = provider.list(&self.cx, volume, page).await?;
            found.extend(listing.snapshots);
            page = listing.next;
            if page.is_none() {
                return Ok(found);
            }
        }
        Err(Flaw::new("a listing does not come to an end"))
    }

    /// Writes a number into every file, where the place is to be written to.
    pub(super) async fn stamp(&self, number: u64) -> Result<(), Flaw> {
        if !self.can(Can::Write) {
            return Ok(());
        }
        for file in self.ground.volumes.iter().flat_map(|volume| &volume.files) {
            placed("write", self.place.write(file, &stamped(number)).await)?;
        }
        Ok(())
    }

    /// The bytes of all files of a set now.
    pub(super) async fn live(&self, spec: &PrepareSpec) -> Result<Bytes, Flaw> {
        let mut seen = Bytes::new();
        for file in spec.members.iter().flat_map(|member| &member.files) {
            let bytes = self.read(file).await?;
            let bytes = bytes.ok_or_else(|| Flaw::new(format!("{file} is not there")))?;
            let _new = seen.insert(file.clone(), bytes);
        }
        Ok(seen)
    }

    pub(super) async fn read(&self, path: &HostPath) -> Result<Option<Vec<u8>>, Flaw> {
        placed("read", self.place.read(path).await)
    }

    /// Exposes snapshots under a new key.
    pub(super) async fn expose(&self, snapshots: &[Snapshot]) -> Result<Exposure, Flaw> {
        let (provider, key) = (self.provider()?, self.exposure_key()?);
        let references: Vec<SnapshotRef> = snapshots.iter().map(Snapshot::reference).collect();
        let exposure = provider.expose(&self.cx, &references, &self.ground.host, &key).await?;
        same("the key of an exposure", &exposure.key, &key)?;
        Ok(exposure)
    }

    pub(super) async fn unexpose(&self, exposure: &Exposure) -> Result<(), Flaw> {
        Ok(self.provider()?.unexpose(&self.cx, &exposure.key).await?)
    }

    /// That an exposure shows these files with these bytes.
    pub(super) async fn shows(
        &self,
        what: &str,
        exposure: &Exposure,
        seen: &Bytes,
    ) -> Result<(), Flaw> {
        for (file, wanted) in seen {
            let place = exposure.find(file).ok_or_else(|| {
                Flaw::new(format!("{what}: the exposure has no place for {file}"))
            })?;
            let found = self.read(&place).await?;
            ensure(found.as_ref() == Some(wanted), || {
                format!(
                    "{what}: {place} holds {}, wanted {}",
                    told(found.as_deref()),
                    told(Some(wanted))
                )
            })?;
        }
        Ok(())
    }

    /// That these snapshots still hold these bytes, as far as they can be exposed.
    pub(super) async fn hold(
        &self,
        what: &str,
        snapshots: &[Snapshot],
        seen: &Bytes,
    ) -> Result<(), Flaw> {
        if !self.caps.expose {
            return Ok(());
        }
        let exposure = self.expose(snapshots).await?;
        self.shows(what, &exposure, seen).await?;
        self.unexpose(&exposure).await
    }
}

/// What makes a snapshot that one, whoever tells of it: the files in it are told by those who know them.
pub(super) fn identities(snapshots: &[Snapshot]) -> Vec<Snapshot> {
    let bare = |snapshot: &Snapshot| {
        let mut snapshot = snapshot.clone().with_files(Vec::new());
        snapshot.bytes = None;
        snapshot
    };
    let mut bare: Vec<_> = snapshots.iter().map(bare).collect();
    bare.sort_by_key(Snapshot::reference);
    bare
}

/// That all of these are found, in whatever order.
pub(super) fn complete(what: &str, found: &Found, wanted: &[Snapshot]) -> Result<(), Flaw> {
    match found {
        Found::Complete(found) => same(what, &identities(found), &identities(wanted)),
        other => Err(Flaw::new(format!("{what} is found as {other:?}"))),
    }
}

fn closed(flaw: &Flaw) -> ProviderError {
    ProviderError::new(ProviderErrorKind::Internal, flaw.to_string())
}

pub(super) async fn opened(place: &dyn ProviderPlace) -> Result<Arc<dyn SnapshotProvider>, Flaw> {
    let failed = |error| Flaw::new(format!("the provider cannot be opened: {error}"));
    place.open().await.map_err(failed)
}

/// What a file holds that was stamped with a number: always as long.
pub(super) fn stamped(number: u64) -> Vec<u8> {
    format!("stamp {number:010}\n").into_bytes().repeat(256)
}

/// The number that a file was stamped with; `None` if it is torn or was not stamped.
pub(super) fn stamp_of(bytes: &[u8]) -> Option<u64> {
    let line = std::str::from_utf8(bytes.get(..16)?).ok()?;
    let number = line.strip_prefix("stamp ")?.parse().ok()?;
    (bytes == stamped(number)).then_some(number)
}

/// What some bytes are, in short.
pub(super) fn told(bytes: Option<&[u8]>) -> String {
    match bytes {
        None => "nothing".to_owned(),
        Some(bytes) => match stamp_of(bytes) {
            Some(number) => format!("stamp {number}"),
            None => format!("{} other bytes", bytes.len()),
        },
    }
}
