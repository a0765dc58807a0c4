//! What an operator sees and does: runs that are parked, locks, debris; here and after a restart, in another process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use stillpoint::catalog::MemoryCatalog;
use stillpoint::context::{Cx, ErrorFacts as _, Failure, RunId};
use stillpoint::exchange::Coordination;
use stillpoint::model::id::CopyId;
use stillpoint::model::job::{Job, JobState};
use stillpoint::model::point::{PointState, Truncation};
use stillpoint::workflow::testing::Sim;
use stillpoint::workflow::{
    Action, ActionRegistry, Claim, ClaimKey, Done, EffectKind, Engine, Leases, NodeProgress,
    Payload, PlanBuilder, Submission,
};
use stillpoint::{ByHand, Error, JobHandle, Stillpoint, Stuck};
use stillpoint_testkit::{Fault, Trouble, World};

use super::common::*;
use crate::common::kept::Kept;

const TERM: Duration = Duration::from_mins(1);
const MARGIN: Duration = Duration::from_secs(10);
const LONG: Duration = Duration::from_hours(200);

/// What outlives a process: the world, and the state.
#[derive(Clone)]
struct Outside {
    world: World,
    kept: Kept,
    catalog: Arc<MemoryCatalog>,
}

impl Outside {
    fn new() -> Self {
        let catalog = Arc::new(MemoryCatalog::new());
        Self { world: two_arrays(1), kept: Kept::default(), catalog }
    }

    fn process(&self, sim: &Sim) -> Stillpoint {
        let tune = |engine: stillpoint::workflow::EngineBuilder| {
            engine.lease_terms(TERM, MARGIN).audited()
        };
        builder(sim, &self.world, Coordination::Engine, tune)
            .journal(Arc::new(self.kept.clone()))
            .leases(Arc::clone(&self.kept.journal) as Arc<dyn Leases>)
            .catalog(Arc::clone(&self.catalog) as _)
            .build()
            .unwrap()
    }
}

/// How a run is made to park.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parks {
    /// The thaw keeps failing.
    ExitOwed,
    /// The completion stays unclear.
    PastNoReturn,
}

impl Parks {
    fn call(self) -> &'static str {
        match self {
            Self::ExitOwed => "thaw",
            Self::PastNoReturn => "complete",
        }
    }

    fn step(self) -> &'static str {
        match self {
            Self::ExitOwed => "freeze",
            Self::PastNoReturn => "complete",
        }
    }

    fn stuck(self) -> Stuck {
        match self {
            Self::ExitOwed => Stuck::ExitOwed,
            Self::PastNoReturn => Stuck::PastNoReturn,
        }
    }
}

const ALL: [Parks; 2] = [Parks::ExitOwed, Parks::PastNoReturn];

/// A backup that is parked.
async fn parked(this: &Stillpoint, world: &World, parks: Parks) -> Job {
    this.save_policy(&policy()).await.unwrap();
    world.faults().on(parks.call()).inject(Fault::fail(Trouble::timed_out()));
    let job = this.backup(request("night")).await.unwrap().wait().await;
    assert_eq!(job.state(), JobState::Parked, "{parks:?}: {job:#?}");
    job
}

/// Runs `then` on a parked backup: in the process that parked it, and in another one, after a restart.
fn wherever<F: Future<Output = ()>>(parks: Parks, then: impl Fn(Outside, Stillpoint, Job) -> F) {
    let outside = Outside::new();
    let sim = Sim::new(3);
    let this = outside.process(&sim);
    sim.run(async {
        let job = parked(&this, &outside.world, parks).await;
        then(outside.clone(), this.clone(), job).await;
    });

    let outside = Outside::new();
    let sim = Sim::new(4);
    let this = outside.process(&sim);
    let job = sim.run(async { parked(&this, &outside.world, parks).await });
    let at = sim.seams().clock.mono().0;
    drop((this, sim));
    let sim = Sim::starting_at(5, at);
    let this = outside.process(&sim);
    sim.run(async {
        pause(this.seams(), TERM + MARGIN).await;
        then(outside.clone(), this.clone(), job).await;
    });
}

/// That nothing is held and nothing waits for a person, and that the next backup has all that it needs.
async fn check(outside: &Outside, this: &Stillpoint) {
    // The release of the claims may still be on its way.
    pause(this.seams(), Duration::from_secs(5)).await;
    assert_eq!(this.parked().await.unwrap(), []);
    assert_eq!(this.locks().await.unwrap(), []);
    pause(this.seams(), LONG).await;
    for host in outside.world.hosts() {
        assert!(!outside.world.is_frozen(&host), "{host} is frozen");
    }
    let next = this.backup(request("next")).await.unwrap().wait().await;
    assert_eq!(next.state(), JobState::Succeeded, "{next:#?}");
}

