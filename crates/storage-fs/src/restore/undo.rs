//! `unstage`, `retract` and `settle`: the ends of a restore, each right in any state.

use std::io;
use std::path::Path;

use stillpoint_context::Subject;
use stillpoint_storage::{ProviderError, ProviderErrorKind, ProviderResult, RestoreKey};

use crate::disk::{Inode, Lock, folder_of};
use crate::format::{Phase, RestoreFile, RestoreRecord};
use crate::store::Store;

/// Where a file goes that is taken from its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Back {
    /// To where it was staged: the publication failed, and the file is as it was checked.
    ToStaging,
    /// Away: since it was published somebody may have written it.
    Away,
}

/// What became of an undo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Undone {
    Done,
    /// Work that still runs was asked to stop.
    Waiting,
}

impl Store {
    pub(crate) fn unstage(&self, key: &RestoreKey) -> ProviderResult<Undone> {
        self.undo(key, |record, lock| match record.phase {
            // Published files are not staged any more.
            Phase::Published => Ok(()),
            Phase::Publishing | Phase::Retracting => {
                self.retract_all(record)?;
                self.unstage_all(record, lock)
            }
            Phase::Staging | Phase::Staged | Phase::Retracted => self.unstage_all(record, lock),
        })
    }

    pub(crate) fn retract(&self, key: &RestoreKey) -> ProviderResult<Undone> {
        self.undo(key, |record, _lock| match record.phase {
            Phase::Publishing | Phase::Published | Phase::Retracting => self.retract_all(record),
            // A publication that was dropped before it had a thread may still begin: it must not find anything to publish.
            Phase::Staging | Phase::Staged => self.write_phase(record, Phase::Retracted),
            Phase::Retracted => Ok(()),
        })
    }

    pub(crate) fn settle_restore(&self, key: &RestoreKey) -> ProviderResult<Undone> {
        self.undo(key, |record, lock| match record.phase {
            Phase::Publishing | Phase::Retracting => {
                let text = format!("the restore {key} is half published");
                Err(ProviderError::new(ProviderErrorKind::Busy, text)
                    .with_retryable(false)
                    .with_remedy("Publish or retract it first.")
                    .without_effect())
            }
            _ => self.unstage_all(record, lock),
        })
    }

    fn undo(
        &self,
        key: &RestoreKey,
        work: impl FnOnce(&mut RestoreRecord, Lock) -> ProviderResult<()>,
    ) -> ProviderResult<Undone> {
        if !self.knows_restore(key)? {
            return Ok(Undone::Done);
        }
        let Some(lock) = self.restore_undo_lock(key)? else { return Ok(Undone::Waiting) };
        match self.restore_record(key)? {
            Some(mut record) => work(&mut record, lock)?,
            None => self.forget_restore(key, lock)?,
        }
        Ok(Undone::Done)
    }

    fn unstage_all(&self, record: &RestoreRecord, lock: Lock) -> ProviderResult<()> {
        self.remove_folders(record)?;
        self.forget_restore(&record.key, lock)
    }

    fn retract_all(&self, record: &mut RestoreRecord) -> ProviderResult<()> {
        self.write_phase(record, Phase::Retracting)?;
        self.take_back(record, Back::Away)?;
        self.remove_made(record)?;
        self.write_phase(record, Phase::Retracted)
    }

    /// Takes every file from its target. One that cannot be taken does not keep the others there; its error is told.
    pub(super) fn take_back(&self, record: &RestoreRecord, back: Back) -> ProviderResult<()> {
        let mut first = None;
        for file in &record.files {
            let taken = self.take_file_back(file, back, record.phase);
            first = first.or(taken.err());
        }
        for file in &record.files {
            let folder = folder_of(Path::new(&file.place));
            let synced = folder
                .and_then(|f| if f.is_dir() { self.disk.sync_dir(f) } else { Ok(()) })
                .map_err(|error| failed(file, error));
            first = first.or(synced.err());
        }
        first.map_or(Ok(()), Err)
    }

    /// Brings one target back to what it was, from wherever publication left it.
    fn take_file_back(&self, file: &RestoreFile, back: Back, phase: Phase) -> ProviderResult<()> {
        let (staged, place, kept) =
            (Path::new(&file.staged), Path::new(&file.place), Path::new(&file.kept));
        let failed = |error: io::Error| failed(file, error);
        let at = |path| Inode::at(path).map_err(failed);
        let (at_staged, at_place, at_kept) = (at(staged)?, at(place)?, at(kept)?);
        if at_place == file.old {
            // Not published, or taken back already. A second name for what is there is not needed.
            if at_kept.is_some() && at_kept == file.old {
                self.disk.remove(kept).map_err(failed)?;
            }
            return Ok(());
        }
        if at_place.is_some() && at_place != file.new {
            let never_moved = at_staged == file.new && at_kept.is_none();
            if never_moved && phase != Phase::Published {
                // It came into the way before this file's turn; it is not ours to touch.
                return Ok(());
            }
            let text = format!("{} is not the file that was restored", file.place);
            return Err(ProviderError::new(ProviderErrorKind::NameTaken, text)
                .with_volume(file.snapshot.volume.clone())
                .with_subject(Subject::new("file", &file.target))
                .with_remedy("Move it away, then repeat the call."));
        }
        let swapped = at_staged.is_some() && at_staged == file.old;
        if swapped && at_place.is_some() {
            return self.disk.exchange(staged, place).map_err(failed);
        }
        if at_place.is_some() && back == Back::ToStaging {
            self.disk.rename_new(place, staged).map_err(failed)?;
        }
        let source = if swapped { staged } else { kept };
        if at_kept.is_some() || swapped {
            // Over the published file, so that there is no instant without one.
            return self.disk.rename(source, place).map_err(failed);
        }
        if file.old.is_some() {
            let text = format!("what was at {} is not where it was kept", file.place);
            return Err(ProviderError::new(ProviderErrorKind::Vanished, text)
                .with_volume(file.snapshot.volume.clone())
                .with_subject(Subject::new("file", &file.target)));
        }
        self.disk.remove(place).map_err(failed)
    }
}

fn failed(file: &RestoreFile, error: io::Error) -> ProviderError {
    ProviderError::io(format_args!("take back {}", file.place), error)
        .with_volume(file.snapshot.volume.clone())
        .with_subject(Subject::new("file", &file.target))
}
