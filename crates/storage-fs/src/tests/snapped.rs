//! A store whose members are snapshots of subvolumes, over pretended ones: what must hold between any two changes. That real
//! ones behave so is tested in `stillpoint-storage-btrfs`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use stillpoint_model::handover::MemberRole;
use stillpoint_model::id::{SnapshotId, SnapshotRef, VolumeRef};
use stillpoint_storage::{
    Collateral, Consent, Discarded, Found, MemberSpec, PrepareSpec, ProviderErrorKind,
    ProviderResult, Snapshot, SnapshotProvider, SnapshotRestore,
};

use super::support::{Failing, Lab, Pretended, Trace, assert_kind, names, tree};
use crate::FsProvider;
use crate::config::open;
use crate::disk::{Disk, Hook, Op};

/// The lab's two volumes as subvolumes.
struct Snapped {
    lab: Lab,
    pretended: Arc<Pretended>,
}

impl Snapped {
    fn new() -> Self {
        let (lab, pretended) = (Lab::new(), Arc::new(Pretended::default()));
        pretended.make(&lab.path("data"));
        pretended.make(&lab.path("logs"));
        Self { lab, pretended }
    }

    fn provider(&self) -> FsProvider {
        FsProvider::open_over(&self.lab.config(), Arc::clone(&self.pretended) as _).unwrap()
    }

    /// Another process, whose changes pass `hook` once it is open.
    fn hooked(&self, hook: Arc<dyn Hook>) -> FsProvider {
        let over = |disk: Disk| disk.with_subvolumes(Some(Arc::clone(&self.pretended) as _));
        let mut store = open(&self.lab.config(), over(Disk::default())).unwrap().into_store();
        store.disk = over(Disk::hooked(hook));
        store.patience = Duration::from_millis(100);
        FsProvider::new(Arc::new(store))
    }

    fn volume(&self, name: &str) -> VolumeRef {
        let provider = self.provider();
        let mut known = provider.known_volumes();
        known.find(|(known, _, _)| *known == name).unwrap().1.clone()
    }

    fn spec(&self, token: &str) -> PrepareSpec {
        let member = |name: &str, role| {
            let files = tree(&self.lab.path(name)).into_keys();
            let files = files.map(|file| self.lab.host_path(&format!("{name}/{file}")));
            MemberSpec::new(self.volume(name), role, files.collect())
        };
        PrepareSpec::new(token.parse().unwrap(), format!("stillpoint-{token}"))
            .with_member(member("data", MemberRole::Data))
            .with_member(member("logs", MemberRole::Log))
    }

    fn take(&self, provider: &FsProvider, token: &str) -> Vec<Snapshot> {
        self.lab.run(back_up(&self.lab, provider, &self.spec(token))).unwrap()
    }
}

async fn back_up(
    lab: &Lab,
    provider: &FsProvider,
    spec: &PrepareSpec,
) -> ProviderResult<Vec<Snapshot>> {
    let prepared = provider.prepare(&lab.cx, spec).await?;
    provider.commit(&lab.cx, &prepared).await?;
    SnapshotProvider::settle(provider, &lab.cx, &prepared).await
}

fn die_everywhere(mut attempt: impl FnMut(usize) -> bool) -> usize {
    (0..500).find(|changes| attempt(*changes)).expect("the work gets through in the end")
}

/// The bytes of the subvolume at a folder, without the file that makes it one.
fn content(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let files = tree(folder).into_iter().filter(|(name, _)| name != ".subvolume");
    files.map(|(name, bytes)| (name, bytes.0)).collect()
}

