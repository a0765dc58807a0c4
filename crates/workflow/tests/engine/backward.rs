//! Failure, cancel, undo, the point of no return, parking.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use stillpoint_context::{Attempt, Cx, Effect, Failure, Subject};
use stillpoint_workflow::testing::Sim;
use stillpoint_workflow::*;

use super::common::*;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_failure_undoes_what_was_done_in_reverse_and_ends_clean() {
    for_seeds(200, |sim| {
        let (engine, trace) = (engine(&sim), Trace::default());
        let mut plan = PlanBuilder::new("undo");
        let a = plan.step("a", trace.step("a")).add();
        let b = plan.step("b", trace.step("b")).after(a).add();
        let c = plan.step("c", trace.step("c")).after(a).add();
        let bad = plan.step("bad", failing(refusal(Effect::None))).after(b).after(c).add();
        plan.step("never", trace.step("never")).after(bad).add();
        let plan = plan.build().unwrap();
        sim.run(async {
            let run = engine.submit(Submission::new(plan)).await.unwrap();
            let report = run.wait().await.unwrap();
            assert_eq!(report.end(), End::Failed);
            assert_eq!(report.failure().unwrap().code, "test.refused");
            assert_eq!(report.failed_node(), Some(bad.node()));
            assert_eq!(report.step_named("never").unwrap().progress, NodeProgress::Skipped);
            replays(&run).await;
        });
        trace.ordered("undo b", "undo a");
        trace.ordered("undo c", "undo a");
        assert_eq!(trace.all().len(), 6, "each step is done and undone once: {:?}", trace.all());
    });
}

#[test]
fn independent_branches_are_undone_side_by_side() {
    for_seeds(20, |sim| {
        let engine = engine(&sim);
        let slow = || {
            step_fn(|_, ()| async { Ok(Done::new(())) }).undo(|cx: Cx, (), _| async move {
                cx.sleep(10 * SECOND).await.map_err(|error| Failure::of(&error))?;
                Ok(Undone::clean())
            })
        };
        let mut plan = PlanBuilder::new("wide");
        let made: Vec<_> = (0..5).map(|n| plan.step(format!("s{n}"), slow()).add()).collect();
        let mut bad = plan.step("bad", failing(refusal(Effect::None)));
        for step in made {
            bad = bad.after(step);
        }
        bad.add();
        let plan = plan.build().unwrap();
        let clock = sim.seams().clock;
        sim.run(async {
            let before = clock.mono();
            let run = engine.submit(Submission::new(plan)).await.unwrap();
            assert_eq!(run.wait().await.unwrap().end(), End::Failed);
            assert!(clock.mono().saturating_since(before) < 12 * SECOND);
        });
    });
}

#[test]
fn a_cancel_stops_running_steps_and_undoes_the_rest() {
    for_seeds(300, |sim| {
        let (engine, trace) = (engine(&sim), Trace::default());
        let mut plan = PlanBuilder::new("cancelled");
        let a = plan.step("a", trace.step_in("a", SECOND)).add();
        let b = plan.step("b", trace.step_in("b", 5 * SECOND)).after(a).add();
        plan.step("c", trace.step_in("c", SECOND)).after(b).add();
        let plan = plan.build().unwrap();
        let seams = sim.seams();
        // At every phase of the run, by the seed.
        let when = Duration::from_millis(sim.random() % 8000);
        sim.run(async {
            let run = engine.submit(Submission::new(plan)).await.unwrap();
            pause(&seams, when).await;
            let answer = run.cancel("operator").await.unwrap();
            let report = run.wait().await.unwrap();
            match answer {
                CancelAnswer::Accepted => {
                    assert_eq!(report.end(), End::Cancelled);
                    assert_eq!(report.cancelled_by(), Some("operator"));
                }
                CancelAnswer::Ended => assert_eq!(report.end(), End::Succeeded),
                CancelAnswer::TooLate { .. } => unreachable!("there is no point of no return"),
            }
            if report.end() == End::Cancelled {
                for step in ["a", "b", "c"] {
                    let (done, undone) = (trace.count(step), trace.count(&format!("undo {step}")));
                    assert!(undone >= done, "{step}: done {done}, undone {undone}");
                }
            }
            replays(&run).await;
        });
    });
}

