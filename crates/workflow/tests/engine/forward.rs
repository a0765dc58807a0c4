//! Going forward: order, data, retries, time-outs, panics, facts, subscriptions.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use stillpoint_context::{Effect, Failure};
use stillpoint_workflow::*;

use super::common::*;

#[test]
fn steps_run_after_their_predecessors_and_side_by_side_otherwise() {
    for_seeds(200, |sim| {
        let (engine, trace) = (engine(&sim), Trace::default());
        let mut plan = PlanBuilder::new("diamond");
        let a = plan.step("a", trace.step("a")).add();
        let b = plan.step("b", trace.step("b")).after(a).add();
        let c = plan.step("c", trace.step("c")).after(a).add();
        plan.step("d", trace.step("d")).after(b).after(c).add();
        let plan = plan.build().unwrap();
        sim.run(async {
            let run = engine.submit(Submission::new(plan)).await.unwrap();
            assert_eq!(run.wait().await.unwrap().end(), End::Succeeded);
            replays(&run).await;
        });
        for (first, second) in [("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")] {
            trace.ordered(first, second);
        }
    });
}

#[test]
fn values_travel_along_handles_tuples_and_lists() {
    for_seeds(20, |sim| {
        let engine = engine(&sim);
        let mut plan = PlanBuilder::new("sum");
        let start = plan.input::<u32>("start");
        let parts: Vec<_> = (1..4_u32)
            .map(|n| {
                let call = step_fn(move |_, start: u32| async move { Ok(Done::new(start * n)) });
                plan.step(format!("part:{n}"), call).bind(start).add()
            })
            .collect();
        let sum = step_fn(|_, (start, parts): (u32, Vec<u32>)| async move {
            Ok(Done::new(start + parts.iter().sum::<u32>()))
        });
        let sum = plan.step("sum", sum).bind((start, parts)).add();
        let plan = plan.build().unwrap();
        sim.run(async {
            let missing = engine.submit(Submission::new(plan.clone())).await.unwrap_err();
            assert!(matches!(missing, EngineError::MissingInput { .. }));
            let run = engine.submit(Submission::new(plan).input(&start, &10)).await.unwrap();
            let report = run.wait().await.unwrap();
            assert_eq!(report.output_of(&sum).unwrap(), 70);
            replays(&run).await;
        });
    });
}

/// A step that fails `times` times, then succeeds; it asserts that its key stays the same.
fn flaky(times: u32, failure: Failure) -> (Call<(), ()>, Arc<AtomicU32>) {
    let calls = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&calls);
    let call = step_fn(move |cx, ()| {
        let (count, failure) = (Arc::clone(&count), failure.clone());
        async move {
            let call = count.fetch_add(1, Ordering::SeqCst) + 1;
            assert_eq!(cx.attempt().0, call);
            assert_eq!(cx.key().as_str(), format!("{}/{}", cx.run(), cx.step()));
            assert!(cx.fence().0 > 0);
            if call <= times { Err(failure) } else { Ok(Done::new(())) }
        }
    });
    (call, calls)
}

#[test]
fn a_retryable_failure_is_tried_again_and_a_refusal_is_not() {
    for_seeds(50, |sim| {
        let engine = engine(&sim);
        let case = |failure: Failure, attempts: u32| {
            let (call, calls) = flaky(2, failure);
            let mut plan = PlanBuilder::new("flaky");
            plan.step("flaky", call).retry(Retry::times(attempts)).add();
            (plan.build().unwrap(), calls)
        };
        sim.run(async {
            for (failure, attempts, end, made) in [
                (hiccup(Effect::None), 3, End::Succeeded, 3),
                (hiccup(Effect::None), 2, End::Failed, 2),
                (refusal(Effect::None), 3, End::Failed, 1),
                // Unknown effect, no probe, not idempotent: not repeated, and what it left is debris.
                (hiccup(Effect::Unknown), 3, End::NeedsAttention, 1),
            ] {
                let (plan, calls) = case(failure, attempts);
                let run = engine.submit(Submission::new(plan)).await.unwrap();
                let report = run.wait().await.unwrap();
                assert_eq!((report.end(), calls.load(Ordering::SeqCst)), (end, made));
                replays(&run).await;
            }
        });
    });
}