#[test]
fn a_commit_makes_the_snapshots_and_changes_nothing_else() {
    let it = Snapped::new();
    let trace = Arc::new(Trace::default());
    let provider = it.hooked(Arc::clone(&trace) as _);
    let prepared = it.lab.run(provider.prepare(&it.lab.cx, &it.spec("t1"))).unwrap();
    trace.drain();
    it.lab.run(provider.commit(&it.lab.cx, &prepared)).unwrap();
    let changes = trace.drain();
    let what: Vec<_> = changes.iter().map(|(op, _)| *op).collect();
    assert_eq!(what, [Op::Snapshot, Op::Snapshot], "{changes:?}");
    // Databases before logs (S9).
    assert!(changes[0].1.ends_with("t1.partial/m0/v"), "{changes:?}");
    // And a repeated one changes nothing.
    let members = it.lab.run(provider.commit(&it.lab.cx, &prepared)).unwrap();
    assert_eq!(members.len(), 2);
    assert!(trace.drain().is_empty());
}

#[test]
fn a_backup_that_dies_anywhere_is_found_out_and_discarded() {
    let it = Snapped::new();
    let spec = it.spec("t1");
    let deaths = die_everywhere(|changes| {
        let result = it.lab.run(back_up(&it.lab, &it.hooked(Failing::dead_after(changes)), &spec));
        let fresh = it.provider();
        it.lab.run(async {
            let found = fresh.find(&it.lab.cx, &spec.token).await.unwrap();
            if let Ok(snapshots) = &result {
                assert_eq!(found, Found::Complete(snapshots.clone()));
            }
            let discarded = fresh.discard(&it.lab.cx, &spec.token).await.unwrap();
            assert_eq!(discarded, Discarded::Gone);
            assert_eq!(fresh.find(&it.lab.cx, &spec.token).await.unwrap(), Found::Absent);
        });
        assert_eq!(it.lab.sets(), Vec::<String>::new(), "after {changes} changes");
        result.is_ok()
    });
    assert!(deaths > 20, "only {deaths} places");
}

#[test]
fn a_commit_that_died_anywhere_is_the_same_snapshots_or_all_new_ones() {
    let it = Snapped::new();
    let spec = it.spec("t1");
    let mut prepared = it.lab.run(it.provider().prepare(&it.lab.cx, &spec)).unwrap();
    let deaths = die_everywhere(|changes| {
        it.lab.write("data/db one/DB01.edb", format!("before {changes}").as_bytes());
        let dying = it.hooked(Failing::dead_after(changes));
        let result = it.lab.run(async {
            dying.commit(&it.lab.cx, &prepared).await?;
            SnapshotProvider::settle(&dying, &it.lab.cx, &prepared).await
        });
        let before = content(&it.lab.path("data"));
        let was_complete = match it.lab.run(it.provider().find(&it.lab.cx, &spec.token)).unwrap() {
            Found::Complete(_) => true,
            Found::Partial(some) => {
                assert_eq!(some.len(), 1);
                false
            }
            Found::Absent => false,
            other => panic!("nobody is at it: {other:?}"),
        };
        // Written between the two attempts: what was taken once is not taken again, what was not is all of now.
        it.lab.write("data/db one/DB01.edb", format!("after {changes}").as_bytes());
        let now = content(&it.lab.path("data"));
        let fresh = it.provider();
        it.lab.run(async {
            fresh.commit(&it.lab.cx, &prepared).await.unwrap();
            SnapshotProvider::settle(&fresh, &it.lab.cx, &prepared).await.unwrap();
            let taken = content(&it.lab.path("store/sets/t1/m0/v"));
            assert!(taken == if was_complete { before } else { now }, "after {changes} changes");
            assert_eq!(names(&it.lab.path("store/sets/t1")), ["lock", "m0", "m1", "set.json"]);
            fresh.discard(&it.lab.cx, &spec.token).await.unwrap();
            prepared = fresh.prepare(&it.lab.cx, &spec).await.unwrap();
        });
        result.is_ok()
    });
    assert!(deaths > 8, "only {deaths} places");
}

