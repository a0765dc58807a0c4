//! What the tests of the engine share: a simulated engine, and steps that leave a trace.
#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]

pub mod backup;
pub mod exclusive;
pub mod leases;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use stillpoint_context::{Cx, Effect, ErrorClass, Failure, Seams};
use stillpoint_workflow::testing::{HookJournal, Sim};
use stillpoint_workflow::*;

/// An engine in a simulation, every state compared with its records.
pub fn engine(sim: &Sim) -> Engine {
    let journal = HookJournal::jitter(MemoryJournal::new(), sim, Duration::from_millis(2));
    engine_over(sim, Arc::new(journal))
}

pub fn engine_over(sim: &Sim, journal: Arc<dyn Journal>) -> Engine {
    Engine::builder(ActionRegistry::new(), journal, sim.seams(), sim.lanes()).audited().build()
}

/// Checks that the journal alone leads, record by record, to the state in which the run ended.
pub async fn replays(run: &RunHandle) {
    let report = run.wait().await.unwrap();
    let mut records = Vec::new();
    let mut all = run.subscribe(Seq(0));
    while let Some(stored) = all.next().await.unwrap() {
        assert_eq!(stored.seq, Seq(records.len() as u64), "records are dense");
        records.push((stored.at.mono, stored.record));
    }
    for length in 1..=records.len() {
        let prefix = records[..length].iter().map(|(at, record)| (*at, record));
        let state = RunState::replay(prefix).expect("every prefix replays");
        assert_eq!(state.end().is_some(), length == records.len(), "it ends with its last record");
        if length == records.len() {
            assert!(state == *report, "replay gives the state of the driver");
        }
    }
}

/// What happened, in order.
#[derive(Debug, Clone, Default)]
pub struct Trace(Arc<Mutex<Vec<String>>>);

impl Trace {
    pub fn note(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }

    pub fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    pub fn position(&self, what: &str) -> Option<usize> {
        self.all().iter().position(|entry| entry == what)
    }

    pub fn count(&self, what: &str) -> usize {
        self.all().iter().filter(|entry| *entry == what).count()
    }

    /// Asserts that both happened, in this order.
    pub fn ordered(&self, first: &str, second: &str) {
        let (a, b) = (self.position(first), self.position(second));
        assert!(a.is_some() && b.is_some() && a < b, "{first} before {second} in {:?}", self.all());
    }

    /// A step that notes `name` and, when undone, `undo name`.
    pub fn step(&self, name: &str) -> Call<(), ()> {
        self.step_in(name, Duration::from_millis(10))
    }

    /// The same, taking this long.
    pub fn step_in(&self, name: &str, time: Duration) -> Call<(), ()> {
        let (run, undo) = (self.clone(), self.clone());
        let (done, undone) = (name.to_owned(), format!("undo {name}"));
        step_fn(move |cx: Cx, ()| {
            let (trace, done) = (run.clone(), done.clone());
            async move {
                cx.sleep(time).await.map_err(|error| Failure::of(&error))?;
                trace.note(done);
                Ok(Done::new(()))
            }
        })
        .undo(move |_, (), _| {
            let (trace, undone) = (undo.clone(), undone.clone());
            async move {
                trace.note(undone);
                Ok(Undone::clean())
            }
        })
    }
}

/// A failure that is never retried.
pub fn refusal(effect: Effect) -> Failure {
    Failure::new("test.refused", ErrorClass::Invalid, "refused").with_effect(effect)
}

/// A failure that is worth another try.
pub fn hiccup(effect: Effect) -> Failure {
    Failure::new("test.hiccup", ErrorClass::Unavailable, "hiccup").with_effect(effect)
}

/// A step that always fails so.
pub fn failing(failure: Failure) -> Call<(), ()> {
    step_fn(move |_, ()| {
        let failure = failure.clone();
        async move { Err::<Done<()>, _>(failure) }
    })
}

/// A step that never ends, not even when told to.
pub fn hanging() -> Call<(), ()> {
    step_fn(|_, ()| std::future::pending::<Result<Done<()>, Failure>>())
}

/// Waits in virtual time.
pub async fn pause(seams: &Seams, time: Duration) {
    seams.clock.sleep_until(seams.clock.mono() + time).await;
}

pub fn key(text: &str) -> ClaimKey {
    ClaimKey::new(text).unwrap()
}

/// Runs a test under many seeds; a failure names its seed.
pub fn for_seeds(count: u64, test: impl Fn(Sim)) {
    let only = std::env::var("SIM_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = only.map_or(0..count, |seed| seed..seed + 1);
    for seed in seeds {
        let result =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(Sim::new(seed))));
        if let Err(panic) = result {
            eprintln!(
                "seed {seed} failed; replay it alone with SIM_SEED={seed} cargo test -p stillpoint-workflow"
            );
            std::panic::resume_unwind(panic);
        }
    }
}
