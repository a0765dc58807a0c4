//! A process dies at any place of a backup, and another one carries on: nothing stays frozen, nothing is lost, and what is
//! left is in plain sight.

// Tests may panic and print; their helpers are no test functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use common::*;
use stillpoint::Stillpoint;
use stillpoint::catalog::{CatalogExt as _, DebrisKind, MemoryCatalog, PointQuery};
use stillpoint::exchange::Coordination;
use stillpoint::model::id::SetToken;
use stillpoint::model::job::{JobState, RunEnd, RunState};
use stillpoint::model::point::PointState;
use stillpoint::workflow::testing::{HookJournal, Sim};
use stillpoint::workflow::{Leases, MemoryJournal};
use stillpoint_testkit::World;

const TERM: Duration = Duration::from_mins(1);
const MARGIN: Duration = Duration::from_secs(10);

/// In how many orders of everything a backup is crashed at each place.
const SEEDS: u64 = 2;

/// What outlives a process: the world, and the state.
#[derive(Clone)]
struct Outside {
    world: World,
    mode: Coordination,
    journal: Arc<MemoryJournal>,
    catalog: Arc<MemoryCatalog>,
}

impl Outside {
    fn new(mode: Coordination) -> Self {
        let (journal, catalog) = (MemoryJournal::new(), MemoryCatalog::new());
        Self { world: two_arrays(2), mode, journal: Arc::new(journal), catalog: Arc::new(catalog) }
    }

    fn process(&self, sim: &Sim) -> Stillpoint {
        let journal =
            HookJournal::jitter(Arc::clone(&self.journal), sim, Duration::from_millis(2)).shared();
        builder(sim, &self.world, self.mode, |engine| engine.lease_terms(TERM, MARGIN).audited())
            .journal(Arc::new(journal))
            .leases(Arc::clone(&self.journal) as Arc<dyn Leases>)
            .catalog(Arc::clone(&self.catalog) as _)
            .build()
            .unwrap()
    }

    /// Backs up until it dies with the given poll; where its clocks stood then, and whether the backup was over before.
    fn first_process(&self, seed: u64, dies: u64) -> (Duration, bool, u64) {
        let sim = Sim::new(seed);
        let this = self.process(&sim);
        let over = sim.run(async {
            let life = std::pin::pin!(async {
                this.save_policy(&policy()).await.unwrap();
                this.backup(request("night")).await.unwrap().wait().await
            });
            let death = std::pin::pin!(sim.polled(dies));
            match futures_util::future::select(death, life).await {
                futures_util::future::Either::Left(_) => false,
                futures_util::future::Either::Right((job, _)) => {
                    assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
                    true
                }
            }
        });
        (sim.seams().clock.mono().0, over, sim.polls())
    }

    /// Recovers, looks at everything, and backs up again.
    fn second_process(&self, seed: u64, at: Duration) -> JobState {
        let sim = Sim::starting_at(seed, at);
        let this = self.process(&sim);
        sim.run(async {
            pause(this.seams(), TERM + MARGIN).await;
            let jobs = this.recover().await.unwrap();
            assert!(jobs.len() <= 1);
            let mut state = JobState::Succeeded;
            for job in jobs {
                let job = job.wait().await;
                assert!(job.state().is_final(), "{job:#?}");
                state = job.state();
            }
            self.check(&this).await;
            // The next one has all that it needs; a session of the dead process may last a while.
            pause(this.seams(), Duration::from_hours(200)).await;
            this.save_policy(&policy()).await.unwrap();
            let next = this.backup(request("next")).await.unwrap().wait().await;
            assert_eq!(next.state(), JobState::Succeeded, "{next:#?}");
            self.check(&this).await;
            state
        })
    }

