//! `stage`: files beside their targets, every byte checked against its seal.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use stillpoint_context::{Cx, Subject};
use stillpoint_model::handover::{ExposedRoot, Exposure};
use stillpoint_model::id::{ExposureKey, SnapshotRef};
use stillpoint_model::restore::HIDDEN_FOLDER;
use stillpoint_model::seal::{Seal, SealCheck, SealError, SealWriter};
use stillpoint_storage::{
    ProviderError, ProviderErrorKind, ProviderResult, RestoreKey, RestoredFile, StageSpec, Staged,
};

use crate::config::{can_clone, split_existing};
use crate::copy::{Meter, buffer, pump};
use crate::disk::{Inode, folder_of, open_folder};
use crate::flight::Flight;
use crate::format::{Method, Phase, RestoreFile, RestoreRecord, SetFile};
use crate::prepare::check_room;
use crate::restore::taken_back;
use crate::store::{Store, nothing_at, text};
use crate::volume::walk;

/// A file to be staged.
#[derive(Debug)]
struct Item {
    snapshot: SnapshotRef,
    stored: PathBuf,
    /// The folder of the snapshot's files.
    content: PathBuf,
    facts: SetFile,
    place: PathBuf,
    staged: PathBuf,
    /// The folder for staging.
    folder: PathBuf,
}

/// The hidden folder beside targets.
fn folder_name(key: &RestoreKey) -> String {
    format!("{HIDDEN_FOLDER}{key}")
}

impl Store {
    pub(crate) fn stage(
        &self,
        cx: &Cx,
        spec: &StageSpec,
        flight: &Flight<RestoreKey>,
    ) -> ProviderResult<Staged> {
        cx.check().map_err(|error| ProviderError::from(error).without_effect())?;
        let lock = self.restore_claim(&spec.key, flight)?;
        if let Some(record) = self.restore_record(&spec.key)? {
            if !matches!(record.phase, Phase::Staging | Phase::Staged | Phase::Retracted) {
                let text = format!("the restore {} has been published, at least in part", spec.key);
                return Err(ProviderError::new(ProviderErrorKind::NameTaken, text)
                    .with_remedy("Retract or settle it first.")
                    .without_effect());
            }
            self.remove_folders(&record)?;
        }
        let stop = self.restore_stop_path(&spec.key);
        self.disk
            .remove(&stop)
            .map_err(|error| ProviderError::io(format_args!("remove {}", stop.display()), error))?;
        let (items, mut record) = match self.plan_restore(spec) {
            Ok(planned) => planned,
            Err(error) => {
                let _nothing_was_done = self.forget_restore(&spec.key, lock);
                return Err(error);
            }
        };
        self.write_restore(&record)?;
        match self.stage_all(cx, &spec.key, &items, &mut record) {
            Ok(bytes) => {
                drop(lock);
                Ok(Staged::new(spec.key.clone(), self.staged_view(&record)?, bytes))
            }
            Err(error) => {
                // What is left, if this fails too, is in the journal.
                if self.remove_folders(&record).is_ok() {
                    let _in_the_journal = self.forget_restore(&spec.key, lock);
                }
                Err(error)
            }
        }
    }

