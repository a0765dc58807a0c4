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
mod guard;
mod part;
mod task;

use std::fmt;
use std::sync::Arc;

use stillpoint_context::{ProcessId, RunId, Seams, StepName};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

pub(crate) use arbiter::{ArbiterMail, ArbiterTask};
pub(crate) use task::RunTask;

use crate::action::{ActionRegistry, AnyAction};
use crate::engine::{Notice, RunPhase};
use crate::journal::{Journal, JournalError, Now, Seq};
use crate::lane::Lanes;
use crate::machine::{Answer, Input, Parked, Resolution, RunState};
use crate::plan::NodeNo;

/// What the drivers of one engine share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) registry: ActionRegistry,
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) seams: Seams,
    pub(crate) lanes: Arc<dyn Lanes>,
    pub(crate) owner: ProcessId,
    pub(crate) epoch: u64,
    pub(crate) arbiter: mpsc::UnboundedSender<ArbiterMail>,
    pub(crate) notices: broadcast::Sender<Notice>,
    /// Whether every state is compared with what its records amount to.
    pub(crate) audit: bool,
}

impl Shared {
    pub(crate) fn now(&self) -> Now {
        Now { mono: self.seams.clock.mono(), civil: self.seams.clock.now() }
    }

    /// Tells whoever listens; nobody has to.
    pub(crate) fn notify(&self, notice: Notice) {
        let _: Result<usize, _> = self.notices.send(notice);
    }
}

/// What a run's driver and its handles share.
pub(crate) struct RunLink {
    pub(crate) run: RunId,
    pub(crate) status: watch::Sender<Status>,
    pub(crate) mail: mpsc::UnboundedSender<Mail>,
    pub(crate) journal: Arc<dyn Journal>,
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
    /// Number of records in the journal.
    pub(crate) head: Seq,
    pub(crate) parked: Vec<(StepName, Parked)>,
    /// The whole state, once the run has ended.
    pub(crate) last: Option<Arc<RunState>>,
    /// Why the driver gave up, if it did: the run is still open in the journal.
    pub(crate) broken: Option<JournalError>,
}

/// What comes to a run's driver.
#[derive(Debug)]
pub(crate) enum Mail {
    Input(Input),
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
#[derive(Debug)]
pub(crate) enum Ask {
    Cancel { by: String },
    Resume { by: String },
    Resolve { by: String, node: NodeNo, resolution: Resolution },
    Abandon { by: String },
}

/// The actions of a plan, by node.
pub(crate) type Actions = Arc<[Option<Arc<dyn AnyAction>>]>;
