//! What an operator looks at: jobs, what is stuck, what was left, the health of a site.

use super::*;

#[test]
fn jobs() {
    check("jobs", &JobsView::list(&[job()]));
    check("job", &JobsView::one(&job()));
}

#[test]
fn a_job_of_which_others_have_a_part() {
    let mut job = job();
    (job.runs, job.skipped, job.ended_at, job.planned_at) = (vec![], vec![], None, None);
    job.held = vec![Elsewhere::new(DatabaseId(uuid(1)), "DB01", JobId(uuid(60)))];
    job.coalesced = vec![Elsewhere::new(DatabaseId(uuid(2)), "DB02", JobId(uuid(61)))];
    check("job_elsewhere", &JobsView::one(&job));
}

fn stuck() -> ParkedStep {
    let failure = Failure::new("exchange.timed_out", ErrorClass::Unavailable, "it does not answer")
        .with_remedy("Look at the server.");
    let mut stuck = ParkedStep::new(Some(step("freeze")), Stuck::ExitOwed, failure);
    stuck.since = Some(time(3));
    stuck
}

fn step(name: &str) -> StepName {
    StepName::new(name).unwrap()
}

fn claim() -> Claim {
    Claim::exclusive(ClaimKey::new("host/localhost/freeze").unwrap()).until(step("freeze"))
}

fn lock() -> Lock {
    let why = "backup on localhost; parked: freeze: an exit is owed: it does not answer";
    let mut lock = Lock::new(claim(), RunId(uuid(51)), why);
    lock.job = Some(JobId(uuid(50)));
    lock.since = Some(time(1));
    lock.stuck = Some(Stuck::ExitOwed);
    let mut waiter = Waiter::new(RunId(uuid(53)), "backup on localhost");
    waiter.job = Some(JobId(uuid(52)));
    waiter.since = Some(time(4));
    lock.waiting = vec![waiter, Waiter::new(RunId(uuid(54)), "of the embedder")];
    lock
}

fn debris() -> Vec<Debris> {
    let token = SetToken::of(&RunId(uuid(51)), PointId(uuid(61)));
    let kind = DebrisKind::Snapshots(token);
    let message = "maybe snapshots of step prepare:fs: the storage does not answer";
    let one = Debris::new("1", RunId(uuid(51)), kind, message, time(5))
        .of_job(JobId(uuid(50)))
        .owed_by(step("prepare:fs"))
        .maybe(true);
    let kind = DebrisKind::Other("a clone".to_owned());
    vec![one, Debris::new("2", RunId(uuid(54)), kind, "it was left", time(6))]
}

#[test]
fn what_waits_for_the_operator() {
    let process = ProcessId(uuid(70));
    let mut known = ParkedRun::new(RunId(uuid(51)), process, "backup on localhost", vec![stuck()]);
    known.job = Some(JobId(uuid(50)));
    known.claims = vec![claim()];
    known.waiting = vec![RunId(uuid(53))];
    let newer = ParkedStep::new(None, Stuck::StoredFormat, failure());
    let unread = ParkedRun::new(RunId(uuid(55)), process, "", vec![newer]);
    check("parked", &ParkedView::of(&[known, unread]));
    let kept = Claim::shared(ClaimKey::new("volume/fs").unwrap());
    check("locks", &LocksView::of(&[lock(), Lock::new(kept, RunId(uuid(54)), "of the embedder")]));
    check("debris", &DebrisView::of(&debris()));

    let mut parked = job();
    parked.ended_at = None;
    parked.runs[0].state = RunState::Parked;
    let mut account = JobAccount::new(parked);
    let mut inside = StepAccount::new(step("commit:fs"), NodeProgress::Done, 1);
    inside.within = Some(step("freeze"));
    let mut tried = StepAccount::new(step("begin"), NodeProgress::Done, 3);
    tried.failure = Some(failure());
    let mut hook = StepAccount::new(step("hook:before_quiesce:1"), NodeProgress::Done, 1);
    let end = HookEnd::new(HookStatus::Exited(3)).with_output("busy\u{1b}[31m\nagain\n", 4096);
    hook.hook = Some(end);
    let freeze = StepAccount::new(step("freeze"), NodeProgress::Parked, 1);
    let steps = vec![hook, tried, freeze, inside];
    let mut run = RunSteps::new(RunId(uuid(51)), steps);
    run.parked = vec![stuck()];
    account.runs = vec![run];
    account.locks = vec![lock()];
    account.debris = debris();
    check("job_account", &JobsView::account(&account));
}

