//! `commit`: clones or copies, volumes side by side, and syncs nothing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chrono::{DateTime, Utc};
use stillpoint_context::Cx;
use stillpoint_model::handover::{Member, MemberRole, Prepared};
use stillpoint_model::id::{SetToken, SnapshotId, VolumeId};
use stillpoint_model::seal::SealWriter;
use stillpoint_storage::{ProviderError, ProviderErrorKind, ProviderResult};

use crate::copy::{Meter, buffer, pump};
use crate::disk::{Lock, Wait};
use crate::format::{
    self, Method, Plan, PlanFile, PlanMember, SetRecord, Taken, TakenFile, TakenMember,
};
use crate::prepare::expired;
use crate::store::{BEGUN, LOCK, PLAN, Store, TAKEN, glances, member_folder, nothing_at};
use crate::volume::{Source, Volume};

/// The right to make a set that is not settled, or to work on it. While one lives, nobody else has it.
///
/// A set that is discarded meanwhile is moved away under the work. Whoever drops the last claim then removes it, so that a
/// late commit leaves nothing.
#[derive(Debug)]
pub(crate) struct Claim {
    store: Arc<Store>,
    token: SetToken,
    lock: Lock,
}

impl Claim {
    /// Claims a set under preparation `nonce`, and reads its plan.
    pub(crate) fn take(
        store: &Arc<Store>,
        cx: &Cx,
        token: &SetToken,
        nonce: &str,
    ) -> ProviderResult<(Self, Plan)> {
        let folder = store.partial(token);
        // Never made here: only a preparation may, and what is being removed must not have it again.
        let lock = match store.disk.lock_known(&folder.join(LOCK), Wait::ForGlances(&glances(cx))) {
            Ok(Some(lock)) => lock,
            Ok(None) => return Err(moving(token)),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Err(expired(token).without_effect());
            }
            Err(error) => {
                return Err(ProviderError::io(format_args!("lock {}", folder.display()), error));
            }
        };
        let claim = Self { store: Arc::clone(store), token: token.clone(), lock };
        let plan: Option<Plan> = format::read(&folder.join(PLAN))?;
        match plan {
            Some(plan) if plan.nonce == nonce && plan.token == *token => Ok((claim, plan)),
            _ => Err(expired(token).without_effect()),
        }
    }

    /// Makes the folder of a set that has none, and claims it. Busy if somebody else makes it.
    pub(crate) fn make(store: &Arc<Store>, cx: &Cx, token: &SetToken) -> ProviderResult<Self> {
        let folder = store.partial(token);
        let failed = |e| ProviderError::io(format_args!("make {}", folder.display()), e);
        store.disk.make_dir(&folder).map_err(failed)?;
        let lock = store.disk.lock_new(&folder.join(LOCK), Wait::ForGlances(&glances(cx)));
        let lock = match lock {
            Ok(Some(lock)) => lock,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(moving(token));
            }
            Ok(None) => return Err(expired(token)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(expired(token)),
            Err(error) => return Err(failed(error)),
        };
        let claim = Self { store: Arc::clone(store), token: token.clone(), lock };
        // Looked at with the lock held: from here on nobody else begins, and whoever had begun is seen.
        for other in [store.settled(token), store.discarded(token)] {
            if !nothing_at(&other)? {
                claim.abandon();
                return Err(moving(token));
            }
        }
        Ok(claim)
    }

    /// Gives up a set that was being made. If it was taken away meanwhile, what is there now is another's.
    pub(crate) fn abandon(self) {
        if self.lock.is_in_place()
            && let Err(error) = self.store.retire(&self.token, &self.folder())
        {
            tracing::warn!(token = %self.token, %error, "what a failed preparation made stays");
        }
        // Dropped, it removes what it has moved away.
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.store.partial(&self.token)
    }

    /// Whether the set has not been discarded.
    pub(crate) fn check(&self) -> ProviderResult<()> {
        if self.lock.is_in_place() { Ok(()) } else { Err(expired(&self.token)) }
    }

    /// The note that every member is taken, if it is there. A set that was discarded has none.
    pub(crate) fn taken(&self) -> ProviderResult<Option<Taken>> {
        let taken = format::read(&self.folder().join(TAKEN))?;
        if taken.is_none() {
            self.check()?;
        }
        Ok(taken)
    }

    /// The error of work in the set's folder: if the folder was moved away, that is the reason.
    pub(crate) fn explain(&self, error: ProviderError) -> ProviderError {
        self.check().err().unwrap_or(error)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.lock.is_in_place() {
            return;
        }
        let discarded = self.store.discarded(&self.token);
        let is_it = |found| found == Some(self.lock.inode());
        // Not empty: whoever waits for us has made the lock anew, and removes the rest.
        if crate::disk::Inode::at(&discarded.join(LOCK)).is_ok_and(is_it)
            && let Err(error) = self.store.remove_set(&discarded)
            && error.kind() != io::ErrorKind::DirectoryNotEmpty
        {
            tracing::warn!(token = %self.token, %error, "a discarded set could not be removed yet");
        }
    }
}

