//! `prepare`: checks what can be checked before the freeze and makes the folders that `commit` fills.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use stillpoint_context::{Cx, Subject};
use stillpoint_model::handover::{Prepared, PreparedMember};
use stillpoint_model::id::SetToken;
use stillpoint_storage::{
    MemberSpec, PrepareSpec, ProviderError, ProviderErrorKind, ProviderResult,
};

use crate::commit::{Claim, moving};
use crate::config::can_clone;
use crate::disk::folder_of;
use crate::extents;
use crate::flight::Flight;
use crate::format::{self, Method, Plan, PlanFile, PlanMember, SetRecord};
use crate::remove::Removal;
use crate::store::{Owner, PLAN, Store, TRIAL, inode_at, is_name, member_folder};
use crate::volume::Volume;

/// A clone may take this much longer than it took in the trial: another process may write, or more extents have come.
const SLACK: u32 = 4;
/// And this much in any case.
const FLOOR: Duration = Duration::from_millis(100);
/// A snapshot of a subvolume takes about as long as the file system needs to write out what is in memory, and at least this
/// long.
const SNAPSHOT: Duration = Duration::from_millis(5);
/// Room that is left free beside the copies, for documents and the file system's own needs.
const RESERVE: u64 = 16 << 20;

impl Store {
    /// `flight` says whether it is still wanted; it is this call's until the call ends, also when its caller has gone.
    pub(crate) fn prepare(
        self: &Arc<Self>,
        cx: &Cx,
        spec: &PrepareSpec,
        flight: &Flight<SetToken>,
    ) -> ProviderResult<Prepared> {
        cx.check().map_err(|error| ProviderError::from(error).without_effect())?;
        if !is_name(&spec.token) {
            let text = format!("the token {} cannot be the name of a folder", spec.token);
            return Err(ProviderError::new(ProviderErrorKind::Invalid, text).without_effect());
        }
        if let Some(record) = self.look_for_strangers(&spec.token)? {
            return self.prepared_before(&record, spec);
        }
        let members = self.members(spec)?;
        check(flight, &spec.token).map_err(ProviderError::without_effect)?;
        // What is left of an earlier preparation or attempt goes; work that is still running ends first.
        if self.sweep(cx, &spec.token)? == Removal::Waiting {
            return Err(moving(&spec.token));
        }
        check(flight, &spec.token)?;
        let claim = Claim::make(self, cx, &spec.token)?;
        match self.fill(cx, spec, members, &claim, flight) {
            Ok(plan) => Ok(self.answer(&plan)),
            Err(error) => {
                let error = claim.explain(error);
                claim.abandon();
                Err(error)
            }
        }
    }

    /// The record of the set if it is settled; an error if something that is not ours has one of its names.
    fn look_for_strangers(&self, token: &SetToken) -> ProviderResult<Option<SetRecord>> {
        let (settled, partial) = (self.settled(token), self.partial(token));
        loop {
            self.disk.look(&settled);
            let there = inode_at(&settled)?;
            if let Some(record) = self.set_record(token)? {
                return Ok(Some(record));
            }
            self.disk.look(&settled);
            if inode_at(&settled)? != there {
                continue; // It was settled, or removed, this very moment.
            }
            // A settled set without a record is not one of ours; a set in the making may be without one for a moment.
            if there.is_some() {
                return Err(foreign(&settled));
            }
            if self.owner(&partial, token)? == Owner::Stranger {
                return Err(foreign(&partial));
            }
            return Ok(None);
        }
    }

    /// The same answer as when the settled set was prepared, or a refusal if it is another set.
    fn prepared_before(&self, record: &SetRecord, spec: &PrepareSpec) -> ProviderResult<Prepared> {
        let known = record.members.iter().map(|m| (&m.volume, m.role));
        let asked = spec.members.iter().map(|m| (&m.volume.id, m.role));
        if record.name != spec.name || !known.eq(asked) {
            let text = format!("the set {} exists and has other members", spec.token);
            return Err(ProviderError::new(ProviderErrorKind::NameTaken, text).without_effect());
        }
        let members = record.members.iter();
        let members =
            members.map(|m| PreparedMember::new(self.snapshot_volume(&m.volume), m.role)).collect();
        Ok(Prepared::new(record.token.clone(), self.provider.clone())
            .with_members(members)
            .with_opaque(record.nonce.clone().into_bytes()))
    }