    /// Checks everything that can be checked, and says where each file goes.
    fn plan_restore(&self, spec: &StageSpec) -> ProviderResult<(Vec<Item>, RestoreRecord)> {
        if spec.files.is_empty() {
            let text = format!("the restore {} has no files", spec.key);
            return Err(ProviderError::new(ProviderErrorKind::Invalid, text).without_effect());
        }
        let mut record = RestoreRecord {
            key: spec.key.clone(),
            replace: spec.replace,
            phase: Phase::Staging,
            folders: Vec::new(),
            made: Vec::new(),
            files: Vec::new(),
        };
        let mut originals: BTreeMap<String, usize> = BTreeMap::new();
        let (mut places, mut seen) = (BTreeSet::new(), BTreeSet::new());
        let mut items = Vec::new();
        for (index, file) in spec.files.iter().enumerate() {
            if !seen.insert(&file.original) {
                return Err(invalid(file, "is restored twice"));
            }
            let (set, index_in_set) = self.snapshot_record(&file.snapshot)?;
            let found = set.members.get(index_in_set);
            let found = found.and_then(|member| Some((member, member.file(&file.original)?)));
            let (member, facts) = found.ok_or_else(|| {
                let text = format!("{} is not in the snapshot {}", file.original, file.snapshot);
                about(file, ProviderError::new(ProviderErrorKind::NotFound, text))
            })?;
            let (anchor, place) = self.place(file)?;
            if !places.insert(place.clone()) {
                return Err(invalid(file, "has the target of another file"));
            }
            refuse_in_the_way(file, &place, spec.replace)?;
            let folder = anchor.join(folder_name(&spec.key));
            let of = parent_text(file);
            let number = originals.len();
            let number = *originals.entry(of).or_insert(number);
            let name = file.original.file_name().ok_or_else(|| invalid(file, "has no name"))?;
            let staged = folder.join("new").join(number.to_string()).join(name);
            let kept_name = place.file_name().ok_or_else(|| invalid(file, "has no name"))?;
            let kept = folder.join("kept").join(index.to_string()).join(kept_name);
            let folder_text = text(&folder)?;
            if !record.folders.contains(&folder_text) {
                record.folders.push(folder_text);
            }
            record.files.push(RestoreFile {
                snapshot: file.snapshot.clone(),
                original: file.original.clone(),
                target: file.target.clone(),
                place: text(&place)?,
                staged: text(&staged)?,
                kept: text(&kept)?,
                new: None,
                old: None,
            });
            let content = member.folder(&self.settled(&set.token), index_in_set);
            let stored = content.join(&facts.path);
            items.push(Item {
                snapshot: file.snapshot.clone(),
                stored,
                content,
                facts: facts.clone(),
                place,
                staged,
                folder,
            });
        }
        for (item, file) in items.iter().zip(&spec.files) {
            if places.iter().any(|other| *other != item.place && item.place.starts_with(other)) {
                return Err(invalid(file, "lies below the target of another file"));
            }
        }
        for folder in &record.folders {
            if !nothing_at(Path::new(folder))? {
                let text = format!("{folder} is there already and in no journal of ours");
                return Err(ProviderError::new(ProviderErrorKind::NameTaken, text).without_effect());
            }
        }
        self.check_rooms(&items)?;
        Ok((items, record))
    }

    /// The folder that exists nearest to a target, and the target with the links of its folders resolved.
    fn place(&self, file: &RestoredFile) -> ProviderResult<(PathBuf, PathBuf)> {
        if *file.target.host() != self.host {
            return Err(invalid(file, "has a target on another host"));
        }
        let target = file.target.to_native()?;
        let (Some(folder), Some(name)) = (target.parent(), target.file_name()) else {
            return Err(invalid(file, "has no target"));
        };
        let (anchor, missing) = split_existing(folder).map_err(|error| {
            let doing = format!("find the folder of {}", target.display());
            about(file, ProviderError::io(doing, error))
        })?;
        let place = missing.iter().fold(anchor.clone(), |path, part| path.join(part)).join(name);
        if place.starts_with(&self.root) || self.root.starts_with(&place) {
            let text = format!("the target {} lies in the store", target.display());
            return Err(about(file, ProviderError::new(ProviderErrorKind::PathEscapes, text)));
        }
        Ok((anchor, place))
    }

    /// Refuses what does not fit: files that will be copied, file system by file system.
    fn check_rooms(&self, items: &[Item]) -> ProviderResult<()> {
        let mut needed: BTreeMap<u64, (PathBuf, u64)> = BTreeMap::new();
        for item in items {
            let anchor = item.folder.parent().unwrap_or(&item.folder);
            let device = fs::metadata(anchor)
                .map_err(|e| ProviderError::io(format_args!("look at {}", anchor.display()), e))?
                .dev();
            let store = fs::metadata(&self.root)
                .map_err(|e| ProviderError::io(format_args!("look at {}", self.root.display()), e))?
                .dev();
            let shared = match item.facts.method {
                Method::Copy => false,
                Method::Reflink => device == store,
                // Each subvolume has a device of its own, and clones go from one to another.
                Method::Snapshot => self.shares_file_system(anchor)?,
            };
            if !shared {
                let (_, bytes) = needed.entry(device).or_insert_with(|| (anchor.to_owned(), 0));
                *bytes = bytes.saturating_add(item.facts.bytes);
            }
        }
        needed.values().try_for_each(|(folder, bytes)| check_room(folder, *bytes))
    }

