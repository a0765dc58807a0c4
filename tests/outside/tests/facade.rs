//! Backup and restore through the façade, over a plug-in and a provider of our own.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use stillpoint::context::{HostId, HostPath, IdempotencyKey};
use stillpoint::model::group::Selector;
use stillpoint::model::id::{PointId, PolicyId};
use stillpoint::model::job::{Job, JobState, MemberEnd};
use stillpoint::model::point::Trust;
use stillpoint::model::policy::Policy;
use stillpoint::model::quiesce::Consistency;
use stillpoint::model::request::{BackupRequest, Target};
use stillpoint::model::restore::{RestoreRequest, RestoreTarget};
use stillpoint::model::topology::Protection;
use stillpoint::{Stillpoint, VerifyRequest};
use stillpoint_outside::{Ledger, Shelf};
use tempfile::TempDir;
use uuid::Uuid;

/// A folder with ledgers, a shelf for it, and a Stillpoint over both.
struct Shop {
    folder: TempDir,
    plugin: Arc<Ledger>,
    shelf: Arc<Shelf>,
    stillpoint: Stillpoint,
}

const POLICY: PolicyId = PolicyId(Uuid::from_u128(1));

fn host() -> HostId {
    "shop.example.org".parse().unwrap()
}

fn key(text: &str) -> IdempotencyKey {
    text.parse().unwrap()
}

impl Shop {
    /// One with these ledgers, each with its lines.
    async fn open(ledgers: &[(&str, &str)]) -> Self {
        let folder = TempDir::new().unwrap();
        let root = folder.path().join("ledgers");
        fs::create_dir(&root).unwrap();
        for (number, (name, text)) in ledgers.iter().enumerate() {
            let id = Uuid::from_u128(100 + number as u128);
            fs::write(root.join(name), format!("{id}\n{text}")).unwrap();
        }
        let plugin = Arc::new(Ledger::new(host(), &root));
        let shelf = Arc::new(Shelf::new(&host(), &root, &folder.path().join("spool")));
        let stillpoint = Stillpoint::in_memory(plugin.clone(), shelf.clone()).unwrap();
        stillpoint.save_policy(&Policy::new(POLICY, "nightly")).await.unwrap();
        Self { folder, plugin, shelf, stillpoint }
    }

    fn place(&self, name: &str) -> PathBuf {
        self.folder.path().join("ledgers").join(name)
    }

    /// Backs up everything.
    async fn backup(&self, night: &str) -> Job {
        let everything = Target::Selected(vec![Selector::Everything]);
        let request = BackupRequest::new(key(night), everything, POLICY);
        self.stillpoint.backup(request).await.unwrap().wait().await
    }

    async fn restore(&self, request: &str, point: PointId, to: &Path) -> Job {
        let to = HostPath::from_native(host(), to).unwrap();
        let target = RestoreTarget::AlternatePath(to);
        let request = RestoreRequest::new(key(request), point, target);
        self.stillpoint.restore(request).await.unwrap().wait().await
    }
}

fn points(job: &Job) -> Vec<(PointId, bool)> {
    let ends = job.runs.iter().flat_map(|run| &run.members).filter_map(|member| match member.end {
        Some(MemberEnd::Point { point, suspect }) => Some((point, suspect)),
        _ => None,
    });
    ends.collect()
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let inside = |path: PathBuf| if path.is_dir() { files(&path) } else { vec![path] };
    entries.flat_map(|entry| inside(entry.unwrap().path())).collect()
}

