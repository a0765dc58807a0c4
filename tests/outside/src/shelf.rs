//! A provider that keeps the bytes of one folder on a shelf in memory.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use stillpoint::context::{HostId, HostPath};
use stillpoint::model::quiesce::QuiesceLevel;
use stillpoint::model::seal::SealWriter;
use stillpoint::storage::{
    Cx, Deleted, Discarded, DocName, ExposedRoot, Exposure, ExposureKey, Found, Listing, Member,
    Placement, PrepareSpec, Prepared, PreparedMember, ProviderCaps, ProviderError,
    ProviderErrorKind, ProviderResult, Published, RestoreKey, RestoredFile, SetToken, Snapshot,
    SnapshotFile, SnapshotId, SnapshotProvider, SnapshotRef, SnapshotRestore, StageSpec, Staged,
    VolumeFacts, VolumeRef,
};

type Bytes = Arc<Vec<u8>>;

/// A set on the shelf: one volume, so one snapshot.
#[derive(Debug, Clone)]
struct Kept {
    snapshot: Snapshot,
    files: Vec<(HostPath, Bytes)>,
}

/// A restore that was staged: from where to where, and what was moved aside.
#[derive(Debug, Clone)]
struct Restore {
    files: Vec<(PathBuf, HostPath)>,
    folder: PathBuf,
    replace: bool,
    published: Option<Published>,
    /// Taken back: whatever publication still comes finds nothing.
    retracted: bool,
}

#[derive(Debug, Default)]
struct State {
    prepared: BTreeMap<SetToken, PrepareSpec>,
    sets: BTreeMap<SetToken, Kept>,
    exposed: BTreeMap<ExposureKey, Exposure>,
    docs: BTreeMap<DocName, Vec<u8>>,
    restores: BTreeMap<RestoreKey, Restore>,
}

/// Snapshots of one folder, kept in memory; exposed and staged under a spool folder.
#[derive(Debug)]
pub struct Shelf {
    caps: ProviderCaps,
    volume: VolumeRef,
    root: HostPath,
    spool: PathBuf,
    state: Mutex<State>,
}

impl Shelf {
    /// A shelf for the folder `root`, with `spool` for what is read or restored from it.
    ///
    /// # Panics
    /// When `root` is no absolute path in text.
    pub fn new(host: &HostId, root: &Path, spool: &Path) -> Self {
        let mut caps = ProviderCaps::new("shelf".parse().expect("a legal id"));
        caps.clone = true;
        let root = HostPath::from_native(host.clone(), root).expect("an absolute path");
        Self {
            volume: VolumeRef::new(
                caps.provider.clone(),
                root.as_str().parse().expect("a legal id"),
            ),
            caps,
            root,
            spool: spool.to_owned(),
            state: Mutex::default(),
        }
    }

    /// How many sets are on the shelf.
    pub fn len(&self) -> usize {
        self.state().sets.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Flips one bit of the newest set, for tests of what happens then.
    ///
    /// # Panics
    /// When there is nothing to damage.
    pub fn damage(&self, file: &str, offset: usize) {
        let mut state = self.state();
        let kept = state.sets.values_mut().next_back().expect("a set");
        let of_file = |(path, _): &&mut (HostPath, Bytes)| path.file_name() == Some(file);
        let (_, bytes) = kept.files.iter_mut().find(of_file).expect("the file is in the set");
        Arc::make_mut(bytes)[offset] ^= 1;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, volumes: impl IntoIterator<Item = VolumeRef>) -> ProviderResult<()> {
        match volumes.into_iter().find(|volume| *volume != self.volume) {
            None => Ok(()),
            Some(other) => Err(not_found("the volume is not on this shelf").with_volume(other)),
        }
    }

    /// Writes files out below a folder, at the places that they have below the root.
    fn lay_out(&self, folder: &Path, files: &[(HostPath, Bytes)]) -> ProviderResult<u64> {
        let mut total = 0;
        for (path, bytes) in files {
            let place = folder.join(path.parts_below(&self.root).unwrap_or_default().join("/"));
            let parent = place.parent().unwrap_or(folder);
            fs::create_dir_all(parent).map_err(|e| ProviderError::io("make a folder", e))?;
            fs::write(&place, &**bytes).map_err(|e| ProviderError::io("write a file", e))?;
            total += bytes.len() as u64;
        }
        Ok(total)
    }

    fn native(&self, path: &Path) -> ProviderResult<HostPath> {
        Ok(HostPath::from_native(self.root.host().clone(), path)?)
    }

    fn kept(&self, wanted: &SnapshotRef) -> ProviderResult<Kept> {
        let state = self.state();
        let kept = state.sets.values().find(|kept| kept.snapshot.reference() == *wanted);
        kept.cloned().ok_or_else(|| not_found("there is no such snapshot"))
    }
}

/// Lets nobody write to the files of an exposure.
fn make_read_only(folder: &Path) -> ProviderResult<()> {
    let failed = |error| ProviderError::io("make an exposure read-only", error);
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            make_read_only(&path)?;
            continue;
        }
        let mut rights = fs::metadata(&path).map_err(failed)?.permissions();
        rights.set_readonly(true);
        fs::set_permissions(&path, rights).map_err(failed)?;
    }
    Ok(())
}