    async fn check(&self, this: &Stillpoint) {
        for host in self.world.hosts() {
            assert!(!self.world.is_frozen(&host), "{host} is frozen");
        }
        assert!(this.engine().holders().await.unwrap().is_empty(), "claims are held by nobody");
        let points = self.catalog.all_points(&PointQuery::all()).await.unwrap();
        let debris = this.debris().await.unwrap();
        let mut known: BTreeSet<SetToken> = points.into_iter().map(|point| point.set).collect();
        known.extend(debris.iter().filter_map(|left| match &left.kind {
            DebrisKind::Snapshots(token) => Some(token.clone()),
            _ => None,
        }));
        let orphans = self.world.orphans(&known.into_iter().collect::<Vec<_>>());
        assert!(orphans.is_empty(), "snapshots that nobody knows: {orphans:#?}");
        for job in this.jobs().await.unwrap() {
            assert!(job.state().is_final(), "{job:#?}");
            for run in &job.runs {
                assert!(matches!(run.state, RunState::Ended(_)), "{job:#?}");
                if run.state == RunState::Ended(RunEnd::Succeeded) {
                    assert!(run.members.iter().all(|member| member.end.is_some()));
                }
            }
        }
    }
}

/// The seed and the place to replay alone, from `CRASH_AT=seed/poll`.
fn only() -> Option<(u64, u64)> {
    let text = std::env::var("CRASH_AT").ok()?;
    let (seed, poll) = text.split_once('/')?;
    Some((seed.parse().ok()?, poll.parse().ok()?))
}

fn crashes_everywhere(mode: Coordination) {
    let all = (0..SEEDS).flat_map(|seed| {
        let (_, over, polls) = Outside::new(mode).first_process(seed, u64::MAX);
        assert!(over);
        (1..polls).map(move |poll| (seed, poll))
    });
    let places: Vec<(u64, u64)> = only().map_or_else(|| all.collect(), |one| vec![one]);
    let (mut ends, mut died) = (BTreeSet::new(), 0);
    for (seed, poll) in &places {
        let outside = Outside::new(mode);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let (at, over, _) = outside.first_process(*seed, *poll);
            (!over).then(|| outside.second_process(seed + 100, at))
        }));
        match result {
            Ok(end) => {
                died += u32::from(end.is_some());
                ends.extend(end);
            }
            Err(panic) => {
                println!(
                    "{mode:?}: replay it alone with CRASH_AT={seed}/{poll} cargo test -p stillpoint --test recovery"
                );
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("{mode:?}: {died} of {} places to die in, ends {ends:?}", places.len());
    if only().is_none() {
        assert!(died > 100, "{died} crashes");
        assert!(ends.len() > 1, "always {ends:?}");
    }
}

#[test]
fn a_crash_anywhere_is_recovered_where_the_engine_freezes() {
    crashes_everywhere(Coordination::Engine);
}

#[test]
fn a_crash_anywhere_is_recovered_where_the_plugin_freezes() {
    crashes_everywhere(Coordination::Plugin);
}

/// A point that was published before the crash and completed after it is as good as any.
#[test]
fn what_was_past_its_point_of_no_return_goes_on_to_its_end() {
    let outside = Outside::new(Coordination::Engine);
    let (_, _, polls) = Outside::new(Coordination::Engine).first_process(0, u64::MAX);
    let late = (1..polls).rev().find(|poll| {
        let one = Outside::new(Coordination::Engine);
        let (_, over, _) = one.first_process(0, *poll);
        !over && !one.world.completes().is_empty()
    });
    let late = late.expect("it dies after it has asked for the completion");
    let (at, over, _) = outside.first_process(0, late);
    assert!(!over);
    outside.second_process(7, at);
    let sim = Sim::starting_at(9, at + Duration::from_hours(400));
    let this = outside.process(&sim);
    sim.run(async {
        drop(this);
        let points = outside.catalog.all_points(&PointQuery::all()).await.unwrap();
        assert_eq!(points.len(), 4, "two of the first backup, two of the next");
        assert!(points.iter().all(|point| point.state == PointState::Available));
    });
}