    /// The members with their volumes and the paths below them, each file once.
    fn members<'a>(&'a self, spec: &'a PrepareSpec) -> ProviderResult<Vec<Wanted<'a>>> {
        if spec.members.is_empty() {
            let text = format!("the set {} has no members", spec.token);
            return Err(ProviderError::new(ProviderErrorKind::Invalid, text).without_effect());
        }
        let mut seen = BTreeSet::new();
        let mut members = Vec::new();
        for member in &spec.members {
            let volume = self.volume(&member.volume)?;
            if !seen.insert(&member.volume) {
                let text = format!("the volume {} is in the set twice", member.volume);
                return Err(ProviderError::new(ProviderErrorKind::Invalid, text)
                    .with_volume(member.volume.clone())
                    .without_effect());
            }
            let (mut paths, mut known) = (Vec::new(), BTreeSet::new());
            for file in &member.files {
                match self.volume_of(file) {
                    Some((found, inside))
                        if found.reference == volume.reference && !inside.is_empty() =>
                    {
                        if known.insert(inside.clone()) {
                            paths.push(inside);
                        }
                    }
                    _ => {
                        let text = format!("{file} does not lie in the volume {}", member.volume);
                        return Err(ProviderError::new(ProviderErrorKind::PathEscapes, text)
                            .with_volume(member.volume.clone())
                            .with_subject(Subject::new("file", file))
                            .without_effect());
                    }
                }
            }
            members.push(Wanted { spec: member, volume, paths });
        }
        Ok(members)
    }

    /// Tries each file, makes the folders, and writes the plan.
    fn fill(
        &self,
        cx: &Cx,
        spec: &PrepareSpec,
        members: Vec<Wanted<'_>>,
        claim: &Claim,
        flight: &Flight<SetToken>,
    ) -> ProviderResult<Plan> {
        let folder = claim.folder();
        let io = |error| ProviderError::io(format_args!("make {}", folder.display()), error);
        let mut plan = Plan {
            token: spec.token.clone(),
            nonce: cx.seams().ids.uuid().simple().to_string(),
            name: spec.name.clone(),
            tags: spec.tags.clone(),
            limit_ms: spec.limit.map(millis),
            worst_case_ms: None,
            members: Vec::new(),
        };
        // First of all the plan, by which the folder is known as ours.
        format::write(&self.disk, &folder.join(PLAN), &plan, false)?;
        let mut tried = Tried::default();
        for (index, wanted) in members.into_iter().enumerate() {
            let base = member_folder(&folder, index);
            self.disk.make_dir(&base).map_err(io)?;
            let mut files = Vec::new();
            let subvolume = match wanted.volume.method {
                Method::Snapshot => Some(self.live(wanted.volume)?),
                Method::Reflink | Method::Copy => None,
            };
            for path in wanted.paths {
                cx.check()?;
                check(flight, &spec.token)?;
                claim.check()?;
                let target = base.join(&path);
                if subvolume.is_none() {
                    self.disk.make_dirs(&base, folder_of(&target).map_err(io)?).map_err(io)?;
                }
                let method =
                    self.try_file(cx, &folder, wanted.volume, &path, spec.limit, &mut tried)?;
                if method == Method::Copy && spec.limit.is_some() {
                    return Err(ProviderError::unsupported("instant")
                        .with_volume(wanted.volume.reference.clone())
                        .with_subject(Subject::new("file", wanted.volume.path.join(&path).display()))
                        .with_remedy(
                            "Put the store on the file system of the volume (btrfs, or XFS with reflink), \
                             or back up data at rest, which has no freeze limit.",
                        ));
                }
                files.push(PlanFile { path, method });
            }
            plan.members.push(PlanMember {
                volume: wanted.spec.volume.id.clone(),
                role: wanted.spec.role,
                root: wanted.volume.root.clone(),
                real_root: wanted.volume.real_root.clone(),
                subvolume: subvolume.map(|subvolume| subvolume.uuid),
                files,
            });
        }
        self.check_room(tried.copied)?;
        let snapshots = plan.members.iter().filter(|member| member.subvolume.is_some()).count();
        if snapshots > 0 {
            plan.worst_case_ms = Some(millis(self.settle_down(cx, &folder, snapshots)?));
        } else if tried.copied == 0 && plan.members.iter().all(PlanMember::is_cloned) {
            plan.worst_case_ms = Some(millis(tried.worst_case()));
        }
        if let (Some(limit), Some(worst)) = (spec.limit, plan.worst_case())
            && worst > limit
        {
            if snapshots == 0 {
                return Err(tried.too_slow(worst, limit));
            }
            let text = format!("the snapshots may take {worst:?}, and the limit is {limit:?}");
            let kind = ProviderErrorKind::TooSlow { worst_case: worst, limit };
            return Err(ProviderError::new(kind, text)
                .with_remedy("Take fewer volumes in one set, or find out what keeps the disk busy.")
                .without_effect());
        }
        claim.check()?;
        format::write(&self.disk, &folder.join(PLAN), &plan, false)?;
        // Looked at last: a preparation that was discarded is not one.
        claim.check()?;
        Ok(plan)
    }

