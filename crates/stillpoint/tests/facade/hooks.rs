//! Hooks of policies: where they run, what their failure means, what a cancel and a crash do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use stillpoint::Stillpoint;
use stillpoint::catalog::{Catalog as _, MemoryCatalog};
use stillpoint::context::{ErrorFacts as _, HostPath, PathFlavor};
use stillpoint::exchange::Coordination;
use stillpoint::model::group::{ResourceGroup, Selector};
use stillpoint::model::hook::{Hook, HookPhase, HookStatus, OnHookFailure};
use stillpoint::model::id::GroupId;
use stillpoint::model::job::{Job, JobState};
use stillpoint::model::policy::Policy;
use stillpoint::model::request::{BackupRequest, Target, Trigger};
use stillpoint::model::restore::{RestoreRequest, RestoreTarget};
use stillpoint::workflow::testing::{HookJournal, Sim};
use stillpoint::workflow::{Leases, MemoryJournal};
use stillpoint_testkit::{Fault, Trouble, World};
use uuid::Uuid;

use super::common::hooks::Noting;
use super::common::*;

use HookPhase::{
    AfterBackup, AfterRestore, AfterThaw, AfterVerify, Always, BeforeJob, BeforeQuiesce,
    BeforeRestore, OnFailure,
};

fn with_hooks(hooks: impl IntoIterator<Item = Hook>) -> Policy {
    let mut policy = policy();
    policy.hooks = hooks.into_iter().collect();
    policy
}

/// One hook of each phase.
fn each() -> Vec<Hook> {
    HookPhase::ALLOWED.into_iter().map(|phase| Hook::new(phase, "ok")).collect()
}

/// Each phase, with one hook of another program.
fn each_but(phase: HookPhase, program: &str, on_failure: OnHookFailure) -> Vec<Hook> {
    let mut hooks = each();
    let hook = hooks.iter_mut().find(|hook| hook.phase == phase).unwrap();
    *hook = Hook::new(phase, program).on_failure(on_failure);
    hooks
}

fn over(sim: &Sim, world: &World, mode: Coordination, runner: &Noting) -> Stillpoint {
    builder(sim, world, mode, |engine| engine).hooks(Arc::new(runner.clone())).build().unwrap()
}

async fn backed_up(this: &Stillpoint, policy: &Policy) -> Job {
    this.save_policy(policy).await.unwrap();
    this.backup(request("night")).await.unwrap().wait().await
}

#[test]
fn each_hook_runs_in_its_place_and_is_told_what_it_is_for() {
    for mode in BOTH {
        let (sim, world) = (Sim::new(1), two_arrays(2));
        let noting = Noting::over(&world);
        sim.run(async {
            let this = over(&sim, &world, mode, &noting);
            let job = backed_up(&this, &with_hooks(each())).await;
            assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
            assert_eq!(
                noting.came(),
                [
                    "before_job ok",
                    "before_quiesce ok",
                    "after_thaw ok",
                    "after_verify ok",
                    "after_backup ok",
                    "always ok"
                ]
            );
            let calls = noting.calls();
            for call in &calls {
                assert_eq!(call.ours("HOOK_VERSION"), "1");
                assert_eq!(call.ours("JOB"), job.id.to_string());
                assert_eq!(call.ours("JOB_KIND"), "backup");
                assert_eq!(call.ours("POLICY"), "default@1");
                assert_eq!(call.ours("PHASE"), call.phase.word());
                assert_eq!(call.ours("ATTEMPT"), "1");
            }
            let keys: BTreeSet<_> = calls.iter().map(|call| call.ours("KEY")).collect();
            assert_eq!(keys.len(), calls.len(), "each hook has a key of its own");
            let (before, quiesce, verify, always) = (&calls[0], &calls[1], &calls[3], &calls[5]);
            assert_eq!((before.ours("DATABASES"), before.ours("OUTCOME")), ("", ""));
            assert_eq!((quiesce.ours("DATABASES"), quiesce.ours("HOST")), ("DB01\nDB02", HOST));
            assert_eq!(verify.ours("OUTCOME"), "good");
            assert_eq!((always.ours("OUTCOME"), always.ours("DATABASE_COUNT")), ("succeeded", "2"));
            assert_eq!((always.ours("GOOD"), always.ours("ALL")), ("2", "2"));
            // What they wrote is in the account of the job.
            let account = this.account(job.id).await.unwrap().unwrap();
            let steps = account.runs.iter().flat_map(|run| &run.steps);
            let ends: Vec<_> = steps.filter_map(|step| step.hook.as_ref()).collect();
            assert_eq!(ends.len(), 6);
            assert!(
                ends.iter().all(|end| end.is_good() && end.output == "it says so\n"),
                "{ends:#?}"
            );
        });
    }
}

