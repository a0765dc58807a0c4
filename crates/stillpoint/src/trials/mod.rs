//! The engine's trials on our own plans, over a simulated Exchange and storage: whatever goes wrong, nothing stays frozen, no
//! session stays open, and nothing is on storage or in the catalogue that the outcome does not tell of.
//!
//! Of the places at which something waits each second is tried; `TRIALS=all` tries every one, under more seeds:
//!
//! ```text
//!   TRIALS=all cargo test -p stillpoint --lib trials
//! ```

// Tests may panic and print; their helpers are no test functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod backup;
mod prune;
mod restore;

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use stillpoint_catalog::{CatalogExt as _, MemoryCatalog, PointQuery};
use stillpoint_context::IdempotencyKey;
use stillpoint_exchange::{Coordination, ExchangePlugin as _, Scope};
use stillpoint_model::group::Selector;
use stillpoint_model::id::PolicyId;
use stillpoint_model::point::RestorePoint;
use stillpoint_model::policy::Policy;
use stillpoint_model::request::{BackupRequest, Target};
use stillpoint_storage::SnapshotProvider;
use stillpoint_testkit::{
    CopySpec, DatabaseSpec, Fault, PLUGIN_CALLS, PLUGIN_RESTORE_CALLS, PROVIDER_CALLS,
    PROVIDER_RESTORE_CALLS, VolumeSpec, World,
};
use stillpoint_workflow::testing::{Scenario, Sim, trials};
use stillpoint_workflow::{ActionRegistry, MemoryJournal};
use uuid::Uuid;

use crate::Stillpoint;
use crate::pump::Pump;
use crate::services::Services;

const HOST: &str = "ex1.example.com";
const ARRAYS: [&str; 2] = ["alpha", "beta"];

/// How long an answer takes.
const ANSWER: Duration = Duration::from_millis(20);

/// How much later it is looked at: all that would still happen has happened.
const LATER: Duration = Duration::from_hours(4);

/// What outlives the processes: the world, and the state.
#[derive(Debug, Clone)]
struct Lab {
    world: World,
    mode: Coordination,
    catalog: Arc<MemoryCatalog>,
    journal: Arc<MemoryJournal>,
}

impl Lab {
    /// Databases with their data on one array and their logs on another, so that a set spans two providers.
    fn new(mode: Coordination, databases: u32) -> Self {
        let mut builder = World::builder().host(HOST);
        for number in 1..=databases {
            let name = format!("DB{number:02}");
            let [data, logs] = ["data", "logs"].map(|kind| format!("{kind}{number:02}"));
            for (volume, array) in [&data, &logs].into_iter().zip(ARRAYS) {
                let place = format!(r"D:\{volume}");
                let volume = VolumeSpec::new(volume).provider(array).mounted(HOST, place);
                builder = builder.volume(volume);
            }
            builder = builder
                .database(
                    DatabaseSpec::new(&name)
                        .writes_every(Duration::from_secs(5))
                        .per_generation(60),
                )
                .copy(CopySpec::active(&name, HOST).on(data, logs).preference(1));
        }
        let world = builder.build();
        // Each answer takes its time, so that a cancel or a death comes also where an effect is done and nobody knows of it.
        let plugin = PLUGIN_CALLS.into_iter().chain(PLUGIN_RESTORE_CALLS);
        for call in plugin.chain(PROVIDER_CALLS).chain(PROVIDER_RESTORE_CALLS) {
            world.faults().on(call).after_effect().inject(Fault::Slow(ANSWER));
        }
        let (catalog, journal) = (MemoryCatalog::new(), MemoryJournal::new());
        Self { world, mode, catalog: Arc::new(catalog), journal: Arc::new(journal) }
    }

    fn policy() -> Policy {
        Policy::new(PolicyId(Uuid::from_u128(1)), "default")
    }

    fn request() -> BackupRequest {
        let everything = Target::Selected(vec![Selector::Everything]);
        BackupRequest::new(IdempotencyKey::new("night").unwrap(), everything, Self::policy().id)
    }

    /// A Stillpoint that plans here. Its engine has a journal of its own.
    fn stillpoint(&self, sim: &Sim) -> Stillpoint {
        let mut builder = Stillpoint::builder(Arc::new(self.world.exchange().only(self.mode)))
            .catalog(Arc::clone(&self.catalog) as _)
            .seams(sim.seams())
            .lanes(sim.lanes());
        for array in ARRAYS {
            builder = builder.provider(Arc::new(self.world.storage_named(array)));
        }
        builder.build().unwrap()
    }

    /// The actions of a process.
    fn registry(&self) -> ActionRegistry {
        let providers = ARRAYS.map(|array| {
            let provider: Arc<dyn SnapshotProvider> = Arc::new(self.world.storage_named(array));
            (provider.caps().provider.clone(), provider)
        });
        let services = Services {
            one_store: false,
            plugin: Arc::new(self.world.exchange().only(self.mode)),
            providers: providers.into(),
            catalog: Arc::clone(&self.catalog) as _,
            hooks: None,
            notifiers: Vec::new(),
            pump: self.pump(),
            state: Vec::new(),
        };
        crate::builder::registry(&Arc::new(services)).unwrap()
    }

    fn pump(&self) -> Pump {
        Pump::new(Arc::clone(&self.journal) as _)
    }

    /// The restore points that the catalogue has once it was fed, some time later, when all has come that was to come by itself.
    fn points_later(&self) -> Vec<RestorePoint> {
        let sim = Sim::starting_at(0, LATER);
        sim.run(async {
            // The world goes by the clock of whoever calls it.
            let cx = stillpoint_context::Cx::detached(&sim.seams());
            self.world.exchange().inventory(&cx, &Scope::Everything).await.unwrap();
            self.pump().run(&*self.catalog).await.unwrap();
            self.catalog.all_points(&PointQuery::all()).await.unwrap()
        })
    }

    /// What must hold after whatever end.
    fn check_at_rest(&self) -> Result<(), String> {
        let world = &self.world;
        let frozen: Vec<_> =
            world.hosts().into_iter().filter(|host| world.is_frozen(host)).collect();
        nothing("frozen hosts", &frozen)?;
        nothing("open sessions", &world.open_sessions())?;
        nothing("exposures", &world.exposures())?;
        nothing("prepared sets", &world.prepared_sets())?;
        nothing("snapshots in flight", &world.in_flight())?;
        nothing("staged files", &world.staged())?;
        nothing("violations of contracts", &world.violations())
    }
}

fn nothing<T: std::fmt::Debug>(what: &str, found: &[T]) -> Result<(), String> {
    if found.is_empty() { Ok(()) } else { Err(format!("{what}: {found:#?}")) }
}

fn holds(condition: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(why()) }
}

/// Tries a scenario with each mishap, and says with how many.
fn try_all<S: Scenario>(scenario: &S) {
    try_at_least(scenario, 60);
}

fn try_at_least<S: Scenario>(scenario: &S, least: usize) {
    let all = std::env::var_os("TRIALS").is_some_and(|which| which == "all");
    let (seeds, stride) = if all { (4, 1) } else { (1, 2) };
    for seed in 0..seeds {
        let tried = trials::sampled(scenario, seed, NonZeroU64::new(stride).unwrap());
        let tried = tried.unwrap_or_else(|failed| panic!("{failed}"));
        println!("seed {seed}: {tried} mishaps");
        assert!(tried > least, "{tried} mishaps");
    }
}
