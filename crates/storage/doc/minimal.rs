use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use stillpoint_context::{HostId, HostPath};
use stillpoint_model::quiesce::QuiesceLevel;
use stillpoint_storage::*;

/// Snapshots of nothing, kept in memory: a skeleton to start from.
#[derive(Debug)]
struct Minimal {
    caps: ProviderCaps,
    volume: VolumeRef,
    root: HostPath,
    /// What was prepared, and its snapshots once they are taken.
    sets: Mutex<BTreeMap<SetToken, (PrepareSpec, Vec<Snapshot>)>>,
    exposed: Mutex<BTreeMap<ExposureKey, Exposure>>,
    docs: Mutex<BTreeMap<DocName, Vec<u8>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn refuse(kind: ProviderErrorKind, why: &str) -> ProviderError {
    ProviderError::new(kind, why).without_effect()
}

impl Minimal {
    fn check(&self, volume: &VolumeRef) -> ProviderResult<()> {
        let unknown = || refuse(ProviderErrorKind::NotFound, "there is no such volume").with_volume(volume.clone());
        (*volume == self.volume).then_some(()).ok_or_else(unknown)
    }

    fn taken(&self) -> Vec<Snapshot> {
        lock(&self.sets).values().flat_map(|(_, taken)| taken.clone()).collect()
    }
}

#[async_trait]
impl SnapshotProvider for Minimal {
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
        let facts = |volume: &VolumeRef| {
            self.check(volume)?;
            let mut facts = VolumeFacts::new(volume.clone(), QuiesceLevel::AtRest, None);
            facts.snapshots_used = u32::try_from(self.taken().len()).unwrap_or(u32::MAX);
            Ok(facts)
        };
        volumes.iter().map(facts).collect()
    }

    async fn prepare(&self, _: &Cx, spec: &PrepareSpec) -> ProviderResult<Prepared> {
        if spec.limit.is_some() {
            return Err(ProviderError::unsupported("instant")); // S5: refused before the freeze
        }
        spec.members.iter().try_for_each(|member| self.check(&member.volume))?;
        lock(&self.sets).entry(spec.token.clone()).or_insert_with(|| (spec.clone(), Vec::new()));
        let members = spec.members.iter().map(|m| PreparedMember::new(m.volume.clone(), m.role));
        Ok(Prepared::new(spec.token.clone(), self.caps.provider.clone()).with_members(members.collect()))
    }

    async fn commit(&self, cx: &Cx, prepared: &Prepared) -> ProviderResult<Vec<Member>> {
        let mut sets = lock(&self.sets);
        let expired = || refuse(ProviderErrorKind::Expired, "the set is not prepared, or was discarded");
        let (spec, taken) = sets.get_mut(&prepared.token).ok_or_else(expired)?;
        if taken.is_empty() {
            let id = SnapshotId::new(prepared.token.as_str()).expect("a token is a legal snapshot id");
            let snap = |m: &PreparedMember| {
                Snapshot::new(m.volume.clone(), id.clone(), cx.now())
                    .with_name(spec.name.clone())
                    .with_token(prepared.token.clone())
                    .with_tags(spec.tags.clone())
            };
            *taken = prepared.members.iter().map(snap).collect();
        } // S2: repeated, it is the same snapshots
        let member = |(snapshot, prepared): (&Snapshot, &PreparedMember)| {
            Member::new(snapshot.volume.clone(), prepared.role, snapshot.created_at)
        };
        Ok(taken.iter().zip(&prepared.members).map(member).collect())
    }

    async fn settle(&self, _: &Cx, prepared: &Prepared) -> ProviderResult<Vec<Snapshot>> {
        let sets = lock(&self.sets);
        let taken = sets.get(&prepared.token).map(|(_, taken)| taken).filter(|taken| !taken.is_empty());
        taken.cloned().ok_or_else(|| refuse(ProviderErrorKind::NotFound, "the set was never taken"))
    }

    async fn discard(&self, _: &Cx, token: &SetToken) -> ProviderResult<Discarded> {
        lock(&self.sets).remove(token);
        Ok(Discarded::Gone)
    }

    async fn find(&self, _: &Cx, token: &SetToken) -> ProviderResult<Found> {
        let sets = lock(&self.sets);
        let found = sets.get(token).map(|(_, found)| found).filter(|found| !found.is_empty());
        Ok(found.cloned().map_or(Found::Absent, Found::Complete))
    }

    async fn list(&self, _: &Cx, volume: &VolumeRef, page: Option<String>) -> ProviderResult<Listing> {
        self.check(volume)?;
        match page {
            Some(_) => Err(refuse(ProviderErrorKind::Invalid, "there is one page")),
            None => Ok(Listing { snapshots: self.taken(), next: None }),
        }
    }

    async fn delete(&self, _: &Cx, snapshot: &SnapshotRef) -> ProviderResult<Deleted> {
        lock(&self.sets).values_mut().for_each(|(_, taken)| taken.retain(|s| s.reference() != *snapshot));
        Ok(Deleted::Gone)
    }

    async fn expose(
        &self, _: &Cx, snapshots: &[SnapshotRef], to: &HostId, key: &ExposureKey,
    ) -> ProviderResult<Exposure> {
        let known: Vec<_> = self.taken().iter().map(Snapshot::reference).collect();
        if snapshots.iter().any(|snapshot| !known.contains(snapshot)) {
            return Err(refuse(ProviderErrorKind::NotFound, "there is no such snapshot"));
        }
        let root = |s: &SnapshotRef| ExposedRoot::new(s.clone(), self.root.clone(), self.root.clone());
        let exposure = Exposure::new(key.clone(), to.clone(), snapshots.iter().map(root).collect());
        lock(&self.exposed).insert(key.clone(), exposure.clone());
        Ok(exposure)
    }

    async fn unexpose(&self, _: &Cx, key: &ExposureKey) -> ProviderResult<()> {
        lock(&self.exposed).remove(key);
        Ok(())
    }

    async fn exposures(&self, _: &Cx) -> ProviderResult<Vec<Exposure>> {
        Ok(lock(&self.exposed).values().cloned().collect())
    }

    async fn put_doc(&self, _: &Cx, name: &DocName, bytes: &[u8]) -> ProviderResult<()> {
        lock(&self.docs).insert(name.clone(), bytes.to_vec());
        Ok(())
    }

    async fn get_doc(&self, _: &Cx, name: &DocName) -> ProviderResult<Option<Vec<u8>>> {
        Ok(lock(&self.docs).get(name).cloned())
    }

    async fn list_docs(&self, _: &Cx) -> ProviderResult<Vec<DocName>> {
        Ok(lock(&self.docs).keys().cloned().collect())
    }

    async fn delete_doc(&self, _: &Cx, name: &DocName) -> ProviderResult<()> {
        lock(&self.docs).remove(name);
        Ok(())
    }
}
