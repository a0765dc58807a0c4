//! Carrying out a story: one process after the other, until one comes to the end of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::{Either, join_all, select};
use stillpoint_context::{Mono, RunId, Seams};
use stillpoint_workflow::testing::{HookJournal, Sim};
use stillpoint_workflow::*;
use tokio::sync::watch;

use super::cases::{Death, Part, Story};
use super::common::{pause, replays};
use super::plan::pool;
use super::world::World;

const TERM: Duration = Duration::from_mins(1);
const MARGIN: Duration = Duration::from_secs(10);
/// No story takes as long.
const LONG: Duration = Duration::from_hours(2);
const MILLI: Duration = Duration::from_millis(1);

/// The slots of the pool.
pub const SLOTS: u32 = 2;

/// What came of a story.
pub struct Played<'a> {
    pub story: &'a Story,
    pub world: World,
    /// Of each run.
    pub reports: Vec<RunReport>,
    /// What the arbiter wrote.
    pub arbiter: Vec<Stored>,
    /// The number of processes that died.
    pub deaths: usize,
}

/// Carries out a story.
pub fn play(story: &Story) -> Played<'_> {
    play_under(story, GrantPolicy::Strict)
}

/// The same, with an arbiter that may be asleep.
pub fn play_under(story: &Story, policy: GrantPolicy) -> Played<'_> {
    let world = World::new();
    let mut now = Mono(Duration::from_secs(1));
    let mut deaths = 0;
    loop {
        let sim = Sim::starting_at(story.seed.wrapping_add(deaths as u64), now.0);
        let death = story.deaths.get(deaths);
        let (fatal, engine) = process(&sim, &world, death, policy);
        let lived = sim.run(async {
            let life = std::pin::pin!(live(story, &engine, sim.seams(), deaths > 0));
            let death = std::pin::pin!(dies(fatal, death, sim.seams()));
            match select(death, life).await {
                Either::Left(_) => None,
                Either::Right((reports, _)) => Some(reports),
            }
        });
        if let Some(reports) = lived {
            let read = world.store.read(&StreamId::Arbiter, Seq(0), usize::MAX);
            let arbiter = Sim::new(0).run(read).unwrap();
            return Played { story, world, reports, arbiter, deaths };
        }
        world.log.dies();
        deaths += 1;
        // The next one comes when the lease of this one is over.
        now = sim.seams().clock.mono() + TERM + MARGIN;
    }
}

/// A process over the world's store, and whether its fatal append has come.
fn process(
    sim: &Sim,
    world: &World,
    death: Option<&Death>,
    policy: GrantPolicy,
) -> (watch::Receiver<bool>, Engine) {
    let (fatal, seen) = watch::channel(false);
    let slow = HookJournal::jitter(Arc::clone(&world.store), sim, 3 * MILLI);
    let (count, death) = (AtomicUsize::new(0), death.cloned());
    let journal = HookJournal::around(slow, move |slow, batch| {
        let at = count.fetch_add(1, Ordering::Relaxed) + 1;
        let (fatal, death) = (fatal.clone(), death.clone());
        Box::pin(async move {
            let Some(death) = death.filter(|death| at >= death.append) else {
                return slow.commit(batch).await;
            };
            if at == death.append && death.written {
                drop(slow.commit(batch).await);
            }
            fatal.send_replace(true);
            std::future::pending().await
        })
    });
    let leases: Arc<dyn Leases> = Arc::<MemoryJournal>::clone(&world.store);
    let engine =
        Engine::builder(world.registry(), Arc::new(journal.shared()), sim.seams(), sim.lanes())
            .leases(leases)
            .lease_terms(TERM, MARGIN)
            .pool(pool(), SLOTS.try_into().unwrap())
            .grant_policy(policy)
            .audited()
            .build();
    (seen, engine)
}

/// Ready when the process is to die.
async fn dies(mut fatal: watch::Receiver<bool>, death: Option<&Death>, seams: Seams) {
    let Some(death) = death else { return std::future::pending().await };
    if fatal.wait_for(|fatal| *fatal).await.is_err() {
        return std::future::pending().await;
    }
    pause(&seams, u32::try_from(death.lingers).unwrap() * MILLI).await;
}

/// What a process does: it carries on with what it finds, and asks for every run of the story.
async fn live(story: &Story, engine: &Engine, seams: Seams, again: bool) -> Vec<RunReport> {
    if again {
        let recovery = engine.recover().await.unwrap();
        assert!(recovery.elsewhere.is_empty() && recovery.unreadable.is_empty(), "{recovery:?}");
    }
    let parts = story.parts.iter().enumerate();
    let reports = join_all(parts.map(|(who, part)| lead(who, part, engine, &seams)));
    // Leases are renewed for ever, so that a simulation in which a run never ends is not stuck.
    let Either::Left((reports, _)) = select(reports, Box::pin(pause(&seams, LONG))).await else {
        let stands: Vec<_> = engine.runs().iter().map(|run| (run.id(), run.status())).collect();
        let (holders, waiting) = (engine.holders().await, engine.waiting().await);
        panic!("not all runs end: {stands:#?}\n{holders:?}\n{waiting:?}");
    };
    // The last release may still be on its way.
    pause(&seams, Duration::from_secs(1)).await;
    assert_eq!(engine.holders().await.unwrap(), [], "claims are left over");
    assert_eq!(engine.waiting().await.unwrap(), []);
    assert!(engine.waiting_for_slots().await.unwrap().is_empty());
    assert_eq!(engine.parked(), []);
    reports
}

/// Submits a run, or finds it again, and does for it what a person does.
async fn lead(who: usize, part: &Part, engine: &Engine, seams: &Seams) -> RunReport {
    pause(seams, Duration::from_millis(part.delay)).await;
    let submission = Submission::new(part.plan(who))
        .key(format!("run-{who}").parse().unwrap())
        .head_start(Duration::from_millis(part.head_start));
    let run = engine.submit(submission).await.unwrap();
    if let Some(after) = part.case.cancel {
        pause(seams, Duration::from_millis(after)).await;
        match run.cancel("op").await {
            // It ended in an earlier process.
            Ok(_) | Err(EngineError::Elsewhere { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    for _ in 0..6 {
        if run.settled().await.unwrap().phase != RunPhase::Parked {
            break;
        }
        // An owed exit works when it is asked again; what failed past the point of no return is given up.
        pause(seams, Duration::from_secs(100)).await;
        match run.status().parked.first().map(|parked| parked.1.reason) {
            Some(ParkReason::ExitOwed) => run.resume("op").await.unwrap(),
            Some(_) => run.abandon("op").await.unwrap(),
            None => {}
        }
        pause(seams, Duration::from_secs(1)).await;
    }
    replays(&run).await;
    run.wait().await.unwrap()
}

impl Played<'_> {
    /// The runs, by their place in the story.
    pub fn run(&self, who: usize) -> RunId {
        self.reports[who].run()
    }
}