    /// Writes out what is in memory, so that the snapshots find little, and says how long they may take at worst: each of
    /// them writes out what has come since, in a transaction of its own.
    fn settle_down(&self, cx: &Cx, folder: &Path, snapshots: usize) -> ProviderResult<Duration> {
        let failed = |error| ProviderError::io(format_args!("sync {}", folder.display()), error);
        // Snapshots take room for their records alone, but that they do take.
        self.check_room(1)?;
        self.disk.sync_all(folder).map_err(failed)?;
        cx.check()?;
        let began = cx.mono();
        self.disk.sync_all(folder).map_err(failed)?;
        let each = cx.mono().saturating_since(began).max(SNAPSHOT) * SLACK;
        let count = u32::try_from(snapshots).unwrap_or(u32::MAX);
        Ok(each.saturating_mul(count).saturating_add(FLOOR))
    }

    /// Opens a file as `commit` will, and clones it for a trial where the volume can: what a clone costs depends on the
    /// number of a file's extents, and only a trial tells.
    fn try_file(
        &self,
        cx: &Cx,
        folder: &Path,
        volume: &Volume,
        path: &str,
        limit: Option<Duration>,
        tried: &mut Tried,
    ) -> ProviderResult<Method> {
        let source = volume.open(path)?;
        if volume.method == Method::Snapshot {
            return Ok(Method::Snapshot);
        }
        if volume.method == Method::Reflink {
            let extents = extents::count(&source.file).map_err(|error| {
                ProviderError::io(format_args!("count the extents of {path}"), error)
                    .with_volume(volume.reference.clone())
            })?;
            tried.count(volume.path.join(path), extents.unwrap_or(0));
            // What surely does not fit is not tried: the trial would take as long.
            if let Some(limit) = limit
                && tried.worst_case() > limit
            {
                return Err(tried.too_slow(tried.worst_case(), limit));
            }
            let trial = folder.join(TRIAL);
            let mut attempt = || -> io::Result<bool> {
                let target = self.disk.create_new(&trial)?;
                let began = cx.mono();
                let able = can_clone(self.disk.clone_bytes(&source.file, &target, &trial))?;
                tried.cloning += cx.mono().saturating_since(began);
                self.disk.remove(&trial)?;
                Ok(able)
            };
            let able = attempt().map_err(|error| {
                ProviderError::io(format_args!("clone {path} for a trial"), error)
                    .with_volume(volume.reference.clone())
            })?;
            if able {
                return Ok(Method::Reflink);
            }
        }
        tried.copied = tried.copied.saturating_add(source.metadata.len());
        Ok(Method::Copy)
    }

    /// Refuses what does not fit into the store.
    pub(crate) fn check_room(&self, needed: u64) -> ProviderResult<()> {
        check_room(&self.root, needed)
    }

    fn answer(&self, plan: &Plan) -> Prepared {
        let members = plan.members.iter();
        let members =
            members.map(|m| PreparedMember::new(self.snapshot_volume(&m.volume), m.role)).collect();
        Prepared::new(plan.token.clone(), self.provider.clone())
            .with_members(members)
            .with_worst_case(plan.worst_case())
            .with_opaque(plan.nonce.clone().into_bytes())
    }

