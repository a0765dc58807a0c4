//! The store: where everything lies in it, and the value that all calls share.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use stillpoint_context::{Cx, HostId, HostPath};
use stillpoint_model::id::{ExposureKey, ProviderId, SetToken, SnapshotRef, VolumeRef};
use stillpoint_storage::{DocName, ProviderError, ProviderErrorKind, ProviderResult, RestoreKey};

use crate::disk::{Disk, Inode, neighbour};
use crate::flight::Flights;
use crate::format::{self, Plan, SetRecord};
use crate::volume::Volume;

/// The files of a set's folder that are not members.
pub(crate) const PLAN: &str = "plan.json";
pub(crate) const TAKEN: &str = "taken.json";
pub(crate) const SET: &str = "set.json";
pub(crate) const LOCK: &str = "lock";
pub(crate) const BEGUN: &str = "begun";
pub(crate) const TRIAL: &str = "trial";

/// The shared state of a provider. It is only what the configuration says: what there is, is on disk.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) disk: Disk,
    /// Volumes may be reverted.
    pub(crate) may_revert: bool,
    pub(crate) provider: ProviderId,
    pub(crate) host: HostId,
    pub(crate) volumes: Vec<Volume>,
    pub(crate) root: PathBuf,
    /// The boot of the machine that we live in.
    pub(crate) boot: String,
    /// Entries of a page of a listing.
    pub(crate) page: usize,
    /// How long an undo waits for work that is still going on.
    pub(crate) patience: Duration,
    /// Preparations that were asked for and have not ended.
    pub(crate) preparations: Arc<Flights<SetToken>>,
    /// Stagings and publications that were asked for and have not ended.
    pub(crate) restorations: Arc<Flights<RestoreKey>>,
}

impl Store {
    pub(crate) fn sets(&self) -> PathBuf {
        self.root.join("sets")
    }

    /// A set that is durable.
    pub(crate) fn settled(&self, token: &SetToken) -> PathBuf {
        self.sets().join(token.as_str())
    }

    /// A set that is not.
    pub(crate) fn partial(&self, token: &SetToken) -> PathBuf {
        self.sets().join(format!("{token}.partial"))
    }

    /// A set that is going.
    pub(crate) fn discarded(&self, token: &SetToken) -> PathBuf {
        self.sets().join(format!("{token}.discarded"))
    }

    pub(crate) fn docs(&self) -> PathBuf {
        self.root.join("docs")
    }

    pub(crate) fn doc(&self, name: &DocName) -> PathBuf {
        self.docs().join(name.as_str())
    }

    pub(crate) fn exposures_dir(&self) -> PathBuf {
        self.root.join("exposures")
    }

    pub(crate) fn exposure_path(&self, key: &ExposureKey) -> PathBuf {
        self.exposures_dir().join(format!("{key}.json"))
    }

    pub(crate) fn reverts(&self) -> PathBuf {
        self.root.join("reverts")
    }

    pub(crate) fn restores(&self) -> PathBuf {
        self.root.join("restores")
    }

    pub(crate) fn restore_path(&self, key: &RestoreKey) -> PathBuf {
        self.restores().join(format!("{key}.json"))
    }

    /// The volume of this name.
    pub(crate) fn volume(&self, volume: &VolumeRef) -> ProviderResult<&Volume> {
        self.volumes.iter().find(|v| v.reference == *volume).ok_or_else(|| {
            let text = format!("there is no volume {volume} in this provider");
            ProviderError::new(ProviderErrorKind::NotFound, text)
                .with_volume(volume.clone())
                .without_effect()
        })
    }

    /// The volume on which a path lies: that with the longest folder that holds it.
    pub(crate) fn volume_of(&self, path: &HostPath) -> Option<(&Volume, String)> {
        let holding = self.volumes.iter().filter_map(|v| Some((v, v.inside(path)?)));
        holding.min_by_key(|(_, inside)| inside.len())
    }

    /// A path of this host.
    pub(crate) fn host_path(&self, path: &Path) -> ProviderResult<HostPath> {
        Ok(HostPath::from_native(self.host.clone(), path)?)
    }

    pub(crate) fn snapshot_volume(&self, volume: &stillpoint_model::id::VolumeId) -> VolumeRef {
        VolumeRef::new(self.provider.clone(), volume.clone())
    }

    /// The record of a settled set; `None` if there is none of ours under this token.
    pub(crate) fn set_record(&self, token: &SetToken) -> ProviderResult<Option<SetRecord>> {
        if !is_name(token) {
            return Ok(None);
        }
        let path = self.settled(token).join(SET);
        self.disk.look(&path);
        let record: Option<SetRecord> = format::read(&path)?;
        Ok(record.filter(|record| record.token == *token))
    }

    /// The set of a snapshot and the number of its member.
    pub(crate) fn snapshot_record(
        &self,
        snapshot: &SnapshotRef,
    ) -> ProviderResult<(SetRecord, usize)> {
        let missing = || {
            let text = format!("there is no settled snapshot {snapshot}");
            ProviderError::new(ProviderErrorKind::NotFound, text)
                .with_volume(snapshot.volume.clone())
                .without_effect()
        };
        if snapshot.volume.provider != self.provider {
            return Err(missing());
        }
        let token = SetToken::new(snapshot.id.as_str()).map_err(|_| missing())?;
        let record = self.set_record(&token)?.ok_or_else(missing)?;
        let (index, member) = record.member(&snapshot.volume.id).ok_or_else(missing)?;
        if !self.is_there(&record.token, index, member)? {
            return Err(missing()
                .with_remedy("Somebody has deleted it by hand: delete what is left of it."));
        }
        Ok((record, index))
    }
}

