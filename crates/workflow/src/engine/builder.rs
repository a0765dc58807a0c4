//! Putting an engine together.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::atomic::AtomicU8;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use stillpoint_context::{ProcessId, Seams};
use tokio::sync::{broadcast, mpsc};

use super::{Engine, Inner, NOTICES, OPEN};
use crate::action::ActionRegistry;
use crate::driver::{ArbiterTask, Core, LeaseKeeper, Shared, Terms};
use crate::journal::Journal;
use crate::lane::Lanes;
use crate::lease::Leases;
use crate::machine::{GrantPolicy, PoolMachine};
use crate::pool::PoolName;

/// The most runs that may be open at once, where the embedder does not say.
const LIMIT: usize = 65_536;

/// Makes an [`Engine`].
#[must_use]
pub struct EngineBuilder {
    registry: ActionRegistry,
    journal: Arc<dyn Journal>,
    leases: Option<Arc<dyn Leases>>,
    terms: Terms,
    seams: Seams,
    lanes: Arc<dyn Lanes>,
    owner: Option<ProcessId>,
    pools: BTreeMap<PoolName, u32>,
    limit: usize,
    policy: GrantPolicy,
    audit: bool,
}

impl fmt::Debug for EngineBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineBuilder")
            .field("journal", &self.journal)
            .field("pools", &self.pools)
            .finish_non_exhaustive()
    }
}

impl EngineBuilder {
    pub(super) fn new(
        registry: ActionRegistry,
        journal: Arc<dyn Journal>,
        seams: Seams,
        lanes: Arc<dyn Lanes>,
    ) -> Self {
        Self {
            registry,
            journal,
            leases: None,
            terms: Terms::default(),
            seams,
            lanes,
            owner: None,
            pools: BTreeMap::new(),
            limit: LIMIT,
            policy: GrantPolicy::default(),
            audit: false,
        }
    }

    /// The process in whose name it writes; a new one unless said. Two engines must not have one.
    pub fn owner(mut self, owner: ProcessId) -> Self {
        self.owner = Some(owner);
        self
    }

    /// The leases of the journal's store: needed where several processes share it, and for [`Engine::recover`] to tell which
    /// of them are gone. The engine acquires its lease with the first call that needs one.
    pub fn leases(mut self, leases: Arc<dyn Leases>) -> Self {
        self.leases = Some(leases);
        self
    }

    /// How long a lease lasts without being renewed (two minutes unless said), and how long after its end another process may
    /// take over (ten seconds).
    ///
    /// A guard whose limit is longer than the term cannot be armed. The margin has to cover how long an effect that had been
    /// admitted may take to reach the other side.
    pub fn lease_terms(mut self, term: Duration, margin: Duration) -> Self {
        self.terms = Terms { term, margin };
        self
    }

    /// The number of slots of a pool. A pool that nobody has given a limit is none.
    pub fn pool(mut self, pool: PoolName, limit: NonZeroU32) -> Self {
        self.pools.insert(pool, limit.get());
        self
    }

    /// How many runs may be open at once; beyond that, [`Engine::submit`] answers `engine.queue_full`.
    pub fn queue_limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// Whether claims exclude each other; for tests that must fail when they do not.
    #[cfg(any(test, feature = "testing"))]
    pub fn grant_policy(mut self, policy: GrantPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Puts a test between the engine and its registered actions.
    #[cfg(any(test, feature = "testing"))]
    pub fn interpose(mut self, interpose: &Arc<dyn crate::testing::Interpose>) -> Self {
        self.registry = self.registry.interposed(interpose);
        self
    }

    /// Compares every state with what its records amount to, and panics where they differ. O(steps) a round.
    #[cfg(any(test, feature = "testing"))]
    pub fn audited(mut self) -> Self {
        self.audit = true;
        self
    }

    /// The engine. Its arbiter is spawned through the seams, so with [`TokioSeams`](crate::TokioSeams) their runtime
    /// must be alive.
    pub fn build(self) -> Engine {
        let (arbiter, mailbox) = mpsc::unbounded_channel();
        let (notices, _) = broadcast::channel(NOTICES);
        let owner = self.owner.unwrap_or_else(|| ProcessId(self.seams.ids.uuid()));
        let clock = Arc::clone(&self.seams.clock);
        let lease = Arc::new(LeaseKeeper::new(self.leases, clock, owner, self.terms));
        let core =
            Arc::new(Core { journal: self.journal, seams: self.seams, owner, lease, notices });
        let pools = PoolMachine::new(self.pools);
        let task = ArbiterTask::new(Arc::clone(&core), mailbox, self.policy, pools);
        core.seams.spawner.spawn("arbiter", Box::pin(task.run()));
        let shared = Arc::new(Shared {
            core,
            registry: self.registry,
            lanes: self.lanes,
            arbiter,
            drivers: 0.into(),
            audit: self.audit,
        });
        Engine(Arc::new(Inner {
            shared,
            runs: Mutex::default(),
            limit: self.limit,
            gate: AtomicU8::new(OPEN),
            recovering: tokio::sync::Mutex::default(),
        }))
    }
}
