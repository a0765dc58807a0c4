//! The driver: an ordinary task that runs a machine. It appends, carries out and feeds back, and decides nothing.
//!
//! ```text
//!   attempts, lanes, people ──▶ mailbox ──▶ machine.on ──▶ urgent commands, at once
//!                                              │
//!                                              └──▶ records ──▶ journal ──▶ gated commands
//! ```
//!
//! While an append is under way the next inputs are taken already: what is urgent never waits for the journal, and
//! what gathers meanwhile is one append.

mod arbiter;
mod attempt;
mod fault;
mod guard;
mod lease;
mod mailbox;
mod part;
pub(crate) mod pending;
mod task;
mod unwritten;

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use stillpoint_context::{IdempotencyKey, ProcessId, RunId, Seams, StepName};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

pub(crate) use arbiter::{ArbiterMail, ArbiterTask, Lines, Request, read_snapshot};
pub(crate) use lease::{LeaseKeeper, Terms};
pub(crate) use mailbox::{Address, Mailbox, mailbox};
pub(crate) use task::{Carry, RunTask};

use crate::action::{ActionRegistry, AnyAction};
use crate::engine::{Notice, RunPhase};
use crate::journal::{Append, Batch, Journal, JournalError, Now, Position, Seq, Stored};
use crate::lane::Lanes;
use crate::machine::{Answer, Input, Parked, Resolution, RunState, Ticket};
use crate::plan::NodeNo;

/// What everything of one engine reaches: the journal in its name, the seams, those who listen.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) seams: Seams,
    pub(crate) owner: ProcessId,
    pub(crate) lease: Arc<LeaseKeeper>,
    pub(crate) notices: broadcast::Sender<Notice>,
}

impl Core {
    pub(crate) fn now(&self) -> Now {
        Now { mono: self.seams.clock.mono(), civil: self.seams.clock.now() }
    }

    /// Tells whoever listens; nobody has to.
    pub(crate) fn notify(&self, notice: Notice) {
        let _: Result<usize, _> = self.notices.send(notice);
    }

    /// A commit in the name of this process.
    pub(crate) fn batch(&self, appends: Vec<Append>) -> Batch {
        Batch { owner: self.owner, epoch: self.lease.epoch(), appends, facts: Vec::new() }
    }

    pub(crate) async fn commit(&self, appends: Vec<Append>) -> Result<Position, JournalError> {
        self.journal.commit(self.batch(appends)).await
    }
}

/// What the drivers of one engine share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) core: Arc<Core>,
    pub(crate) registry: ActionRegistry,
    pub(crate) lanes: Arc<dyn Lanes>,
    pub(crate) arbiter: mpsc::UnboundedSender<ArbiterMail>,
    /// The number of drivers.
    pub(crate) drivers: AtomicUsize,
    /// Whether every state is compared with what its records amount to.
    pub(crate) audit: bool,
}

impl std::ops::Deref for Shared {
    type Target = Core;

    fn deref(&self) -> &Core {
        &self.core
    }
}

/// What a run's driver and its handles share.
pub(crate) struct RunLink {
    pub(crate) run: RunId,
    pub(crate) status: watch::Sender<Status>,
    /// Number of records in the journal, and of those who read them as they come.
    pub(crate) head: AtomicU64,
    pub(crate) followers: AtomicUsize,
    pub(crate) mail: Address,
    pub(crate) journal: Arc<dyn Journal>,
    /// The key that it was submitted with.
    pub(crate) key: Option<IdempotencyKey>,
    /// Its first record, where this process has it at hand.
    first: OnceLock<Stored>,
}

impl RunLink {
    pub(crate) fn new(
        run: RunId,
        mail: Address,
        journal: Arc<dyn Journal>,
        key: Option<IdempotencyKey>,
    ) -> Arc<Self> {
        let (status, _) = watch::channel(Status::new());
        let (head, followers) = (AtomicU64::new(0), AtomicUsize::new(0));
        let first = OnceLock::new();
        Arc::new(Self { run, status, head, followers, mail, journal, key, first })
    }

    /// Keeps the run's first record at hand. It holds the plan, which may be larger than all that follows: who follows the run
    /// shares the driver's, instead of reading one of its own.
    pub(crate) fn begin(&self, first: Stored) {
        // There is one first record, so whoever was before has said the same.
        let _ = self.first.set(first);
    }

    /// The first record, if it is at hand.
    pub(crate) fn first(&self) -> Option<&Stored> {
        self.first.get()
    }

    /// Number of records in the journal.
    pub(crate) fn head(&self) -> Seq {
        Seq(self.head.load(Ordering::SeqCst))
    }

    /// Takes note of it; whether it is another than before.
    ///
    /// The status is told after this, and of nothing else only if somebody follows: one that comes now either is seen by
    /// whoever tells, or sees this number.
    pub(crate) fn set_head(&self, head: Seq) -> bool {
        self.head.swap(head.0, Ordering::SeqCst) != head.0
    }

    pub(crate) fn is_followed(&self) -> bool {
        self.followers.load(Ordering::SeqCst) > 0
    }

    /// Whether it has come to its end here, one way or another.
    pub(crate) fn is_over(&self) -> bool {
        let status = self.status.borrow();
        status.last.is_some() || status.gone
    }
}

impl fmt::Debug for RunLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Run({})", self.run)
    }
}

/// What is known of a run from outside.
#[derive(Debug, Clone)]
pub(crate) struct Status {
    pub(crate) phase: RunPhase,
    pub(crate) parked: Vec<(StepName, Parked)>,
    /// The whole state, once the run has ended.
    pub(crate) last: Option<Arc<RunState>>,
    /// Why the driver stands still, if it does: the run is still open in the journal.
    pub(crate) broken: Option<JournalError>,
    /// The driver is gone, and nothing more will happen here.
    pub(crate) gone: bool,
    /// Another process was faster to carry on with it.
    pub(crate) elsewhere: bool,
}

impl Status {
    /// A run of which nothing is known yet.
    pub(crate) const fn new() -> Self {
        Self {
            phase: RunPhase::Queued,
            parked: Vec::new(),
            last: None,
            broken: None,
            gone: false,
            elsewhere: false,
        }
    }
}

/// What comes to a run's driver.
#[derive(Debug)]
pub(crate) enum Mail {
    Input(Input),
    /// A call that a task was spawned for is over and its future gone.
    Over {
        serial: u64,
        input: Input,
    },
    /// Come to rest at the next boundary.
    Suspend,
    /// The lane of a guard is made, and how long its body may take.
    Lane {
        guard: NodeNo,
        lane: guard::PreparedLane,
        worst: std::time::Duration,
    },
    /// Somebody asks something.
    Ask {
        ask: Ask,
        reply: oneshot::Sender<Answer>,
    },
}

/// What a person asks of a run.
#[derive(Debug, Clone)]
pub(crate) enum Ask {
    Cancel { by: String },
    Resume { by: String },
    Resolve { by: String, node: NodeNo, resolution: Resolution },
    Abandon { by: String },
}

impl Ask {
    fn into_input(self, ticket: Ticket) -> Input {
        match self {
            Self::Cancel { by } => Input::Cancel { by, ticket },
            Self::Resume { by } => Input::Resume { by, ticket },
            Self::Resolve { by, node, resolution } => {
                Input::Resolve { by, node, resolution, ticket }
            }
            Self::Abandon { by } => Input::Abandon { by, ticket },
        }
    }
}

/// The actions of a plan, by node.
pub(crate) type Actions = Arc<[Option<Arc<dyn AnyAction>>]>;