#[test]
fn a_step_that_does_not_stop_is_dropped_after_its_grace_and_undone_as_unknown() {
    for_seeds(50, |sim| {
        let engine = engine(&sim);
        let told = Arc::new(AtomicBool::new(false));
        let tell = Arc::clone(&told);
        let deaf = hanging().undo(move |_, (), known| {
            tell.store(known == Known::Unknown, Ordering::SeqCst);
            async { Ok(Undone::clean()) }
        });
        let mut plan = PlanBuilder::new("deaf");
        plan.step("deaf", deaf).grace(3 * SECOND).add();
        let plan = plan.build().unwrap();
        let seams = sim.seams();
        sim.run(async {
            let run = engine.submit(Submission::new(plan)).await.unwrap();
            pause(&seams, SECOND).await;
            let before = seams.clock.mono();
            assert_eq!(run.cancel("operator").await.unwrap(), CancelAnswer::Accepted);
            let report = run.wait().await.unwrap();
            assert_eq!(report.end(), End::Cancelled);
            let took = seams.clock.mono().saturating_since(before);
            assert!(took >= 3 * SECOND && took < 4 * SECOND, "{took:?}");
            replays(&run).await;
        });
        assert!(told.load(Ordering::SeqCst));
    });
}

#[test]
fn a_cancel_while_queued_ends_the_run_and_frees_its_place() {
    for_seeds(100, |sim| {
        let (engine, trace) = (engine(&sim), Trace::default());
        let plan = |name: &str, time| {
            let mut plan = PlanBuilder::new(name);
            plan.claim(Claim::exclusive(key("db/1")));
            plan.step(name, trace.step_in(name, time)).add();
            plan.build().unwrap()
        };
        let (first, second, third) =
            (plan("first", 60 * SECOND), plan("second", SECOND), plan("third", SECOND));
        sim.run(async {
            let first = engine.submit(Submission::new(first)).await.unwrap();
            let second = engine.submit(Submission::new(second)).await.unwrap();
            let third = engine.submit(Submission::new(third)).await.unwrap();
            assert_eq!(second.cancel("operator").await.unwrap(), CancelAnswer::Accepted);
            assert_eq!(second.wait().await.unwrap().end(), End::Cancelled);
            first.wait().await.unwrap();
            third.wait().await.unwrap();
            replays(&second).await;
        });
        assert_eq!(trace.all(), ["first", "third"]);
    });
}

#[test]
fn an_undo_that_keeps_failing_leaves_debris_and_the_rest_is_undone() {
    for_seeds(50, |sim| {
        let (engine, trace) = (engine(&sim), Trace::default());
        let tries = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&tries);
        let stuck = step_fn(|_, ()| async { Ok(Done::new(())) }).undo(move |_, (), _| {
            count.fetch_add(1, Ordering::SeqCst);
            let failure = hiccup(Effect::Unknown).with_subject(Subject::new("snapshot", "s-17"));
            async { Err(failure) }
        });
        let mut plan = PlanBuilder::new("debris");
        let a = plan.step("a", trace.step("a")).add();
        let stuck = plan.step("stuck", stuck).undo_retry(Retry::times(3)).after(a).add();
        plan.step("bad", failing(refusal(Effect::None))).after(stuck).add();
        let plan = plan.build().unwrap();
        sim.run(async {
            let run = engine.submit(Submission::new(plan)).await.unwrap();
            let report = run.wait().await.unwrap();
            assert_eq!(report.end(), End::NeedsAttention);
            let debris = &report.debris()[0];
            assert_eq!((debris.step.as_str(), debris.object.id.as_str()), ("stuck", "s-17"));
            assert!(!debris.possible);
            replays(&run).await;
        });
        assert_eq!(tries.load(Ordering::SeqCst), 3);
        assert_eq!(trace.all(), ["a", "undo a"]);
    });
}

