//! Snapshots of whole subvolumes: taking them, and seeing from what is there what was taken.
//!
//! ```text
//!   <token>.partial/m0/v       the snapshot of the first member
//! ```
//!
//! Nothing is written beside them: that a snapshot is there says that it was taken, and when it is there it is on disk. What
//! it is of, its own record in the file system says.

use std::io;
use std::path::Path;

use chrono::{DateTime, TimeDelta, Utc};
use stillpoint_model::handover::Member;
use stillpoint_model::id::SetToken;
use stillpoint_storage::{ProviderError, ProviderErrorKind, ProviderResult};

use crate::commit::{Begun, Claim, Commit};
use crate::disk::open_folder;
use crate::format::{Plan, SetMember};
use crate::store::{SNAPSHOT, Store, inode_at};
use crate::subvolume::Subvolume;
use crate::volume::Volume;

/// The clock of a file system goes in ticks, 10 ms at most: a snapshot was taken up to one later than it says.
const TICK: TimeDelta = TimeDelta::milliseconds(10);

/// When a snapshot was taken at the latest, as its own record has it: the same whoever asks, and whenever.
pub(crate) fn taken_at(subvolume: &Subvolume) -> DateTime<Utc> {
    subvolume.created_at + TICK
}

impl Store {
    /// The snapshots of a plan that takes subvolumes, as far as they are there; none of a plan that takes files.
    pub(crate) fn snapshots_of_plan(
        &self,
        folder: &Path,
        plan: &Plan,
    ) -> ProviderResult<Option<Vec<Option<Subvolume>>>> {
        if !plan.is_snapped() {
            return Ok(None);
        }
        let members = plan.members.iter().enumerate();
        let found = members.map(|(index, member)| {
            let path = member.folder(folder, index);
            let found = self.disk.subvolume_at(&path).map_err(|error| {
                ProviderError::io(format_args!("look at {}", path.display()), error)
                    .with_volume(self.snapshot_volume(&member.volume))
                    .without_effect()
            })?;
            // Another may be there only if somebody put it there: it is none of the set.
            Ok(found.filter(|s| s.read_only && s.parent == member.subvolume))
        });
        found.collect::<ProviderResult<_>>().map(Some)
    }

    /// Begins to take subvolumes, unless all have been taken.
    pub(crate) fn begin_snapshots(
        &self,
        claim: Claim,
        plan: Plan,
        found: &[Option<Subvolume>],
    ) -> ProviderResult<Begun> {
        if let Some(members) = self.answer_snapshots(&plan, found)? {
            return Ok(Begun::Before(members));
        }
        // Asked before the first snapshot: then no transaction is under way for which the answer would have to wait.
        for member in &plan.members {
            let volume = self.volume(&self.snapshot_volume(&member.volume))?;
            let live = self.disk.subvolume_at(&volume.path).map_err(|error| {
                ProviderError::io(format_args!("ask what {} is", volume.path.display()), error)
                    .with_volume(volume.reference.clone())
                    .without_effect()
            })?;
            if live.map(|subvolume| subvolume.uuid) != member.subvolume {
                let text = format!(
                    "the subvolume that was prepared is not at {} any more",
                    volume.path.display()
                );
                return Err(ProviderError::new(ProviderErrorKind::Vanished, text)
                    .with_volume(volume.reference.clone())
                    .without_effect());
            }
        }
        let folder = claim.folder();
        // A half-made attempt is thrown away whole: its snapshots are of another instant.
        for (index, member) in plan.members.iter().enumerate() {
            let path = member.folder(&folder, index);
            if inode_at(&path)?.is_some() {
                self.disk.destroy(&path).map_err(|error| {
                    let doing = format!("remove {} of an earlier attempt", path.display());
                    claim.explain(ProviderError::io(doing, error))
                })?;
            }
        }
        Ok(Begun::Now(Commit::new(claim, plan)))
    }

    /// What a commit answers whose snapshots are these, if all of them are there.
    pub(crate) fn answer_snapshots(
        &self,
        plan: &Plan,
        found: &[Option<Subvolume>],
    ) -> ProviderResult<Option<Vec<Member>>> {
        let all: Option<Vec<_>> = found.iter().map(|f| f.as_ref().map(taken_at)).collect();
        let Some(taken) = all else { return Ok(None) };
        let members = plan.members.iter().zip(taken);
        let members = members.map(|(plan, at)| (&plan.volume, plan.role, at));
        self.answer_members(&plan.token, members).map(Some)
    }

    /// Whether the snapshot of a settled member is still what was taken. Somebody may have deleted it by hand; of files that
    /// were copied or cloned that is not asked.
    pub(crate) fn is_there(
        &self,
        token: &SetToken,
        index: usize,
        member: &SetMember,
    ) -> ProviderResult<bool> {
        let Some(uuid) = member.subvolume else { return Ok(true) };
        let path = member.folder(&self.settled(token), index);
        let found = self.disk.subvolume_at(&path).map_err(|error| {
            ProviderError::io(format_args!("look at {}", path.display()), error)
                .with_volume(self.snapshot_volume(&member.volume))
                .without_effect()
        })?;
        Ok(found.is_some_and(|found| found.uuid == uuid))
    }

    /// Takes one subvolume: two openings, and the snapshot itself.
    pub(crate) fn snap(&self, volume: &Volume, into: &Path) -> ProviderResult<()> {
        let path = into.join(SNAPSHOT);
        let failed = |error: io::Error| {
            ProviderError::io(format_args!("take a snapshot of {}", volume.path.display()), error)
                .with_volume(volume.reference.clone())
        };
        let source = open_folder(&volume.path).map_err(|error| failed(error).without_effect())?;
        let folder = open_folder(into).map_err(|error| failed(error).without_effect())?;
        self.disk.snapshot(&source, &folder, SNAPSHOT, &path).map_err(failed)
    }
}