/// Which file or folder is under a name of the store now.
pub(crate) fn inode_at(path: &Path) -> ProviderResult<Option<Inode>> {
    Inode::at(path).map_err(|error| {
        ProviderError::io(format_args!("look at {}", path.display()), error).without_effect()
    })
}

/// Whether nothing is under a name of the store.
pub(crate) fn nothing_at(path: &Path) -> ProviderResult<bool> {
    Ok(inode_at(path)?.is_none())
}

/// Whose a folder in the folder of sets is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// Nothing is there.
    Nobody,
    /// It may be moved and removed: it has a record of the token, or nothing but what comes before the record.
    Ours,
    Stranger,
}

impl Store {
    /// Whose what is under this name is. A set that is moved or removed while it is looked at is not taken for a
    /// stranger's.
    pub(crate) fn owner(&self, folder: &Path, token: &SetToken) -> ProviderResult<Owner> {
        let mut before = self.content(folder)?;
        loop {
            let Some((_, names)) = &before else { return Ok(Owner::Nobody) };
            if is_name(token) && self.is_of(folder, token, names)? {
                return Ok(Owner::Ours);
            }
            let after = self.content(folder)?;
            if after == before {
                return Ok(Owner::Stranger);
            }
            // Somebody is at it, and every round of ours is a step of theirs.
            before = after;
        }
    }

    /// What is under a name now: which file or folder, and the names in it.
    fn content(&self, folder: &Path) -> ProviderResult<Option<(Inode, BTreeSet<OsString>)>> {
        self.disk.look(folder);
        let looked = || -> io::Result<Option<(Inode, BTreeSet<OsString>)>> {
            let Some(inode) = Inode::at(folder)? else { return Ok(None) };
            let names = match fs::read_dir(folder) {
                Ok(entries) => {
                    entries.map(|e| e.map(|e| e.file_name())).collect::<Result<_, _>>()?
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                // A file is nothing of ours.
                Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                    BTreeSet::from([OsString::new()])
                }
                Err(error) => return Err(error),
            };
            Ok(Some((inode, names)))
        };
        looked()
            .map_err(|error| ProviderError::io(format_args!("read {}", folder.display()), error))
    }

    fn is_of(
        &self,
        folder: &Path,
        token: &SetToken,
        names: &BTreeSet<OsString>,
    ) -> ProviderResult<bool> {
        self.disk.look(&folder.join(PLAN));
        let plan: Option<Plan> = format::read(&folder.join(PLAN))?;
        if plan.is_some_and(|plan| plan.token == *token) {
            return Ok(true);
        }
        let set: Option<SetRecord> = format::read(&folder.join(SET))?;
        if set.is_some_and(|set| set.token == *token) {
            return Ok(true);
        }
        let before = [OsString::from(LOCK), name_of(&neighbour(Path::new(PLAN)))];
        Ok(names.iter().all(|name| before.contains(name)))
    }
}

/// Whether to wait on for those who only look at a lock. They hold it for an instant; one that was stopped in the middle
/// must not stop us for ever.
pub(crate) fn glances(cx: &Cx) -> impl Fn() -> bool {
    let (clock, began) = (Arc::clone(&cx.seams().clock), cx.mono());
    move || clock.mono().saturating_since(began) < Duration::from_secs(1)
}

/// Whether a token can be the name of a set's folder, beside the names that we give to sets that are not settled.
pub(crate) fn is_name(token: &SetToken) -> bool {
    let text = token.as_str();
    !text.starts_with('.') && !text.ends_with(".partial") && !text.ends_with(".discarded")
}

/// The folder of a member in its set's folder.
pub(crate) fn member_folder(set: &Path, index: usize) -> PathBuf {
    set.join(format!("m{index}"))
}

/// The name of a snapshot in its member's folder. Each has a folder of its own, so that several can be made at once: the
/// kernel makes one entry of a folder at a time.
pub(crate) const SNAPSHOT: &str = "v";

/// Where a member's files are: its folder, or the snapshot in it.
pub(crate) fn content_folder(set: &Path, index: usize, is_snapshot: bool) -> PathBuf {
    let folder = member_folder(set, index);
    if is_snapshot { folder.join(SNAPSHOT) } else { folder }
}

/// The number of the member whose folder has this name.
pub(crate) fn member_index(name: &str) -> Option<usize> {
    let index = name.strip_prefix('m')?.parse().ok()?;
    (name == format!("m{index}")).then_some(index)
}

fn name_of(path: &io::Result<PathBuf>) -> OsString {
    let name = path.as_ref().ok().and_then(|path| path.file_name());
    name.map(ToOwned::to_owned).unwrap_or_default()
}

/// A path as text, for documents and messages.
pub(crate) fn text(path: &Path) -> ProviderResult<String> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        let text = format!("the path {} is not Unicode", path.display());
        ProviderError::new(ProviderErrorKind::PathEscapes, text)
            .with_remedy("Rename the file or folder so that its name is valid UTF-8.")
            .without_effect()
    })
}
