//! What outlives a process: an idle Exchange, the state; and how schedules are put on it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use stillpoint::catalog::MemoryCatalog;
use stillpoint::context::{BoxFuture, Clock, Mono, Seams};
use stillpoint::exchange::Coordination;
use stillpoint::model::group::{ResourceGroup, Selector};
use stillpoint::model::id::GroupId;
use stillpoint::model::job::Job;
use stillpoint::model::policy::Verification;
use stillpoint::model::request::Trigger;
use stillpoint::model::schedule::{AttachmentId, Lapse, Rule, Schedule, Zone};
use stillpoint::workflow::testing::{HookJournal, Sim};
use stillpoint::workflow::{Leases, MemoryJournal};
use stillpoint::{Builder, Scheduler, SchedulerOptions, Stillpoint, Timeouts};
use stillpoint_testkit::{CopySpec, DatabaseSpec, VolumeSpec, World};
use uuid::Uuid;

use crate::common::{builder, pause, policy};

/// Long, as what is renewed often takes its time in simulated weeks.
pub(crate) const TERM: Duration = Duration::from_mins(10);
pub(crate) const MARGIN: Duration = Duration::from_secs(10);

/// When every simulation begins, in seconds since 1970.
const BEGIN: i64 = 1_767_225_600;

pub(crate) fn utc(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(&format!("{}:00Z", text.replace(' ', "T"))).unwrap().to_utc()
}

/// A simulation whose clocks stand there.
pub(crate) fn sim_at(seed: u64, text: &str) -> Sim {
    let since = u64::try_from(utc(text).timestamp() - BEGIN).unwrap();
    Sim::starting_at(seed, Duration::from_secs(since.max(1)))
}

/// Servers `ex1.example.com`, …, each with so many databases on volumes of their own, to which nobody writes: `DB01`, `DB02`, …
/// on the first, the next on the second.
pub(crate) fn idle(servers: u32, databases: u32) -> World {
    let mut builder = World::builder();
    let mut number = 0;
    for server in 1..=servers {
        let host = format!("ex{server}.example.com");
        builder = builder.host(&host);
        for _ in 0..databases {
            number += 1;
            let (name, volume) = (format!("DB{number:02}"), format!("vol{number:02}"));
            builder = builder
                .volume(VolumeSpec::new(&volume).mounted(&host, format!(r"V:\{volume}")))
                .database(DatabaseSpec::new(&name).writes_every(Duration::ZERO))
                .copy(CopySpec::active(&name, &host).on(&volume, &volume).preference(1));
        }
    }
    builder.build()
}

/// A clock that somebody sets.
#[derive(Debug)]
struct Set {
    inner: Arc<dyn Clock>,
    by: Arc<Mutex<TimeDelta>>,
}

impl Clock for Set {
    fn now(&self) -> DateTime<Utc> {
        self.inner.now() + *self.by.lock().unwrap()
    }
    fn mono(&self) -> Mono {
        self.inner.mono()
    }
    fn boot(&self) -> Mono {
        self.inner.boot()
    }
    fn sleep_until(&self, at: Mono) -> BoxFuture<'static, ()> {
        self.inner.sleep_until(at)
    }
}

/// What outlives a process.
#[derive(Clone)]
pub(crate) struct Outside {
    pub(crate) world: World,
    pub(crate) catalog: Arc<MemoryCatalog>,
    pub(crate) journal: Arc<MemoryJournal>,
    /// By how much the civil clock is wrong.
    pub(crate) wrong: Arc<Mutex<TimeDelta>>,
}

impl Outside {
    pub(crate) fn new(world: World) -> Self {
        let (catalog, journal) = (MemoryCatalog::new(), MemoryJournal::new());
        let (catalog, journal) = (Arc::new(catalog), Arc::new(journal));
        Self { world, catalog, journal, wrong: Arc::default() }
    }

    /// A process over it.
    pub(crate) fn process(&self, sim: &Sim) -> Stillpoint {
        self.builder(sim).build().unwrap()
    }

    /// The same, to be changed.
    pub(crate) fn builder(&self, sim: &Sim) -> Builder {
        let journal =
            HookJournal::jitter(Arc::clone(&self.journal), sim, Duration::from_millis(2)).shared();
        let Seams { clock, spawner, ids } = sim.seams();
        let clock = Arc::new(Set { inner: clock, by: Arc::clone(&self.wrong) });
        let mut timeouts = Timeouts::default();
        // So that a backup can take hours.
        timeouts.begin = Duration::from_hours(6);
        builder(sim, &self.world, Coordination::Engine, |engine| engine.lease_terms(TERM, MARGIN))
            .timeouts(timeouts)
            .seams(Seams::new(clock, spawner, ids))
            .journal(Arc::new(journal))
            .leases(Arc::clone(&self.journal) as Arc<dyn Leases>)
            .catalog(Arc::clone(&self.catalog) as _)
    }
}

