//! A backup in small, for processes that die in it: its world, its actions, its plan, and engines over one store.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use stillpoint_context::{Cx, Failure, FencingToken};
use stillpoint_workflow::testing::{HookJournal, Scenario, Sim};
use stillpoint_workflow::*;

use super::{key, pause};

pub const SECOND: Duration = Duration::from_secs(1);
pub const TERM: Duration = Duration::from_mins(1);
pub const MARGIN: Duration = Duration::from_secs(10);

/// What is outside: things that were made, a section that is frozen, tokens that were seen.
#[derive(Debug, Clone, Default)]
pub struct Site(Arc<Mutex<Things>>);

#[derive(Debug, Default)]
pub struct Things {
    pub made: BTreeSet<String>,
    pub frozen: bool,
    pub fence: FencingToken,
    pub done: u32,
}

impl Site {
    pub fn with<T>(&self, look: impl FnOnce(&mut Things) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }

    /// Refuses a token lower than one that was seen.
    fn admit(&self, cx: &Cx) {
        self.with(|things| {
            assert!(
                cx.fence() >= things.fence,
                "token {:?} of {} acts after {:?}",
                cx.fence(),
                cx.run(),
                things.fence
            );
            things.fence = cx.fence();
        });
    }
}

macro_rules! action {
    ($name:ident, $text:literal, $effect:ident, $idempotent:literal, $in:ty, |$world:ident, $cx:ident, $params:ident| $run:block, |$w2:ident, $p2:ident| $undo:block) => {
        #[derive(Debug)]
        pub struct $name(Site);
        #[async_trait::async_trait]
        impl Action for $name {
            const NAME: &'static str = $text;
            const EFFECT: EffectKind = EffectKind::$effect;
            const IDEMPOTENT: bool = $idempotent;
            type Params = String;
            type Input = $in;
            type Output = ();
            async fn run(&self, $cx: &Cx, $params: &String, _: $in) -> Result<Done<()>, Failure> {
                let $world = &self.0;
                // Time to die in, before and after.
                $cx.sleep(Duration::from_millis(5)).await.map_err(|error| Failure::of(&error))?;
                $run;
                $cx.sleep(Duration::from_millis(5)).await.map_err(|error| Failure::of(&error))?;
                Ok(Done::new(()))
            }
            async fn undo(
                &self,
                _: &Cx,
                $p2: &String,
                _: $in,
                _: Known<()>,
            ) -> Result<Undone, Failure> {
                let $w2 = &self.0;
                $undo;
                Ok(Undone::clean())
            }
        }
    };
}

action!(
    Make,
    "make",
    Reversible,
    true,
    (),
    |world, cx, name| {
        world.admit(cx);
        world.with(|things| things.made.insert(name.clone()));
    },
    |world, name| { world.with(|things| things.made.remove(name)) }
);
action!(
    Freeze,
    "freeze",
    Reversible,
    false,
    (),
    |world, cx, _name| {
        world.with(|things| things.frozen = true);
        let _ = cx;
    },
    |_world, _name| {}
);
action!(
    Snap,
    "snap",
    Reversible,
    false,
    (),
    |world, _cx, name| {
        world.with(|things| {
            assert!(things.frozen, "taken outside the freeze");
            things.made.insert(name.clone())
        });
    },
    |world, name| {
        world.with(|things| {
            assert!(!things.frozen, "undone inside the freeze");
            things.made.remove(name)
        })
    }
);
action!(
    Thaw,
    "thaw",
    Irreversible,
    true,
    (Known<()>, ()),
    |world, _cx, _name| {
        world.with(|things| things.frozen = false);
    },
    |_world, _name| {}
);
action!(
    Finish,
    "finish",
    Irreversible,
    true,
    (),
    |world, cx, _name| {
        world.admit(cx);
        world.with(|things| things.done += 1);
    },
    |_world, _name| {}
);

