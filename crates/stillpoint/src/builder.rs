//! Putting a Stillpoint together.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use stillpoint_catalog::{Catalog, MemoryCatalog};
use stillpoint_context::{HostPath, Seams};
use stillpoint_exchange::ExchangePlugin;
use stillpoint_model::id::ProviderId;
use stillpoint_storage::SnapshotProvider;
use stillpoint_workflow::{
    ActionRegistry, Engine, EngineBuilder, Journal, Lanes, Leases, MemoryJournal, RegistryError,
    ThreadLanes, TokioSeams,
};

use crate::Stillpoint;
use crate::backup::judge::Judge;
use crate::backup::logs::{Closed, Conclude, StillThere};
use crate::backup::points::{Index, Inspect, Publish};
use crate::backup::session::{Begin, Complete, Confirm, Evidence, Freeze, Snap, Thaw};
use crate::backup::snapshots::{Adopt, Commit, Prepare, Settle};
use crate::error::Error;
use crate::exposure::{Check, Expose, Unexpose};
use crate::hooks::HookRunner;
use crate::hooks::steps::RunHook;
use crate::notify::{Notifier, NotifyOn, Subscription};
use crate::pools;
use crate::prune::steps::{Decide, Delete};
use crate::pump::Pump;
use crate::reconcile::steps::Tend;
use crate::restore::steps::{CheckStaged, Finish, Fork, Open, Place, Release, Stage};
use crate::services::Services;
use crate::timeouts::Timeouts;
use crate::truncation::AskTruncation;
use crate::verify::{Load, Record};

/// Puts a [`Stillpoint`] together.
///
/// What is not given is the default: memory for journal and catalogue, tokio's clock and tasks, threads for the guard
/// lanes.
#[derive(Debug)]
pub struct Builder {
    plugin: Arc<dyn ExchangePlugin>,
    providers: Vec<Arc<dyn SnapshotProvider>>,
    catalog: Option<Arc<dyn Catalog>>,
    hooks: Option<Arc<dyn HookRunner>>,
    notifiers: Vec<Subscription>,
    /// Whether it is in the store that keeps the leases.
    one_store: bool,
    journal: Option<Arc<dyn Journal>>,
    leases: Option<Arc<dyn Leases>>,
    seams: Option<Seams>,
    lanes: Option<Arc<dyn Lanes>>,
    timeouts: Timeouts,
    storage_operations: Option<NonZeroU32>,
    tune: Option<Tune>,
    state: Vec<HostPath>,
}

/// What the embedder says about the engine.
struct Tune(Box<dyn FnOnce(EngineBuilder) -> EngineBuilder + Send>);

impl fmt::Debug for Tune {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tune")
    }
}

impl Builder {
    pub(crate) fn new(plugin: Arc<dyn ExchangePlugin>) -> Self {
        Self {
            plugin,
            providers: Vec::new(),
            catalog: None,
            hooks: None,
            notifiers: Vec::new(),
            one_store: false,
            journal: None,
            leases: None,
            seams: None,
            lanes: None,
            timeouts: Timeouts::default(),
            storage_operations: None,
            tune: None,
            state: Vec::new(),
        }
    }

    /// Adds a snapshot provider; a backup may span several.
    pub fn provider(mut self, provider: Arc<dyn SnapshotProvider>) -> Self {
        self.providers.push(provider);
        self
    }

    /// Where restore points, jobs, policies and groups are kept.
    pub fn catalog(mut self, catalog: Arc<dyn Catalog>) -> Self {
        self.catalog = Some(catalog);
        self.one_store = false;
        self
    }

    /// Where the engine keeps its records.
    pub fn journal(mut self, journal: Arc<dyn Journal>) -> Self {
        self.journal = Some(journal);
        self
    }