/// before → point of no return → after, where the point does as told.
fn crossing(trace: &Trace, point: Call<(), ()>, after: Call<(), ()>) -> Plan {
    let mut plan = PlanBuilder::new("crossing");
    let before = plan.step("before", trace.step("before")).add();
    let point = plan.step("point", point).no_return().after(before).add();
    plan.step("after", after).after(point).add();
    plan.build().unwrap()
}

fn noting(trace: &Trace, name: &'static str) -> Call<(), ()> {
    let trace = trace.clone();
    step_fn(move |cx: Cx, ()| {
        let trace = trace.clone();
        async move {
            cx.sleep(SECOND).await.map_err(|error| Failure::of(&error))?;
            trace.note(name);
            Ok(Done::new(()))
        }
    })
}

#[test]
fn a_failure_past_the_point_of_no_return_parks_and_undoes_nothing() {
    for_seeds(50, |sim| {
        let (engine, trace) = (engine(&sim), Trace::default());
        let broken = Arc::new(AtomicBool::new(true));
        let switch = Arc::clone(&broken);
        let after = step_fn(move |_, ()| {
            let broken = switch.load(Ordering::SeqCst);
            async move { if broken { Err(refusal(Effect::None)) } else { Ok(Done::new(())) } }
        });
        let mut plan = PlanBuilder::new("parks");
        plan.claim(Claim::exclusive(key("db/1")));
        let before = plan.step("before", trace.step("before")).add();
        let point = plan.step("point", noting(&trace, "point")).no_return().after(before).add();
        plan.step("after", after).after(point).add();
        let plan = plan.build().unwrap();
        sim.run(async {
            let run = engine.submit(Submission::new(plan)).await.unwrap();
            let status = run.settled().await.unwrap();
            assert_eq!(status.phase, RunPhase::Parked);
            assert_eq!(status.parked[0].1.reason, ParkReason::PastNoReturn);
            assert_eq!(engine.parked()[0].1.as_str(), "after");
            assert_eq!(trace.all(), ["before", "point"]);
            // It keeps its claims.
            let mut rival = PlanBuilder::new("rival");
            rival.claim(Claim::shared(key("db")));
            rival.step("rival", trace.step("rival")).add();
            let rival = engine.submit(Submission::new(rival.build().unwrap())).await.unwrap();
            pause(&sim.seams(), 60 * SECOND).await;
            assert_eq!(rival.status().phase, RunPhase::Queued);
            let waiting = engine.waiting().await.unwrap();
            assert_eq!((waiting[0].run, waiting[0].holder), (rival.id(), run.id()));

            broken.store(false, Ordering::SeqCst);
            run.resume("operator").await.unwrap();
            assert_eq!(run.wait().await.unwrap().end(), End::Succeeded);
            assert_eq!(rival.wait().await.unwrap().end(), End::Succeeded);
            replays(&run).await;
        });
    });
}

#[test]
fn a_parked_run_is_resolved_by_hand_or_abandoned() {
    for_seeds(30, |sim| {
        let (engine, trace) = (engine(&sim), Trace::default());
        let plan = crossing(&trace, failing(refusal(Effect::Unknown)), noting(&trace, "after"));
        sim.run(async {
            let resolved = engine.submit(Submission::new(plan.clone())).await.unwrap();
            resolved.settled().await.unwrap();
            let none = resolved.resolve("op", "before", Resolution::Done(Payload::UNIT)).await;
            assert!(matches!(none, Err(EngineError::NotParked { .. })));
            resolved.resolve("op", "point", Resolution::Done(Payload::UNIT)).await.unwrap();
            assert_eq!(resolved.wait().await.unwrap().end(), End::Succeeded);
            replays(&resolved).await;

            let abandoned = engine.submit(Submission::new(plan)).await.unwrap();
            abandoned.settled().await.unwrap();
            abandoned.abandon("op").await.unwrap();
            let report = abandoned.wait().await.unwrap();
            assert_eq!(report.end(), End::NeedsAttention);
            let debris: Vec<_> =
                report.debris().iter().map(|d| (d.step.as_str(), d.possible)).collect();
            assert_eq!(debris, [("point", true)]);
            assert_eq!(trace.count("undo before"), 0);
            replays(&abandoned).await;
        });
    });
}