/// Make, freeze with two snapshots, make again, finish past no return.
pub struct Backup {
    pub no_return: bool,
}

impl Scenario for Backup {
    type World = Site;

    fn world(&self) -> Site {
        Site::default()
    }

    fn registry(&self, world: &Site) -> ActionRegistry {
        let mut registry = ActionRegistry::new();
        registry.register(Make(world.clone())).unwrap();
        registry.register(Freeze(world.clone())).unwrap();
        registry.register(Snap(world.clone())).unwrap();
        registry.register(Thaw(world.clone())).unwrap();
        registry.register(Finish(world.clone())).unwrap();
        registry
    }

    fn plan(&self, _: &Site) -> Plan {
        let named = |name: &str| name.to_owned();
        let mut plan = PlanBuilder::new("backup");
        plan.claim(Claim::exclusive(key("db/1/live")));
        plan.claim(Claim::exclusive(key("host/1/freeze")).until("guard".parse().unwrap()));
        let first = plan.step("first", Make::with(named("first"))).retry(Retry::times(3)).add();
        let (verdict, ()) = plan
            .guard("guard")
            .after(first)
            .limit(Some(20 * SECOND))
            .exit_timeout(SECOND)
            .member("host", Freeze::with(named("")).bind(()), Thaw::with(named("")).bind(()))
            .body(|body| {
                body.step("data", Snap::with(named("data"))).add();
                body.step("logs", Snap::with(named("logs"))).add();
            })
            .close();
        let second = plan
            .step("second", Make::with(named("second")))
            .after(verdict)
            .retry(Retry::times(2))
            .add();
        let finish = plan.step("finish", Finish::with(named(""))).after(second);
        let finish = finish.retry(Retry::times(3));
        if self.no_return {
            finish.no_return().add()
        } else {
            finish.add()
        };
        plan.build().unwrap()
    }

    fn check(&self, world: &Site, end: End) -> Result<(), String> {
        world.with(|things| {
            let all: BTreeSet<_> = ["data", "first", "logs", "second"].map(str::to_owned).into();
            if things.frozen {
                return Err(format!("frozen after {end:?}"));
            }
            let made = &things.made;
            match end {
                End::Succeeded | End::SucceededWithWarnings if *made != all || things.done == 0 => {
                    Err(format!("{made:?} after {end:?}, finished {} times", things.done))
                }
                // Its irreversible last step is debris if it was done and the run failed for it.
                End::Failed | End::Cancelled | End::NeedsAttention
                    if !made.is_empty() && (things.done == 0 || !self.no_return) =>
                {
                    Err(format!("{made:?} left after {end:?}"))
                }
                _ => Ok(()),
            }
        })
    }
}

/// An engine of one process over a store that others share.
pub fn process(sim: &Sim, store: &Arc<MemoryJournal>, world: &Site, registry: bool) -> Engine {
    let jitter = HookJournal::jitter(Arc::clone(store), sim, Duration::from_millis(2)).shared();
    let registry =
        if registry { Backup { no_return: true }.registry(world) } else { ActionRegistry::new() };
    Engine::builder(registry, Arc::new(jitter), sim.seams(), sim.lanes())
        .leases(Arc::clone(store) as Arc<dyn Leases>)
        .lease_terms(TERM, MARGIN)
        .audited()
        .build()
}

pub fn backup() -> Submission {
    Submission::new(Backup { no_return: true }.plan(&Site::default()))
}

/// What a process does until it dies: everything of it is gone with the simulation.
pub fn dies_when(store: &Arc<MemoryJournal>, world: &Site, at: impl Fn(&Things) -> bool) {
    let sim = Sim::new(1);
    let engine = process(&sim, store, world, true);
    sim.run(async {
        engine.submit(backup()).await.unwrap();
        while !world.with(|things| at(things)) {
            pause(&sim.seams(), Duration::from_millis(1)).await;
        }
    });
}
