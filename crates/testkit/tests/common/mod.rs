//! A virtual clock, and a whole backup by hand.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "all of this is a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use chrono::{DateTime, Utc};
use stillpoint_context::{
    BoxFuture, Clock, Cx, FencingToken, Ids, Mono, RunId, Seams, Spawner, StepName,
};
use stillpoint_exchange::{
    BackupKind, ExchangePlugin, PluginError, SessionId, SessionSpec, VerifyFile, VerifySpec,
};
use stillpoint_model::handover::{Exposure, MemberRole, Prepared};
use stillpoint_model::id::{CopyId, ExposureKey, PointId, SetToken};
use stillpoint_model::inventory::FileRole;
use stillpoint_model::verdict::VerifyReport;
use stillpoint_storage::{MemberSpec, PrepareSpec, Snapshot, SnapshotProvider};
use stillpoint_testkit::{SimExchange, SimStorage, World};
use uuid::Uuid;

#[derive(Debug, Default)]
struct Timers {
    now: Mutex<Duration>,
    due: Mutex<BTreeSet<(Duration, u64)>>,
    next: AtomicU64,
}

/// Time that stands still until everything waits for it.
#[derive(Debug, Clone, Default)]
pub struct Time(Arc<Timers>);

struct Sleep {
    time: Time,
    key: (Duration, u64),
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if *self.time.0.now.lock().unwrap() >= self.key.0 { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.time.0.due.lock().unwrap().remove(&self.key);
    }
}

impl Clock for Time {
    fn now(&self) -> DateTime<Utc> {
        DateTime::<Utc>::from_timestamp(1_800_000_000, 0).unwrap() + self.mono().0
    }
    fn mono(&self) -> Mono {
        Mono(*self.0.now.lock().unwrap())
    }
    fn boot(&self) -> Mono {
        self.mono()
    }
    fn sleep_until(&self, at: Mono) -> BoxFuture<'static, ()> {
        let key = (at.0, self.0.next.fetch_add(1, Ordering::SeqCst));
        self.0.due.lock().unwrap().insert(key);
        Box::pin(Sleep { time: self.clone(), key })
    }
}

impl Spawner for Time {
    fn spawn(&self, _: &'static str, _: BoxFuture<'static, ()>) {
        unreachable!("the simulated sides spawn nothing")
    }
    fn blocking(&self, _: &'static str, _: Box<dyn FnOnce() + Send>) {
        unreachable!("the simulated sides block nothing")
    }
}

impl Ids for Time {
    fn uuid(&self) -> Uuid {
        Uuid::from_u128(u128::from(self.0.next.fetch_add(1, Ordering::SeqCst)))
    }
    fn random(&self) -> u64 {
        self.0.next.fetch_add(1, Ordering::SeqCst)
    }
}

impl Time {
    pub fn seams(&self) -> Seams {
        Seams::new(Arc::new(self.clone()), Arc::new(self.clone()), Arc::new(self.clone()))
    }

    /// Runs a future to its end; time jumps to the next timer whenever it waits.
    pub fn run<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            if let Poll::Ready(out) = future.as_mut().poll(&mut cx) {
                return out;
            }
            let next = self.0.due.lock().unwrap().first().map(|(at, _)| *at);
            let next = next.expect("it waits for nothing that could come");
            let mut now = self.0.now.lock().unwrap();
            *now = next.max(*now);
        }
    }

    pub fn pass(&self, time: Duration) {
        *self.0.now.lock().unwrap() += time;
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
