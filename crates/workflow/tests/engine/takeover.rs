//! Two processes that find the same run of a third that is gone: one of them carries it on, and the other leaves it alone.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use stillpoint_context::{Cx, Failure};
use stillpoint_workflow::testing::{HookJournal, Sim};
use stillpoint_workflow::*;
use tokio::sync::watch;

use super::common::leases::{Before, HookLeases};
use super::common::*;

const TERM: Duration = Duration::from_mins(1);
const MARGIN: Duration = Duration::from_secs(10);

/// A step that counts how often it begins and lasts until it is told to end.
#[derive(Debug, Clone)]
struct Lasts {
    begun: Arc<AtomicU32>,
    ends: watch::Sender<bool>,
}

impl Lasts {
    fn new() -> Self {
        Self { begun: Arc::default(), ends: watch::channel(false).0 }
    }

    fn begun(&self) -> u32 {
        self.begun.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Action for Lasts {
    const NAME: &'static str = "lasts";
    const EFFECT: EffectKind = EffectKind::Irreversible;
    const IDEMPOTENT: bool = true;
    type Params = ();
    type Input = ();
    type Output = ();

    async fn run(&self, _: &Cx, (): &(), (): ()) -> Result<Done<()>, Failure> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        let mut ends = self.ends.subscribe();
        ends.wait_for(|ends| *ends).await.unwrap();
        Ok(Done::new(()))
    }
}

fn engine(sim: &Sim, journal: impl Journal, leases: Arc<dyn Leases>, action: &Lasts) -> Engine {
    let mut registry = ActionRegistry::new();
    registry.register(action.clone()).unwrap();
    Engine::builder(registry, Arc::new(journal), sim.seams(), sim.lanes())
        .leases(leases)
        .lease_terms(TERM, MARGIN)
        .audited()
        .build()
}

/// A run whose process ended in the middle of its step.
fn left_behind(store: &Arc<MemoryJournal>) {
    let (sim, action) = (Sim::new(1), Lasts::new());
    let leases: Arc<dyn Leases> = Arc::<MemoryJournal>::clone(store);
    let engine = engine(&sim, Arc::clone(store), leases, &action);
    sim.run(async {
        let mut plan = PlanBuilder::new("lasts");
        plan.claim(Claim::exclusive("thing".parse().unwrap()));
        plan.step("step", Lasts::with(())).retry(Retry::times(100)).add();
        engine.submit(Submission::new(plan.build().unwrap())).await.unwrap();
        while action.begun() == 0 {
            pause(&sim.seams(), Duration::from_millis(1)).await;
        }
    });
}

/// What a slow process waits for: another that carries on with the run, all the way into its step.
#[derive(Debug, Clone)]
struct Faster {
    engine: Arc<OnceLock<Engine>>,
    action: Lasts,
    sim: Sim,
}

impl Faster {
    async fn goes_first(&self) {
        if self.action.begun() > 0 {
            return;
        }
        let recovery = self.engine.get().unwrap().recover().await.unwrap();
        assert_eq!(recovery.runs.len(), 1);
        while self.action.begun() == 0 {
            pause(&self.sim.seams(), Duration::from_millis(1)).await;
        }
    }
}

/// The journal of a process that does not stand alone.
fn shared(store: &Arc<MemoryJournal>) -> HookJournal<Arc<MemoryJournal>> {
    HookJournal::after(Arc::clone(store), |_| {}).shared()
}

/// Lets a slow process and a faster one recover, and looks at who has carried on.
fn both_recover(slow_to: impl Fn(&Sim, &Arc<MemoryJournal>, &Faster) -> Engine) {
    let store = Arc::new(MemoryJournal::new());
    left_behind(&store);
    let sim = Sim::new(2);
    let leases: Arc<dyn Leases> = Arc::<MemoryJournal>::clone(&store);
    let action = Lasts::new();
    let faster = Faster { engine: Arc::default(), action: action.clone(), sim: sim.clone() };
    let first = engine(&sim, shared(&store), leases, &action);
    faster.engine.set(first.clone()).unwrap();
    let slow = slow_to(&sim, &store, &faster);
    sim.run(async {
        pause(&sim.seams(), TERM + MARGIN).await;
        let recovery = slow.recover().await.unwrap();
        assert!(recovery.runs.is_empty(), "{recovery:?}");
        assert_eq!(recovery.elsewhere.len(), 1, "{recovery:?}");
        // Long enough for whatever must not come.
        pause(&sim.seams(), TERM / 2).await;
        assert_eq!(action.begun(), 1, "the step of the process that carries on, and no other");
        assert_eq!(slow.holders().await.unwrap().len(), 1);
        // Whoever asks the slow one for the run is told how it ends, by the other.
        let (run, _) = recovery.elsewhere[0];
        let watched = slow.watch(run).await.unwrap();
        action.ends.send_replace(true);
        assert_eq!(watched.wait().await.unwrap().end(), End::Succeeded);
        assert_eq!(first.run(run).unwrap().wait().await.unwrap().end(), End::Succeeded);
        assert_eq!(store.ends(), [End::Succeeded]);
    });
}

#[test]
fn a_run_that_another_has_taken_since_it_was_found_is_left_alone() {
    both_recover(|sim, store, faster| {
        let theirs = faster.clone();
        let leases = HookLeases::new(store, move |_, before| {
            let faster = theirs.clone();
            Box::pin(async move {
                if before == Before::Fence {
                    faster.goes_first().await;
                }
                Ok(())
            })
        });
        engine(sim, shared(store), Arc::new(leases), &faster.action)
    });
}

#[test]
fn a_run_that_another_has_taken_since_it_was_read_is_left_alone() {
    both_recover(|sim, store, faster| {
        let theirs = faster.clone();
        let journal = HookJournal::new(Arc::clone(store), move |batch| {
            let faster = theirs.clone();
            let takes = batch.appends.iter().any(|a| matches!(a.stream, StreamId::Run(_)));
            Box::pin(async move {
                if takes {
                    faster.goes_first().await;
                }
                Ok(())
            })
        });
        let leases: Arc<dyn Leases> = Arc::<MemoryJournal>::clone(store);
        engine(sim, journal.shared(), leases, &faster.action)
    });
}