#[test]
fn a_verification_that_finds_something_is_told_to_the_hook_after_it() {
    let (sim, world) = (Sim::new(2), two_arrays(2));
    let noting = Noting::over(&world);
    sim.run(async {
        let this = over(&sim, &world, Coordination::Engine, &noting);
        world.damage().database(&world.copies()[0]);
        let job = backed_up(&this, &with_hooks(each())).await;
        assert_eq!(job.state(), JobState::SucceededWithWarnings, "{job:#?}");
        let calls = noting.calls();
        let verify = calls.iter().find(|call| call.phase == AfterVerify).unwrap();
        assert_eq!(verify.ours("OUTCOME"), "bad");
        let last = calls.last().unwrap();
        assert_eq!(last.ours("OUTCOME"), "succeeded_with_warnings");
        assert_eq!((last.ours("GOOD"), last.ours("ALL")), ("1", "2"));
    });
}

#[test]
fn a_hook_that_has_to_succeed_fails_its_run_and_nothing_is_left() {
    for mode in BOTH {
        for phase in [BeforeJob, BeforeQuiesce, AfterThaw, AfterVerify] {
            for (program, code) in [
                ("bad", "hook.failed"),
                ("slow", "hook.timed_out"),
                ("gone", "hook.program_missing"),
            ] {
                let (sim, world) = (Sim::new(3), two_arrays(2));
                let noting = Noting::over(&world);
                sim.run(async {
                    let this = over(&sim, &world, mode, &noting);
                    let hooks = each_but(phase, program, OnHookFailure::Fail);
                    let job = backed_up(&this, &with_hooks(hooks)).await;
                    assert_eq!(job.state(), JobState::Failed, "{phase} {program}: {job:#?}");
                    let mut runs = job.runs.iter().filter_map(|run| run.failure.as_ref());
                    let failure = job.failure.as_ref().or(runs.next_back()).unwrap();
                    assert_eq!(failure.code, code, "{phase}: {failure:#?}");
                    if program == "bad" {
                        assert_eq!(failure.causes, ["it wrote: it says so"]);
                    }
                    assert!(world.snapshots().is_empty(), "{phase}: nothing is left behind");
                    assert!(world.completes().is_empty(), "{phase}: nothing was truncated");
                    assert!(this.debris().await.unwrap().is_empty());
                    let came = noting.came();
                    let last = &came[came.len() - 2..];
                    assert_eq!(last, ["on_failure ok", "always ok"], "{phase}: {came:?}");
                    let always = noting.calls().pop().unwrap();
                    assert_eq!(always.ours("OUTCOME"), "failed");
                });
            }
        }
    }
}

#[test]
fn a_hook_that_may_fail_is_a_warning_or_nothing() {
    let phases = [BeforeJob, BeforeQuiesce, AfterThaw, AfterVerify, AfterBackup, Always];
    for phase in phases {
        for program in ["bad", "slow", "gone", "panics"] {
            for (on_failure, state) in [
                (OnHookFailure::Warn, JobState::SucceededWithWarnings),
                (OnHookFailure::Ignore, JobState::Succeeded),
            ] {
                // A runner that panics keeps no contract, and what came of its hook nobody knows.
                let state =
                    if program == "panics" { JobState::SucceededWithWarnings } else { state };
                let (sim, world) = (Sim::new(4), two_arrays(1));
                let noting = Noting::over(&world);
                sim.run(async {
                    let this = over(&sim, &world, Coordination::Engine, &noting);
                    let job =
                        backed_up(&this, &with_hooks(each_but(phase, program, on_failure))).await;
                    assert_eq!(job.state(), state, "{phase} {program} {on_failure}: {job:#?}");
                    assert_eq!(job.tally(), (1, 1));
                    assert_eq!(world.completes().len(), 1);
                });
            }
        }
    }
}