#[test]
fn an_idempotent_step_is_repeated_after_a_time_out_and_a_panic() {
    for_seeds(50, |sim| {
        let engine = engine(&sim);
        let calls = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&calls);
        let call = step_fn(move |_, ()| {
            let call = count.fetch_add(1, Ordering::SeqCst);
            async move {
                match call {
                    0 => std::future::pending().await,
                    1 => panic!("second time unlucky"),
                    _ => Ok(Done::new(())),
                }
            }
        })
        .idempotent();
        let mut plan = PlanBuilder::new("stubborn");
        let timeout = Duration::from_secs(3);
        plan.step("stubborn", call).timeout(timeout).retry(Retry::times(3)).add();
        let plan = plan.build().unwrap();
        sim.run(async {
            let run = engine.submit(Submission::new(plan)).await.unwrap();
            let report = run.wait().await.unwrap();
            assert_eq!(report.end(), End::Succeeded);
            assert_eq!(report.attempts(report.plan().find("stubborn").unwrap()), 3);
            replays(&run).await;
        });
    });
}

/// A step whose effect is seen by its probe.
#[derive(Debug)]
struct Array {
    attempts: AtomicU32,
    answer: fn(u32) -> Probe<u32>,
    probes: Arc<AtomicU32>,
}

#[async_trait::async_trait]
impl Action for Array {
    const NAME: &'static str = "test.array";
    const EFFECT: EffectKind = EffectKind::Reversible;
    type Params = u32;
    type Input = ();
    type Output = u32;

    async fn run(
        &self,
        cx: &stillpoint_context::Cx,
        params: &u32,
        (): (),
    ) -> Result<Done<u32>, Failure> {
        if self.attempts.fetch_add(1, Ordering::SeqCst) == 0 {
            cx.sleep(Duration::from_hours(1)).await.map_err(|error| Failure::of(&error))?;
        }
        Ok((*params).into())
    }

    async fn undo(
        &self,
        _: &stillpoint_context::Cx,
        _: &u32,
        (): (),
        _: Known<u32>,
    ) -> Result<Undone, Failure> {
        Ok(Undone::clean())
    }

    async fn probe(
        &self,
        _: &stillpoint_context::Cx,
        _: &u32,
        (): (),
    ) -> Result<Probe<u32>, Failure> {
        Ok((self.answer)(self.probes.fetch_add(1, Ordering::SeqCst)))
    }
}

#[test]
fn what_a_probe_finds_decides_what_follows_a_time_out() {
    type Case = (fn(u32) -> Probe<u32>, End, u32, u32);
    let cases: [Case; 4] = [
        (|_| Probe::Done(42), End::Succeeded, 1, 42),
        (|_| Probe::NotDone, End::Succeeded, 2, 7),
        (
            |n| if n == 0 { Probe::InFlight(Duration::from_secs(9)) } else { Probe::Done(42) },
            End::Succeeded,
            1,
            42,
        ),
        (|_| Probe::Unknown, End::Failed, 1, 0),
    ];
    for (answer, end, attempts, output) in cases {
        for_seeds(30, |sim| {
            let mut registry = ActionRegistry::new();
            let array = Array { attempts: AtomicU32::new(0), answer, probes: Arc::default() };
            registry.register(array).unwrap();
            let journal = Arc::new(MemoryJournal::new());
            let engine =
                Engine::builder(registry, journal, sim.seams(), sim.lanes()).audited().build();
            let mut plan = PlanBuilder::new("probe");
            let snap = Array::with(7);
            let snap =
                plan.step("snap", snap).timeout(Duration::from_secs(5)).retry(Retry::times(2));
            let snap = snap.add();
            let plan = plan.build().unwrap();
            sim.run(async {
                let run = engine.submit(Submission::new(plan)).await.unwrap();
                let report = run.wait().await.unwrap();
                assert_eq!((report.end(), report.attempts(snap.node())), (end, attempts));
                if end == End::Succeeded {
                    assert_eq!(report.output_of(&snap).unwrap(), output);
                }
                replays(&run).await;
            });
        });
    }
}

#[test]
fn a_plan_of_actions_survives_storage_and_an_unknown_action_is_refused() {
    let mut plan = PlanBuilder::new("stored");
    plan.step("snap", Array::with(7)).add();
    let plan = plan.build().unwrap();
    let text = serde_json::to_string(&plan).unwrap();
    let read: Plan = serde_json::from_str(&text).unwrap();
    assert_eq!(read, plan);
    let newer = text.replacen(&format!("\"format\":{PLAN_FORMAT}"), "\"format\":9", 1);
    let error = serde_json::from_str::<Plan>(&newer).unwrap_err().to_string();
    let known = format!("up to {PLAN_FORMAT}");
    assert!(error.contains("format 9") && error.contains(&known), "{error}");
    for_seeds(1, |sim| {
        let engine = engine(&sim);
        let error = sim.run(engine.submit(Submission::new(read.clone()))).unwrap_err();
        assert!(matches!(error, EngineError::UnknownAction { .. }));
    });
}