#[test]
fn a_point_of_no_return_without_effect_is_un_crossed() {
    for_seeds(30, |sim| {
        let (engine, trace) = (engine(&sim), Trace::default());
        let plan = crossing(&trace, failing(refusal(Effect::None)), noting(&trace, "after"));
        sim.run(async {
            let run = engine.submit(Submission::new(plan)).await.unwrap();
            assert_eq!(run.wait().await.unwrap().end(), End::Failed);
            replays(&run).await;
        });
        assert_eq!(trace.all(), ["before", "undo before"]);
    });
}

#[test]
fn a_late_cancel_is_answered_so_and_stops_only_what_follows() {
    for_seeds(200, |sim| {
        let (engine, trace) = (engine(&sim), Trace::default());
        let plan = crossing(&trace, noting(&trace, "point"), noting(&trace, "after"));
        let seams = sim.seams();
        let when = Duration::from_millis(sim.random() % 3000);
        sim.run(async {
            let run = engine.submit(Submission::new(plan)).await.unwrap();
            pause(&seams, when).await;
            let answer = run.cancel("op").await.unwrap();
            let report = run.wait().await.unwrap();
            match answer {
                CancelAnswer::TooLate { step } => {
                    assert_eq!(step.as_str(), "point");
                    assert_eq!(report.end(), End::SucceededWithWarnings);
                    assert_eq!((trace.count("point"), trace.count("undo before")), (1, 0));
                }
                CancelAnswer::Accepted => {
                    assert_eq!(report.end(), End::Cancelled);
                    assert_eq!(trace.count("point"), 0);
                }
                CancelAnswer::Ended => assert_eq!(report.end(), End::Succeeded),
            }
            replays(&run).await;
        });
    });
}

#[test]
fn an_irreversible_step_before_a_failure_is_debris_unless_its_probe_says_not_done() {
    for_seeds(20, |sim| {
        let (engine, trace) = (engine(&sim), Trace::default());
        let mut plan = PlanBuilder::new("irreversible");
        let mail = plan.step("mail", noting(&trace, "mail")).add();
        plan.step("bad", failing(refusal(Effect::None))).after(mail).add();
        let plan = plan.build().unwrap();
        sim.run(async {
            let run = engine.submit(Submission::new(plan)).await.unwrap();
            let report = run.wait().await.unwrap();
            assert_eq!(report.end(), End::NeedsAttention);
            assert_eq!(report.debris()[0].step.as_str(), "mail");
            replays(&run).await;
        });
    });
}

/// What is told to stop in the round in which it ends is undone at once, and not when its undo has overrun.
#[test]
fn a_cancel_that_comes_with_the_end_of_a_step_undoes_it_at_once() {
    for_seeds(300, |sim| {
        let engine = engine_over(&sim, Arc::new(MemoryJournal::new()));
        let trace = Trace::default();
        let time = Duration::from_millis(10);
        let mut plan = PlanBuilder::new("both");
        let a = plan.step("a", trace.step_in("a", time)).add();
        plan.step("b", trace.step_in("b", time)).after(a).add();
        let plan = plan.build().unwrap();
        sim.run(async {
            let clock = sim.seams().clock;
            let run = engine.submit(Submission::new(plan)).await.unwrap();
            let before = clock.mono();
            pause(&sim.seams(), time).await;
            run.cancel("test").await.unwrap();
            let report = run.wait().await.unwrap();
            assert!(matches!(report.end(), End::Cancelled | End::Succeeded));
            let took = clock.mono().saturating_since(before);
            assert!(took < Duration::from_secs(1), "it took {took:?}: {:?}", trace.all());
        });
    });
}

