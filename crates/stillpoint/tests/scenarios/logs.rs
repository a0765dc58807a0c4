//! Log backups: closed generations, without a freeze.

use std::time::Duration;

use chrono::TimeDelta;
use stillpoint::model::id::{CopyId, PolicyId};
use stillpoint::model::inventory::{CopyStatus, Generation};
use stillpoint::model::job::{Job, JobState};
use stillpoint::model::kind::BackupKind;
use stillpoint::model::point::{PointState, RestorePoint, Truncation, Trust};
use stillpoint::model::policy::{LogRetention, Policy, Retention, Verification};
use stillpoint::model::restore::{RestoreRequest, RestoreTarget};
use stillpoint::model::topology::DatabaseView;
use stillpoint::model::window::Why;
use stillpoint::workflow::testing::Sim;
use stillpoint_testkit::{Change, Fault, Trouble, World};
use uuid::Uuid;

use crate::site::Site;

/// A generation is closed every two hours.
const GENERATION: Duration = Duration::from_hours(2);

fn policy(number: u128, kind: BackupKind) -> Policy {
    let mut policy = Policy::new(PolicyId(Uuid::from_u128(number)), kind.word());
    policy.kind = kind;
    policy.retention = Retention::count(14);
    policy.log_retention = LogRetention::AsFulls;
    policy
}

/// A site with a full backup, after which some logs were closed and truncation is over.
struct Logs {
    site: Site,
    full: Policy,
    closed: Policy,
}

impl Logs {
    async fn new(sim: &Sim) -> Self {
        let this = Self {
            site: Site::new(sim),
            full: policy(1, BackupKind::FullAndLog),
            closed: policy(2, BackupKind::Log),
        };
        this.site.save(&[&this.full, &this.closed]).await;
        this.site.backed_up("full", &this.full).await;
        this.site.pass(3 * GENERATION).await;
        this
    }

    fn copy(&self) -> CopyId {
        self.site.world.active("DB01")
    }

    /// A log backup that goes well.
    async fn backed_up(&self, name: &str) -> RestorePoint {
        self.site.backed_up(name, &self.closed).await;
        self.newest().await
    }

    async fn newest(&self) -> RestorePoint {
        self.site.table().await.points.pop().unwrap()
    }

    async fn topology(&self) -> DatabaseView {
        self.site.this.topology().await.unwrap().databases.remove(0)
    }
}

fn range(point: &RestorePoint) -> (u32, u32) {
    let range = point.logs.as_ref().unwrap().range.as_ref().unwrap();
    (range.start().0, range.end().0)
}

fn kinds(job: &Job, points: &[RestorePoint]) -> Vec<BackupKind> {
    points.iter().filter(|point| point.job == job.id).map(|point| point.kind).collect()
}

fn warned(job: &Job, code: &str) -> bool {
    job.warnings.iter().any(|warning| warning.code == code)
}

