//! What an operator sees and does: runs that are parked and resumed elsewhere or abandoned, and all that is open and claimed.

use std::sync::Arc;
use std::time::Duration;

use stillpoint_workflow::testing::Sim;
use stillpoint_workflow::*;

use super::common::backup::*;
use super::common::*;

#[test]
fn an_action_that_is_unknown_here_parks_the_run_until_somebody_has_it() {
    let (store, world) = (Arc::new(MemoryJournal::new()), Site::default());
    dies_when(&store, &world, |things| things.made.contains("second"));
    let sim = Sim::new(3);
    let lacking = process(&sim, &store, &world, false);
    let able = process(&sim, &store, &world, true);
    sim.run(async {
        pause(&sim.seams(), TERM + MARGIN).await;
        let run = lacking.recover().await.unwrap().runs.remove(0);
        let settled = run.settled().await.unwrap();
        assert_eq!(settled.phase, RunPhase::Parked);
        assert_eq!(settled.parked[0].1.reason, ParkReason::UnknownAction);
        assert_eq!(lacking.parked().len(), 1);
        assert!(!lacking.holders().await.unwrap().is_empty(), "it keeps what it claims");
        lacking.suspend().await.unwrap();
        let run = able.recover().await.unwrap().runs.remove(0);
        assert_eq!(run.wait().await.unwrap().end(), End::Succeeded);
    });
}

#[test]
fn a_run_whose_action_nobody_has_any_more_can_be_abandoned() {
    // It dies at work on its second thing, then before its first.
    for (dies_with, left) in [("second", true), ("", false)] {
        let (store, world) = (Arc::new(MemoryJournal::new()), Site::default());
        if dies_with.is_empty() {
            let sim = Sim::new(1);
            let first = process(&sim, &store, &world, true);
            // The process dies with its runtime as soon as the run is in the journal.
            let submitted = sim.run(async { first.submit(backup()).await.map(|run| run.id()) });
            submitted.unwrap();
        } else {
            dies_when(&store, &world, |things| things.made.contains(dies_with));
        }
        let sim = Sim::new(3);
        let lacking = process(&sim, &store, &world, false);
        sim.run(async {
            pause(&sim.seams(), TERM + MARGIN).await;
            let run = lacking.recover().await.unwrap().runs.remove(0);
            assert_eq!(run.settled().await.unwrap().phase, RunPhase::Parked);
            let nothing = Resolution::Done(Payload::UNIT);
            let step = run.status().parked[0].0.clone();
            let error = run.resolve("op", step.as_str(), nothing).await.unwrap_err();
            assert!(matches!(error, EngineError::NotParked { .. }), "{error}");
            let error = run.resume("op").await.unwrap_err();
            assert!(matches!(error, EngineError::NotParked { .. }), "{error}");
            run.abandon("op").await.unwrap();
            let report = run.wait().await.unwrap();
            let failure = report.failure().map(|failure| failure.code.clone());
            if left {
                assert_eq!(report.end(), End::NeedsAttention);
                assert!(!report.debris().is_empty(), "what was made is listed");
                assert_eq!(failure.unwrap(), "engine.unknown_action");
            } else {
                assert_eq!(report.end(), End::Failed, "it did nothing");
                assert!(report.debris().is_empty());
            }
            // The release may still be on its way.
            pause(&sim.seams(), SECOND).await;
            assert!(lacking.holders().await.unwrap().is_empty(), "its claims are free");
            assert!(lacking.parked().is_empty());
        });
    }
}

#[test]
fn open_runs_and_claims_are_seen_from_outside_and_left_as_they_are() {
    for_seeds(20, |sim| {
        let (store, world) = (Arc::new(MemoryJournal::new()), Site::default());
        let engine = process(&sim, &store, &world, true);
        let (able, lacking) =
            (process(&sim, &store, &world, true), process(&sim, &store, &world, false));
        sim.run(async {
            let first = engine.submit(backup()).await.unwrap().id();
            let second = engine.submit(backup()).await.unwrap().id();
            pause(&sim.seams(), Duration::from_millis(10 + sim.random() % 30)).await;
            let head = store.head(&StreamId::Arbiter).await.unwrap();
            let open = able.open_runs().await.unwrap();
            let mut runs: Vec<_> = open.iter().map(|open| open.run).collect();
            let mut both = [first, second];
            both.sort();
            runs.sort();
            assert_eq!(runs, both);
            let account = |open: &OpenRun| open.account.clone().unwrap();
            for known in &open {
                let known = account(known);
                assert!(known.parked.is_empty() && known.submitted_at <= known.written_at);
                assert_eq!(known.started_at.is_some(), known.state.has_started());
            }
            // What this process could not carry on is told as parked.
            for known in &lacking.open_runs().await.unwrap() {
                assert_eq!(account(known).parked[0].reason, ParkReason::UnknownAction);
            }
            let claims = able.claims().await.unwrap();
            let [(holder, theirs)] = claims.holders.as_slice() else { panic!("{claims:?}") };
            assert_eq!((*holder, claims.waiting.len()), (first, 1));
            assert!(!theirs.is_empty());
            assert_eq!((claims.waiting[0].run, claims.waiting[0].holder), (second, first));
            assert_eq!(claims.wanted[0].0, second);
            assert!(able.runs().is_empty() && lacking.runs().is_empty(), "nothing was taken");
            assert_eq!(store.head(&StreamId::Arbiter).await.unwrap(), head);

            let ended = engine.run(second).unwrap().wait().await.unwrap();
            assert_eq!(ended.end(), End::Succeeded);
            pause(&sim.seams(), SECOND).await;
            assert!(able.open_runs().await.unwrap().is_empty());
            assert!(able.claims().await.unwrap().holders.is_empty());
            let known = able.account(second).await.unwrap().unwrap();
            assert_eq!(known.state.end(), Some(End::Succeeded));
            let nobody = stillpoint_context::RunId(uuid::Uuid::from_u128(9));
            assert!(able.account(nobody).await.unwrap().is_none());
        });
    });
}

/// The claims of many runs, read from the arbiter's last snapshot on, are those that it knows itself.
#[test]
fn claims_are_read_from_the_last_snapshot_on() {
    let (store, world) = (Arc::new(MemoryJournal::new()), Site::default());
    let sim = Sim::new(5);
    let engine = process(&sim, &store, &world, true);
    let other = process(&sim, &store, &world, true);
    sim.run(async {
        for _ in 0..400 {
            let run = engine.submit(backup()).await.unwrap();
            assert_eq!(run.wait().await.unwrap().end(), End::Succeeded);
        }
        let head = store.head(&StreamId::Arbiter).await.unwrap();
        assert!(head.0 > 1100, "{head:?}: there is a snapshot behind the first page");
        let run = engine.submit(backup()).await.unwrap();
        pause(&sim.seams(), Duration::from_millis(10)).await;
        let claims = other.claims().await.unwrap();
        assert_eq!(claims.holders, engine.holders().await.unwrap());
        assert_eq!(claims.holders[0].0, run.id());
        assert_eq!(claims.waiting, engine.waiting().await.unwrap());
    });
}