fn not_found(message: &str) -> ProviderError {
    ProviderError::new(ProviderErrorKind::NotFound, message).without_effect()
}

#[async_trait]
impl SnapshotProvider for Shelf {
    fn caps(&self) -> ProviderCaps {
        self.caps.clone()
    }

    async fn resolve(&self, _: &Cx, files: &[HostPath]) -> ProviderResult<Vec<Placement>> {
        let ours = files.iter().filter_map(|file| {
            let inside = file.parts_below(&self.root)?.join("/");
            Some(Placement::new(file.clone(), self.volume.clone(), inside))
        });
        Ok(ours.collect())
    }

    async fn volumes(&self, _: &Cx, volumes: &[VolumeRef]) -> ProviderResult<Vec<VolumeFacts>> {
        self.check(volumes.iter().cloned())?;
        let facts = |volume: &VolumeRef| {
            let mut facts = VolumeFacts::new(volume.clone(), QuiesceLevel::AtRest, None);
            facts.snapshots_used = u32::try_from(self.len()).unwrap_or(u32::MAX);
            facts
        };
        Ok(volumes.iter().map(facts).collect())
    }

    async fn prepare(&self, _: &Cx, spec: &PrepareSpec) -> ProviderResult<Prepared> {
        self.check(spec.members.iter().map(|member| member.volume.clone()))?;
        if spec.limit.is_some() {
            return Err(ProviderError::unsupported("instant")); // S5: before the freeze.
        }
        // What would make the commit fail is refused here: nothing is frozen yet.
        for file in spec.members.iter().flat_map(|member| &member.files) {
            if !file.starts_with(&self.root) {
                let text = format!("{file} does not lie on this shelf's volume");
                return Err(ProviderError::new(ProviderErrorKind::PathEscapes, text)
                    .with_volume(self.volume.clone())
                    .without_effect());
            }
            if !file.to_native()?.is_file() {
                let text = format!("{file} is not there");
                return Err(ProviderError::new(ProviderErrorKind::Vanished, text)
                    .with_volume(self.volume.clone())
                    .without_effect());
            }
        }
        let member =
            |m: &stillpoint::storage::MemberSpec| PreparedMember::new(m.volume.clone(), m.role);
        let members = spec.members.iter().map(member).collect();
        self.state().prepared.insert(spec.token.clone(), spec.clone());
        Ok(Prepared::new(spec.token.clone(), self.caps.provider.clone()).with_members(members))
    }

    async fn commit(&self, cx: &Cx, prepared: &Prepared) -> ProviderResult<Vec<Member>> {
        let member = |p: &PreparedMember, kept: &Kept| {
            Member::new(p.volume.clone(), p.role, kept.snapshot.created_at)
                .with_snapshot(kept.snapshot.id.clone())
        };
        let members = |kept: &Kept| prepared.members.iter().map(|p| member(p, kept)).collect();
        let spec = {
            let state = self.state();
            if let Some(kept) = state.sets.get(&prepared.token) {
                return Ok(members(kept)); // S2: repeated, it is the same snapshots.
            }
            state.prepared.get(&prepared.token).cloned().ok_or_else(|| {
                ProviderError::new(ProviderErrorKind::Expired, "the set is not prepared")
                    .without_effect()
            })?
        };
        let paths: Vec<_> = spec.members.iter().flat_map(|member| member.files.clone()).collect();
        let read = move || {
            let read = |path: HostPath| {
                let native = path.to_native()?;
                let bytes = fs::read(&native).map_err(|error| {
                    ProviderError::io(format!("read {}", native.display()), error)
                })?;
                Ok((path, Arc::new(bytes)))
            };
            paths.into_iter().map(read).collect::<ProviderResult<Vec<_>>>()
        };
        let files = cx.blocking("shelf", read).await??;
        let seal = |(path, bytes): &(HostPath, Bytes)| {
            let mut writer = SealWriter::new(bytes.len() as u64);
            writer.update(bytes);
            SnapshotFile::new(path.clone(), Some(writer.finish()))
        };
        let id: SnapshotId = prepared.token.as_str().parse().expect("a token is a legal id");
        let snapshot = Snapshot::new(self.volume.clone(), id, cx.now())
            .with_name(spec.name)
            .with_token(prepared.token.clone())
            .with_tags(spec.tags)
            .with_files(files.iter().map(seal).collect());
        let mut state = self.state();
        if !state.prepared.contains_key(&prepared.token) {
            // Discarded meanwhile: it does not come back.
            return Err(ProviderError::new(ProviderErrorKind::Expired, "the set was discarded"));
        }
        let kept = state.sets.entry(prepared.token.clone()).or_insert(Kept { snapshot, files });
        Ok(members(kept))
    }