    /// The preparation that a `Prepared` names.
    pub(crate) fn nonce(&self, prepared: &Prepared) -> ProviderResult<String> {
        if prepared.provider != self.provider {
            let text = format!("the set {} was prepared by {}", prepared.token, prepared.provider);
            return Err(ProviderError::new(ProviderErrorKind::Invalid, text).without_effect());
        }
        String::from_utf8(prepared.opaque.clone()).map_err(|error| {
            let text = format!("the set {} was not prepared by this provider", prepared.token);
            ProviderError::new(ProviderErrorKind::Invalid, text).with_source(error).without_effect()
        })
    }
}

/// Whether a preparation is still wanted.
fn check(flight: &Flight<SetToken>, token: &SetToken) -> ProviderResult<()> {
    if flight.is_wanted() { Ok(()) } else { Err(expired(token)) }
}

/// The set was discarded, or prepared anew.
pub(crate) fn expired(token: &SetToken) -> ProviderError {
    let text = format!("the set {token} was discarded, or prepared anew");
    ProviderError::new(ProviderErrorKind::Expired, text)
}

fn foreign(folder: &Path) -> ProviderError {
    let text = format!("{} exists and is not ours", folder.display());
    ProviderError::new(ProviderErrorKind::NameTaken, text).without_effect()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Refuses what does not fit into a folder's file system.
pub(crate) fn check_room(folder: &Path, needed: u64) -> ProviderResult<()> {
    if needed == 0 {
        return Ok(());
    }
    let free = free_bytes(folder).map_err(|error| {
        ProviderError::io(format_args!("ask for the room in {}", folder.display()), error)
            .without_effect()
    })?;
    if needed.saturating_add(RESERVE) <= free {
        return Ok(());
    }
    let text = format!(
        "{} has {free} bytes free, and {needed} are needed beside {RESERVE} that stay free",
        folder.display()
    );
    Err(ProviderError::new(ProviderErrorKind::NoSpace, text).without_effect())
}

/// Bytes that may still be written in a folder's file system.
pub(crate) fn free_bytes(folder: &Path) -> io::Result<u64> {
    let facts = rustix::fs::statvfs(folder)?;
    Ok(facts.f_bavail.saturating_mul(facts.f_frsize))
}

impl Plan {
    fn worst_case(&self) -> Option<Duration> {
        self.worst_case_ms.map(Duration::from_millis)
    }
}

impl PlanMember {
    fn is_cloned(&self) -> bool {
        self.files.iter().all(|file| file.method == Method::Reflink)
    }
}

struct Wanted<'a> {
    spec: &'a MemberSpec,
    volume: &'a Volume,
    paths: Vec<String>,
}

#[derive(Default)]
struct Tried {
    /// Bytes that will be copied.
    copied: u64,
    /// Time that the trial clones took.
    cloning: Duration,
    /// Extents that will be cloned.
    extents: u64,
    /// The file with the most of them.
    worst: Option<(PathBuf, u64)>,
}

impl Tried {
    fn count(&mut self, path: PathBuf, extents: u64) {
        self.extents = self.extents.saturating_add(extents);
        if self.worst.as_ref().is_none_or(|(_, most)| extents > *most) {
            self.worst = Some((path, extents));
        }
    }

    /// By the trial or by the count, whichever says more.
    fn worst_case(&self) -> Duration {
        (self.cloning * SLACK).max(extents::cost(self.extents)) + FLOOR
    }

    fn too_slow(&self, worst_case: Duration, limit: Duration) -> ProviderError {
        let text = format!(
            "the clones may take {worst_case:?}, and the limit is {limit:?}: the files have {} extents",
            self.extents
        );
        let kind = ProviderErrorKind::TooSlow { worst_case, limit };
        let mut error = ProviderError::new(kind, text).without_effect();
        if let Some((path, extents)) = &self.worst {
            error = error
                .with_subject(Subject::new("file", path.display()))
                .with_remedy(format!(
                    "Defragment {}, which has {extents} of them (`xfs_fsr`, `btrfs filesystem defragment`), or use \
                     snapshots of subvolumes, whose cost does not depend on them.",
                    path.display()
                ));
        }
        error
    }
}
