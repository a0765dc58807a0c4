//! How fast a catalogue of 100,000 restore points in SQLite is compared with a storage that lists their snapshots.
//!
//! `cargo bench -p stillpoint-benches --bench reconcile` prints one table, with a floor measured in the same run: reading the same
//! points and listing the same snapshots once, comparing nothing.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench fails by panicking and prints its table"
)]

use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use stillpoint::catalog::{Catalog, CatalogExt, PointQuery};
use stillpoint::context::{Cx, JobId, RunId};
use stillpoint::model::evidence::EvidenceGrain;
use stillpoint::model::id::{
    CopyId, DatabaseId, PointId, SetToken, SnapshotId, SnapshotRef, VolumeRef,
};
use stillpoint::model::kind::BackupKind;
use stillpoint::model::manifest;
use stillpoint::model::point::{
    MemberRole, NewPoint, PointEvidence, PointFact, PointMember, PointState, RestorePoint,
};
use stillpoint::model::quiesce::{Held, QuiesceLevel};
use stillpoint::storage::{
    DocName, ForwardProvider, Listing, ProviderResult, Snapshot, SnapshotProvider,
};
use stillpoint::{ReconcileOptions, Stillpoint};
use stillpoint_benches::table::{best, is_wanted, verdict};
use stillpoint_store_sqlite::SqliteStore;
use stillpoint_testkit::{SimStorage, World};
use uuid::Uuid;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The goal of the project, in seconds.
const GOAL: f64 = 5.0;

/// How many snapshots a page of the storage has.
const PAGE: usize = 1_000;

/// A storage that shows as many snapshots as it is told to, and a manifest for each.
#[derive(Debug)]
struct Shelf {
    inner: SimStorage,
    volume: VolumeRef,
    shown: Vec<Snapshot>,
}

#[async_trait]
impl ForwardProvider for Shelf {
    fn inner(&self) -> &dyn SnapshotProvider {
        &self.inner
    }
    async fn list(&self, _: &Cx, of: &VolumeRef, page: Option<String>) -> ProviderResult<Listing> {
        if *of != self.volume {
            return Ok(Listing::default());
        }
        let from: usize = page.map_or(0, |page| page.parse().unwrap());
        let to = (from + PAGE).min(self.shown.len());
        let next = (to < self.shown.len()).then(|| to.to_string());
        Ok(Listing { snapshots: self.shown[from..to].to_vec(), next })
    }
    async fn list_docs(&self, _: &Cx) -> ProviderResult<Vec<DocName>> {
        let points = self.shown.iter().filter_map(|shown| shown.token.as_ref()?.parts());
        Ok(points.map(|(_, id)| DocName::new(manifest::document_name(id)).unwrap()).collect())
    }
}

fn at(number: u32) -> DateTime<Utc> {
    let begin: DateTime<Utc> = "2026-01-01T00:00:00Z".parse().unwrap();
    begin + TimeDelta::minutes(number.into())
}

fn point(number: u32, volume: &VolumeRef) -> RestorePoint {
    let (run, id) =
        (RunId(Uuid::from_u128(number.into())), PointId(Uuid::from_u128(u128::from(number) << 64)));
    let copy =
        CopyId::new(DatabaseId(Uuid::from_u128((number % 50).into())), "ex1".parse().unwrap());
    let mut point = RestorePoint::new(NewPoint {
        id,
        copy,
        database_name: "DB01".to_owned(),
        kind: BackupKind::FullAndLog,
        taken_at: at(number),
        job: JobId(run.0),
        run,
        set: SetToken::of(&run, id),
        evidence: PointEvidence::new(QuiesceLevel::App, Held::Yes, EvidenceGrain::PerDatabase),
    });
    point.state = PointState::Available;
    let snapshot = SnapshotRef::new(volume.clone(), SnapshotId::new(format!("s{number}")).unwrap());
    point.members.push(PointMember::new(snapshot, format!("s{number}"), MemberRole::DataAndLog));
    point
}

fn main() {
    let count: u32 = if is_wanted() { 100_000 } else { 2_000 };
    let world = World::one_server(1);
    let volume = world.volumes().remove(0);
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build().unwrap();
    let store = Arc::new(SqliteStore::open(folder.path().join("state.db")).unwrap());
    let mut shown = Vec::new();
    runtime.block_on(async {
        for batch in (0..count).collect::<Vec<_>>().chunks(1_000) {
            let facts: Vec<PointFact> = batch
                .iter()
                .map(|number| PointFact::Published(Box::new(point(*number, &volume))))
                .collect();
            store.apply(&facts, None).await.unwrap();
        }
        for number in 0..count {
            let point = point(number, &volume);
            let snapshot =
                Snapshot::new(volume.clone(), point.members[0].snapshot.id.clone(), at(number));
            shown.push(snapshot.with_token(point.set));
        }
    });
    let shelf = Arc::new(Shelf { inner: world.storage(), volume: volume.clone(), shown });
    let this = runtime.block_on(async {
        Stillpoint::builder(Arc::new(world.exchange()))
            .provider(Arc::<Shelf>::clone(&shelf))
            .store(Arc::<SqliteStore>::clone(&store))
            .build()
            .unwrap()
    });
    let rounds = if is_wanted() { 3 } else { 1 };
    let found = best(rounds, || {
        let options = ReconcileOptions::keep_orphans();
        let report = runtime.block_on(this.reconcile(&options)).unwrap();
        assert_eq!(report.comparison.counts()["whole"], usize::try_from(count).unwrap());
        assert!(report.is_clean(), "{:?}", report.limits);
    });
    let floor = best(rounds, || {
        runtime.block_on(async {
            let points = store.all_points(&PointQuery::all()).await.unwrap();
            let cx = Cx::detached(this.seams());
            let (mut listed, mut page) = (0, None);
            loop {
                let listing = ForwardProvider::list(&*shelf, &cx, &volume, page).await.unwrap();
                listed += listing.snapshots.len();
                page = listing.next;
                if page.is_none() {
                    break;
                }
            }
            assert_eq!(points.len(), listed);
        });
    });
    if !is_wanted() {
        return;
    }
    println!("\n{count} restore points, as many snapshots and manifests\n");
    println!("| what | found | floor | goal | |");
    println!("|---|---|---|---|---|");
    let found = found.as_secs_f64();
    println!(
        "| a reconcile | {found:.2} s | {:.2} s | {GOAL} s | {} |",
        floor.as_secs_f64(),
        verdict(found <= GOAL)
    );
}
