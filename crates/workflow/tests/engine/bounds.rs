//! The bounds of an engine: how it is suspended and drained, what its pools and its queue hold.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use stillpoint_context::{Cx, Effect, Failure};
use stillpoint_workflow::testing::{HookJournal, Sim};
use stillpoint_workflow::*;

use super::common::backup::*;
use super::common::*;

#[test]
fn a_suspended_engine_leaves_nothing_in_doubt_and_another_goes_on_at_once() {
    for_seeds(80, |sim| {
        let (store, world) = (Arc::new(MemoryJournal::new()), Site::default());
        let one = process(&sim, &store, &world, true);
        let other = process(&sim, &store, &world, true);
        sim.run(async {
            let run = one.submit(backup()).await.unwrap();
            let queued = one.submit(backup()).await.unwrap();
            pause(&sim.seams(), Duration::from_millis(sim.random() % 60)).await;
            one.suspend().await.unwrap();
            assert!(!world.with(|things| things.frozen), "no guard is open");
            let error = one.submit(backup()).await.unwrap_err();
            assert!(matches!(error, EngineError::Closing));
            let recovered = other.recover().await.unwrap();
            for run in &recovered.runs {
                assert_eq!(run.wait().await.unwrap().end(), End::Succeeded, "nothing was undone");
                let state = run.state().await.unwrap();
                for at in 0..state.plan().nodes().len() {
                    let node = state.plan().find(state.plan().nodes()[at].name.as_str()).unwrap();
                    assert!(state.attempts(node) <= 1, "nothing was in doubt");
                }
            }
            for run in [run, queued] {
                match run.wait().await {
                    Ok(report) => assert_eq!(report.end(), End::Succeeded),
                    Err(EngineError::Suspended { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            assert_eq!(store.ends(), [End::Succeeded; 2]);
        });
    });
}

#[test]
fn a_drained_engine_takes_nothing_more_and_ends_what_it_has() {
    for_seeds(20, |sim| {
        let (store, world) = (Arc::new(MemoryJournal::new()), Site::default());
        let engine = process(&sim, &store, &world, true);
        sim.run(async {
            for _ in 0..3 {
                engine.submit(backup()).await.unwrap();
            }
            let drained = engine.drain().await.unwrap();
            assert!(drained.open.is_empty());
            assert_eq!(store.ends(), [End::Succeeded; 3]);
            assert!(matches!(engine.submit(backup()).await, Err(EngineError::Closing)));
            assert!(store.leases().await.unwrap().is_empty(), "the lease is given back");
        });
    });
}

#[test]
fn a_pool_limits_what_runs_at_once_over_all_runs() {
    for_seeds(20, |sim| {
        let busy = Arc::new(Mutex::new((0_u32, 0_u32)));
        let pool = PoolName::new("storage").unwrap();
        let engine = Engine::builder(
            ActionRegistry::new(),
            Arc::new(MemoryJournal::new()),
            sim.seams(),
            sim.lanes(),
        )
        .pool(pool.clone(), 3.try_into().unwrap())
        .audited()
        .build();
        let step = || {
            let busy = Arc::clone(&busy);
            step_fn(move |cx: Cx, ()| {
                let busy = Arc::clone(&busy);
                async move {
                    {
                        let mut busy = busy.lock().unwrap();
                        busy.0 += 1;
                        busy.1 = busy.1.max(busy.0);
                    }
                    cx.sleep(Duration::from_millis(10)).await.map_err(|e| Failure::of(&e))?;
                    busy.lock().unwrap().0 -= 1;
                    if cx.attempt() == stillpoint_context::Attempt::FIRST {
                        return Err(hiccup(Effect::None));
                    }
                    Ok(Done::new(()))
                }
            })
        };
        sim.run(async {
            let mut runs = Vec::new();
            for n in 0..4 {
                let mut plan = PlanBuilder::new(format!("run-{n}"));
                for at in 0..6 {
                    let step = plan.step(format!("step-{at}"), step());
                    step.retry(Retry::times(2)).pool(pool.clone()).add();
                }
                runs.push(engine.submit(Submission::new(plan.build().unwrap())).await.unwrap());
            }
            pause(&sim.seams(), Duration::from_millis(5)).await;
            assert!(!engine.waiting_for_slots().await.unwrap().is_empty());
            let cancelled = runs.pop().unwrap();
            cancelled.cancel("test").await.unwrap();
            for run in &runs {
                assert_eq!(run.wait().await.unwrap().end(), End::Succeeded);
                replays(run).await;
            }
            assert_eq!(cancelled.wait().await.unwrap().end(), End::Cancelled);
            assert!(engine.waiting_for_slots().await.unwrap().is_empty());
            assert_eq!(busy.lock().unwrap().1, 3);
        });
    });
}

#[test]
fn a_full_queue_is_a_clear_error() {
    let sim = Sim::new(5);
    let engine = Engine::builder(
        ActionRegistry::new(),
        Arc::new(MemoryJournal::new()),
        sim.seams(),
        sim.lanes(),
    )
    .queue_limit(2)
    .build();
    let plan = || {
        let mut plan = PlanBuilder::new("slow");
        plan.step(
            "wait",
            step_fn(|cx: Cx, ()| async move {
                cx.sleep(SECOND).await.map_err(|error| Failure::of(&error))?;
                Ok(Done::new(()))
            }),
        )
        .add();
        Submission::new(plan.build().unwrap())
    };
    sim.run(async {
        let first = engine.submit(plan()).await.unwrap();
        engine.submit(plan()).await.unwrap();
        let full = engine.submit(plan()).await.unwrap_err();
        assert_eq!(full, EngineError::QueueFull { limit: 2 });
        first.wait().await.unwrap();
        engine.submit(plan()).await.unwrap();
    });
}

/// Slots are of the process: what it held and what it stood in line for when its journal failed is known afterwards.
#[test]
fn a_pool_has_all_its_slots_after_a_journal_that_failed() {
    for_seeds(60, |sim| {
        let pool = PoolName::new("storage").unwrap();
        let (count, clock) = (AtomicU64::new(0), sim.seams().clock);
        let fails_from = 3 + sim.random() % 20;
        let until = clock.mono() + 3 * SECOND;
        let journal = HookJournal::new(MemoryJournal::new(), move |_| {
            let fails = count.fetch_add(1, Ordering::Relaxed) >= fails_from && clock.mono() < until;
            Box::pin(std::future::ready(if fails { Err(JournalError::Full) } else { Ok(()) }))
        });
        let engine =
            Engine::builder(ActionRegistry::new(), Arc::new(journal), sim.seams(), sim.lanes())
                .pool(pool.clone(), 1.try_into().unwrap())
                .audited()
                .build();
        let busy = Arc::new(AtomicU64::new(0));
        let step = || {
            let busy = Arc::clone(&busy);
            step_fn(move |cx: Cx, ()| {
                let busy = Arc::clone(&busy);
                async move {
                    assert_eq!(busy.fetch_add(1, Ordering::Relaxed), 0, "one at a time");
                    let slept = cx.sleep(Duration::from_millis(10)).await;
                    busy.fetch_sub(1, Ordering::Relaxed);
                    slept.map(Done::new).map_err(|error| Failure::of(&error))
                }
            })
            .read_only()
        };
        let submission = || {
            let mut plan = PlanBuilder::new("pooled");
            for at in 0..4 {
                let step = plan.step(format!("step-{at}"), step());
                step.retry(Retry::times(3)).pool(pool.clone()).add();
            }
            Submission::new(plan.build().unwrap())
        };
        sim.run(async {
            let mut runs = Vec::new();
            for _ in 0..2 {
                runs.extend(engine.submit(submission()).await);
            }
            pause(&sim.seams(), 4 * SECOND).await;
            runs.push(engine.submit(submission()).await.unwrap());
            for run in runs {
                assert_eq!(run.wait().await.unwrap().end(), End::Succeeded);
                replays(&run).await;
            }
            assert!(engine.waiting_for_slots().await.unwrap().is_empty());
        });
    });
}

#[test]
fn what_is_forgotten_is_gone_and_its_key_is_free() {
    for_seeds(10, |sim| {
        let (store, world) = (Arc::new(MemoryJournal::new()), Site::default());
        let engine = process(&sim, &store, &world, true);
        let other = process(&sim, &store, &world, true);
        let keyed = || backup().key("tonight".parse().unwrap());
        sim.run(async {
            let first = engine.submit(keyed()).await.unwrap();
            first.wait().await.unwrap();
            let kept = engine.submit(backup()).await.unwrap();
            kept.wait().await.unwrap();
            let open = engine.submit(backup()).await.unwrap();
            let unknown = stillpoint_context::RunId(uuid::Uuid::from_u128(7));
            let these = [first.id(), open.id(), unknown];
            assert_eq!(engine.forget(&these).await.unwrap(), 2, "the run and its key");
            assert_eq!(engine.forget(&these).await.unwrap(), 0);
            let gone = other.watch(first.id()).await.unwrap_err();
            assert!(matches!(gone, EngineError::Gone), "{gone}");
            assert!(engine.run(first.id()).is_none());
            assert_eq!(open.wait().await.unwrap().end(), End::Succeeded);
            assert_eq!(
                other.watch(kept.id()).await.unwrap().wait().await.unwrap().end(),
                End::Succeeded
            );
            // Its key is as new, here and in another process.
            let again = other.submit(keyed()).await.unwrap();
            assert_ne!(again.id(), first.id());
            assert_eq!(engine.submit(keyed()).await.unwrap().id(), again.id());
            assert_eq!(again.wait().await.unwrap().end(), End::Succeeded);
        });
    });
}

#[test]
fn claims_exclude_and_tokens_rise_however_much_is_forgotten() {
    for_seeds(2, |sim| {
        let store = Arc::new(MemoryJournal::new());
        let one = || {
            let (journal, lanes) = (Arc::clone(&store), sim.lanes());
            let shared = HookJournal::jitter(journal, &sim, Duration::from_millis(2)).shared();
            let builder =
                Engine::builder(ActionRegistry::new(), Arc::new(shared), sim.seams(), lanes);
            builder.leases(Arc::clone(&store) as _).build()
        };
        let engines = [(); 3].map(|()| one());
        // The tokens in the order in which the runs had the claim, and whether one has it now.
        let seen: Arc<Mutex<(Vec<u64>, bool)>> = Arc::default();
        let plan = || {
            let mut plan = PlanBuilder::new("one at a time");
            plan.claim(Claim::exclusive(key("db/1/live")));
            let seen = Arc::clone(&seen);
            let step = step_fn(move |cx: Cx, ()| {
                let seen = Arc::clone(&seen);
                async move {
                    {
                        let (tokens, is_inside) = &mut *seen.lock().unwrap();
                        assert!(!std::mem::replace(is_inside, true), "two at a time");
                        tokens.push(cx.fence().0);
                    }
                    cx.sleep(Duration::from_millis(1)).await.map_err(|e| Failure::of(&e))?;
                    seen.lock().unwrap().1 = false;
                    Ok(Done::new(()))
                }
            });
            plan.step("inside", step).add();
            Submission::new(plan.build().unwrap())
        };
        sim.run(async {
            let first = async |engine: &Engine| {
                let records = engine.journal().read(&StreamId::Arbiter, Seq(0), 1).await.unwrap();
                records[0].seq.0
            };
            let mut begins = Vec::new();
            for round in 0..12 {
                // One of them sleeps through most of it.
                let awake = if round % 6 == 5 { 3 } else { 2 };
                let mut runs = Vec::new();
                for at in 0..90 {
                    runs.push(engines[at % awake].submit(plan()).await.unwrap());
                }
                for run in &runs {
                    assert_eq!(run.wait().await.unwrap().end(), End::Succeeded);
                }
                let ids: Vec<_> = runs.iter().map(RunHandle::id).collect();
                engines[round % awake].forget(&ids).await.unwrap();
                begins.push(first(&engines[0]).await);
            }
            assert!(begins.is_sorted() && begins[11] > 2000, "{begins:?}");
            let tokens = seen.lock().unwrap().0.clone();
            assert_eq!(tokens.len(), 12 * 90);
            assert!(tokens.is_sorted_by(|a, b| a < b), "tokens rise");
            // Whoever comes now reads what is left.
            let late = one();
            assert_eq!(
                late.submit(plan()).await.unwrap().wait().await.unwrap().end(),
                End::Succeeded
            );
            assert!(store.ends().len() <= 12, "{}", store.ends().len());
        });
    });
}