#[test]
fn a_log_backup_takes_what_is_closed_and_freezes_nothing() {
    let sim = Sim::new(60);
    sim.run(async {
        let this = Logs::new(&sim).await;
        let world = &this.site.world;
        let full = this.newest().await;
        world.calls().clear();
        let (windows, before) = (world.freeze_windows().len(), world.snapshots().len());

        let first = this.backed_up("first").await;
        for call in ["begin", "freeze", "thaw", "snap", "complete", "abort"] {
            assert_eq!(world.calls().count(call), 0, "{call}");
        }
        assert_eq!(world.freeze_windows().len(), windows);
        // One snapshot, of the log volume.
        assert_eq!(world.snapshots().len(), before + 1);
        assert_eq!(first.members.len(), 1);
        assert_eq!(first.members[0].snapshot.volume.to_string(), "beta:logs01");
        assert_eq!(first.state, PointState::Available);
        assert_eq!(first.truncation, Truncation::NotRequested);
        assert!(matches!(first.trust, Trust::Verified { .. }), "{first:#?}");
        assert!(first.files.iter().all(|file| file.generation.is_some()), "{:#?}", first.files);
        // It goes on from the last log of the full, and ends before the one that is written.
        let (from, to) = range(&first);
        assert_eq!(from, range(&full).1);
        let inventory = this.site.this.discover().await.unwrap().inventory;
        let state = inventory.copies[&this.copy()].log_state.clone().unwrap();
        assert_eq!(Some(Generation(to)), state.last_closed);

        // The database can be brought back to where the last log was closed, and no further.
        let window = this.topology().await.window;
        assert_eq!(window.intervals.len(), 1, "{window:#?}");
        let until = first.logs.as_ref().unwrap().until.unwrap();
        assert_eq!(window.intervals[0].until, until);
        assert!(until < first.taken_at && first.taken_at - until < TimeDelta::hours(2));

        // The next goes on from this one.
        this.site.pass(2 * GENERATION).await;
        let second = this.backed_up("second").await;
        assert_eq!(range(&second), (to, to + 2));
        let window = this.topology().await.window;
        assert_eq!(window.intervals.len(), 1, "{window:#?}");
        assert_eq!(window.intervals[0].until, second.logs.unwrap().until.unwrap());
        // With nothing new there is one log, the same.
        let third = this.backed_up("third").await;
        assert_eq!(range(&third), (to + 2, to + 2));
    });
}

#[test]
fn a_log_backup_is_planned_without_a_freeze() {
    let sim = Sim::new(61);
    sim.run(async {
        let this = Logs::new(&sim).await;
        let mut request = crate::common::request("logs");
        request.policy = this.closed.id;
        let plan = this.site.this.plan(&request).await.unwrap();
        let set = &plan.sets[0];
        assert_eq!((set.kind, set.coordination, set.freeze), (BackupKind::Log, None, None));
        assert!(!plan.truncates() && set.claims.iter().all(|claim| !claim.key.contains("freeze")));
        let engine = this.site.this.engine_plans(&request).await.unwrap();
        for there in ["logs", "evidence", "verify", "judge", "publish", "conclude"] {
            assert!(engine[0].find(there).is_some(), "{there}");
        }
        for gone in ["begin", "freeze", "snap", "complete"] {
            assert!(engine[0].find(gone).is_none(), "{gone}");
        }
    });
}

#[test]
fn logs_that_are_truncated_while_they_are_taken_are_planned_again() {
    // The storage misses them, or has them still.
    for slow in ["prepare", "settle"] {
        let sim = Sim::new(62);
        sim.run(async {
            let this = Logs::new(&sim).await;
            let world = &this.site.world;
            world.faults().on(slow).nth(1).inject(Fault::Slow(Duration::from_mins(5)));
            let truncation = Change::ForeignBackup(this.copy().database);
            world.change_in(Duration::from_secs(1), truncation);
            let job = this.site.backup("logs", &this.closed).await;
            let points = this.site.table().await.points;
            // By then it is known that the full backup was not ours.
            assert_eq!(kinds(&job, &points), [BackupKind::FullAndLog], "{slow}: {job:#?}");
            assert_eq!(job.state(), JobState::SucceededWithWarnings, "{slow}: {job:#?}");
            this.site.assert_storage_fits().await;
        });
    }
}

#[test]
fn a_damaged_log_makes_the_log_backup_suspect() {
    let sim = Sim::new(63);
    sim.run(async {
        let this = Logs::new(&sim).await;
        let logs: Vec<_> = this.site.world.files(&this.copy()).into_iter().collect();
        let last = logs.iter().rfind(|file| file.generation.is_some()).unwrap();
        this.site.world.damage().live_file(&last.path, 77);
        let job = this.site.backup("logs", &this.closed).await;
        assert_eq!(job.state(), JobState::SucceededWithWarnings, "{job:#?}");
        let point = this.newest().await;
        assert!(matches!(point.trust, Trust::Suspect { .. }), "{point:#?}");
    });
}

