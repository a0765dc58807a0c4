//! Carrying out a story: one process after the other, until one comes to the end of it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::{Either, join_all, select};
use stillpoint_context::{Mono, RunId, Seams};
use stillpoint_workflow::testing::{HookJournal, Sim};
use stillpoint_workflow::*;
use tokio::sync::watch;

use super::cases::{Death, Story, Trouble};
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
        let trouble = story.trouble.as_ref().filter(|_| deaths == 0);
        let (fatal, journal) = journal(&sim, &world, death, trouble);
        let engine = engine(&sim, &world, journal, policy);
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

type Slow = HookJournal<Arc<MemoryJournal>>;

/// The journal of a process over the world's store, and whether its fatal append has come.
fn journal(
    sim: &Sim,
    world: &World,
    death: Option<&Death>,
    trouble: Option<&Trouble>,
) -> (watch::Receiver<bool>, HookJournal<Slow>) {
    let (fatal, seen) = watch::channel(false);
    let slow = HookJournal::jitter(Arc::clone(&world.store), sim, 3 * MILLI);
    let (count, death, trouble) = (AtomicUsize::new(0), death.cloned(), trouble.cloned());
    let (clock, over) = (sim.seams().clock, OnceLock::new());
    let journal = HookJournal::around(slow, move |slow, batch| {
        let at = count.fetch_add(1, Ordering::Relaxed) + 1;
        let trouble = trouble.clone().filter(|trouble| {
            let now = clock.mono();
            at >= trouble.append
                && now < *over.get_or_init(|| now + Duration::from_millis(trouble.millis))
        });
        let (fatal, death) = (fatal.clone(), death.clone());
        Box::pin(async move {
            if let Some(trouble) = trouble {
                if at.is_multiple_of(2) {
                    return Err(JournalError::Full);
                }
                if trouble.written {
                    slow.commit(batch).await?;
                }
                return Err(JournalError::Io("as told".into()));
            }
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
    (seen, journal)
}

fn engine(sim: &Sim, world: &World, journal: HookJournal<Slow>, policy: GrantPolicy) -> Engine {
    let leases: Arc<dyn Leases> = Arc::<MemoryJournal>::clone(&world.store);
    Engine::builder(world.registry(), Arc::new(journal.shared()), sim.seams(), sim.lanes())
        .leases(leases)
        .lease_terms(TERM, MARGIN)
        .pool(pool(), SLOTS.try_into().unwrap())
        .grant_policy(policy)
        .audited()
        .build()
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
    let parts = 0..story.parts.len();
    let reports = join_all(parts.map(|who| lead(who, story, engine, &seams)));
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

/// Asks again for as long as the journal fails.
async fn insist<T>(seams: &Seams, ask: impl AsyncFn() -> Result<T, EngineError>) -> T {
    loop {
        match ask().await {
            Err(EngineError::Journal(_)) => pause(seams, Duration::from_millis(700)).await,
            answer => return answer.unwrap(),
        }
    }
}

/// Submits a run, or finds it again, and does for it what a person does.
async fn lead(who: usize, story: &Story, engine: &Engine, seams: &Seams) -> RunReport {
    let part = &story.parts[who];
    let unsure = story.trouble.as_ref().is_some_and(|trouble| trouble.written);
    pause(seams, Duration::from_millis(part.delay)).await;
    let submission = Submission::new(part.plan(who))
        .key(format!("run-{who}").parse().unwrap())
        .head_start(Duration::from_millis(part.head_start));
    let run = insist(seams, async || engine.submit(submission.clone()).await).await;
    if let Some(after) = part.case.cancel {
        pause(seams, Duration::from_millis(after)).await;
        let cancel = async || match run.cancel("op").await {
            // It ended in an earlier process.
            Err(EngineError::Elsewhere { .. }) => Ok(CancelAnswer::Ended),
            answer => answer,
        };
        insist(seams, cancel).await;
    }
    for _ in 0..6 {
        if insist(seams, async || run.settled().await).await.phase != RunPhase::Parked {
            break;
        }
        // An owed exit works when it is asked again; what failed past the point of no return is given up.
        pause(seams, Duration::from_secs(100)).await;
        let reason = run.status().parked.first().map(|parked| parked.1.reason);
        let act = async || {
            let answer = match reason {
                Some(ParkReason::ExitOwed) => run.resume("op").await,
                Some(_) => run.abandon("op").await,
                None => Ok(()),
            };
            match answer {
                // The journal wrote it and said that it had not: asked again, it has been done.
                Err(EngineError::NotParked { .. }) if unsure => Ok(()),
                answer => answer,
            }
        };
        insist(seams, act).await;
        pause(seams, Duration::from_secs(1)).await;
    }
    let report = insist(seams, async || run.wait().await).await;
    replays(&run).await;
    report
}

impl Played<'_> {
    /// The runs, by their place in the story.
    pub fn run(&self, who: usize) -> RunId {
        self.reports[who].run()
    }
}
