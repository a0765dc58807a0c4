//! Generated plans with failures, time-outs, panics, guards and cancels, checked against what the engine promises.
//!
//! A failure prints the generated case; `PROPTEST_CASES=5000 cargo test -p stillpoint-workflow --test properties` looks
//! at more of them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking"
)]

mod common;
mod naive;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::*;
use proptest::prelude::*;
use stillpoint_context::{Cx, Effect, Failure};
use stillpoint_workflow::testing::{HookJournal, Sim};
use stillpoint_workflow::*;

const MILLI: Duration = Duration::from_millis(1);

/// What one attempt of a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Does {
    Work,
    FailNone,
    FailUnknown,
    Panic,
    Hang,
}

#[derive(Debug, Clone)]
struct StepSpec {
    /// One for each attempt; the last for all further ones.
    does: Vec<Does>,
    after: Vec<usize>,
    optional: bool,
    idempotent: bool,
    attempts: u32,
    /// How often its undo fails.
    undo_fails: u32,
    millis: u64,
}

#[derive(Debug, Clone)]
struct GuardSpec {
    after: Vec<usize>,
    enters: Vec<Does>,
    exits: Vec<Does>,
    body: Vec<StepSpec>,
    limited: bool,
}

#[derive(Debug, Clone)]
struct Case {
    seed: u64,
    steps: Vec<StepSpec>,
    guard: Option<GuardSpec>,
    /// Whether a point of no return and a step after it end the plan, and what they do.
    point: Option<(Does, Does)>,
    cancel: Option<u64>,
}

fn does() -> impl Strategy<Value = Does> {
    prop_oneof![
        12 => Just(Does::Work),
        1 => Just(Does::FailNone),
        1 => Just(Does::FailUnknown),
        1 => Just(Does::Panic),
        1 => Just(Does::Hang),
    ]
}

fn step(at: usize) -> impl Strategy<Value = StepSpec> {
    let after = proptest::collection::vec(0..at.max(1), 0..=at.min(3));
    let flags = (prop::bool::weighted(0.15), any::<bool>(), 1..=3_u32, 0..=5_u32, 1..50_u64);
    (proptest::collection::vec(does(), 1..=3), after, flags).prop_map(
        move |(does, mut after, (optional, idempotent, attempts, undo, millis))| {
            if at == 0 {
                after.clear();
            }
            after.sort_unstable();
            after.dedup();
            // Most undos work at once.
            let undo_fails = undo.saturating_sub(3) * 3;
            StepSpec { does, after, optional, idempotent, attempts, undo_fails, millis }
        },
    )
}

fn steps(most: usize) -> impl Strategy<Value = Vec<StepSpec>> {
    (1..=most).prop_flat_map(|count| (0..count).map(step).collect::<Vec<_>>())
}

fn case() -> impl Strategy<Value = Case> {
    steps(6).prop_flat_map(|steps| {
        let count = steps.len();
        let after = proptest::collection::vec(0..count, 0..=2);
        let parts = |most| proptest::collection::vec(does(), 1..=most);
        let guard = (after, parts(2), parts(1), steps_of_body(), any::<bool>()).prop_map(
            |(mut after, enters, exits, body, limited)| {
                after.sort_unstable();
                after.dedup();
                let exits = enters.iter().map(|_| exits[0]).collect();
                GuardSpec { after, enters, exits, body, limited }
            },
        );
        let point = proptest::option::of((does(), does()));
        let cancel = proptest::option::weighted(0.3, 0..400_u64);
        (any::<u64>(), Just(steps), proptest::option::of(guard), point, cancel).prop_map(
            |(seed, steps, guard, point, cancel)| Case { seed, steps, guard, point, cancel },
        )
    })
}

fn steps_of_body() -> impl Strategy<Value = Vec<StepSpec>> {
    steps(3)
}

/// What happened to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Begins,
    Succeeds,
    /// Its future is gone.
    Ends,
    UndoBegins,
    UndoSucceeds,
    UndoEnds,
}

#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<(String, What)>>>);

impl Log {
    fn note(&self, name: &str, what: What) {
        self.0.lock().unwrap().push((name.to_owned(), what));
    }

    fn all(&self) -> Vec<(String, What)> {
        self.0.lock().unwrap().clone()
    }
}

/// Notes when a future is gone, however it goes.
struct Gone(Log, String, What);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.note(&self.1, self.2);
    }
}

#[derive(Debug, Clone)]
struct World {
    log: Log,
    journal: Arc<dyn Journal>,
}