#[test]
fn facts_are_in_the_commit_of_the_step_that_states_them() {
    for_seeds(20, |sim| {
        let engine = engine(&sim);
        let topic = Topic::new("restore-point").unwrap();
        let theirs = topic.clone();
        let mut plan = PlanBuilder::new("publish");
        let publish = step_fn(move |_, ()| {
            let fact = FactDraft::new(theirs.clone(), "p1", &b"opaque"[..]);
            async move { Ok(Done::new(()).with_fact(fact)) }
        });
        let publish = plan.step("publish", publish).add();
        let plan = plan.build().unwrap();
        sim.run(async {
            let run = engine.submit(Submission::new(plan)).await.unwrap();
            run.wait().await.unwrap();
            let facts = engine.journal().facts(&topic, Position(0), 10).await.unwrap();
            assert_eq!((facts.len(), facts[0].run), (1, run.id()));
            let mut records = run.subscribe(Seq(0));
            let mut at = None;
            while let Some(stored) = records.next().await.unwrap() {
                if matches!(&stored.record, Record::Run(RunRecord::Succeeded { node, .. }) if *node == publish.node())
                {
                    at = Some(stored.position);
                }
            }
            assert_eq!(at, Some(facts[0].position));
        });
    });
}

#[test]
fn a_subscriber_gets_every_record_from_any_number_on_and_then_the_end() {
    for_seeds(50, |sim| {
        let engine = engine(&sim);
        let trace = Trace::default();
        let mut plan = PlanBuilder::new("chain");
        let mut last = plan.step("s0", trace.step("s0")).add();
        for at in 1..20 {
            let name = format!("s{at}");
            last = plan.step(&name, trace.step(&name)).after(last).add();
        }
        let plan = plan.build().unwrap();
        let seams = sim.seams();
        sim.run(async {
            let run = engine.submit(Submission::new(plan)).await.unwrap();
            let mut early = run.subscribe(Seq(3));
            let mut numbers = Vec::new();
            while let Some(stored) = early.next().await.unwrap() {
                numbers.push(stored.seq.0);
                // A slow reader: the engine is long done before it is.
                pause(&seams, Duration::from_secs(1)).await;
            }
            assert_eq!(numbers, (3..run.status().records).collect::<Vec<_>>());
        });
    });
}

#[test]
fn an_optional_step_gives_its_failure_to_those_after_it_and_a_warning() {
    for_seeds(50, |sim| {
        let (engine, trace) = (engine(&sim), Trace::default());
        let mut plan = PlanBuilder::new("optional");
        let undo = trace.clone();
        let shaky = step_fn(|_, ()| async { Err::<Done<u32>, _>(refusal(Effect::Unknown)) }).undo(
            move |_, (), known| {
                assert_eq!(known, Known::Unknown);
                undo.note("undo shaky");
                async { Ok(Undone::clean()) }
            },
        );
        let first = plan.step("first", trace.step("first")).add();
        let shaky = plan.step("shaky", shaky).after(first).optional().add();
        let after = step_fn(|_, result: Result<u32, Failure>| async move {
            Ok(Done::new(result.unwrap_err().code.to_string()))
        });
        let after = plan.step("after", after).bind(shaky).add();
        let plan = plan.build().unwrap();
        sim.run(async {
            let run = engine.submit(Submission::new(plan)).await.unwrap();
            let report = run.wait().await.unwrap();
            assert_eq!(report.end(), End::SucceededWithWarnings);
            assert_eq!(report.output_of(&after).unwrap(), "test.refused");
            assert_eq!(report.output_of(&shaky).unwrap().unwrap_err().code, "test.refused");
            assert_eq!(trace.all(), ["first", "undo shaky"]);
            replays(&run).await;
        });
    });
}

#[test]
fn one_key_is_one_run() {
    for_seeds(20, |sim| {
        let (engine, trace) = (engine(&sim), Trace::default());
        let plan = |name: &str| {
            let mut plan = PlanBuilder::new("keyed");
            plan.step(name, trace.step(name)).add();
            plan.build().unwrap()
        };
        let key = stillpoint_context::IdempotencyKey::new("request-1").unwrap();
        let (one, other) = (plan("one"), plan("other"));
        sim.run(async {
            let submit =
                |plan: &Plan| engine.submit(Submission::new(plan.clone()).key(key.clone()));
            let (a, b) = futures_util::future::join(submit(&one), submit(&one)).await;
            let (a, b) = (a.unwrap(), b.unwrap());
            assert_eq!(a.id(), b.id());
            a.wait().await.unwrap();
            let error = submit(&other).await.unwrap_err();
            assert!(matches!(error, EngineError::KeyReused { run, .. } if run == a.id()));
        });
        assert_eq!(trace.count("one"), 1);
    });
}