#[test]
fn nothing_fails_once_everything_is_done() {
    for phase in [AfterBackup, Always] {
        let (sim, world) = (Sim::new(5), two_arrays(1));
        let noting = Noting::over(&world);
        sim.run(async {
            let this = over(&sim, &world, Coordination::Engine, &noting);
            let hooks = each_but(phase, "bad", OnHookFailure::Fail);
            let job = backed_up(&this, &with_hooks(hooks)).await;
            assert_eq!(job.state(), JobState::SucceededWithWarnings, "{phase}: {job:#?}");
            let warnings: Vec<_> = job.runs.iter().flat_map(|run| &run.warnings).collect();
            assert_eq!(warnings.len(), 1, "{job:#?}");
            assert_eq!(warnings[0].code, "hook.failed");
        });
    }
}

#[test]
fn a_job_that_is_cancelled_ends_its_hook_and_still_runs_the_last_one() {
    for phase in [BeforeJob, BeforeQuiesce, AfterThaw] {
        let (sim, world) = (Sim::new(6), two_arrays(1));
        let noting = Noting::over(&world);
        sim.run(async {
            let this = over(&sim, &world, Coordination::Engine, &noting);
            let mut hooks = each_but(phase, "slow", OnHookFailure::Ignore);
            for hook in &mut hooks {
                hook.timeout = Duration::from_hours(1);
            }
            this.save_policy(&with_hooks(hooks)).await.unwrap();
            let job = this.backup(request("night")).await.unwrap();
            while !noting.came().iter().any(|call| call.ends_with("slow")) {
                pause(this.seams(), Duration::from_millis(100)).await;
            }
            job.cancel("a test").await.unwrap();
            let ended = within(this.seams(), Duration::from_mins(5), job.wait()).await.unwrap();
            assert_eq!(ended.state(), JobState::Cancelled, "{phase}: {ended:#?}");
            let came = noting.came();
            assert_eq!(came.last().unwrap(), "always ok", "{came:?}");
            assert!(!came.iter().any(|call| call.starts_with("on_failure")), "{came:?}");
            assert!(world.snapshots().is_empty() && world.completes().is_empty());
        });
    }
}

#[test]
fn a_policy_whose_hooks_could_not_be_run_is_not_saved() {
    let (sim, world) = (Sim::new(7), two_arrays(1));
    let noting = Noting::over(&world);
    sim.run(async {
        let with = over(&sim, &world, Coordination::Engine, &noting);
        let without = stillpoint(&sim, &world, Coordination::Engine, |engine| engine);
        let refused = async |this: &Stillpoint, hook: Hook| {
            let error = this.save_policy(&with_hooks([hook])).await.unwrap_err();
            assert!(!error.remedy().is_empty(), "{error}");
            assert!(this.policies().await.unwrap().is_empty(), "nothing was stored");
            error.code()
        };
        assert_eq!(refused(&with, Hook::new(Always, "../x")).await, "hook.path_escape");
        assert_eq!(refused(&with, Hook::new(Always, "missing")).await, "hook.program_missing");
        assert_eq!(refused(&without, Hook::new(Always, "ok")).await, "hook.no_runner");
    });
}

#[test]
fn a_process_that_runs_no_hooks_fails_those_that_have_to_succeed() {
    for (phase, state) in
        [(BeforeQuiesce, JobState::Failed), (AfterBackup, JobState::SucceededWithWarnings)]
    {
        let (sim, world) = (Sim::new(8), two_arrays(1));
        sim.run(async {
            let catalog = Arc::new(MemoryCatalog::new());
            catalog.put_policy(&with_hooks([Hook::new(phase, "ok")])).await.unwrap();
            let this = builder(&sim, &world, Coordination::Engine, |engine| engine)
                .catalog(catalog)
                .build()
                .unwrap();
            let job = this.backup(request("night")).await.unwrap().wait().await;
            assert_eq!(job.state(), state, "{phase}: {job:#?}");
            let runs = || job.runs.iter();
            let failures = runs().filter_map(|run| Some(run.failure.as_ref()?.code.as_str()));
            let warnings =
                runs().flat_map(|run| &run.warnings).map(|warning| warning.code.as_str());
            let codes: Vec<_> = failures.chain(warnings).collect();
            assert_eq!(codes, ["hook.no_runner"], "{job:#?}");
        });
    }
}

