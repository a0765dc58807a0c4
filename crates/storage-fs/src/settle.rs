//! `settle`: makes a set durable, seals what was cloned, and gives it its final name.

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

use crate::commit::{Claim, Reached, snapshot_id};
use crate::copy::{Meter, buffer, pump};
use crate::format::{self, Plan, SetFile, SetMember, SetRecord, Taken, TakenFile};
use crate::prepare::expired;
use crate::store::{BEGUN, PLAN, SET, Store, TAKEN, member_folder};

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
        let Some(taken) = claim.taken()? else {
            let text = format!("the set {} was never taken", prepared.token);
            return Err(ProviderError::new(ProviderErrorKind::NotFound, text).without_effect());
        };
        if taken.boot != self.boot || taken.nonce != plan.nonce {
            return Err(expired(&prepared.token).with_remedy(
                "The machine was restarted before the set was settled: discard it and back up again.",
            ));
        }
        let record = self
            .seal(cx, &claim, &folder, plan, taken)
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
        plan: Plan,
        taken: Taken,
    ) -> ProviderResult<SetRecord> {
        let mut buffer = buffer();
        let mut members = Vec::new();
        let created_at = taken.members.iter().map(|m| m.taken_at).min().unwrap_or_else(|| cx.now());
        for (index, (plan, taken)) in plan.members.into_iter().zip(taken.members).enumerate() {
            let base = member_folder(folder, index);
            let mut files = Vec::new();
            for (planned, file) in plan.files.iter().zip(taken.files) {
                cx.check()?;
                claim.check()?;
                let path = base.join(&file.path);
                files.push(self.seal_file(cx, claim, &path, planned.method, file, &mut buffer)?);
            }
            self.close_folder(&base).map_err(|error| {
                ProviderError::io(format_args!("sync {}", base.display()), error)
            })?;
            members.push(SetMember {
                volume: plan.volume,
                role: plan.role,
                root: plan.root,
                real_root: plan.real_root,
                taken_at: taken.taken_at,
                deleted: false,
                files,
            });
        }
        Ok(SetRecord {
            token: plan.token,
            nonce: plan.nonce,
            name: plan.name,
            tags: plan.tags,
            created_at,
            members,
        })
    }

    fn seal_file(
        &self,
        cx: &Cx,
        claim: &Claim,
        path: &Path,
        method: format::Method,
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
            let _bytes = pump(&file, buffer, failed, |at, chunk| {
                cx.check()?;
                claim.check()?;
                seal.update(chunk);
                meter.bytes(path, at + chunk.len() as u64, taken.bytes);
                Ok(())
            })?;
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
            seal,
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
        let id = snapshot_id(&record.token)?;
        let live = record.members.iter().filter(|member| !member.deleted);
        live.map(|member| {
            let files: Result<Vec<_>, _> = member
                .files
                .iter()
                .map(|f| Ok(SnapshotFile::new(member.root.join(&f.path)?, Some(f.seal.clone()))))
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
            let copied = member.files.iter().all(|f| f.method == format::Method::Copy);
            Ok(if copied {
                snapshot.with_bytes(member.files.iter().map(|f| f.bytes).sum())
            } else {
                snapshot
            })
        })
        .collect()
    }
}
