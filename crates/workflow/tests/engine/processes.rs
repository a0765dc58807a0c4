//! Processes that are alive side by side on one store: one run for one key, and claims that exclude.

use std::sync::Arc;

use stillpoint_workflow::testing::{Scenario, Sim};
use stillpoint_workflow::*;

use super::common::backup::*;
use super::common::exclusive::overlaps;
use super::common::*;

#[test]
fn the_same_key_is_the_same_run_also_in_another_process_and_after_a_restart() {
    for_seeds(60, |sim| {
        let (store, world) = (Arc::new(MemoryJournal::new()), Site::default());
        let engines = [(); 2].map(|()| process(&sim, &store, &world, true));
        let keyed = || backup().key("tonight".parse().unwrap());
        sim.run(async {
            let [one, other] = &engines;
            let both = futures_util::future::join(one.submit(keyed()), other.submit(keyed())).await;
            let (a, b) = (both.0.unwrap(), both.1.unwrap());
            assert_eq!(a.id(), b.id());
            assert_eq!(a.wait().await.unwrap().end(), End::Succeeded);
            assert_eq!(b.wait().await.unwrap().end(), End::Succeeded);
            let another = Submission::new(Backup { no_return: false }.plan(&world));
            let another = another.key("tonight".parse().unwrap());
            let error = other.submit(another).await.unwrap_err();
            assert!(matches!(error, EngineError::KeyReused { run, .. } if run == a.id()));
            // A process that comes later.
            let third = process(&sim, &store, &world, true);
            let again = third.submit(keyed()).await.unwrap();
            assert_eq!(again.id(), a.id());
            assert_eq!(again.wait().await.unwrap().end(), End::Succeeded);
            assert_eq!(store.ends().len(), 1);
        });
    });
}

#[test]
fn claims_exclude_runs_of_other_processes() {
    for_seeds(30, |sim| {
        let (store, world) = (Arc::new(MemoryJournal::new()), Site::default());
        let engines = [(); 3].map(|()| process(&sim, &store, &world, true));
        sim.run(async {
            let mut runs = Vec::new();
            for engine in engines.iter().cycle().take(9) {
                runs.push(engine.submit(backup()).await.unwrap());
            }
            for run in runs {
                assert_eq!(run.wait().await.unwrap().end(), End::Succeeded);
            }
            assert_eq!(world.with(|things| things.done), 9);
            // The last release may still be on its way.
            pause(&sim.seams(), SECOND).await;
        });
        let written = store.read(&StreamId::Arbiter, Seq(0), usize::MAX);
        overlaps(&Sim::new(sim.seed()).run(written).unwrap());
    });
}