fn code<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    let error = result.unwrap_err();
    assert!(!error.remedy().is_empty(), "{error}");
    error.code().to_string()
}

#[test]
fn a_parked_run_is_listed_with_why_and_what_it_holds_also_by_another_process() {
    for parks in ALL {
        wherever(parks, |_, this, job| async move {
            let run = job.runs[0].run;
            let all = this.parked().await.unwrap();
            let [known] = all.as_slice() else { panic!("{all:#?}") };
            assert_eq!((known.run, known.job), (run, Some(job.id)));
            assert!(known.title.starts_with("backup on"), "{known:#?}");
            let [step] = known.steps.as_slice() else { panic!("{known:#?}") };
            assert_eq!(step.step.as_ref().unwrap().as_str(), parks.step());
            assert_eq!(step.why, parks.stuck());
            assert!(step.since.unwrap() >= job.created_at, "{step:#?}");
            assert!(!step.failure.message.is_empty());
            assert!(!known.claims.is_empty(), "it keeps what it claims");
            assert_eq!(known.waiting, []);

            // Looking changed nothing: nobody carries it in a new process.
            assert_eq!(this.parked().await.unwrap(), all);
            let account = this.account(job.id).await.unwrap().unwrap();
            assert_eq!(account.job.state(), JobState::Parked);
            assert_eq!(account.runs[0].parked, known.steps);
            let of = |step: &str| {
                let mut steps = account.runs[0].steps.iter();
                steps.find(|known| known.step.as_str() == step).unwrap().clone()
            };
            assert_eq!(of("begin").progress, NodeProgress::Done);
            assert_eq!(of(parks.step()).progress, NodeProgress::Parked);
            assert_eq!(of("commit:alpha").within.unwrap().as_str(), "freeze");
            assert_eq!(account.locks.len(), known.claims.len());
            assert_eq!(account.debris, []);
        });
    }
}

#[test]
fn every_lock_names_its_run_and_why_and_who_waits() {
    for parks in ALL {
        wherever(parks, |_, this, job| async move {
            let run = job.runs[0].run;
            // Another backup of the same database has to wait for it.
            let waiter = waits(&this).await;
            let other = this.backup(request("other")).await.unwrap();
            let locks = this.locks().await.unwrap();
            assert!(!locks.is_empty());
            assert!(locks.iter().all(|lock| lock.run == run), "{locks:#?}");
            for lock in &locks {
                assert_eq!((lock.job, lock.stuck), (Some(job.id), Some(parks.stuck())));
                assert!(lock.why.contains("parked") && lock.why.contains(parks.step()), "{lock:?}");
                assert!(lock.since.unwrap() >= job.created_at);
            }
            let keys: Vec<&str> = locks.iter().map(|lock| lock.key.as_str()).collect();
            assert!(keys.is_sorted(), "{keys:?}");
            let behind: Vec<_> = locks.iter().flat_map(|lock| &lock.waiting).collect();
            assert!(!behind.is_empty(), "{locks:#?}");
            for wait in behind {
                assert_eq!((wait.run, wait.job), (waiter, Some(other.id())));
                assert!(wait.since.is_some() && wait.title.starts_with("backup on"));
            }
            assert_eq!(this.parked().await.unwrap()[0].waiting, [waiter]);
            // Given up, it lets the other one go on.
            let settled = this.abandon(run, "op").await.unwrap().unwrap().settled().await;
            assert_eq!(settled.state(), JobState::NeedsAttention, "{settled:#?}");
            assert!(end_of(&this, &other).await.unwrap().state().is_final());
        });
    }
}

#[test]
fn what_is_resumed_is_tried_again_and_goes_on() {
    for parks in ALL {
        wherever(parks, |outside, this, job| async move {
            let run = job.runs[0].run;
            // While it keeps failing it is parked again.
            let tries = outside.world.calls().count(parks.call());
            let again = this.resume(run, "op").await.unwrap().unwrap().settled().await;
            assert_eq!(again.state(), JobState::Parked, "{again:#?}");
            assert!(outside.world.calls().count(parks.call()) > tries, "it was tried again");
            assert_eq!(this.parked().await.unwrap().len(), 1);
            outside.world.faults().clear();
            let job = this.resume(run, "op").await.unwrap().unwrap().settled().await;
            assert!(job.state().is_final() && job.ended_at.is_some(), "{job:#?}");
            assert_ne!(job.state(), JobState::NeedsAttention, "{job:#?}");
            if parks == Parks::PastNoReturn {
                assert!(
                    matches!(job.state(), JobState::Succeeded | JobState::SucceededWithWarnings),
                    "{job:#?}"
                );
            }
            assert_eq!(this.debris().await.unwrap(), []);
            assert_eq!(code(this.resume(run, "op").await), "run.not_parked");
            check(&outside, &this).await;
        });
    }
}