#[test]
fn a_log_backup_that_nobody_verified_can_be_verified_later() {
    let sim = Sim::new(64);
    sim.run(async {
        let mut this = Logs::new(&sim).await;
        this.closed.verification = Verification::AfterCompletion;
        this.closed = this.closed.edit(this.closed.clone()).unwrap();
        this.site.save(&[&this.closed]).await;
        let point = this.backed_up("logs").await;
        assert!(matches!(point.trust, Trust::Verified { .. }), "{point:#?}");
    });
}

/// A log that was truncated by somebody else before it was stored cuts the chain: only a full backup begins a new one.
#[test]
fn a_chain_that_was_cut_is_begun_anew() {
    for promotes in [true, false] {
        let sim = Sim::new(65);
        sim.run(async {
            let mut this = Logs::new(&sim).await;
            let (world, copy) = (&this.site.world, this.copy());
            let _first = this.backed_up("first").await;
            this.site.pass(3 * GENERATION).await;
            // Somebody tidies up.
            let below = Generation(range(&this.newest().await).1 + 2);
            world.change(&Change::DeleteLogs { copy, below });
            this.closed.promote_log = promotes;
            this.closed = this.closed.edit(this.closed.clone()).unwrap();
            this.site.save(&[&this.closed]).await;
            let job = this.site.backup("second", &this.closed).await;
            assert_eq!(job.state(), JobState::SucceededWithWarnings, "{job:#?}");
            let points = this.site.table().await.points;
            let window = this.topology().await.window;
            if promotes {
                assert_eq!(kinds(&job, &points), [BackupKind::FullAndLog]);
                assert!(warned(&job, "backup.promoted"), "{job:#?}");
                assert_eq!(window.intervals.len(), 2, "{window:#?}");
            } else {
                // What is there is taken, with what is missing told; it reaches nowhere without a full before it.
                assert_eq!(kinds(&job, &points), [BackupKind::Log]);
                let told = format!("{job:?}");
                assert!(told.contains("chain.gap"), "{job:#?}");
                assert_eq!(window.intervals.len(), 1, "{window:#?}");
                assert!(window.intervals[0].until < points.last().unwrap().taken_at);
            }
        });
    }
}

#[test]
fn s26_circular_logging() {
    let sim = Sim::new(26);
    sim.run(async {
        let site = Site::circular(&sim);
        let (full, logs) = (policy(1, BackupKind::FullAndLog), policy(2, BackupKind::Log));
        site.save(&[&full, &logs]).await;
        // A log policy is refused, and nothing is touched.
        let job = site.backup("logs", &logs).await;
        assert_eq!(job.state(), JobState::Failed, "{job:#?}");
        let why = format!("{job:?}");
        assert!(why.contains("policy.log_with_circular_logging"), "{job:#?}");
        assert!(site.world.snapshots().is_empty());
        // The linter tells of it when it is attached.
        let report = site.this.lint(stillpoint::model::strategy::Assumptions::default()).await;
        drop(report.unwrap());
        // A full backup is made, with the warning that it can be brought back to its own instant alone.
        let job = site.backup("full", &full).await;
        assert_eq!(job.state(), JobState::SucceededWithWarnings, "{job:#?}");
        assert!(warned(&job, "policy.kind_downgraded"), "{job:#?}");
        let topology = site.this.topology().await.unwrap().databases.remove(0);
        assert_eq!(topology.window.intervals.len(), 1);
        assert_eq!(topology.window.intervals[0].from, topology.window.intervals[0].until);
        assert!(!topology.window.up_to_the_minute);
    });
}