#[test]
fn a_revert_that_dies_anywhere_leaves_the_old_volume_or_the_new_one_and_nothing_beside_it() {
    let it = Snapped::new();
    it.take(&it.provider(), "t1");
    let then = content(&it.lab.path("data"));
    let volume = it.volume("data");
    let snapshot = SnapshotRef::new(volume.clone(), SnapshotId::new("t1").unwrap());
    let beside = names(it.lab.folder.path());
    let mut seen = [false, false];
    let deaths = die_everywhere(|changes| {
        it.lab.write("data/db one/DB01.edb", b"written since");
        it.lab.write("data/other.edb", b"somebody else's");
        let now = content(&it.lab.path("data"));
        let dying = it.hooked(Failing::dead_after(changes));
        let side: &dyn SnapshotRestore = &dying;
        let result = it.lab.run(async {
            let lost = side.collateral(&it.lab.cx, std::slice::from_ref(&snapshot)).await.unwrap();
            side.revert(&it.lab.cx, std::slice::from_ref(&snapshot), &Consent(lost)).await
        });
        // Opening it again ends what was begun.
        assert_eq!(it.volume("data"), volume, "it is the same volume, whichever subvolume it is");
        let left = content(&it.lab.path("data"));
        assert!(left == now || left == then, "after {changes} changes");
        seen[usize::from(left == then)] = true;
        assert_eq!(names(it.lab.folder.path()), beside, "after {changes} changes");
        let journals = names(&it.lab.path("store/reverts"));
        // A document that was being written is overwritten by the next.
        let is_left = |name: &String| name == "lock" || name.starts_with('.');
        assert!(journals.len() <= 2 && journals.iter().all(is_left), "{journals:?}");
        // The snapshot is as it was, and the volume can be snapped again.
        assert!(content(&it.lab.path("store/sets/t1/m0/v")) == then);
        let provider = it.provider();
        it.take(&provider, "t2");
        it.lab.run(provider.discard(&it.lab.cx, &"t2".parse().unwrap())).unwrap();
        if let Ok(done) = &result {
            assert_eq!(*done, std::slice::from_ref(&volume));
            assert!(left == then);
        }
        result.is_ok()
    });
    assert_eq!(seen, [true, true], "both ends were seen");
    assert!(deaths > 10, "only {deaths} places");
}

#[test]
fn a_revert_needs_consent_to_exactly_what_is_lost() {
    let it = Snapped::new();
    let provider = it.provider();
    it.take(&provider, "t1");
    it.lab.write("data/other.edb", b"somebody else's");
    let now = content(&it.lab.path("data"));
    let snapshot = [SnapshotRef::new(it.volume("data"), SnapshotId::new("t1").unwrap())];
    let side: &dyn SnapshotRestore = &provider;
    it.lab.run(async {
        let lost = side.collateral(&it.lab.cx, &snapshot).await.unwrap();
        assert_eq!(lost.files, [it.lab.host_path("data/other.edb")]);
        assert!(lost.newer.is_empty(), "no snapshot is lost");
        let none = Consent(Collateral::default());
        let refused = side.revert(&it.lab.cx, &snapshot, &none).await;
        assert_kind(refused, &ProviderErrorKind::Collateral);
        // Consent to what was shown is none to what came since.
        it.lab.write("data/later.edb", b"more");
        let refused = side.revert(&it.lab.cx, &snapshot, &Consent(lost.clone())).await;
        let error = assert_kind(refused, &ProviderErrorKind::Collateral);
        assert!(error.to_string().contains("2 files"), "{error}");
        std::fs::remove_file(it.lab.path("data/later.edb")).unwrap();
        assert!(content(&it.lab.path("data")) == now);
        side.revert(&it.lab.cx, &snapshot, &Consent(lost)).await.unwrap();
        assert!(!it.lab.path("data/other.edb").exists());
    });
}

#[test]
fn a_provider_over_files_does_not_revert() {
    let lab = Lab::new();
    let provider = lab.provider();
    lab.take(&provider, "t1");
    assert!(!provider.caps().revert);
    let side: &dyn SnapshotRestore = &provider;
    let snapshot = [super::support::snapshot_ref("data", "t1")];
    lab.run(async {
        let kind = ProviderErrorKind::Unsupported("revert");
        assert_kind(side.collateral(&lab.cx, &snapshot).await, &kind);
        let consent = Consent(Collateral::default());
        assert_kind(side.revert(&lab.cx, &snapshot, &consent).await, &kind);
    });
}