#[test]
fn a_backup_that_cannot_be_planned_has_its_last_hooks_too() {
    let (sim, world) = (Sim::new(9), two_arrays(1));
    let noting = Noting::over(&world);
    sim.run(async {
        let this = over(&sim, &world, Coordination::Engine, &noting);
        world.faults().on("inventory").inject(Fault::fail(Trouble::fenced()));
        let job = backed_up(&this, &with_hooks(each())).await;
        assert_eq!(job.state(), JobState::Failed, "{job:#?}");
        assert_eq!(noting.came(), ["before_job ok", "on_failure ok", "always ok"]);
    });
}

#[test]
fn a_restore_has_the_hooks_that_the_policy_of_its_point_has_now() {
    for (before, state, came) in [
        ("ok", JobState::Succeeded, &["before_restore ok", "after_restore ok", "always ok"][..]),
        ("bad", JobState::Failed, &["before_restore bad", "on_failure ok", "always ok"][..]),
    ] {
        let (sim, world) = (Sim::new(10), two_arrays(1));
        let noting = Noting::over(&world);
        sim.run(async {
            let this = over(&sim, &world, Coordination::Engine, &noting);
            let policy = policy();
            let job = backed_up(&this, &policy).await;
            assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
            assert!(noting.calls().is_empty());
            let hooks = each_but(BeforeRestore, before, OnHookFailure::Fail);
            let edited = policy.edit(with_hooks(hooks)).unwrap();
            this.save_policy(&edited).await.unwrap();
            let point = this.topology().await.unwrap().databases[0].points[0].point;
            let host = world.copies().remove(0).host;
            let folder = HostPath::new(host, PathFlavor::Windows, r"R:\restored").unwrap();
            let target = RestoreTarget::AlternatePath(folder);
            let back = RestoreRequest::new(key("back"), point, target);
            let job = this.restore(back).await.unwrap().wait().await;
            assert_eq!(job.state(), state, "{job:#?}");
            assert_eq!(noting.came(), came);
            let last = noting.calls().pop().unwrap();
            assert_eq!((last.ours("JOB_KIND"), last.ours("POLICY")), ("restore", "default@2"));
            let of_run: Vec<_> = noting
                .calls()
                .into_iter()
                .filter(|call| matches!(call.phase, BeforeRestore | AfterRestore | OnFailure))
                .collect();
            assert!(of_run.iter().all(|call| call.ours("DATABASES") == "DB01"), "{of_run:#?}");
        });
    }
}

const TERM: Duration = Duration::from_mins(1);
const MARGIN: Duration = Duration::from_secs(10);

/// What outlives a process.
struct Outside {
    world: World,
    noting: Noting,
    journal: Arc<MemoryJournal>,
    catalog: Arc<MemoryCatalog>,
}

impl Outside {
    fn new() -> Self {
        let world = two_arrays(1);
        let noting = Noting::over(&world);
        let (journal, catalog) = (Arc::new(MemoryJournal::new()), Arc::new(MemoryCatalog::new()));
        Self { world, noting, journal, catalog }
    }

    fn process(&self, sim: &Sim) -> Stillpoint {
        let journal =
            HookJournal::jitter(Arc::clone(&self.journal), sim, Duration::from_millis(2)).shared();
        let tune = |engine: stillpoint::workflow::EngineBuilder| engine.lease_terms(TERM, MARGIN);
        builder(sim, &self.world, Coordination::Engine, tune)
            .journal(Arc::new(journal))
            .leases(Arc::clone(&self.journal) as Arc<dyn Leases>)
            .catalog(Arc::clone(&self.catalog) as _)
            .hooks(Arc::new(self.noting.clone()))
            .build()
            .unwrap()
    }

    /// A job of a schedule, in a process that dies at this poll; whether the job was over before, and when it was.
    fn first(&self, dies: Option<u64>, hooks: &[Hook]) -> (bool, Duration, u64) {
        let sim = Sim::new(11);
        let this = self.process(&sim);
        let over = sim.run(async {
            let life = std::pin::pin!(async {
                let policy = with_hooks(hooks.to_vec());
                this.save_policy(&policy).await.unwrap();
                let id = GroupId(Uuid::from_u128(7));
                let mut group = ResourceGroup::new(id, "mail", vec![Selector::Everything]);
                group.policies.push(policy.id);
                this.save_group(&group).await.unwrap();
                let mut request = BackupRequest::new(key("due"), Target::Group(id), policy.id);
                let due = this.seams().clock.now();
                request.trigger =
                    Trigger::Schedule { schedule: "nightly".to_owned(), version: None, due };
                let job = this.backup(request).await.unwrap().wait().await;
                assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
            });
            let Some(dies) = dies else {
                life.await;
                return true;
            };
            let death = std::pin::pin!(sim.polled(dies));
            let first = futures_util::future::select(death, life).await;
            matches!(first, futures_util::future::Either::Right(_))
        });
        (over, sim.seams().clock.mono().0, sim.polls())
    }