/// Somebody else is at the set.
pub(crate) fn moving(token: &SetToken) -> ProviderError {
    let text = format!("an earlier call for the set {token} is still running");
    ProviderError::new(ProviderErrorKind::Busy, text)
}

/// A commit that may go ahead, or one that has been made before.
#[derive(Debug)]
pub(crate) enum Begun {
    Before(Vec<Member>),
    Now(Arc<Commit>),
}

/// A commit under way, shared by the threads that work on its members.
#[derive(Debug)]
pub(crate) struct Commit {
    claim: Claim,
    plan: Plan,
    stop: AtomicBool,
}

impl Commit {
    pub(crate) fn new(claim: Claim, plan: Plan) -> Arc<Self> {
        Arc::new(Self { claim, plan, stop: AtomicBool::new(false) })
    }
}

/// A prepared set, as far as it has come.
#[derive(Debug)]
pub(crate) enum Reached {
    Claimed(Claim, Plan),
    Settled(SetRecord),
}

impl Store {
    /// Claims a set that is not settled, or reads the record of one that is.
    pub(crate) fn reach(self: &Arc<Self>, cx: &Cx, prepared: &Prepared) -> ProviderResult<Reached> {
        let nonce = self.nonce(prepared)?;
        let settled = || -> ProviderResult<Option<Reached>> {
            match self.set_record(&prepared.token)? {
                Some(record) if record.nonce == nonce => Ok(Some(Reached::Settled(record))),
                Some(_) => Err(expired(&prepared.token).without_effect()),
                None => Ok(None),
            }
        };
        if let Some(settled) = settled()? {
            return Ok(settled);
        }
        match Claim::take(self, cx, &prepared.token, &nonce) {
            Ok((claim, plan)) => Ok(Reached::Claimed(claim, plan)),
            // An earlier call may have settled it between the two looks.
            Err(error) if *error.kind() == ProviderErrorKind::Expired => settled()?.ok_or(error),
            Err(error) => Err(error),
        }
    }

    /// Claims the set and clears what a failed attempt left.
    pub(crate) fn begin_commit(
        self: &Arc<Self>,
        cx: &Cx,
        prepared: &Prepared,
    ) -> ProviderResult<Begun> {
        let (claim, plan) = match self.reach(cx, prepared)? {
            Reached::Claimed(claim, plan) => (claim, plan),
            Reached::Settled(record) => {
                let members = record.members.iter();
                let members = members.map(|m| (&m.volume, m.role, m.taken_at));
                return Ok(Begun::Before(self.answer_members(&prepared.token, members)?));
            }
        };
        let folder = claim.folder();
        if let Some(snapshots) = self.snapshots_of_plan(&folder, &plan)? {
            return self.begin_snapshots(claim, plan, &snapshots);
        }
        if let Some(taken) = claim.taken()? {
            if taken.boot != self.boot {
                return Err(expired(&prepared.token)
                    .with_remedy("The machine was restarted before the set was settled: discard it and back up again."));
            }
            let members = plan.members.iter().zip(&taken.members);
            let members = members.map(|(p, t)| (&p.volume, p.role, t.taken_at));
            return Ok(Begun::Before(self.answer_members(&prepared.token, members)?));
        }
        let ready = || -> io::Result<()> {
            let begun = folder.join(BEGUN);
            if fs::symlink_metadata(&begun).is_ok() {
                // A half-made attempt is thrown away whole: its files are of another instant.
                for (index, member) in plan.members.iter().enumerate() {
                    for file in &member.files {
                        self.disk.remove(&member_folder(&folder, index).join(&file.path))?;
                    }
                }
                return Ok(());
            }
            self.disk.create_new(&begun).map(drop)
        };
        ready().map_err(|error| {
            claim.explain(ProviderError::io(format_args!("begin in {}", folder.display()), error))
        })?;
        Ok(Begun::Now(Commit::new(claim, plan)))
    }