    /// Where the processes that share the journal keep their leases: needed for [`Stillpoint::recover`] to tell which of them
    /// are gone.
    pub fn leases(mut self, leases: Arc<dyn Leases>) -> Self {
        self.leases = Some(leases);
        self.one_store = false;
        self
    }

    /// One store for everything: catalogue, journal and leases, as the embedded one is.
    ///
    /// What it holds outlives the process, and several processes may share it. Call [`Stillpoint::recover`] once the
    /// Stillpoint is built.
    pub fn store<S: Catalog + Journal + Leases>(self, store: Arc<S>) -> Self {
        let (catalog, journal) = (Arc::clone(&store), Arc::clone(&store));
        let all = self.catalog(catalog).journal(journal).leases(store);
        Self { one_store: true, ..all }
    }

    /// Says that a file of the state (of the store, the journal or the catalogue) lies here; may be called for several.
    ///
    /// A freeze that blocks all writes to the volume of such a file would block the very records that are to end it, so no
    /// backup is planned that does: the copies on that volume are refused as `state.on_protected_volume`. Where it lies is for
    /// the providers to [resolve](SnapshotProvider::resolve); nothing is refused where the plug-in holds only the writes of
    /// Exchange, or the data is at rest.
    ///
    /// ```
    /// # use std::{error::Error, sync::Arc};
    /// # use stillpoint::Stillpoint;
    /// use stillpoint::context::{HostPath, PathFlavor};
    ///
    /// # fn build(world: &stillpoint_testkit::World) -> Result<Stillpoint, Box<dyn Error>> {
    /// let state = HostPath::new("ex1.example.com".parse()?, PathFlavor::Windows, r"D:\Backup\stillpoint.db")?;
    /// let stillpoint = Stillpoint::builder(Arc::new(world.exchange()))
    ///     .provider(Arc::new(world.storage()))
    ///     .state_at(state)
    ///     .build()?;
    /// # Ok(stillpoint)
    /// # }
    /// ```
    pub fn state_at(mut self, file: HostPath) -> Self {
        self.state.push(file);
        self
    }

    /// What runs the hooks of policies. Without it a policy with hooks is refused (`hook.no_runner`), and one that is there already
    /// has hooks that fail.
    pub fn hooks(mut self, runner: Arc<dyn HookRunner>) -> Self {
        self.hooks = Some(runner);
        self
    }

    /// Adds somebody who is told what became of each job that comes out in one of these ways. May be called for several.
    pub fn notifier(mut self, on: NotifyOn, notifier: Arc<dyn Notifier>) -> Self {
        self.notifiers.push(Subscription { on, notifier });
        self
    }

    /// Clock, tasks and ids. For tests under virtual time.
    pub fn seams(mut self, seams: Seams) -> Self {
        self.seams = Some(seams);
        self
    }

    /// Where guards run. For tests under virtual time.
    pub fn lanes(mut self, lanes: Arc<dyn Lanes>) -> Self {
        self.lanes = Some(lanes);
        self
    }

    /// How long steps may take.
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// How many operations of storages (snapshots, deletions, exposures, restores) are under way at once, over all providers; as
    /// many as there are, unless said. What is more waits in line, first come, first served; a freeze has what it needs before it
    /// begins. A set that commits on more providers than that is given the whole line at once, as its snapshots belong together.
    ///
    /// A session that waits goes on: where the limit is far below the number of servers that are backed up at one time, backups may
    /// find theirs expired and fail. It is that of this process.
    pub fn storage_operations(mut self, most: NonZeroU32) -> Self {
        self.storage_operations = Some(most);
        self
    }

    /// Changes how the engine is made: the process in whose name it writes, and, in tests, what is between it and its actions.
    pub fn engine(
        mut self,
        tune: impl FnOnce(EngineBuilder) -> EngineBuilder + Send + 'static,
    ) -> Self {
        self.tune = Some(Tune(Box::new(tune)));
        self
    }

