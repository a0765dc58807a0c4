//! Recovery: whatever a process left open is brought to its end by another, under the same promises.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use stillpoint_workflow::testing::{HookJournal, Scenario, Sim, trials};
use stillpoint_workflow::*;

use super::common::backup::*;
use super::common::leases::HookLeases;
use super::common::*;

#[test]
fn a_backup_leaves_nothing_behind_whatever_goes_wrong() {
    for seed in 0..3 {
        let tried = trials::all(&Backup { no_return: false }, seed).unwrap();
        assert!(tried > 100, "{tried} mishaps");
        trials::all(&Backup { no_return: true }, seed).unwrap();
    }
}

#[test]
fn a_process_that_is_alive_is_left_alone_and_one_that_is_gone_is_taken_over() {
    let (store, world) = (Arc::new(MemoryJournal::new()), Site::default());
    dies_when(&store, &world, |things| things.frozen);
    let sim = Sim::new(2);
    let engine = process(&sim, &store, &world, true);
    sim.run(async {
        let early = engine.recover().await.unwrap();
        assert!(early.runs.is_empty());
        assert_eq!(early.elsewhere.len(), 1, "its lease has not ended");
        assert!(world.with(|things| things.frozen));
        let others = engine.others().await.unwrap();
        let [(other, epoch)] = Vec::from_iter(others)[..] else { panic!("there is one other") };
        assert_eq!((early.elsewhere[0].1, engine.lease().unwrap().1 > epoch), (other, true));
        pause(&sim.seams(), TERM + MARGIN).await;
        assert!(engine.others().await.unwrap().is_empty(), "and so it cannot come back");
        let late = engine.recover().await.unwrap();
        let [run] = late.runs.as_slice() else { panic!("{late:?}") };
        let report = run.wait().await.unwrap();
        assert_eq!(report.end(), End::Failed);
        assert_eq!(report.failure().unwrap().code, "guard.lost");
        assert!(!world.with(|things| things.frozen));
        assert!(world.with(|things| things.made.is_empty()));
        assert!(engine.holders().await.unwrap().is_empty());
        // The next one has what it needs.
        let next = engine.submit(backup()).await.unwrap().wait().await.unwrap();
        assert_eq!(next.end(), End::Succeeded);
    });
}

#[test]
fn a_process_can_be_seen_before_it_has_done_anything() {
    let (store, world) = (Arc::new(MemoryJournal::new()), Site::default());
    let sim = Sim::new(3);
    let [one, other] = [(); 2].map(|()| process(&sim, &store, &world, true));
    sim.run(async {
        assert_eq!(one.lease(), None);
        let held = one.hold_lease().await.unwrap().unwrap();
        assert_eq!((one.lease(), one.hold_lease().await.unwrap()), (Some(held), Some(held)));
        assert_eq!(other.others().await.unwrap(), [held].into());
        assert!(one.others().await.unwrap().is_empty());
        drop(one.drain().await.unwrap());
        assert_eq!(one.hold_lease().await.unwrap(), None, "it has given it back");
        assert!(other.others().await.unwrap().is_empty());
        // One without leases has none to take.
        let alone = engine(&sim);
        assert_eq!(alone.hold_lease().await.unwrap(), None);
    });
}