    /// Whether files of the store can be cloned into a folder.
    fn shares_file_system(&self, folder: &Path) -> ProviderResult<bool> {
        let Some(subvolumes) = self.disk.subvolumes() else { return Ok(false) };
        let ask = |path: &Path| subvolumes.filesystem(&open_folder(path)?);
        ask(folder).and_then(|there| Ok(there.is_some() && there == ask(&self.root)?)).map_err(
            |error| {
                ProviderError::io(
                    format_args!("ask for the file system of {}", folder.display()),
                    error,
                )
            },
        )
    }

    fn stage_all(
        &self,
        cx: &Cx,
        key: &RestoreKey,
        items: &[Item],
        record: &mut RestoreRecord,
    ) -> ProviderResult<u64> {
        let mut buffer = buffer();
        let mut folders = BTreeSet::new();
        let mut written = 0;
        for (item, file) in items.iter().zip(&mut record.files) {
            let failed = |error| {
                ProviderError::io(format_args!("write {}", item.staged.display()), error)
                    .with_subject(Subject::new("file", item.place.display()))
            };
            let parent = folder_of(&item.staged).map_err(failed)?;
            let anchor = folder_of(&item.folder).map_err(failed)?;
            self.disk.make_dirs(anchor, parent).map_err(failed)?;
            written += self.stage_file(cx, key, item, &mut buffer)?;
            file.new = Inode::at(&item.staged).map_err(failed)?;
            for folder in parent.ancestors().take_while(|folder| folder.starts_with(anchor)) {
                folders.insert(folder.to_owned());
            }
        }
        for folder in folders.iter().rev() {
            self.disk
                .sync_dir(folder)
                .map_err(|e| ProviderError::io(format_args!("sync {}", folder.display()), e))?;
        }
        self.write_phase(record, Phase::Staged)?;
        Ok(written)
    }

    /// Clones or copies one file, and checks every byte of what is staged. Gives the bytes that were written.
    fn stage_file(
        &self,
        cx: &Cx,
        key: &RestoreKey,
        item: &Item,
        buffer: &mut [u8],
    ) -> ProviderResult<u64> {
        let (stored, staged) = (&item.stored, &item.staged);
        let failed = |error| {
            ProviderError::io(format_args!("write {}", staged.display()), error)
                .with_subject(Subject::new("file", item.place.display()))
        };
        let unread = |error: io::Error| {
            if error.kind() == io::ErrorKind::NotFound {
                // Removed with its snapshot it is no damage.
                if let Err(gone) = self.snapshot_record(&item.snapshot) {
                    return gone;
                }
                let text = format!("{} is not in the store any more", stored.display());
                return damage(item, text).with_source(error);
            }
            ProviderError::io(format_args!("read {}", stored.display()), error)
        };
        let source = if item.facts.method == Method::Snapshot {
            // What is in a snapshot was never ours to choose: a link in it may lead anywhere.
            walk(&item.content, Path::new(&item.facts.path)).map_err(unread)?
        } else {
            File::open(stored).map_err(unread)?
        };
        let target = self.disk.create_new(staged).map_err(failed)?;
        let cloned = item.facts.method != Method::Copy
            && can_clone(self.disk.clone_bytes(&source, &target, staged)).map_err(failed)?;
        let stop = self.restore_stop_path(key);
        let meter = Meter::new(cx, false);
        let mut check = item.facts.seal.as_ref().map(Seal::check);
        // A clone is read where it is staged: those are the bytes that will be published.
        let from = if cloned { &target } else { &source };
        let bytes = item.facts.bytes;
        // What has no seal is only counted.
        let mut count = SealWriter::new(bytes);
        let pieces = check.as_ref().map_or_else(|| count.pieces(), SealCheck::pieces);
        let join = |piece| {
            cx.check()?;
            if !nothing_at(&stop)? {
                return Err(taken_back(key));
            }
            let done = if let Some(check) = &mut check {
                check.join(piece).map_err(|error| damaged(item, &error))?;
                check.bytes()
            } else {
                count.join(piece);
                count.bytes()
            };
            meter.bytes(&item.place, done, bytes);
            Ok(done)
        };
        let write = |at, part: &[u8]| {
            if cloned {
                Ok(())
            } else {
                self.disk.write_at(&target, staged, at, part).map_err(failed)
            }
        };
        let read = pump(from, bytes, buffer, pieces, unread, write, join)?;
        if let Some(check) = check {
            check.finish().map_err(|error| damaged(item, &error))?;
        } else if read != item.facts.bytes {
            let text = format!("{} has {read} bytes, not {}", stored.display(), item.facts.bytes);
            return Err(damage(item, text));
        }
        self.disk.chmod(staged, item.facts.mode).map_err(failed)?;
        self.disk.set_modified(&target, staged, item.facts.modified.into()).map_err(failed)?;
        self.disk.sync(&target, staged).map_err(failed)?;
        Ok(if cloned { 0 } else { item.facts.bytes })
    }