    /// The Stillpoint. Called inside a tokio runtime unless [`seams`](Self::seams) were given.
    ///
    /// # Errors
    /// [`Error::Configuration`] when there is no provider, or two of one id, or neither seams nor a runtime.
    pub fn build(self) -> Result<Stillpoint, Error> {
        let mut providers: BTreeMap<ProviderId, Arc<dyn SnapshotProvider>> = BTreeMap::new();
        for provider in self.providers {
            let id = provider.caps().provider;
            if providers.insert(id.clone(), provider).is_some() {
                return Err(Error::Configuration(format!("there are two providers {id}")));
            }
        }
        if providers.is_empty() {
            return Err(Error::Configuration("there is no snapshot provider".to_owned()));
        }
        let seams = self.seams.or_else(TokioSeams::current).ok_or_else(|| {
            Error::Configuration("there is no tokio runtime, and no seams were given".to_owned())
        })?;
        let journal = self.journal.unwrap_or_else(|| Arc::new(MemoryJournal::new()));
        let lanes = self.lanes.unwrap_or_else(|| Arc::new(ThreadLanes));
        let services = Arc::new(Services {
            plugin: self.plugin,
            providers,
            catalog: self.catalog.unwrap_or_else(|| Arc::new(MemoryCatalog::new())),
            hooks: self.hooks,
            notifiers: self.notifiers,
            one_store: self.one_store,
            pump: Pump::new(Arc::clone(&journal)),
            state: self.state,
        });
        let engine = Engine::builder(registry(&services)?, journal, seams.clone(), lanes);
        let engine = match self.leases {
            Some(leases) => engine.leases(leases),
            None => engine,
        };
        let limited = pools::storage().zip(self.storage_operations);
        let engine = match limited {
            Some((pool, most)) => engine.pool(pool, most),
            None => engine,
        };
        let engine = match self.tune {
            Some(Tune(tune)) => tune(engine),
            None => engine,
        };
        let engine = engine.build();
        Ok(Stillpoint::assemble(services, engine, seams, self.timeouts))
    }
}

/// Every action that a plan of ours may name.
pub(crate) fn registry(services: &Arc<Services>) -> Result<ActionRegistry, Error> {
    let shared = || Arc::clone(services);
    let mut registry = ActionRegistry::new();
    let mut add = || -> Result<(), RegistryError> {
        registry.register(Confirm(shared()))?;
        registry.register(Begin(shared()))?;
        registry.register(Freeze(shared()))?;
        registry.register(Thaw(shared()))?;
        registry.register(Snap(shared()))?;
        registry.register(Evidence(shared()))?;
        registry.register(Complete(shared()))?;
        registry.register(Prepare(shared()))?;
        registry.register(Commit(shared()))?;
        registry.register(Adopt(shared()))?;
        registry.register(Settle(shared()))?;
        registry.register(Closed(shared()))?;
        registry.register(StillThere(shared()))?;
        registry.register(Conclude)?;
        registry.register(AskTruncation(shared()))?;
        registry.register(Inspect)?;
        registry.register(Judge)?;
        registry.register(Publish(shared()))?;
        registry.register(Index(shared()))?;
        registry.register(Expose(shared()))?;
        registry.register(Check(shared()))?;
        registry.register(Unexpose(shared()))?;
        registry.register(Open(shared()))?;
        registry.register(Fork(shared()))?;
        registry.register(Stage(shared()))?;
        registry.register(CheckStaged(shared()))?;
        registry.register(Place(shared()))?;
        registry.register(Finish(shared()))?;
        registry.register(Release(shared()))?;
        registry.register(Load(shared()))?;
        registry.register(Record)?;
        registry.register(Decide(shared()))?;
        registry.register(Delete(shared()))?;
        registry.register(Tend(shared()))?;
        registry.register(RunHook(shared()))?;
        Ok(())
    };
    add().map_err(|error| Error::Configuration(error.to_string()))?;
    Ok(registry)
}