pub(crate) fn zone(name: &str) -> Zone {
    name.parse().unwrap()
}

pub(crate) fn daily(name: &str, hour: u32, minute: u32, of: &str) -> Schedule {
    let at = chrono::NaiveTime::from_hms_opt(hour, minute, 0).unwrap();
    Schedule::new(name, Rule::Daily { at }, zone(of))
}

pub(crate) fn hourly(name: &str) -> Schedule {
    Schedule::new(name, Rule::Hourly { every: std::num::NonZeroU32::MIN, minute: 0 }, Zone::UTC)
}

/// Stores the policy, if it is not there: nothing is verified, as that takes its time.
pub(crate) async fn put_policy(this: &Stillpoint) {
    let mut policy = policy();
    policy.verification = Verification::None;
    this.save_policy(&policy).await.unwrap();
}

/// A group of these, under the policy.
pub(crate) async fn put_group(
    this: &Stillpoint,
    number: u128,
    members: Vec<Selector>,
) -> ResourceGroup {
    let id = GroupId(Uuid::from_u128(number));
    let mut group = ResourceGroup::new(id, format!("group {number}"), members);
    group.policies.push(policy().id);
    this.save_group(&group).await.unwrap();
    group
}

/// Makes a schedule and attaches it to a group of everything.
pub(crate) async fn everything_by(this: &Stillpoint, schedule: Schedule) -> AttachmentId {
    put_policy(this).await;
    let group = put_group(this, 1, vec![Selector::Everything]).await;
    attach(this, &group, schedule).await
}

/// Makes a schedule and attaches it to a group.
pub(crate) async fn attach(
    this: &Stillpoint,
    group: &ResourceGroup,
    schedule: Schedule,
) -> AttachmentId {
    let schedule = this.create_schedule(schedule).await.unwrap().id;
    let id = AttachmentId { schedule, group: group.id, policy: policy().id };
    this.attach(id).await.unwrap();
    id
}

/// A scheduler with the usual settings.
pub(crate) fn start(this: &Stillpoint) -> Scheduler {
    this.start_scheduler(SchedulerOptions::default())
}

/// Waits until clocks show that, or would if nobody set them.
pub(crate) async fn until(this: &Stillpoint, text: &str) {
    let since = u64::try_from(utc(text).timestamp() - BEGIN).unwrap();
    this.seams().clock.sleep_until(Mono(Duration::from_secs(since))).await;
}

/// Stops the scheduler, and waits for the jobs.
pub(crate) async fn finish(this: &Stillpoint, scheduler: &Scheduler) {
    scheduler.stop().await;
    this.quiet().await;
    // What has ended lets go.
    pause(this.seams(), Duration::from_secs(1)).await;
}

/// The jobs of schedules with their due times, oldest first.
pub(crate) async fn due_jobs(this: &Stillpoint) -> Vec<(DateTime<Utc>, Job)> {
    let jobs = this.jobs().await.unwrap();
    let due = |job: Job| match job.trigger {
        Trigger::Schedule { due, .. } => Some((due, job)),
        _ => None,
    };
    let mut jobs: Vec<_> = jobs.into_iter().filter_map(due).collect();
    jobs.sort_by_key(|(due, job)| (*due, job.group));
    jobs
}

/// The due times of those jobs.
pub(crate) async fn due_times(this: &Stillpoint) -> Vec<String> {
    let jobs = due_jobs(this).await;
    jobs.iter().map(|(due, _)| due.format("%m-%d %H:%M").to_string()).collect()
}

/// The lapses of an attachment, oldest first.
pub(crate) async fn lapses(this: &Stillpoint, of: AttachmentId) -> Vec<Lapse> {
    let recorded = this.lapses(Some(of), u32::MAX).await.unwrap();
    recorded.into_iter().rev().map(|recorded| recorded.lapse).collect()
}

/// In words: `03-29 01:00 to 03-29 02:00, 2: missed`.
pub(crate) fn in_words(lapse: &Lapse) -> String {
    let time = |at: DateTime<Utc>| at.format("%m-%d %H:%M").to_string();
    format!("{} to {}, {}: {}", time(lapse.from), time(lapse.to), lapse.count, lapse.why.word())
}