    /// Where the staged files can be read. The folder of an original stands for the folder of its staged files, so that a
    /// plug-in finds logs by their folder; files of that folder that are staged elsewhere have a root of their own.
    fn staged_view(&self, record: &RestoreRecord) -> ProviderResult<Exposure> {
        let key = ExposureKey::new(record.key.as_str()).map_err(|error| {
            ProviderError::new(ProviderErrorKind::Internal, error.to_string()).with_source(error)
        })?;
        let mut roots: Vec<ExposedRoot> = Vec::new();
        for file in &record.files {
            let staged = PathBuf::from(&file.staged);
            let exposed = self.host_path(staged.parent().unwrap_or(&staged))?;
            let folder = parent_of(&file.original)?;
            let known =
                roots.iter().find(|root| root.original == folder && root.snapshot == file.snapshot);
            match known {
                Some(root) if root.exposed == exposed => {}
                None if roots.iter().all(|r| r.original != folder || r.exposed == exposed) => {
                    roots.push(ExposedRoot::new(file.snapshot.clone(), folder, exposed));
                }
                _ => roots.push(ExposedRoot::new(
                    file.snapshot.clone(),
                    file.original.clone(),
                    self.host_path(&staged)?,
                )),
            }
        }
        Ok(Exposure::new(key, self.host.clone(), roots))
    }
}

/// The folder of an original, as text that is equal for equal folders.
fn parent_text(file: &RestoredFile) -> String {
    parent_of(&file.original).map_or_else(|_| String::new(), |folder| folder.as_str().to_owned())
}

fn parent_of(path: &stillpoint_context::HostPath) -> ProviderResult<stillpoint_context::HostPath> {
    let native = path.to_native()?;
    let parent: PathBuf = native.parent().unwrap_or(&native).components().collect();
    Ok(stillpoint_context::HostPath::from_native(path.host().clone(), &parent)?)
}

/// Refuses a target at which something is.
fn refuse_in_the_way(file: &RestoredFile, place: &Path, replace: bool) -> ProviderResult<()> {
    let found = match fs::symlink_metadata(place) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            let doing = format!("look at {}", place.display());
            return Err(about(file, ProviderError::io(doing, error)));
        }
    };
    let what = match (found.is_dir(), replace) {
        (true, _) => "a folder",
        (false, false) => "a file",
        (false, true) => return Ok(()),
    };
    let text = format!("{what} is in the way at {}", place.display());
    Err(about(file, ProviderError::new(ProviderErrorKind::NameTaken, text)))
}

fn invalid(file: &RestoredFile, why: &str) -> ProviderError {
    let text = format!("{} {why}", file.original);
    about(file, ProviderError::new(ProviderErrorKind::Invalid, text))
}

fn about(file: &RestoredFile, error: ProviderError) -> ProviderError {
    error
        .with_volume(file.snapshot.volume.clone())
        .with_subject(Subject::new("file", &file.target))
        .without_effect()
}

fn damaged(item: &Item, error: &SealError) -> ProviderError {
    let text =
        format!("{} is damaged at offset {}: {error}", item.stored.display(), error.offset());
    damage(item, text).with_subject(Subject::new("offset", error.offset()))
}

fn damage(item: &Item, text: String) -> ProviderError {
    ProviderError::new(ProviderErrorKind::Damaged, text)
        .with_subject(Subject::new("file", item.stored.display()))
}
