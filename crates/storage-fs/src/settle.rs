//! `settle`: makes a set durable, seals what was cloned, and gives it its final name.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;

use stillpoint_context::Cx;
use stillpoint_model::handover::Prepared;
use stillpoint_model::seal::SealWriter;
use stillpoint_storage::{
    ProviderError, ProviderErrorKind, ProviderResult, Snapshot, SnapshotFile,
};

use uuid::Uuid;

use crate::commit::{Claim, Reached, snapshot_id};
use crate::copy::{Meter, buffer, pump};
use crate::format::{self, Method, Plan, PlanFile, SetFile, SetRecord, Taken, TakenFile};
use crate::prepare::expired;
use crate::snap::taken_at;
use crate::store::{BEGUN, PLAN, SET, Store, TAKEN, member_folder};
use crate::subvolume::Subvolume;
use crate::volume::walk;

impl Store {
    pub(crate) fn settle(
        self: &Arc<Self>,
        cx: &Cx,
        prepared: &Prepared,
    ) -> ProviderResult<Vec<Snapshot>> {
        let (claim, plan) = match self.reach(cx, prepared)? {
            Reached::Claimed(claim, plan) => (claim, plan),
            Reached::Settled(record) => {
                self.tidy(&record)?;
                return self.snapshots(&record);
            }
        };
        let folder = claim.folder();
        let record = if let Some(snapshots) = self.snapshots_of_plan(&folder, &plan)? {
            let all: Option<Vec<_>> = snapshots.into_iter().collect();
            let all = all.ok_or_else(|| never_taken(&claim, prepared))?;
            self.look_through(cx, &claim, &folder, plan, all)
        } else {
            let taken = claim.taken()?.ok_or_else(|| never_taken(&claim, prepared))?;
            if taken.boot != self.boot || taken.nonce != plan.nonce {
                return Err(expired(&prepared.token).with_remedy(
                    "The machine was restarted before the set was settled: discard it and back up again.",
                ));
            }
            self.seal(cx, &claim, &folder, plan, taken)
        };
        let record = record
            .and_then(|record| {
                format::write(&self.disk, &folder.join(SET), &record, true)?;
                Ok(record)
            })
            .map_err(|error| claim.explain(error))?;
        claim.check()?;
        let settled = self.settled(&prepared.token);
        self.disk.rename_new(&folder, &settled).map_err(|error| {
            claim.explain(ProviderError::io(format_args!("name {}", settled.display()), error))
        })?;
        drop(claim);
        self.tidy(&record)?;
        self.snapshots(&record)
    }

    /// Makes the name durable, and removes what only the way to it needed.
    fn tidy(&self, record: &SetRecord) -> ProviderResult<()> {
        let folder = self.settled(&record.token);
        let tidied = || -> io::Result<()> {
            self.disk.sync_dir(&self.sets())?;
            for name in [TAKEN, BEGUN, PLAN] {
                self.disk.remove(&folder.join(name))?;
            }
            Ok(())
        };
        tidied()
            .map_err(|error| ProviderError::io(format_args!("settle {}", folder.display()), error))
    }

    /// Makes the files durable and read-only, and tells what they are.
    fn seal(
        &self,
        cx: &Cx,
        claim: &Claim,
        folder: &Path,
        mut plan: Plan,
        taken: Taken,
    ) -> ProviderResult<SetRecord> {
        let mut buffer = buffer();
        let mut members = Vec::new();
        let created_at = taken.members.iter().map(|m| m.taken_at).min().unwrap_or_else(|| cx.now());
        let planned = std::mem::take(&mut plan.members);
        for (index, (planned, taken)) in planned.into_iter().zip(taken.members).enumerate() {
            let base = member_folder(folder, index);
            let mut files = Vec::new();
            for (file, taken) in planned.files.iter().zip(taken.files) {
                cx.check()?;
                claim.check()?;
                let path = base.join(&taken.path);
                files.push(self.seal_file(cx, claim, &path, file.method, taken, &mut buffer)?);
            }
            self.close_folder(&base).map_err(|error| {
                ProviderError::io(format_args!("sync {}", base.display()), error)
            })?;
            members.push(planned.settled(taken.taken_at, None, files));
        }
        Ok(plan.settled(created_at, members))
    }

    /// Finds the files in snapshots of whole subvolumes. They are durable and read-only already, and are not read: the
    /// file system has a checksum of every block.
    fn look_through(
        &self,
        cx: &Cx,
        claim: &Claim,
        folder: &Path,
        mut plan: Plan,
        snapshots: Vec<Subvolume>,
    ) -> ProviderResult<SetRecord> {
        let times = snapshots.iter().map(taken_at);
        let created_at = times.min().unwrap_or_else(|| cx.now());
        let mut members = Vec::new();
        let planned = std::mem::take(&mut plan.members);
        for (index, (planned, snapshot)) in planned.into_iter().zip(snapshots).enumerate() {
            cx.check()?;
            claim.check()?;
            let (base, content) = (member_folder(folder, index), planned.folder(folder, index));
            let mut files = Vec::new();
            for file in &planned.files {
                files.push(
                    found_file(&content, file).map_err(|error| {
                        error.with_volume(self.snapshot_volume(&planned.volume))
                    })?,
                );
            }
            let closed = self.disk.sync_dir(&base).and_then(|()| self.disk.chmod(&base, 0o555));
            closed.map_err(|error| {
                ProviderError::io(format_args!("sync {}", base.display()), error)
            })?;
            members.push(planned.settled(taken_at(&snapshot), Some(snapshot.uuid), files));
        }
        Ok(plan.settled(created_at, members))
    }