impl World {
    /// Whether the journal has a record that announces this call.
    async fn intended(&self, cx: &Cx, announces: impl Fn(&RunRecord, &Plan) -> bool) -> bool {
        let stream = StreamId::Run(cx.run());
        let stored = self.journal.read(&stream, Seq(0), usize::MAX).await.unwrap();
        let records: Vec<_> = stored
            .into_iter()
            .filter_map(|stored| match stored.record {
                Record::Run(record) => Some(record),
                _ => None,
            })
            .collect();
        let RunRecord::Submitted(submitted) = &records[0] else { return false };
        records.iter().any(|record| announces(record, &submitted.plan))
    }

    async fn act(self, cx: Cx, does: Does, millis: u64) -> Result<(), Failure> {
        let name = cx.step().as_str().to_owned();
        let attempt = cx.attempt().0;
        let intended = self
            .intended(&cx, |record, plan| match record {
                RunRecord::Intended { node, attempt: n } => {
                    plan.node(*node).name.as_str() == name && *n == attempt
                }
                RunRecord::Armed { guard } => {
                    plan.nodes().iter().any(|n| n.name.as_str() == name && n.within == Some(*guard))
                }
                _ => false,
            })
            .await;
        assert!(intended, "{name} acts before its intent is durable");
        self.log.note(&name, What::Begins);
        let _gone = Gone(self.log.clone(), name.clone(), What::Ends);
        match does {
            Does::Work => {
                let slept = cx.sleep(Duration::from_millis(millis)).await;
                slept.map_err(|error| Failure::of(&error))?;
                self.log.note(&name, What::Succeeds);
                Ok(())
            }
            Does::FailNone => Err(hiccup(Effect::None)),
            Does::FailUnknown => Err(hiccup(Effect::Unknown)),
            Does::Panic => panic!("as told"),
            Does::Hang => std::future::pending().await,
        }
    }

    async fn undo(self, cx: Cx, fails: u32) -> Result<Undone, Failure> {
        let name = cx.step().as_str().to_owned();
        let attempt = cx.attempt().0;
        let intended = self
            .intended(&cx, |record, plan| {
                matches!(record, RunRecord::UndoIntended { node, attempt: n }
                    if plan.node(*node).name.as_str() == name && *n == attempt)
            })
            .await;
        assert!(intended, "{name} is undone before that is durable");
        self.log.note(&name, What::UndoBegins);
        let _gone = Gone(self.log.clone(), name.clone(), What::UndoEnds);
        cx.sleep(MILLI).await.map_err(|error| Failure::of(&error))?;
        if attempt <= fails {
            return Err(hiccup(Effect::Unknown));
        }
        self.log.note(&name, What::UndoSucceeds);
        Ok(Undone::clean())
    }

    fn call(&self, spec: &StepSpec) -> Call<(), ()> {
        let (world, undo_world, run, fails) =
            (self.clone(), self.clone(), spec.clone(), spec.undo_fails);
        let call = step_fn(move |cx: Cx, ()| {
            let at = (cx.attempt().0 as usize - 1).min(run.does.len() - 1);
            let act = world.clone().act(cx, run.does[at], run.millis);
            async move { act.await.map(Done::new) }
        })
        .undo(move |cx, (), _| undo_world.clone().undo(cx, fails));
        if spec.idempotent { call.idempotent() } else { call }
    }

    fn plain(&self, does: Does) -> Call<(), ()> {
        let world = self.clone();
        step_fn(move |cx: Cx, ()| {
            let act = world.clone().act(cx, does, 5);
            async move { act.await.map(Done::new) }
        })
    }

    fn exit(&self, does: Does) -> Call<(Known<()>, ()), ()> {
        let world = self.clone();
        step_fn(move |cx: Cx, (_, ()): (Known<()>, ())| {
            // The third attempt of an exit always works.
            let does = if cx.attempt().0 >= 3 { Does::Work } else { does };
            let act = world.clone().act(cx, does, 5);
            async move { act.await.map(Done::new) }
        })
    }