    pub(crate) fn answer_members<'a>(
        &self,
        token: &SetToken,
        members: impl Iterator<Item = (&'a VolumeId, MemberRole, DateTime<Utc>)>,
    ) -> ProviderResult<Vec<Member>> {
        let id = snapshot_id(token)?;
        let member = |(volume, role, at)| {
            Member::new(self.snapshot_volume(volume), role, at).with_snapshot(id.clone())
        };
        Ok(members.map(member).collect())
    }
}

/// A snapshot's id is the token of its set: a set has one snapshot on a volume.
pub(crate) fn snapshot_id(token: &SetToken) -> ProviderResult<SnapshotId> {
    SnapshotId::new(token.as_str()).map_err(|error| {
        ProviderError::new(ProviderErrorKind::Internal, error.to_string()).with_source(error)
    })
}

impl Commit {
    /// The members in the order of S9: those of one wave side by side, each wave after the one before. Volumes of databases
    /// come before volumes of logs, so that no page is newer than its log, even if nobody held the writes. Within a member
    /// that holds both, the order is that of its files; between two such members there is none, as nobody says which of
    /// their files are logs.
    pub(crate) fn waves(&self) -> Vec<Vec<usize>> {
        let wave = |role| {
            let members = self.plan.members.iter().enumerate();
            members.filter(|(_, m)| m.role == role).map(|(index, _)| index).collect::<Vec<_>>()
        };
        [MemberRole::Data, MemberRole::DataAndLog, MemberRole::Log].map(wave).into()
    }

    /// Takes one member. The others stop when it fails.
    pub(crate) fn take(&self, cx: &Cx, index: usize) -> ProviderResult<(usize, TakenMember)> {
        let taken = self.take_member(cx, index).map_err(|error| self.claim.explain(error));
        if taken.is_err() {
            self.stop.store(true, Ordering::Relaxed);
        }
        taken.map(|member| (index, member))
    }

    fn take_member(&self, cx: &Cx, index: usize) -> ProviderResult<TakenMember> {
        let store = &self.claim.store;
        let gone =
            || ProviderError::new(ProviderErrorKind::Internal, "the plan has no such member");
        let member: &PlanMember = self.plan.members.get(index).ok_or_else(gone)?;
        let volume = store.volume(&store.snapshot_volume(&member.volume))?;
        let base = member_folder(&self.claim.folder(), index);
        if member.subvolume.is_some() {
            self.check(cx)?;
            store.snap(volume, &base)?;
            // Until the file system has been asked.
            return Ok(TakenMember { taken_at: cx.now(), files: Vec::new() });
        }
        let mut buffer = buffer();
        let mut files = Vec::new();
        for file in &member.files {
            self.check(cx)?;
            files.push(self.take_file(cx, volume, file, &base, &mut buffer)?);
        }
        Ok(TakenMember { taken_at: cx.now(), files })
    }

    fn check(&self, cx: &Cx) -> ProviderResult<()> {
        cx.check()?;
        self.claim.check()?;
        if self.stop.load(Ordering::Relaxed) {
            let text = "another volume of the set failed";
            return Err(ProviderError::new(ProviderErrorKind::Cancelled, text));
        }
        Ok(())
    }