#[test]
fn notify() {
    let sent = [("ops".to_owned(), None), ("log".to_owned(), Some(failure()))];
    check("notify", &NotifyView::of(&sent));
}

#[test]
fn doctor() {
    let mut view = DoctorView::default();
    view.ok("state", "/srv/stillpoint.db is in order");
    view.add("store", Level::Warning, "copies are made in full", "Put the store on btrfs.");
    assert_eq!(view.exit(), Exit::Warnings);
    view.add("source", Level::Error, "there is no folder /srv/mail [source.not_found]", "Name it.");
    assert_eq!(view.exit(), Exit::Failed);
    check("doctor", &view);
}

#[test]
fn what_a_check_found() {
    use std::time::Duration;
    use stillpoint_testkit::conformance::{Outcome, Verdict};
    let verdict =
        |name, outcome| Verdict { name, contract: "S3", rule: "`delete` is idempotent.", outcome };
    let mut view = CheckView::new(Side::Provider, Path::new("/srv/mail"));
    view.name = Some("btrfs".to_owned());
    view.store = Some("/srv/store".to_owned());
    view.storage = Some("btrfs");
    view.ability("instant", true, "take a snapshot without copying data");
    view.ability(
        "replicate",
        false,
        "replicate snapshots: copy the store elsewhere by other means",
    );
    let times = [7, 4, 5].map(Duration::from_millis);
    view.time("commit", times.into());
    view.time("settle", Vec::new());
    view.measured = Some(MeasuredView { files: 2, bytes: 4096, of_files: 3, of_bytes: 2_097_152 });
    let (limit, worst) = (Duration::from_secs(8), Duration::from_millis(120));
    view.freeze =
        Some(FitView::new(limit, Some(worst), true, "a snapshot fits into a freeze of 8s"));
    view.case(&verdict("deleting_again_succeeds", Outcome::Passed));
    view.case(&verdict(
        "what_is_held_is_refused",
        Outcome::Skipped("the place cannot hold snapshots"),
    ));
    view.add("space", Level::Ok, "8.0 GiB free", "");
    assert_eq!(view.close(), Exit::Done);
    check("check_good", &view);
    view.add("database DB02", Level::Warning, "it is dirty [resource.dirty]", "Find its logs.");
    assert_eq!(view.close(), Exit::Warnings);
    let flaw = Outcome::Failed("a call failed: it is gone (storage.not_found)".to_owned());
    view.case(&verdict("removing_leaves_other_sets", flaw));
    assert_eq!(view.close(), Exit::Failed);
    view.left_behind.push("/srv/.stillpoint-check-1: it is busy".to_owned());
    assert_eq!(view.close(), Exit::Attention);
    check("check_bad", &view);
}

#[test]
fn protect() {
    let view = ProtectView {
        source: "/srv/mail".to_owned(),
        state: "/srv/stillpoint.db".to_owned(),
        store: "/srv/stillpoint.store".to_owned(),
        demo: true,
        kept: true,
        found: 2,
        refused: refused(&inventory()),
        backup: JobView::of(&job()),
        verification: Some(JobView::of(&job())),
        restores: vec![JobView::of(&job())],
        comparison: Some(ComparisonView {
            restored_to: "/srv/restored".to_owned(),
            files: 2,
            bytes: 3_145_728,
            different: Vec::new(),
        }),
        jobs: JobsView::list(&[job()]),
        topology: TopologyView::of(&Topology::of(Some(&inventory()), &points())),
    };
    check("protect", &view);
}