#[test]
fn two_processes_that_recover_at_once_share_the_runs_and_do_nothing_twice() {
    for_seeds(60, |sim| {
        let (store, world) = (Arc::new(MemoryJournal::new()), Site::default());
        dies_when(&store, &world, |things| things.made.contains("second"));
        let engines = [(); 2].map(|()| process(&sim, &store, &world, true));
        sim.run(async {
            pause(&sim.seams(), TERM + MARGIN).await;
            let [one, other] = &engines;
            let both = futures_util::future::join(one.recover(), other.recover()).await;
            let runs = [both.0.unwrap().runs, both.1.unwrap().runs].concat();
            assert!(!runs.is_empty());
            let mut ends = 0;
            for run in runs {
                match run.wait().await {
                    Ok(report) => {
                        assert_eq!(report.end(), End::Succeeded);
                        ends += 1;
                    }
                    // The other one was faster.
                    Err(EngineError::Journal(_) | EngineError::Gone) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            assert!(ends >= 1);
            assert_eq!(store.ends(), [End::Succeeded]);
        });
    });
}

#[test]
fn a_paused_process_that_was_taken_over_starts_nothing_more() {
    // One process hangs in its append while another takes over; then the append goes on.
    for_seeds(40, |sim| {
        let (store, world) = (Arc::new(MemoryJournal::new()), Site::default());
        let (stall, journal) = testing::Stall::new(Arc::clone(&store), |batch| {
            batch.appends.iter().flat_map(|append| &append.records).any(|record| {
                matches!(record, Record::Run(RunRecord::Succeeded { attempt: 1, .. }))
            })
        });
        let registry = Backup { no_return: true }.registry(&world);
        // Its leases hang with it: nobody renews them.
        let paused = Engine::builder(registry, Arc::new(journal), sim.seams(), sim.lanes())
            .leases(Arc::new(HookLeases::once(&store)))
            .lease_terms(TERM, MARGIN)
            .build();
        let engine = process(&sim, &store, &world, true);
        sim.run(async {
            let run = paused.submit(backup()).await.unwrap();
            while !stall.is_stalled() {
                pause(&sim.seams(), Duration::from_millis(10)).await;
            }
            pause(&sim.seams(), TERM + MARGIN).await;
            let recovery = engine.recover().await.unwrap();
            let report = recovery.runs[0].wait().await.unwrap();
            assert_eq!(report.end(), End::Succeeded);
            let (made, done) = world.with(|things| (things.made.clone(), things.done));
            assert_eq!((made.len(), done), (4, 1));
            stall.release();
            let error = run.wait().await.unwrap_err();
            assert!(matches!(error, EngineError::Journal(JournalError::Fenced { .. })), "{error}");
            assert_eq!(run.mended().await, Err(error), "it will not be back here");
            pause(&sim.seams(), TERM).await;
            assert_eq!(world.with(|things| (things.made.clone(), things.done)), (made, done));
        });
    });
}

#[test]
fn a_journal_that_fails_for_a_while_loses_no_run() {
    let told = AtomicU64::new(0);
    for_seeds(80, |sim| {
        let (store, world) = (Arc::new(MemoryJournal::new()), Site::default());
        let fail_from = 5 + sim.random() % 30;
        let (count, clock) = (AtomicU64::new(0), sim.seams().clock);
        // Longer than whoever waits is kept waiting, in every other case.
        let is_long = sim.random() % 2 == 0;
        let until = clock.mono() + Duration::from_secs(if is_long { 20 } else { 3 });
        let journal = HookJournal::new(Arc::clone(&store), move |_| {
            let at = count.fetch_add(1, Ordering::Relaxed);
            let fails = at >= fail_from && clock.mono() < until;
            let error =
                if at % 2 == 0 { JournalError::Full } else { JournalError::Io("no".into()) };
            Box::pin(std::future::ready(if fails { Err(error) } else { Ok(()) }))
        });
        let registry = Backup { no_return: true }.registry(&world);
        let engine = Engine::builder(registry, Arc::new(journal), sim.seams(), sim.lanes())
            .audited()
            .build();
        sim.run(async {
            let mut runs = Vec::new();
            for _ in 0..3 {
                match engine.submit(backup()).await {
                    Ok(run) => runs.push(run),
                    Err(EngineError::Journal(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            for run in &runs {
                let mut report = run.wait().await;
                if report.is_err() {
                    told.fetch_add(1, Ordering::Relaxed);
                    assert!(is_long, "{report:?}");
                    assert_eq!(run.status().phase, RunPhase::Broken);
                    assert!(run.mended().await.unwrap().phase != RunPhase::Broken);
                    report = run.wait().await;
                }
                let end = report.unwrap().end();
                assert!(matches!(end, End::Succeeded | End::Failed), "{end:?}");
                replays(run).await;
            }
            assert!(!world.with(|things| things.frozen));
            assert_eq!(store.ends().len(), runs.len());
            assert!(engine.holders().await.unwrap().is_empty());
        });
    });
    assert!(told.into_inner() > 20, "those who wait are told now and then");
}