    async fn settle(&self, _: &Cx, prepared: &Prepared) -> ProviderResult<Vec<Snapshot>> {
        let state = self.state();
        let kept = state.sets.get(&prepared.token);
        Ok(vec![kept.ok_or_else(|| not_found("the set was never taken"))?.snapshot.clone()])
    }

    async fn discard(&self, _: &Cx, token: &SetToken) -> ProviderResult<Discarded> {
        let mut state = self.state();
        state.prepared.remove(token);
        state.sets.remove(token);
        Ok(Discarded::Gone)
    }

    async fn find(&self, _: &Cx, token: &SetToken) -> ProviderResult<Found> {
        let state = self.state();
        let complete = |kept: &Kept| Found::Complete(vec![kept.snapshot.clone()]);
        Ok(state.sets.get(token).map_or(Found::Absent, complete))
    }

    async fn list(
        &self,
        _: &Cx,
        volume: &VolumeRef,
        page: Option<String>,
    ) -> ProviderResult<Listing> {
        self.check([volume.clone()])?;
        if page.is_some() {
            let text = "a shelf has one page";
            return Err(ProviderError::new(ProviderErrorKind::Invalid, text).without_effect());
        }
        let snapshots = self.state().sets.values().map(|kept| kept.snapshot.clone()).collect();
        Ok(Listing { snapshots, next: None })
    }

    async fn delete(&self, _: &Cx, snapshot: &SnapshotRef) -> ProviderResult<Deleted> {
        self.state().sets.retain(|_, kept| kept.snapshot.reference() != *snapshot);
        Ok(Deleted::Gone)
    }

    async fn expose(
        &self,
        _: &Cx,
        snapshots: &[SnapshotRef],
        to: &HostId,
        key: &ExposureKey,
    ) -> ProviderResult<Exposure> {
        if let Some(open) = self.state().exposed.get(key) {
            return Ok(open.clone());
        }
        let mut kept = Vec::new();
        for wanted in snapshots {
            kept.push((wanted, self.kept(wanted)?.files));
        }
        let mut roots = Vec::new();
        for (wanted, files) in kept {
            let folder = self.spool.join(key.as_str()).join(wanted.id.as_str());
            self.lay_out(&folder, &files)?;
            make_read_only(&folder)?; // S4.
            roots.push(ExposedRoot::new(wanted.clone(), self.root.clone(), self.native(&folder)?));
        }
        let exposure = Exposure::new(key.clone(), to.clone(), roots);
        self.state().exposed.insert(key.clone(), exposure.clone());
        Ok(exposure)
    }

    async fn unexpose(&self, _: &Cx, key: &ExposureKey) -> ProviderResult<()> {
        if self.state().exposed.remove(key).is_some() {
            fs::remove_dir_all(self.spool.join(key.as_str()))
                .map_err(|error| ProviderError::io("remove an exposure", error))?;
        }
        Ok(())
    }

    async fn exposures(&self, _: &Cx) -> ProviderResult<Vec<Exposure>> {
        Ok(self.state().exposed.values().cloned().collect())
    }

    async fn put_doc(&self, _: &Cx, name: &DocName, bytes: &[u8]) -> ProviderResult<()> {
        self.state().docs.insert(name.clone(), bytes.to_vec());
        Ok(())
    }

    async fn get_doc(&self, _: &Cx, name: &DocName) -> ProviderResult<Option<Vec<u8>>> {
        Ok(self.state().docs.get(name).cloned())
    }

    async fn list_docs(&self, _: &Cx) -> ProviderResult<Vec<DocName>> {
        Ok(self.state().docs.keys().cloned().collect())
    }

