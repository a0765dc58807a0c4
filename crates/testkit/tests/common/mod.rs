//! Virtual time, and a whole backup by hand.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "all of this is a test")]

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use stillpoint_context::{Cx, FencingToken, RunId, Seams, StepName};
use stillpoint_exchange::{
    BackupKind, ExchangePlugin, PluginError, SessionId, SessionSpec, VerifyFile, VerifySpec,
};
use stillpoint_model::handover::{Exposure, MemberRole, Prepared};
use stillpoint_model::id::{CopyId, ExposureKey, PointId, SetToken};
use stillpoint_model::inventory::FileRole;
use stillpoint_model::verdict::VerifyReport;
use stillpoint_storage::{MemberSpec, PrepareSpec, Snapshot, SnapshotProvider};
use stillpoint_testkit::{SimExchange, SimStorage, World};
use stillpoint_workflow::testing::Sim;
use uuid::Uuid;

/// Virtual time, in which each test runs.
#[derive(Debug, Clone)]
pub struct Time(Sim);

impl Default for Time {
    fn default() -> Self {
        Self(Sim::new(1))
    }
}

impl Time {
    pub fn seams(&self) -> Seams {
        self.0.seams()
    }

    /// Runs a future to its end; time goes on whenever it waits.
    pub fn run<F: Future>(&self, future: F) -> F::Output {
        self.0.run(future)
    }

    /// Lets time pass while nobody does anything.
    pub fn pass(&self, time: Duration) {
        let clock = self.seams().clock;
        self.run(clock.sleep_until(clock.mono() + time));
    }

    /// A call of a step of a run, under a token.
    pub fn cx(&self, run: u128, step: &str, fence: u64) -> Cx {
        Cx::builder(&self.seams())
            .run(RunId(Uuid::from_u128(run)))
            .step(StepName::new(step).unwrap())
            .fence(FencingToken(fence))
            .build()
    }
}

pub const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Polls once and gives the future up.
pub fn drop_after_one_poll<F: Future>(future: F) {
    let mut future = pin!(future);
    let polled = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_pending(), "it had ended already");
}

/// A backup by hand, step by step, of the active copies of some databases of a server.
pub struct Backup {
    pub time: Time,
    pub world: World,
    pub plugin: SimExchange,
    pub storage: SimStorage,
    pub cx: Cx,
    pub session: SessionId,
    pub token: SetToken,
    pub copies: Vec<CopyId>,
}

impl Backup {
    pub fn new(time: &Time, world: &World, number: u128, databases: &[&str]) -> Self {
        let run = RunId(Uuid::from_u128(number));
        let fence = u64::try_from(number).unwrap();
        Self {
            time: time.clone(),
            world: world.clone(),
            plugin: world.exchange(),
            storage: world.storage(),
            cx: time.cx(number, "step", fence),
            session: SessionId(Uuid::from_u128(1000 + number)),
            token: SetToken::of(&run, PointId(Uuid::from_u128(1))),
            copies: databases.iter().map(|name| world.active(name)).collect(),
        }
    }

    pub fn spec(&self) -> SessionSpec {
        SessionSpec::new(self.session, BackupKind::FullAndLog, self.copies.clone(), s(3600))
    }

    pub async fn begin(&self) -> Result<(), PluginError> {
        self.plugin.begin(&self.cx, &self.spec()).await.map(drop)
    }

    pub async fn prepare_spec(&self) -> PrepareSpec {
        let mut spec = PrepareSpec::new(self.token.clone(), format!("sp_{}", self.token));
        let mut members = BTreeMap::<_, (MemberRole, Vec<_>)>::new();
        for file in self.copies.iter().flat_map(|copy| self.world.files(copy)) {
            let placed =
                self.storage.resolve(&self.cx, std::slice::from_ref(&file.path)).await.unwrap();
            let role = match file.role {
                FileRole::Database => MemberRole::Data,
                _ => MemberRole::Log,
            };
            let member = members.entry(placed[0].volume.clone()).or_insert((role, Vec::new()));
            member.0 = member.0.and(role);
            member.1.push(file.path);
        }
        for (volume, (role, files)) in members {
            spec = spec.with_member(MemberSpec::new(volume, role, files));
        }
        spec
    }

    pub async fn prepare(&self) -> Prepared {
        let spec = self.prepare_spec().await;
        self.storage.prepare(&self.cx, &spec).await.unwrap()
    }

    /// Begin, prepare, freeze.
    pub async fn frozen(&self) -> Prepared {
        self.begin().await.unwrap();
        let prepared = self.prepare().await;
        self.plugin.freeze(&self.cx, self.session, Some(s(10))).await.unwrap();
        prepared
    }

    /// All of an engine-coordinated backup up to the settled snapshots.
    pub async fn taken(&self) -> (Prepared, Vec<Snapshot>) {
        let prepared = self.frozen().await;
        self.storage.commit(&self.cx, &prepared).await.unwrap();
        self.plugin.thaw(&self.cx, self.session).await.unwrap();
        let snapshots = self.storage.settle(&self.cx, &prepared).await.unwrap();
        (prepared, snapshots)
    }

    pub async fn expose(&self, snapshots: &[Snapshot]) -> Exposure {
        let references: Vec<_> = snapshots.iter().map(Snapshot::reference).collect();
        let key = ExposureKey::new("check").unwrap();
        let host = "proxy.example.com".parse().unwrap();
        self.storage.expose(&self.cx, &references, &host, &key).await.unwrap()
    }

    /// Verifies what the snapshots hold, with their seals, and ends the exposure.
    pub async fn verify(&self, snapshots: &[Snapshot]) -> VerifyReport {
        let exposure = self.expose(snapshots).await;
        let seals: BTreeMap<_, _> = snapshots
            .iter()
            .flat_map(|snapshot| &snapshot.files)
            .map(|file| (file.path.clone(), file.seal.clone()))
            .collect();
        let session = self.plugin.begin(&self.cx, &self.spec()).await.unwrap();
        let files = session.files.into_iter().map(|file| {
            let seal = seals.get(&file.path).cloned().flatten();
            VerifyFile::new(file, seal)
        });
        let spec = VerifySpec::new(files.collect());
        let report = self.plugin.verify(&self.cx, &exposure, &spec).await.unwrap();
        self.storage.unexpose(&self.cx, &exposure.key).await.unwrap();
        report
    }
}