#[test]
fn what_is_resolved_by_hand_counts_as_done() {
    for parks in ALL {
        wherever(parks, |outside, this, job| async move {
            let run = job.runs[0].run;
            let handle = this.resolve(run, parks.step(), ByHand::Done, "op").await;
            let handle: JobHandle = handle.unwrap().unwrap();
            let job = handle.settled().await;
            assert!(job.state().is_final(), "{job:#?}");
            assert_ne!(job.state(), JobState::NeedsAttention, "{job:#?}");
            if parks == Parks::PastNoReturn {
                assert_eq!(job.state(), JobState::SucceededWithWarnings);
                let points = this.topology_of_catalog().await.unwrap();
                let point = this.point(points.databases[0].points[0].point).await.unwrap().unwrap();
                assert_eq!(
                    (point.state, point.truncation),
                    (PointState::Available, Truncation::Unknown)
                );
            }
            outside.world.faults().clear();
            check(&outside, &this).await;
        });
    }
}

#[test]
fn what_is_abandoned_needs_attention_and_holds_nothing() {
    for parks in ALL {
        wherever(parks, |outside, this, job| async move {
            let run = job.runs[0].run;
            let job = this.abandon(run, "op").await.unwrap().unwrap().settled().await;
            assert_eq!(job.state(), JobState::NeedsAttention, "{job:#?}");
            let debris = this.debris().await.unwrap();
            assert!(!debris.is_empty());
            for left in &debris {
                assert_eq!((left.run, left.job), (run, Some(job.id)), "{left:#?}");
                assert!(left.step.is_some(), "{left:#?}");
            }
            let stuck = debris
                .iter()
                .find(|left| left.step.as_ref().is_some_and(|step| step.as_str() == parks.step()));
            assert!(stuck.expect("what was stuck is listed").possible);
            // The release of the claims may still be on its way.
            pause(this.seams(), Duration::from_secs(5)).await;
            let account = this.account(job.id).await.unwrap().unwrap();
            assert_eq!((account.debris, account.locks), (debris, Vec::new()));
            assert_eq!(code(this.abandon(run, "op").await), "run.not_parked");
            outside.world.faults().clear();
            let left = this.sweep().await.unwrap();
            // What only a person can judge stays.
            assert!(left.len() < 2, "{left:#?}");
            check(&outside, &this).await;
        });
    }
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    for parks in ALL {
        wherever(parks, |outside, this, job| async move {
            let run = job.runs[0].run;
            let nobody = RunId(uuid::Uuid::from_u128(7));
            assert_eq!(code(this.resume(nobody, "op").await), "not_found");
            assert_eq!(code(this.abandon(nobody, "op").await), "not_found");
            let by_hand = |run, step, how| this.resolve(run, step, how, "op");
            assert_eq!(code(by_hand(nobody, "complete", ByHand::Done).await), "not_found");
            assert_eq!(code(by_hand(run, "nothing", ByHand::Done).await), "run.no_step");
            assert_eq!(code(by_hand(run, "begin", ByHand::Done).await), "run.not_parked");
            let wrong = ByHand::Gave(Payload::of(&"a word").unwrap());
            let refused = by_hand(run, parks.step(), wrong).await;
            assert_eq!(code(refused), "run.resolution_unfit");
            if parks == Parks::ExitOwed {
                // An exit gives nothing, whatever it is said to give.
                let any = ByHand::Gave(Payload::of(&BTreeMap::<CopyId, u8>::new()).unwrap());
                let refused = by_hand(run, parks.step(), any).await;
                assert_eq!(code(refused), "run.resolution_unfit");
            }
            let all = this.parked().await.unwrap();
            assert_eq!(all.len(), 1, "it is parked still");

            // One that waits behind it is not parked, and neither is one that has ended.
            let free = waits(&this).await;
            assert_eq!(code(this.resume(free, "op").await), "run.not_parked");
            assert_eq!(code(by_hand(free, "begin", ByHand::Done).await), "run.not_parked");
            assert_eq!(code(this.abandon(free, "op").await), "run.not_parked");
            assert!(this.account(stillpoint::context::JobId(nobody.0)).await.unwrap().is_none());
            drop(outside);
        });
    }
}

/// The run of another backup, which waits for what the parked one holds.
async fn waits(this: &Stillpoint) -> RunId {
    let other = this.backup(request("other")).await.unwrap();
    while other.job().runs.is_empty() {
        pause(this.seams(), Duration::from_millis(50)).await;
    }
    pause(this.seams(), Duration::from_secs(1)).await;
    other.job().runs[0].run
}