#[test]
fn s27_foreign_backup() {
    let sim = Sim::new(27);
    sim.run(async {
        let this = Logs::new(&sim).await;
        this.site.world.change(&Change::ForeignBackup(this.copy().database));
        this.site.pass(Duration::from_hours(1)).await;
        let job = this.site.backup("logs", &this.closed).await;
        assert_eq!(job.state(), JobState::SucceededWithWarnings, "{job:#?}");
        assert!(
            warned(&job, "chain.foreign_backup") && warned(&job, "backup.promoted"),
            "{job:#?}"
        );
        let points = this.site.table().await.points;
        assert_eq!(kinds(&job, &points), [BackupKind::FullAndLog]);
        // It is raised once: from here on the chain is ours again.
        this.site.pass(2 * GENERATION).await;
        let next = this.backed_up("next").await;
        assert_eq!(next.kind, BackupKind::Log);
    });
}

async fn truncation_of(site: &Site, job: &Job) -> Truncation {
    let points = site.table().await.points;
    points.into_iter().find(|point| point.job == job.id).unwrap().truncation
}

#[test]
fn s28_nothing_to_truncate() {
    let sim = Sim::new(28);
    sim.run(async {
        // Nobody writes, so that after a first truncation no log is below the checkpoint.
        let site = Site::idle(&sim);
        let full = policy(1, BackupKind::FullAndLog);
        site.save(&[&full]).await;
        let first = site.backup("first", &full).await;
        assert_eq!(first.state(), JobState::Succeeded, "{first:#?}");
        let oldest_present = Some(Generation(4));
        assert_eq!(truncation_of(&site, &first).await, Truncation::Confirmed { oldest_present });
        let second = site.backup("second", &full).await;
        assert_eq!(second.state(), JobState::Succeeded, "{second:#?}");
        let told = truncation_of(&site, &second).await;
        let Truncation::NothingEligible { why } = &told else { panic!("{told:?}") };
        assert!(why.contains("checkpoint"), "{why}");
    });
}

#[test]
fn truncation_that_is_pending_is_asked_about_by_the_next_backup() {
    let sim = Sim::new(66);
    sim.run(async {
        let site = Site::slow_to_truncate(&sim, Duration::from_hours(3));
        let (full, logs) = (policy(1, BackupKind::FullAndLog), policy(2, BackupKind::Log));
        site.save(&[&full, &logs]).await;
        let first = site.backup("full", &full).await;
        // Not yet is no failure, and no warning.
        assert_eq!(first.state(), JobState::Succeeded, "{first:#?}");
        assert_eq!(truncation_of(&site, &first).await, Truncation::Requested);
        let asked = site.world.calls().count("truncation");
        assert!((5..60).contains(&asked), "asked {asked} times within ten minutes");
        site.pass(GENERATION * 2).await;
        site.backed_up("logs", &logs).await;
        let told = truncation_of(&site, &first).await;
        assert!(matches!(told, Truncation::Confirmed { .. }), "{told:?}");
        // What is known is not asked about again.
        let asked = site.world.calls().count("truncation");
        site.pass(GENERATION).await;
        site.backed_up("more", &logs).await;
        assert_eq!(site.world.calls().count("truncation"), asked);
    });
}

/// A lagged copy keeps logs for days, and log backups come every hour meanwhile.
#[test]
fn truncation_that_is_pending_for_days_is_asked_about_behind_any_number_of_log_backups() {
    let sim = Sim::new(71);
    sim.run(async {
        let site = Site::slow_to_truncate(&sim, Duration::from_hours(70));
        let (full, logs) = (policy(1, BackupKind::FullAndLog), policy(2, BackupKind::Log));
        site.save(&[&full, &logs]).await;
        let first = site.backup("full", &full).await;
        for hour in 0..40 {
            site.pass(GENERATION).await;
            site.backed_up(&format!("logs-{hour}"), &logs).await;
        }
        let told = truncation_of(&site, &first).await;
        assert!(matches!(told, Truncation::Confirmed { .. }), "{told:?}");
    });
}

