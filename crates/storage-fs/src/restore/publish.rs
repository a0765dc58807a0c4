//! `publish`: staged files move to their targets, each at one instant; what was there is kept.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use stillpoint_context::{Cx, Subject};
use stillpoint_storage::{ProviderError, ProviderErrorKind, ProviderResult, Published, RestoreKey};

use super::undo::Back;
use crate::disk::{Inode, folder_of, has_no_links};
use crate::flight::Flight;
use crate::format::{Phase, RestoreFile, RestoreRecord};
use crate::store::{Store, nothing_at, text};

impl Store {
    pub(crate) fn publish(
        &self,
        cx: &Cx,
        key: &RestoreKey,
        flight: &Flight<RestoreKey>,
    ) -> ProviderResult<Published> {
        cx.check().map_err(|error| ProviderError::from(error).without_effect())?;
        let missing = || {
            let text = format!("nothing is staged for the restore {key}");
            ProviderError::new(ProviderErrorKind::NotFound, text).without_effect()
        };
        if !self.knows_restore(key)? {
            return Err(missing());
        }
        let lock = self.restore_claim(key, flight)?;
        let Some(mut record) = self.restore_record(key)? else { return Err(missing()) };
        match record.phase {
            Phase::Published => return self.published(&record),
            Phase::Publishing => {}
            Phase::Staged => self.begin_publication(&mut record)?,
            Phase::Staging | Phase::Retracting | Phase::Retracted => return Err(missing()),
        }
        // From here on it is not interrupted: it is short, and all or nothing is what was promised.
        if let Err(error) = self.publish_all(&record) {
            let took_back = self.take_back(&record, Back::ToStaging).is_ok()
                && self.remove_made(&record).is_ok()
                && self.forget_publication(&mut record).is_ok();
            return Err(if took_back { error.without_effect() } else { error });
        }
        self.write_phase(&mut record, Phase::Published)?;
        let published = self.published(&record)?;
        // The folders for staging are empty now; if they cannot go, they go with `settle`.
        let _later = self.remove_emptied(&record, published.kept.is_empty());
        drop(lock);
        Ok(published)
    }

    /// Looks at every target, and notes what is there and which folders are to be made, before the first of them is
    /// touched.
    fn begin_publication(&self, record: &mut RestoreRecord) -> ProviderResult<()> {
        let mut made = BTreeSet::new();
        for file in &mut record.files {
            let place = Path::new(&file.place);
            let failed = |error| about(file, "look at", error).without_effect();
            let old = Inode::at(place).map_err(failed)?;
            if old.is_some() && (!record.replace || is_folder(place)) {
                return Err(taken(file, "is in the way at").without_effect());
            }
            let staged = Inode::at(Path::new(&file.staged)).map_err(failed)?;
            if staged.is_none() || staged != file.new {
                let text = format!("the staged file {} is not there any more", file.staged);
                return Err(ProviderError::new(ProviderErrorKind::NotFound, text).without_effect());
            }
            for folder in place.ancestors().skip(1) {
                if !nothing_at(folder)? {
                    break;
                }
                made.insert(folder.to_owned());
            }
            file.old = old;
        }
        // Sorted, so that an outer folder comes before what is in it.
        record.made = made.iter().map(|folder| text(folder)).collect::<Result<_, _>>()?;
        self.write_phase(record, Phase::Publishing)
    }

    fn forget_publication(&self, record: &mut RestoreRecord) -> ProviderResult<()> {
        record.made.clear();
        for file in &mut record.files {
            file.old = None;
        }
        self.write_phase(record, Phase::Staged)
    }

    fn publish_all(&self, record: &RestoreRecord) -> ProviderResult<()> {
        let mut folders: BTreeSet<PathBuf> = BTreeSet::new();
        for folder in record.made.iter().map(PathBuf::from) {
            self.disk.make_open_dir(&folder).map_err(|error| {
                ProviderError::io(format_args!("make {}", folder.display()), error)
            })?;
            folders.extend(folder.parent().map(Path::to_owned));
            folders.insert(folder);
        }
        for file in &record.files {
            self.publish_file(file)?;
            folders.extend(Path::new(&file.place).parent().map(Path::to_owned));
            // The folders of a staged and of a kept file, up to the hidden one.
            for path in [&file.staged, &file.kept] {
                folders.extend(Path::new(path).ancestors().skip(1).take(3).map(Path::to_owned));
            }
        }
        for folder in folders.iter().filter(|folder| folder.is_dir()) {
            self.disk.sync_dir(folder).map_err(|error| {
                ProviderError::io(format_args!("sync {}", folder.display()), error)
            })?;
        }
        Ok(())
    }