    async fn delete_doc(&self, _: &Cx, name: &DocName) -> ProviderResult<()> {
        self.state().docs.remove(name);
        Ok(())
    }

    fn restore(&self) -> Option<&dyn SnapshotRestore> {
        Some(self)
    }
}

#[async_trait]
impl SnapshotRestore for Shelf {
    async fn stage(&self, cx: &Cx, spec: &StageSpec) -> ProviderResult<Staged> {
        self.unstage(cx, &spec.key).await?;
        let folder = self.spool.join(spec.key.as_str());
        let (mut files, mut roots, mut bytes) = (Vec::new(), Vec::new(), 0);
        for RestoredFile { snapshot, original, target } in &spec.files {
            if !spec.replace && target.to_native()?.exists() {
                let taken = format!("{target} exists");
                return Err(
                    ProviderError::new(ProviderErrorKind::NameTaken, taken).without_effect()
                );
            }
            let kept = self.kept(snapshot)?;
            let wanted = |(path, _): &&(HostPath, Bytes)| path == original;
            let file = kept.files.iter().find(wanted).ok_or_else(|| not_found("no such file"))?;
            bytes += self.lay_out(&folder, std::slice::from_ref(file))?;
            let inside = original.parts_below(&self.root).unwrap_or_default().join("/");
            files.push((folder.join(inside), target.clone()));
            roots.push(ExposedRoot::new(
                snapshot.clone(),
                self.root.clone(),
                self.native(&folder)?,
            ));
        }
        roots.dedup();
        let replace = spec.replace;
        let restore = Restore { files, folder, replace, published: None, retracted: false };
        self.state().restores.insert(spec.key.clone(), restore);
        let key = spec.key.as_str().parse().map_err(|_| not_found("no legal key"))?;
        let exposure = Exposure::new(key, self.root.host().clone(), roots);
        Ok(Staged::new(spec.key.clone(), exposure, bytes))
    }

    async fn unstage(&self, _: &Cx, key: &RestoreKey) -> ProviderResult<()> {
        match self.state().restores.remove(key) {
            Some(restore) if restore.folder.exists() => fs::remove_dir_all(&restore.folder)
                .map_err(|error| ProviderError::io("remove what was staged", error)),
            _ => Ok(()),
        }
    }

    async fn publish(&self, _: &Cx, key: &RestoreKey) -> ProviderResult<Published> {
        let mut state = self.state();
        let staged = state.restores.get_mut(key).filter(|restore| !restore.retracted);
        let restore = staged.ok_or_else(|| not_found("nothing is staged"))?;
        if let Some(published) = &restore.published {
            return Ok(published.clone());
        }
        let io = |error| ProviderError::io("publish a file", error);
        let (mut files, mut kept) = (Vec::new(), Vec::new());
        for (staged, target) in &restore.files {
            let place = target.to_native()?;
            if place.exists() {
                if !restore.replace {
                    return Err(ProviderError::new(
                        ProviderErrorKind::NameTaken,
                        "it came meanwhile",
                    ));
                }
                let aside = place.with_added_extension("aside");
                fs::rename(&place, &aside).map_err(io)?;
                kept.push((target.clone(), HostPath::from_native(target.host().clone(), &aside)?));
            }
            fs::create_dir_all(place.parent().unwrap_or(&place)).map_err(io)?;
            fs::rename(staged, &place).map_err(io)?;
            files.push(target.clone());
        }
        let published = Published::new(files, kept);
        restore.published = Some(published.clone());
        Ok(published)
    }

    async fn retract(&self, _: &Cx, key: &RestoreKey) -> ProviderResult<()> {
        let mut state = self.state();
        let Some(restore) = state.restores.get_mut(key) else { return Ok(()) };
        restore.retracted = true;
        let Some(published) = restore.published.take() else { return Ok(()) };
        let io = |error| ProviderError::io("take back a file", error);
        for file in &published.files {
            fs::remove_file(file.to_native()?).map_err(io)?;
        }
        for (was, is) in &published.kept {
            fs::rename(is.to_native()?, was.to_native()?).map_err(io)?;
        }
        Ok(())
    }

    async fn settle(&self, cx: &Cx, key: &RestoreKey) -> ProviderResult<()> {
        let published = self.state().restores.get(key).and_then(|r| r.published.clone());
        for (_, aside) in published.map(|published| published.kept).unwrap_or_default() {
            let _gone = fs::remove_file(aside.to_native()?);
        }
        self.unstage(cx, key).await
    }
}