    fn seal_file(
        &self,
        cx: &Cx,
        claim: &Claim,
        path: &Path,
        method: Method,
        taken: TakenFile,
        buffer: &mut [u8],
    ) -> ProviderResult<SetFile> {
        let failed = |error| ProviderError::io(format_args!("settle {}", path.display()), error);
        let file = File::open(path).map_err(failed)?;
        let seal = if let Some(seal) = taken.seal {
            seal
        } else {
            let meter = Meter::new(cx, false);
            let mut seal = SealWriter::new(taken.bytes);
            let pieces = seal.pieces();
            let join = |piece| {
                cx.check()?;
                claim.check()?;
                seal.join(piece);
                meter.bytes(path, seal.bytes(), taken.bytes);
                Ok(seal.bytes())
            };
            pump(&file, taken.bytes, buffer, pieces, failed, |_, _| Ok(()), join)?;
            seal.finish()
        };
        let bytes = file.metadata().map_err(failed)?.len();
        if bytes != taken.bytes || seal.bytes() != taken.bytes {
            let text =
                format!("{} has {bytes} bytes and was taken with {}", path.display(), taken.bytes);
            return Err(ProviderError::new(ProviderErrorKind::Damaged, text));
        }
        self.disk.sync(&file, path).map_err(failed)?;
        // Read-only, and not readable by anybody who could not read the original.
        self.disk.chmod(path, taken.mode & 0o444 | 0o400).map_err(failed)?;
        Ok(SetFile {
            path: taken.path,
            bytes,
            method,
            mode: taken.mode,
            modified: taken.modified,
            seal: Some(seal),
        })
    }

    /// Syncs a member's folders from the innermost outwards, and makes them read-only.
    fn close_folder(&self, folder: &Path) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                self.close_folder(&entry.path())?;
            }
        }
        self.disk.sync_dir(folder)?;
        self.disk.chmod(folder, 0o555)
    }

    /// The snapshots of a settled set that have not been deleted.
    pub(crate) fn snapshots(&self, record: &SetRecord) -> ProviderResult<Vec<Snapshot>> {
        self.snapshots_among(record, &BTreeSet::new())
    }

    /// The same, where these subvolumes are known to be there: looking at each costs more than all the rest.
    pub(crate) fn snapshots_among(
        &self,
        record: &SetRecord,
        known: &BTreeSet<Uuid>,
    ) -> ProviderResult<Vec<Snapshot>> {
        let id = snapshot_id(&record.token)?;
        let mut live = Vec::new();
        for (index, member) in record.members.iter().enumerate() {
            let is_known = member.subvolume.is_some_and(|uuid| known.contains(&uuid));
            if !member.deleted && (is_known || self.is_there(&record.token, index, member)?) {
                live.push(member);
            }
        }
        let live = live.into_iter();
        live.map(|member| {
            let files: Result<Vec<_>, _> = member
                .files
                .iter()
                .map(|f| Ok(SnapshotFile::new(member.root.join(&f.path)?, f.seal.clone())))
                .collect();
            let volume = self.snapshot_volume(&member.volume);
            let snapshot = Snapshot::new(volume, id.clone(), member.taken_at)
                .with_name(record.name.clone())
                .with_token(record.token.clone())
                .with_files(
                    files.map_err(|e: stillpoint_context::PathError| ProviderError::from(e))?,
                )
                .with_tags(record.tags.clone());
            // What a clone shares with its source takes no room, and nobody can say how much that still is.
            let copied = member.files.iter().all(|f| f.method == Method::Copy);
            Ok(if copied {
                snapshot.with_bytes(member.files.iter().map(|f| f.bytes).sum())
            } else {
                snapshot
            })
        })
        .collect()
    }
}

fn never_taken(claim: &Claim, prepared: &Prepared) -> ProviderError {
    let text = format!("the set {} was never taken, or only in part", prepared.token);
    let error = ProviderError::new(ProviderErrorKind::NotFound, text).without_effect();
    claim.explain(error)
}

/// A file in a snapshot. It must be there under its own name, with no link in the way: that would lead to the file of today.
fn found_file(content: &Path, file: &PlanFile) -> ProviderResult<SetFile> {
    let path = content.join(&file.path);
    let metadata = walk(content, Path::new(&file.path)).and_then(|found| found.metadata());
    let gone = |text: String| ProviderError::new(ProviderErrorKind::Vanished, text);
    let metadata = metadata.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            gone(format!("{} is not in the snapshot", path.display())).with_source(error)
        }
        _ => ProviderError::io(format_args!("look at {}", path.display()), error),
    })?;
    if !metadata.is_file() {
        return Err(gone(format!("{} is no regular file in the snapshot", path.display())));
    }
    let modified = metadata
        .modified()
        .map_err(|error| ProviderError::io(format_args!("look at {}", path.display()), error))?;
    Ok(SetFile {
        path: file.path.clone(),
        bytes: metadata.len(),
        method: Method::Snapshot,
        mode: std::os::unix::fs::MetadataExt::mode(&metadata) & 0o777,
        modified: modified.into(),
        seal: None,
    })
}