    fn plan(&self, case: &Case) -> Plan {
        let mut plan = PlanBuilder::new("generated");
        plan.grace(30 * MILLI);
        let mut outs: Vec<NodeNo> = Vec::new();
        let mut after: Vec<Box<dyn Handle<Outside>>> = Vec::new();
        for (at, spec) in case.steps.iter().enumerate() {
            let mut step = plan
                .step(format!("s{at}"), self.call(spec))
                .timeout(200 * MILLI)
                .retry(Retry::times(spec.attempts).backoff(MILLI, 20 * MILLI))
                .undo_timeout(Duration::from_secs(1))
                .undo_retry(Retry::times(3).backoff(MILLI, 20 * MILLI));
            for before in &spec.after {
                step = step.after(&*after[*before]);
            }
            if spec.optional {
                let out = step.optional().add();
                outs.push(out.node());
                after.push(Box::new(out));
            } else {
                let out = step.add();
                outs.push(out.node());
                after.push(Box::new(out));
            }
        }
        if let Some(spec) = &case.guard {
            let mut guard = plan
                .guard("guard")
                .limit(spec.limited.then_some(120 * MILLI))
                .exit_timeout(20 * MILLI)
                .exit_retry(Retry::times(2).backoff(MILLI, MILLI));
            for before in &spec.after {
                guard = guard.after(&*after[*before]);
            }
            for (at, (enter, exit)) in spec.enters.iter().zip(&spec.exits).enumerate() {
                // Without a limit nothing ends an enter that hangs.
                let enter = if spec.limited || *enter != Does::Hang { *enter } else { Does::Work };
                guard = guard.member(format!("m{at}"), self.plain(enter), self.exit(*exit));
            }
            let (verdict, ()) = guard
                .body(|body| {
                    let mut made = Vec::new();
                    for (at, spec_of) in spec.body.iter().enumerate() {
                        let mut once = spec_of.clone();
                        if !spec.limited && once.does[0] == Does::Hang {
                            once.does = vec![Does::Work];
                        }
                        let mut step = body
                            .step(format!("b{at}"), self.call(&once))
                            .undo_retry(Retry::times(3).backoff(MILLI, 20 * MILLI));
                        for before in &spec_of.after {
                            step = step.after(made[*before]);
                        }
                        made.push(step.add());
                    }
                })
                .close();
            after.push(Box::new(verdict));
        }
        if let Some((point, late)) = case.point {
            let mut step = plan.step("point", self.plain(point)).timeout(200 * MILLI).no_return();
            for before in &after {
                step = step.after(&**before);
            }
            let point = step.add();
            plan.step("late", self.plain(late)).timeout(200 * MILLI).after(point).add();
        }
        plan.build().unwrap()
    }
}

fn check(case: &Case) {
    let sim = Sim::new(case.seed);
    let journal = HookJournal::jitter(MemoryJournal::new(), &sim, 3 * MILLI);
    let journal: Arc<dyn Journal> = Arc::new(journal);
    let world = World { log: Log::default(), journal: Arc::clone(&journal) };
    let engine = engine_over(&sim, journal);
    let plan = world.plan(case);
    let (seams, submitted) = (sim.seams(), plan.clone());
    let report = sim.run(async {
        let run = engine.submit(Submission::new(submitted)).await.unwrap();
        if let Some(after) = case.cancel {
            pause(&seams, Duration::from_millis(after)).await;
            run.cancel("op").await.unwrap();
        }
        for _ in 0..3 {
            if run.settled().await.unwrap().phase != RunPhase::Parked {
                break;
            }
            // An owed exit works when it is asked again; what failed past the point of no return is given up.
            pause(&seams, Duration::from_secs(100)).await;
            match run.status().parked.first().map(|parked| parked.1.reason) {
                Some(ParkReason::ExitOwed) => run.resume("op").await.unwrap(),
                Some(_) => run.abandon("op").await.unwrap(),
                None => {}
            }
            pause(&seams, Duration::from_secs(1)).await;
        }
        replays(&run).await;
        let report = run.wait().await.unwrap();
        for node in report.plan().nodes() {
            let begun = |what| {
                world.log.all().iter().filter(|e| **e == (node.name.to_string(), what)).count()
            };
            assert_eq!(begun(What::Begins), begun(What::Ends), "{} is still at work", node.name);
            assert_eq!(begun(What::UndoBegins), begun(What::UndoEnds));
        }
        report
    });
    Checker { case, plan: &plan, log: world.log.all(), report: &report }.check();
}

struct Checker<'a> {
    case: &'a Case,
    plan: &'a Plan,
    log: Vec<(String, What)>,
    report: &'a RunReport,
}