#[test]
fn a_window_does_not_go_on_to_the_minute_where_the_database_was_restored_since() {
    let sim = Sim::new(72);
    sim.run(async {
        let this = Logs::new(&sim).await;
        let engine = &this.site.this;
        let last = this.backed_up("before").await;
        assert!(this.topology().await.window.up_to_the_minute);
        let full = this.site.points().await.remove(0);
        let back = RestoreRequest::new(crate::common::key("back"), full.id, RestoreTarget::InPlace);
        let restore = engine.restore(back).await.unwrap().wait().await;
        assert_eq!(restore.state(), JobState::Succeeded, "{restore:#?}");
        let fork = engine.forks(full.database).await.unwrap().remove(0);
        // The logs on the server are of another branch now, also while no backup has been made of it.
        let windows = [
            engine.recovery_window(full.database).await.unwrap(),
            this.topology().await.window,
            engine.topology_of(full.database).await.unwrap().databases.remove(0).window,
        ];
        for window in windows {
            assert!(!window.up_to_the_minute, "{window:#?}");
            assert_eq!(Some(window.intervals[0].until), last.logs.as_ref().unwrap().until);
            let why = &window.gaps.last().unwrap().why;
            assert_eq!(*why, [Why::ChainForked { at: fork.at }]);
        }
    });
}

#[test]
fn truncation_that_cannot_be_asked_about_is_a_warning() {
    let sim = Sim::new(67);
    sim.run(async {
        let site = Site::new(&sim);
        let full = policy(1, BackupKind::FullAndLog);
        site.save(&[&full]).await;
        site.world.faults().on("truncation").inject(Fault::fail(Trouble::unreachable()));
        let job = site.backup("full", &full).await;
        assert_eq!(job.state(), JobState::SucceededWithWarnings, "{job:#?}");
        assert_eq!(truncation_of(&site, &job).await, Truncation::Requested);
        // Whoever does not want to know does not ask.
        site.world.faults().clear();
        let asked = site.world.calls().count("truncation");
        let mut request = crate::common::request("quiet");
        (request.policy, request.confirm_truncation) = (full.id, false);
        let job = site.this.backup(request).await.unwrap().wait().await;
        assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
        assert_eq!(site.world.calls().count("truncation"), asked);
    });
}

#[test]
fn a_suspended_copy_that_keeps_logs_is_told() {
    let sim = Sim::new(68);
    let world = World::dag(2, 1);
    sim.run(async {
        let this = crate::common::stillpoint(&sim, &world, crate::common::BOTH[0], |engine| engine);
        let full = policy(1, BackupKind::FullAndLog);
        this.save_policy(&full).await.unwrap();
        let passive = world.copies().into_iter().find(|copy| *copy != world.active("DB01"));
        let copy = passive.unwrap();
        world.change(&Change::Status { copy, status: CopyStatus::Suspended });
        let mut request = crate::common::request("full");
        request.confirm_truncation = true;
        let job = this.backup(request).await.unwrap().wait().await;
        assert_eq!(job.state(), JobState::SucceededWithWarnings, "{job:#?}");
        let points = this.topology().await.unwrap().databases.remove(0).points;
        let told = &points[0].truncation;
        assert!(
            matches!(told, Truncation::NothingEligible { why } if why.contains("suspended")),
            "{told:?}"
        );
    });
}

#[test]
fn a_log_backup_that_waited_for_a_restore_in_place_becomes_a_full_one() {
    // Clocks of Exchange and of whoever backs it up differ: branches are counted, not dated.
    for ahead in [TimeDelta::zero(), TimeDelta::hours(2), TimeDelta::hours(-2)] {
        waited_for_a_restore_in_place(ahead);
    }
}