    fn second(&self, at: Duration) -> Option<Job> {
        let sim = Sim::starting_at(12, at);
        let this = self.process(&sim);
        sim.run(async {
            pause(this.seams(), TERM + MARGIN).await;
            for job in this.recover().await.unwrap() {
                job.wait().await;
            }
            let jobs = this.jobs().await.unwrap();
            assert!(jobs.len() <= 1);
            jobs.into_iter().next()
        })
    }
}

#[test]
fn hooks_around_a_job_are_run_whenever_its_process_dies() {
    let whole = Outside::new();
    let (_, _, polls) = whole.first(None, &each());
    let step = usize::try_from((polls / 60).max(1)).unwrap();
    let (mut again, mut taken_up) = (0, 0);
    for dies in (1..polls).step_by(step) {
        let outside = Outside::new();
        let (over, at, _) = outside.first(Some(dies), &each());
        let before = outside.noting.calls().len();
        let Some(job) = outside.second(at) else { continue };
        assert!(job.state().is_final(), "dies at {dies}: {job:#?}");
        if over {
            continue;
        }
        let calls = outside.noting.calls();
        let mut keys: BTreeMap<HookPhase, BTreeSet<String>> = BTreeMap::new();
        for call in &calls {
            keys.entry(call.phase).or_default().insert(call.ours("KEY").to_owned());
        }
        for phase in [BeforeJob, AfterBackup, OnFailure, Always] {
            let known = keys.get(&phase).map_or(0, BTreeSet::len);
            assert!(known <= 1, "dies at {dies}: {phase} has {known} keys");
        }
        assert!(keys.contains_key(&Always), "dies at {dies}: no last hook: {calls:#?}");
        let failed = matches!(job.state(), JobState::Failed | JobState::NeedsAttention);
        assert_eq!(keys.contains_key(&OnFailure), failed, "dies at {dies}: {job:#?}");
        // Nobody would ask again for what a schedule asked for, so it is done if only its first hook had begun.
        let (first, rest) = calls.split_at(before);
        if first.iter().all(|call| call.phase == BeforeJob) && !rest.is_empty() && !failed {
            taken_up += 1;
        }
        again += calls.iter().filter(|call| call.ours("ATTEMPT") != "1").count();
    }
    assert!(taken_up > 0, "no crash came before anything had begun");
    println!("{again} hooks were run again, {taken_up} jobs taken up");
}

#[test]
fn a_hook_that_a_crash_has_cut_off_is_run_again_under_its_key() {
    let mut hooks = vec![Hook::new(BeforeJob, "slow"), Hook::new(Always, "ok")];
    hooks[0].timeout = Duration::from_hours(1);
    // The first place at which the hook is at it.
    let at_it = (1..).find_map(|dies| {
        let outside = Outside::new();
        let (over, at, _) = outside.first(Some(dies), &hooks);
        assert!(!over);
        (!outside.noting.calls().is_empty()).then_some((outside, at))
    });
    let (outside, at) = at_it.unwrap();
    let job = outside.second(at).unwrap();
    assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
    let calls = outside.noting.calls();
    assert_eq!(outside.noting.came(), ["before_job slow", "before_job slow", "always ok"]);
    assert_eq!(calls[0].ours("KEY"), calls[1].ours("KEY"));
    assert_eq!((calls[0].ours("ATTEMPT"), calls[1].ours("ATTEMPT")), ("1", "2"));
    assert_eq!(job.tally(), (1, 1));
}

#[test]
fn what_a_hook_ends_with_is_kept_as_it_is() {
    let end = stillpoint::model::hook::HookEnd::new(HookStatus::Exited(2)).with_output("x", 5);
    let stored = r#"{"status":{"exited":2},"output":"x","cut":5}"#;
    assert_eq!(serde_json::to_string(&end).unwrap(), stored);
    assert_eq!(serde_json::from_str::<stillpoint::model::hook::HookEnd>(stored).unwrap(), end);
}
