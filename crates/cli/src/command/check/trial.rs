//! A store for a check alone: a hidden folder where the real store is or would be, on the same file system. It goes with
//! everything in it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use stillpoint::model::id::SetToken;
use stillpoint::storage::{Discarded, SnapshotProvider};
use tempfile::TempDir;

use super::seams::Watched;
use crate::args::Storage;
use crate::context::{Cx, ErrorClass, ErrorFacts as _};
use crate::error::{CliError, Outcome};
use crate::site;

/// What the folders of checks are called.
const PREFIX: &str = ".stillpoint-check-";
/// The file by which one is known, locked while its check is at work.
const LOCK: &str = "check.lock";
/// How long to wait for what does not end.
const PATIENCE: Duration = Duration::from_mins(1);

/// The store of a check, beside other things that it may make.
pub(super) struct TrialStore {
    place: Place,
    source: PathBuf,
    storage: Storage,
    watched: Watched,
    _lock: File,
}

enum Place {
    /// Made by this check; removed, as far as that is possible, also if nobody gets to it.
    Ours(TempDir),
    /// What a check left that was killed.
    Left(PathBuf),
}

impl TrialStore {
    /// Makes the folder below the nearest folder that there is of the store's path.
    pub(super) fn make(
        source: &Path,
        store: &Path,
        storage: Storage,
        watched: &Watched,
    ) -> Outcome<Self> {
        let below = nearest(store);
        let made = || -> io::Result<(TempDir, File)> {
            let place = tempfile::Builder::new().prefix(PREFIX).tempdir_in(&below)?;
            let lock = File::create_new(place.path().join(LOCK))?;
            lock.lock()?;
            fs::create_dir(place.path().join("targets"))?;
            Ok((place, lock))
        };
        let (place, lock) = made().map_err(|error| {
            let remedy = "Give this user the right to write there and make room, or name another folder with --store.";
            CliError::io("check.no_store", "no store can be made in", &below, &error, remedy)
        })?;
        let (source, watched) = (source.to_owned(), watched.clone());
        Ok(Self { place: Place::Ours(place), source, storage, watched, _lock: lock })
    }

    /// What checks left that were killed, where this one would make its own.
    pub(super) fn left(source: &Path, store: &Path, watched: &Watched) -> Vec<Self> {
        let entries = fs::read_dir(nearest(store)).into_iter().flatten().flatten();
        let named = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX));
        named
            .filter_map(|entry| {
                let path = entry.path();
                let lock = File::open(path.join(LOCK)).ok()?;
                // One whose check is at work holds it.
                lock.try_lock().ok()?;
                let (source, watched) = (source.to_owned(), watched.clone());
                let is_btrfs = path.join("store/volumes").is_dir();
                let storage = if is_btrfs { Storage::Btrfs } else { Storage::Files };
                Some(Self { place: Place::Left(path), source, storage, watched, _lock: lock })
            })
            .collect()
    }

    pub(super) fn path(&self) -> &Path {
        match &self.place {
            Place::Ours(place) => place.path(),
            Place::Left(path) => path,
        }
    }

    pub(super) fn open(&self) -> Outcome<Arc<dyn SnapshotProvider>> {
        site::provider(&self.source, &self.path().join("store"), self.storage)
    }

    /// Takes everything away.
    ///
    /// # Errors
    /// What stays, and why.
    pub(super) async fn remove(self) -> Result<(), String> {
        let path = self.path().to_owned();
        let told = |why: String| format!("{}: {why}", path.display());
        if !self.watched.is_over(PATIENCE).await {
            return Err(told("a call is still at work there".to_owned()));
        }
        if path.join("store/sets").is_dir() {
            let provider = self.open().map_err(|error| told(error.failure.message.clone()))?;
            let cx = self.watched.cx();
            empty(&cx, &*provider, &path.join("store/sets")).await.map_err(told)?;
        }
        let removed = match self.place {
            Place::Ours(place) => place.close(),
            Place::Left(path) => fs::remove_dir_all(path),
        };
        removed.map_err(|error| told(error.to_string()))
    }
}

fn nearest(store: &Path) -> PathBuf {
    store.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/")).to_owned()
}

/// Ends every exposure of a store and discards every set in it.
async fn empty(cx: &Cx, provider: &dyn SnapshotProvider, sets: &Path) -> Result<(), String> {
    for exposure in provider.exposures(cx).await.map_err(|error| error.to_string())? {
        provider.unexpose(cx, &exposure.key).await.map_err(|error| error.to_string())?;
    }
    let names = fs::read_dir(sets).map_err(|error| error.to_string())?.flatten();
    for name in names.filter_map(|entry| entry.file_name().into_string().ok()) {
        let bare = name.strip_suffix(".partial").or(name.strip_suffix(".discarded"));
        let Ok(token) = SetToken::new(bare.unwrap_or(&name)) else { continue };
        discard(cx, provider, &token).await?;
    }
    Ok(())
}

/// Discards a set, and waits until it is gone.
pub(super) async fn discard(
    cx: &Cx,
    provider: &dyn SnapshotProvider,
    token: &SetToken,
) -> Result<(), String> {
    let began = cx.mono();
    loop {
        match provider.discard(cx, token).await {
            Ok(Discarded::Gone) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.class() == ErrorClass::Busy => {}
            Err(error) => return Err(error.to_string()),
        }
        if cx.mono().saturating_since(began) > PATIENCE {
            return Err(format!("the set {token} is still under way"));
        }
        let _slept = cx.sleep(Duration::from_millis(20)).await;
    }
}