#[tokio::test]
async fn what_is_backed_up_comes_back_byte_for_byte() {
    let shop = Shop::open(&[("a.ledger", "1 apple\nend\n"), ("b.ledger", "2 pears\nend\n")]).await;
    let job = shop.backup("monday").await;
    assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
    assert_eq!(points(&job).len(), 2);
    assert_eq!(shop.plugin.completed().len(), 1, "one session, completed once");

    let topology = shop.stillpoint.topology().await.unwrap();
    assert_eq!(topology.databases.len(), 2);
    for database in &topology.databases {
        assert_eq!(database.protection, Protection::Protected);
        assert_eq!(database.points[0].consistency, Consistency::AtRest);
        assert!(matches!(database.points[0].trust, Trust::Verified { .. }));
    }

    let (point, _) = points(&job)[0];
    let name = shop.stillpoint.point(point).await.unwrap().unwrap().database_name;
    let original = fs::read(shop.place(&name)).unwrap();
    fs::remove_file(shop.place(&name)).unwrap();
    let target = shop.folder.path().join("restored");
    let job = shop.restore("back", point, &target).await;
    assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
    let restored = files(&target);
    assert_eq!(restored.len(), 1, "{restored:?}");
    assert_eq!(fs::read(&restored[0]).unwrap(), original);
    assert_eq!(files(&shop.folder.path().join("spool")), Vec::<PathBuf>::new(), "nothing is left");
}

#[tokio::test]
async fn the_same_request_is_the_same_job() {
    let shop = Shop::open(&[("a.ledger", "end\n")]).await;
    let (first, second) = tokio::join!(shop.backup("monday"), shop.backup("monday"));
    assert_eq!(first.id, second.id);
    assert_eq!(shop.shelf.len(), 1);
    let third = shop.backup("tuesday").await;
    assert_ne!(first.id, third.id);
    assert_eq!(shop.shelf.len(), 2);
}

#[tokio::test]
async fn a_ledger_without_an_end_is_left_out_and_the_other_goes_on() {
    let shop = Shop::open(&[("good.ledger", "end\n"), ("torn.ledger", "3 plums\n")]).await;
    let job = shop.backup("monday").await;
    assert_eq!(job.state(), JobState::SucceededWithWarnings, "{job:#?}");
    assert_eq!(points(&job).len(), 1);
    assert_eq!(job.skipped.len(), 1);
}

#[tokio::test]
async fn a_bit_that_flips_on_the_shelf_never_reaches_a_target() {
    let shop = Shop::open(&[("a.ledger", "1 apple\nend\n")]).await;
    let job = shop.backup("monday").await;
    let (point, suspect) = points(&job)[0];
    assert!(!suspect);
    shop.shelf.damage("a.ledger", 40);

    let target = shop.folder.path().join("restored");
    let job = shop.restore("back", point, &target).await;
    assert_eq!(job.state(), JobState::Failed, "{job:#?}");
    let failure = job.runs[0].failure.as_ref().unwrap();
    assert_eq!(failure.code.as_str(), "restore.damaged", "{failure:?}");
    assert_eq!(files(&target), Vec::<PathBuf>::new(), "nothing under the target");

    let request = VerifyRequest::new(key("look"), vec![point]);
    let _job = shop.stillpoint.verify(request).await.unwrap().wait().await;
    let point = shop.stillpoint.point(point).await.unwrap().unwrap();
    assert!(matches!(point.trust, Trust::Suspect { .. }), "{:?}", point.trust);
}

#[tokio::test]
async fn a_plug_in_that_brings_nothing_into_service_is_not_asked_to() {
    let shop = Shop::open(&[("a.ledger", "1 apple\nend\n")]).await;
    let (point, _) = points(&shop.backup("monday").await)[0];
    let before = fs::read(shop.place("a.ledger")).unwrap();
    let request = RestoreRequest::new(key("back"), point, RestoreTarget::InPlace);
    let job = shop.stillpoint.restore(request).await.unwrap().wait().await;
    assert_eq!(job.state(), JobState::Failed, "{job:#?}");
    let failure = job.runs[0].failure.as_ref().unwrap();
    assert_eq!(failure.code.as_str(), "exchange.unsupported", "{failure:?}");
    assert_eq!(fs::read(shop.place("a.ledger")).unwrap(), before);
}