/// Runs a plan whose `step` fails once without anybody knowing what it did, and cancels the run while it waits for the one slot
/// of its pool to be tried again.
fn cancelled_in_line(sim: &Sim, plan: impl Fn(&Trace, Call<(), ()>, PoolName) -> Plan) -> Trace {
    let pool = PoolName::new("pool").unwrap();
    let journal = Arc::new(MemoryJournal::new());
    let engine = Engine::builder(ActionRegistry::new(), journal, sim.seams(), sim.lanes())
        .pool(pool.clone(), 1.try_into().unwrap())
        .audited()
        .build();
    let trace = Trace::default();
    let noted = trace.clone();
    let step = step_fn(move |cx: Cx, ()| {
        let (trace, first) = (noted.clone(), cx.attempt() == Attempt::FIRST);
        async move {
            trace.note("step");
            if first { Err(hiccup(Effect::Unknown)) } else { Ok(Done::new(())) }
        }
    })
    .idempotent();
    let plan = plan(&trace, step, pool.clone());
    let mut rival = PlanBuilder::new("rival");
    rival.step("rival", trace.step_in("rival", 60 * SECOND)).pool(pool).add();
    let rival = rival.build().unwrap();
    sim.run(async {
        let run = engine.submit(Submission::new(plan)).await.unwrap();
        while trace.count("step") == 0 {
            pause(&sim.seams(), Duration::from_millis(1)).await;
        }
        let rival = engine.submit(Submission::new(rival)).await.unwrap();
        while engine.waiting_for_slots().await.unwrap().is_empty() {
            pause(&sim.seams(), Duration::from_millis(1)).await;
        }
        let answer = run.cancel("op").await.unwrap();
        let report = run.wait().await.unwrap();
        match answer {
            CancelAnswer::TooLate { .. } => {
                assert_eq!(report.step_named("step").unwrap().progress, NodeProgress::Done);
                assert_eq!(report.end(), End::SucceededWithWarnings);
            }
            _ => assert_eq!(report.end(), End::Cancelled),
        }
        assert_eq!(rival.wait().await.unwrap().end(), End::Succeeded);
        replays(&run).await;
    });
    trace
}

/// It has its place in line for another attempt; what the first one did is owed all the same.
#[test]
fn a_step_that_waits_for_a_slot_to_be_tried_again_is_undone_by_a_cancel() {
    for_seeds(30, |sim| {
        let trace = cancelled_in_line(&sim, |trace, step, pool| {
            let mut plan = PlanBuilder::new("again");
            let before = plan.step("before", trace.step("before")).add();
            let again = Retry::times(2).backoff(10 * SECOND, 10 * SECOND);
            let undone = trace.clone();
            let step = step.undo(move |_, (), _| {
                undone.note("undo step");
                async { Ok(Undone::clean()) }
            });
            plan.step("step", step).pool(pool).retry(again).after(before).add();
            plan.build().unwrap()
        });
        assert_eq!(trace.all(), ["before", "step", "undo step", "undo before", "rival"]);
    });
}

#[test]
fn a_point_of_no_return_that_waits_for_a_slot_to_be_tried_again_goes_on_after_a_late_cancel() {
    for_seeds(30, |sim| {
        let trace = cancelled_in_line(&sim, |trace, step, pool| {
            let mut plan = PlanBuilder::new("again");
            let before = plan.step("before", trace.step("before")).add();
            let again = Retry::times(2).backoff(10 * SECOND, 10 * SECOND);
            let point = plan.step("step", step).pool(pool).retry(again).no_return().after(before);
            let point = point.add();
            plan.step("after", noting(trace, "after")).after(point).add();
            plan.build().unwrap()
        });
        assert_eq!(trace.all(), ["before", "step", "rival", "step"]);
    });
}