#[test]
fn a_run_that_a_living_process_carries_is_its_own_affair() {
    let outside = Outside::new();
    let sim = Sim::new(3);
    let (one, other) = (outside.process(&sim), outside.process(&sim));
    sim.run(async {
        let job = parked(&one, &outside.world, Parks::PastNoReturn).await;
        let run = job.runs[0].run;
        assert_eq!(other.parked().await.unwrap(), one.parked().await.unwrap());
        assert_eq!(other.locks().await.unwrap(), one.locks().await.unwrap());
        assert_eq!(code(other.resume(run, "op").await), "run.elsewhere");
        assert_eq!(code(other.abandon(run, "op").await), "run.elsewhere");
        let refused = other.resolve(run, "complete", ByHand::Done, "op").await;
        assert_eq!(code(refused), "run.elsewhere");
        assert_eq!(one.parked().await.unwrap().len(), 1);
    });
}

#[test]
fn a_run_of_a_newer_format_is_listed_and_keeps_what_it_holds() {
    wherever(Parks::PastNoReturn, |outside, this, job| async move {
        let run = job.runs[0].run;
        let held = this.locks().await.unwrap().len();
        *outside.kept.newer.lock().unwrap() = Some(run);
        let all = this.parked().await.unwrap();
        let [known] = all.as_slice() else { panic!("{all:#?}") };
        assert_eq!((known.run, known.job), (run, Some(job.id)));
        assert_eq!(known.steps[0].why, Stuck::StoredFormat);
        assert_eq!(known.steps[0].failure.code, "journal.format");
        assert!(!known.claims.is_empty());
        let locks = this.locks().await.unwrap();
        assert_eq!(locks.len(), held);
        assert!(locks.iter().all(|lock| lock.stuck == Some(Stuck::StoredFormat)), "{locks:#?}");
        let account = this.account(job.id).await.unwrap().unwrap();
        assert!(account.runs.is_empty() && account.locks.len() == held);
        if this.engine().run(run).is_none() {
            assert_eq!(code(this.resume(run, "op").await), "journal.format");
            assert_eq!(code(this.abandon(run, "op").await), "journal.format");
        }
    });
}

/// An action that only an embedder's older version had.
#[derive(Debug)]
struct Custom;

#[async_trait]
impl Action for Custom {
    const NAME: &'static str = "test.custom";
    const EFFECT: EffectKind = EffectKind::ReadOnly;
    type Params = ();
    type Input = ();
    type Output = ();

    async fn run(&self, _: &Cx, (): &(), (): ()) -> Result<Done<()>, Failure> {
        std::future::pending().await
    }
}

#[test]
fn a_run_whose_action_is_unknown_here_is_abandoned_or_left_to_who_knows_it() {
    let outside = Outside::new();
    let sim = Sim::new(3);
    let mut registry = ActionRegistry::new();
    registry.register(Custom).unwrap();
    let engine =
        Engine::builder(registry, Arc::new(outside.kept.clone()), sim.seams(), sim.lanes())
            .leases(Arc::clone(&outside.kept.journal) as Arc<dyn Leases>)
            .lease_terms(TERM, MARGIN)
            .build();
    let run = sim.run(async {
        let mut plan = PlanBuilder::new("custom");
        let _plan = plan.claim(Claim::exclusive(ClaimKey::new("mine/1").unwrap()));
        let _step = plan.step("only", Custom::with(())).add();
        let run = engine.submit(Submission::new(plan.build().unwrap())).await.unwrap();
        pause(&sim.seams(), Duration::from_secs(1)).await;
        run.id()
    });
    let at = sim.seams().clock.mono().0;
    drop((engine, sim));

    let sim = Sim::starting_at(4, at);
    let this = outside.process(&sim);
    sim.run(async {
        pause(this.seams(), TERM + MARGIN).await;
        let all = this.parked().await.unwrap();
        let [known] = all.as_slice() else { panic!("{all:#?}") };
        assert_eq!((known.run, known.job, known.title.as_str()), (run, None, "custom"));
        assert_eq!(known.steps[0].why, Stuck::UnknownAction);
        assert_eq!(known.claims.len(), 1);
        assert_eq!(code(this.resume(run, "op").await), "run.cannot_resume");
        let refused = this.resolve(run, "only", ByHand::Done, "op").await;
        assert_eq!(code(refused), "run.resolution_unfit");
        let carried = this.parked().await.unwrap();
        assert_eq!(carried[0].steps[0].why, Stuck::UnknownAction, "carried here, it is the same");
        assert!(this.abandon(run, "op").await.unwrap().is_none(), "it has no job");
        pause(this.seams(), Duration::from_secs(5)).await;
        assert_eq!(this.parked().await.unwrap(), []);
        assert_eq!(this.locks().await.unwrap(), []);
    });
}