impl Checker<'_> {
    fn first(&self, name: &str, what: What) -> Option<usize> {
        self.log.iter().position(|(n, w)| n == name && *w == what)
    }

    fn last(&self, name: &str, what: What) -> Option<usize> {
        self.log.iter().rposition(|(n, w)| n == name && *w == what)
    }

    /// Direct predecessors among the steps that leave traces, with what has to have happened to them.
    fn edges(&self) -> Vec<(String, String)> {
        let mut edges = Vec::new();
        for (at, spec) in self.case.steps.iter().enumerate() {
            edges.extend(spec.after.iter().map(|before| (format!("s{before}"), format!("s{at}"))));
        }
        if let Some(guard) = &self.case.guard {
            for (at, spec) in guard.body.iter().enumerate() {
                edges.extend(
                    spec.after.iter().map(|before| (format!("b{before}"), format!("b{at}"))),
                );
                edges.extend(
                    guard.after.iter().map(|before| (format!("s{before}"), format!("b{at}"))),
                );
            }
        }
        edges
    }

    fn check(&self) {
        let end = self.report.end();
        let optional = |name: &str| {
            self.plan.find(name).is_some_and(|node| match &self.plan.node(node).kind {
                NodeKind::Step(step) => step.optional,
                _ => false,
            })
        };
        for (before, after) in self.edges() {
            if let Some(begins) = self.first(&after, What::Begins) {
                let settled = self.first(&before, What::Succeeds).is_some_and(|at| at < begins);
                assert!(
                    settled || optional(&before),
                    "{after} began before {before} had succeeded"
                );
            }
            if let Some(undo) = self.first(&before, What::UndoBegins)
                && !optional(&before)
                && self.first(&after, What::Begins).is_some()
                && let Some(theirs) = self.last(&after, What::UndoEnds)
            {
                assert!(theirs < undo, "{before} was undone before its successor {after}");
            }
        }
        let undone = |name: &str| self.first(name, What::UndoBegins).is_some();
        let crossed = self.first("point", What::Begins).is_some()
            && !self
                .report
                .steps()
                .any(|s| s.name.as_str() == "point" && s.progress == NodeProgress::Undone);
        for step in self.report.steps() {
            let name = step.name.as_str();
            let is_body = name.starts_with('b');
            if !name.starts_with('s') && !is_body {
                continue;
            }
            let begun = self.first(name, What::Begins).is_some();
            let succeeded = self.first(name, What::Succeeds).is_some();
            assert!(begun || !undone(name) || is_body, "{name} was undone and had never begun");
            if matches!(end, End::Failed | End::Cancelled) {
                assert!(!succeeded || undone(name), "{name} had succeeded and was not undone");
            }
            if matches!(end, End::Succeeded) {
                assert!(succeeded && !undone(name), "{name} in a run that succeeded");
            }
            if crossed && !step.name.as_str().starts_with('b') && succeeded && !optional(name) {
                assert!(!undone(name), "{name} was undone past the point of no return");
            }
        }
        if let Some(guard) = &self.case.guard {
            for at in 0..guard.enters.len() {
                let (enter, exit) = (format!("guard/m{at}/enter"), format!("guard/m{at}/exit"));
                let Some(entered) = self.first(&enter, What::Begins) else { continue };
                let left = self.last(&exit, What::Succeeds);
                assert!(left.is_some_and(|left| left > entered), "{enter} began and was not left");
                for body in (0..guard.body.len()).map(|at| format!("b{at}")) {
                    if let Some(undo) = self.first(&body, What::UndoBegins) {
                        assert!(left < Some(undo), "{body} was undone before the exit");
                    }
                }
            }
            let all_entered = (0..guard.enters.len())
                .map(|at| self.first(&format!("guard/m{at}/enter"), What::Succeeds))
                .collect::<Option<Vec<_>>>();
            for body in (0..guard.body.len()).map(|at| format!("b{at}")) {
                if let Some(begins) = self.first(&body, What::Begins) {
                    let held =
                        all_entered.as_ref().is_some_and(|all| all.iter().all(|at| *at < begins));
                    assert!(held, "{body} began before all members held");
                }
            }
        }
        self.check_naive(end);
        let debris: BTreeMap<_, _> =
            self.report.debris().iter().map(|debris| (debris.step.as_str(), debris)).collect();
        assert_eq!(end == End::NeedsAttention, !debris.is_empty());
    }
}

impl Checker<'_> {
    /// What the naive model says of the case.
    fn check_naive(&self, end: End) {
        let allowed = naive::allowed(self.case);
        assert!(allowed.ends.contains(&end), "it ended as {end:?}, allowed is {:?}", allowed.ends);
        let begun = |name: &str| {
            self.log.iter().filter(|(n, what)| n == name && *what == What::Begins).count()
        };
        for name in &allowed.never {
            assert_eq!(begun(name), 0, "{name} comes after a failure");
        }
        for name in &allowed.must {
            assert!(begun(name) > 0, "{name} comes before the failure and never began");
        }
        let whole = matches!(end, End::Succeeded | End::SucceededWithWarnings);
        for (name, attempts) in &allowed.attempts {
            if whole && self.case.cancel.is_none() {
                assert_eq!(begun(name), *attempts, "attempts of {name}");
            }
            assert!(begun(name) <= *attempts, "{name} was tried too often");
        }
        if let Some(guard) = &self.case.guard {
            for at in 0..guard.body.len() {
                assert!(begun(&format!("b{at}")) <= 1, "no second attempt in a section");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn every_generated_run_keeps_the_promises(case in case()) {
        check(&case);
    }
}
