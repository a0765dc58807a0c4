//! One server with a database that is backed up and pruned for days.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use stillpoint::model::id::{PointId, PolicyId};
use stillpoint::model::job::{Job, JobState};
use stillpoint::model::point::RestorePoint;
use stillpoint::model::policy::{LogRetention, Policy, Retention};
use stillpoint::model::request::BackupRequest;
use stillpoint::workflow::testing::Sim;
use stillpoint::{DatabaseRetention, PruneRequest, PruneTarget, Stillpoint};
use stillpoint_testkit::{CopySpec, DatabaseSpec, VolumeSpec, World, WorldBuilder};
use uuid::Uuid;

use crate::common::{HOST, key, pause, request};

pub const DAY: Duration = Duration::from_hours(24);

pub struct Site {
    pub world: World,
    pub this: Stillpoint,
}

/// A policy that keeps so much, and no logs beyond what its points need.
pub fn policy(number: u128, name: &str, retention: Retention) -> Policy {
    let mut policy = Policy::new(PolicyId(Uuid::from_u128(number)), name);
    policy.retention = retention;
    policy.log_retention = LogRetention::None;
    policy
}

fn over(sim: &Sim, world: &World) -> Stillpoint {
    let mut builder =
        Stillpoint::builder(Arc::new(world.exchange())).seams(sim.seams()).lanes(sim.lanes());
    for array in ["alpha", "beta"] {
        let provider = world.storage_named(array).with_caps(|caps| caps.lock = true);
        builder = builder.provider(Arc::new(provider));
    }
    builder.build().unwrap()
}

impl Site {
    /// A database whose data is on one array and whose logs are on another.
    pub fn new(sim: &Sim) -> Self {
        Self::with_limit(sim, None)
    }

    /// The same where each volume holds so many snapshots.
    pub fn with_limit(sim: &Sim, limit: Option<u32>) -> Self {
        Self::with(sim, limit, |database| database)
    }

    /// The same with circular logging.
    pub fn circular(sim: &Sim) -> Self {
        Self::with(sim, None, DatabaseSpec::circular)
    }

    /// The same that nobody writes.
    pub fn idle(sim: &Sim) -> Self {
        Self::with(sim, None, |database| database.writes_every(Duration::ZERO))
    }

    /// The same whose logs are truncated so long after a backup.
    pub fn slow_to_truncate(sim: &Sim, time: Duration) -> Self {
        Self::made(sim, None, |database| database, |world| world.truncates_after(time))
    }

    fn with(sim: &Sim, limit: Option<u32>, as_it: impl Fn(DatabaseSpec) -> DatabaseSpec) -> Self {
        Self::made(sim, limit, as_it, |world| world)
    }

    fn made(
        sim: &Sim,
        limit: Option<u32>,
        as_it: impl Fn(DatabaseSpec) -> DatabaseSpec,
        in_it: impl Fn(WorldBuilder) -> WorldBuilder,
    ) -> Self {
        let volume = |name: &str, array: &str| {
            let spec = VolumeSpec::new(name).provider(array).mounted(HOST, format!(r"D:\{name}"));
            match limit {
                Some(limit) => spec.snapshot_limit(limit),
                None => spec,
            }
        };
        let database =
            DatabaseSpec::new("DB01").writes_every(Duration::from_mins(30)).per_generation(4);
        let world = in_it(World::builder())
            .host(HOST)
            .volume(volume("data01", "alpha"))
            .volume(volume("logs01", "beta"))
            .database(as_it(database))
            .copy(CopySpec::active("DB01", HOST).on("data01", "logs01").preference(1))
            .build();
        let this = over(sim, &world);
        Self { world, this }
    }

    /// The same whose catalogue and journal are lost.
    pub fn forgotten(&self, sim: &Sim) -> Self {
        Self { world: self.world.clone(), this: over(sim, &self.world) }
    }

    pub async fn save(&self, policies: &[&Policy]) {
        for policy in policies {
            self.this.save_policy(policy).await.unwrap();
        }
    }

    pub async fn pass(&self, time: Duration) {
        pause(self.this.seams(), time).await;
    }

    /// The backup of everything under a policy, once it is over.
    pub async fn backup(&self, name: &str, policy: &Policy) -> Job {
        let everything = request(name).target;
        let request = BackupRequest::new(key(name), everything, policy.id);
        self.this.backup(request).await.unwrap().wait().await
    }

    /// The same, which goes well.
    pub async fn backed_up(&self, name: &str, policy: &Policy) {
        let job = self.backup(name, policy).await;
        assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
    }

    /// One each day, `day-0` first.
    pub async fn daily(&self, days: u32, policy: &Policy) {
        for day in 0..days {
            self.backed_up(&format!("day-{day}"), policy).await;
            self.pass(DAY).await;
        }
    }

    pub async fn prune(&self, name: &str, target: PruneTarget) -> Job {
        self.this.prune(PruneRequest::new(key(name), target)).await.unwrap().wait().await
    }

    /// The same of everything, which goes well.
    pub async fn pruned(&self, name: &str) {
        let job = self.prune(name, PruneTarget::everything()).await;
        assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
    }

    /// What is kept of the database.
    pub async fn table(&self) -> DatabaseRetention {
        let table = self.this.retention(&PruneTarget::everything()).await.unwrap();
        table.databases.into_iter().next().unwrap()
    }

    /// Every point that holds the database, oldest first.
    pub async fn points(&self) -> Vec<RestorePoint> {
        let mut points = self.table().await.points;
        points.retain(RestorePoint::has_database);
        points
    }

    pub async fn ids(&self) -> Vec<PointId> {
        self.points().await.iter().map(|point| point.id).collect()
    }

    /// Those of a policy.
    pub async fn of(&self, policy: &Policy) -> Vec<PointId> {
        let points = self.points().await.into_iter();
        let mine =
            points.filter(|point| point.policy.as_ref().is_some_and(|made| made.id == policy.id));
        mine.map(|point| point.id).collect()
    }

    /// Nothing is on the storage that no point of the catalogue lies on, and nothing is missing.
    pub async fn assert_storage_fits(&self) {
        let points = self.table().await.points;
        let members = points.iter().flat_map(|point| &point.members);
        let wanted: BTreeSet<_> = members.map(|member| member.snapshot.to_string()).collect();
        let snapshots = self.world.snapshots();
        let found: BTreeSet<_> =
            snapshots.iter().map(|shot| shot.reference().to_string()).collect();
        assert_eq!(found, wanted);
    }
}