    fn take_file(
        &self,
        cx: &Cx,
        volume: &Volume,
        file: &PlanFile,
        base: &Path,
        buffer: &mut [u8],
    ) -> ProviderResult<TakenFile> {
        let disk = &self.claim.store.disk;
        let target = base.join(&file.path);
        let failed = |error| {
            ProviderError::io(format_args!("write {}", target.display()), error)
                .with_volume(volume.reference.clone())
        };
        let source = volume.open(&file.path)?;
        let bytes = source.metadata.len();
        let to = disk.create_new(&target).map_err(failed)?;
        let seal = match file.method {
            Method::Reflink => {
                disk.clone_bytes(&source.file, &to, &target).map_err(failed)?;
                None
            }
            // A subvolume is taken as a whole.
            Method::Snapshot => return Err(changed_kind(volume, &file.path)),
            Method::Copy => {
                let meter = Meter::new(cx, self.plan.limit_ms.is_some());
                let mut seal = SealWriter::new(bytes);
                let unread = |error| volume.trouble(&file.path, error);
                let write = |at, part: &[u8]| disk.write_at(&to, &target, at, part).map_err(failed);
                let pieces = seal.pieces();
                let join = |piece| {
                    self.check(cx)?;
                    seal.join(piece);
                    let done = seal.bytes();
                    if done > bytes {
                        return Err(changed(volume, &file.path, bytes, done));
                    }
                    meter.bytes(&target, done, bytes);
                    Ok(done)
                };
                let read = pump(&source.file, bytes, buffer, pieces, unread, write, join)?;
                if read != bytes {
                    return Err(changed(volume, &file.path, bytes, read));
                }
                Some(seal.finish())
            }
        };
        still_there(volume, &file.path, &source)?;
        let modified = source.metadata.modified().map_err(|e| volume.trouble(&file.path, e))?;
        Ok(TakenFile {
            path: file.path.clone(),
            bytes,
            mode: std::os::unix::fs::MetadataExt::mode(&source.metadata) & 0o777,
            modified: DateTime::from(modified),
            seal,
        })
    }

    /// Notes that all members are taken.
    pub(crate) fn finish(&self, members: Vec<(usize, TakenMember)>) -> ProviderResult<Vec<Member>> {
        let store = &self.claim.store;
        // That snapshots are there says it; nothing is written while the writes are held.
        let found = store.snapshots_of_plan(&self.claim.folder(), &self.plan);
        if let Some(found) = found.map_err(|error| self.claim.explain(error))? {
            self.claim.check()?;
            return store.answer_snapshots(&self.plan, &found)?.ok_or_else(|| gone(&self.plan));
        }
        let mut members = members;
        members.sort_by_key(|(index, _)| *index);
        let members: Vec<_> = members.into_iter().map(|(_, member)| member).collect();
        let taken = Taken { nonce: self.plan.nonce.clone(), boot: store.boot.clone(), members };
        let path = self.claim.folder().join(TAKEN);
        format::write(&store.disk, &path, &taken, false).map_err(|e| self.claim.explain(e))?;
        // Looked at last: a set that was discarded before this is gone, one that is discarded after it goes whole.
        self.claim.check()?;
        let answer = self.plan.members.iter().zip(&taken.members);
        store.answer_members(
            &self.plan.token,
            answer.map(|(plan, taken)| (&plan.volume, plan.role, taken.taken_at)),
        )
    }
}

/// A snapshot was taken, and is not there.
fn gone(plan: &Plan) -> ProviderError {
    let text = format!("a snapshot of the set {} was removed as soon as it was taken", plan.token);
    ProviderError::new(ProviderErrorKind::Vanished, text)
}

fn changed_kind(volume: &Volume, path: &str) -> ProviderError {
    let text =
        format!("{} is to be in a snapshot of its subvolume", volume.path.join(path).display());
    volume.error(ProviderErrorKind::Internal, path, text)
}

fn changed(volume: &Volume, path: &str, before: u64, now: u64) -> ProviderError {
    let what = if now > before { "grew" } else { "shrank" };
    let full = volume.path.join(path);
    let text = format!("{} {what} from {before} bytes while it was copied", full.display());
    volume
        .error(ProviderErrorKind::Busy, path, text)
        .with_remedy("Find out what writes the file, then back up again.")
}

/// The file must still be under its name and as long as it was: what was renamed or replaced meanwhile is not what the
/// name stands for.
fn still_there(volume: &Volume, path: &str, source: &Source) -> ProviderResult<()> {
    let now = volume.open(path)?;
    if now.inode() != source.inode() {
        let text = format!("{} was replaced while it was taken", volume.path.join(path).display());
        return Err(volume.error(ProviderErrorKind::Vanished, path, text));
    }
    let (before, after) = (source.metadata.len(), now.metadata.len());
    if before == after { Ok(()) } else { Err(changed(volume, path, before, after)) }
}