    /// Brings one file to its target from wherever an earlier attempt left it.
    fn publish_file(&self, file: &RestoreFile) -> ProviderResult<()> {
        let (staged, place, kept) =
            (Path::new(&file.staged), Path::new(&file.place), Path::new(&file.kept));
        let failed = |error| about(file, "publish", error);
        let at = |path| Inode::at(path).map_err(failed);
        let (at_staged, at_place) = (at(staged)?, at(place)?);
        if at_place == file.new {
            // Swapped, and what was there still lies where the new file was.
            if at_staged.is_some() {
                self.keep(staged, kept).map_err(failed)?;
            }
            return Ok(());
        }
        if at_staged != file.new {
            let text = format!("the staged file {} is not there any more", file.staged);
            return Err(ProviderError::new(ProviderErrorKind::NotFound, text));
        }
        if at_place != file.old {
            return Err(taken(file, "came into the way at"));
        }
        if file.old.is_none() {
            return self.disk.rename_new(staged, place).map_err(|error| {
                if error.kind() == io::ErrorKind::AlreadyExists {
                    taken(file, "came into the way at")
                } else {
                    failed(error)
                }
            });
        }
        // First a second name for what is there, then the new file over the first one: at no instant is there nothing.
        if at(kept)? != file.old {
            self.disk.remove(kept).map_err(failed)?;
            self.make_kept_folder(kept).map_err(failed)?;
            match self.disk.link(place, kept) {
                Ok(()) => {}
                Err(error) if has_no_links(&error) => {
                    self.disk.exchange(staged, place).map_err(failed)?;
                    return self.keep(staged, kept).map_err(failed);
                }
                Err(error) => return Err(failed(error)),
            }
        }
        self.disk.rename(staged, place).map_err(failed)
    }

    fn keep(&self, from: &Path, kept: &Path) -> io::Result<()> {
        self.make_kept_folder(kept)?;
        self.disk.rename_new(from, kept)
    }

    /// `<hidden>/kept/<i>`: the hidden folder is there, as the file was staged in it.
    fn make_kept_folder(&self, kept: &Path) -> io::Result<()> {
        let folder = folder_of(kept)?;
        self.disk.make_dir(folder_of(folder)?)?;
        self.disk.make_dir(folder)
    }

    fn published(&self, record: &RestoreRecord) -> ProviderResult<Published> {
        let files = record.files.iter().map(|file| file.target.clone()).collect();
        let kept = record.files.iter().filter(|file| file.old.is_some());
        let kept = kept
            .map(|file| Ok((file.target.clone(), self.host_path(Path::new(&file.kept))?)))
            .collect::<ProviderResult<_>>()?;
        Ok(Published::new(files, kept))
    }

    /// Removes the emptied folders for staging, and the hidden folder where nothing is kept in it.
    fn remove_emptied(&self, record: &RestoreRecord, nothing_kept: bool) -> io::Result<()> {
        for folder in record.folders.iter().map(Path::new) {
            self.disk.remove_tree(&folder.join("new"))?;
            if nothing_kept {
                self.disk.remove_tree(folder)?;
            }
        }
        Ok(())
    }
}

fn is_folder(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|found| found.is_dir())
}

fn taken(file: &RestoreFile, what: &str) -> ProviderError {
    let what =
        if is_folder(Path::new(&file.place)) { "a folder " } else { "a file " }.to_owned() + what;
    ProviderError::new(ProviderErrorKind::NameTaken, format!("{what} {}", file.place))
        .with_volume(file.snapshot.volume.clone())
        .with_subject(Subject::new("file", &file.target))
}

fn about(file: &RestoreFile, doing: &str, error: io::Error) -> ProviderError {
    ProviderError::io(format_args!("{doing} {}", file.place), error)
        .with_volume(file.snapshot.volume.clone())
        .with_subject(Subject::new("file", &file.target))
}