fn waited_for_a_restore_in_place(ahead: TimeDelta) {
    let sim = Sim::new(69);
    sim.run(async {
        let mut this = Logs::new(&sim).await;
        this.site.world.set_clocks_ahead(ahead);
        this.closed.promote_log = true;
        this.closed = this.closed.edit(this.closed.clone()).unwrap();
        this.site.save(&[&this.closed]).await;
        let (site, engine) = (&this.site, &this.site.this);
        let before = this.backed_up("before").await;
        let full = site.points().await.remove(0);
        site.world.faults().on("restore.stage").nth(1).inject(Fault::Slow(GENERATION));
        let back = RestoreRequest::new(crate::common::key("back"), full.id, RestoreTarget::InPlace);
        let restore = engine.restore(back).await.unwrap();
        site.pass(Duration::from_mins(10)).await;
        let job = site.backup("behind", &this.closed).await;
        assert_eq!(restore.wait().await.state(), JobState::Succeeded);
        assert_eq!(job.state(), JobState::SucceededWithWarnings, "{job:#?}");
        assert!(warned(&job, "backup.promoted"), "{job:#?}");
        let points = site.table().await.points;
        assert_eq!(kinds(&job, &points), [BackupKind::FullAndLog]);
        let branch = points.last().unwrap().logs.as_ref().unwrap().branch;
        assert_eq!(branch, 1, "the full right after the restore, {ahead} ahead");
        let forks = engine.forks(full.database).await.unwrap();
        assert_eq!(forks.len(), 1);
        assert_eq!(forks[0].point, full.id);
        // From there on the logs go on, on a branch of their own.
        site.pass(2 * GENERATION).await;
        let after = this.backed_up("after").await;
        let logs = after.logs.as_ref().unwrap();
        assert_eq!((logs.branch, before.logs.as_ref().unwrap().branch), (1, 0));
        let window = this.topology().await.window;
        assert_eq!(window.intervals.len(), 2, "{window:#?}");
        assert_eq!(Some(window.intervals[1].until), logs.until);
        let why = &window.gaps[1].why;
        assert!(why.iter().any(|why| matches!(why, Why::ChainForked { .. })), "{why:?}");
    });
}

/// What became of the logs may be heard days after the backup. A full backup of another product in between is seen all the same.
#[test]
fn a_foreign_backup_is_seen_though_truncation_was_confirmed_after_it() {
    let sim = Sim::new(70);
    sim.run(async {
        let site = Site::slow_to_truncate(&sim, Duration::from_hours(3));
        let (full, copy) = (policy(1, BackupKind::FullAndLog), policy(3, BackupKind::Copy));
        let closed = policy(2, BackupKind::Log);
        site.save(&[&full, &copy, &closed]).await;
        let first = site.backup("full", &full).await;
        assert_eq!(truncation_of(&site, &first).await, Truncation::Requested);
        site.pass(Duration::from_hours(1)).await;
        let database = site.world.active("DB01").database;
        site.world.change(&Change::ForeignBackup(database));
        site.pass(Duration::from_hours(4)).await;
        drop(site.backup("copy", &copy).await);
        assert_ne!(truncation_of(&site, &first).await, Truncation::Requested);
        let job = site.backup("logs", &closed).await;
        assert!(warned(&job, "chain.foreign_backup"), "{job:#?}");
        let points = site.table().await.points;
        assert_eq!(kinds(&job, &points), [BackupKind::FullAndLog]);
    });
}

/// Who leaves truncation to another product makes copies, and logs can be built on them.
#[test]
fn logs_go_on_from_a_copy_where_nothing_of_ours_truncates() {
    let sim = Sim::new(71);
    sim.run(async {
        let site = Site::new(&sim);
        let (copy, closed) = (policy(1, BackupKind::Copy), policy(2, BackupKind::Log));
        site.save(&[&copy, &closed]).await;
        // With nothing to go on from it is refused.
        let job = site.backup("early", &closed).await;
        assert!(format!("{job:?}").contains("backup.no_base_full"), "{job:#?}");
        site.backed_up("copy", &copy).await;
        // Full backups of the other product are its own affair.
        site.world.change(&Change::ForeignBackup(site.world.active("DB01").database));
        site.pass(2 * GENERATION).await;
        site.backed_up("logs", &closed).await;
        let window = site.this.topology().await.unwrap().databases.remove(0).window;
        assert_eq!(window.intervals.len(), 1, "{window:#?}");
        assert!(window.intervals[0].until > window.intervals[0].from, "{window:#?}");
    });
}
