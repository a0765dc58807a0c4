//! A durable DAG engine: plans of typed steps, carried out in order, exclusively, and undone when they fail.
//!
//! With closures as steps, in fifteen lines:
//!
//! ```
//! use std::sync::Arc;
//! use stillpoint_workflow::{
//!     ActionRegistry, Done, End, Engine, MemoryJournal, PlanBuilder, Submission, ThreadLanes, TokioSeams, step_fn,
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let seams = TokioSeams::current().ok_or("no runtime")?;
//! let journal = Arc::new(MemoryJournal::new());
//! let engine = Engine::builder(ActionRegistry::new(), journal, seams, Arc::new(ThreadLanes)).build();
//!
//! let mut plan = PlanBuilder::new("double");
//! let one = plan.step("one", step_fn(|_cx, ()| async { Ok(Done::new(1_u32)) })).add();
//! let double = step_fn(|_cx, n: u32| async move { Ok(Done::new(n * 2)) });
//! let double = plan.step("double", double).bind(one).add();
//!
//! let run = engine.submit(Submission::new(plan.build()?)).await?;
//! let report = run.wait().await?;
//! assert_eq!((report.end(), report.output_of(&double)?), (End::Succeeded, 2));
//! # Ok(())
//! # }
//! ```
//!
//! # How it is built
//!
//! ```text
//!   PlanBuilder ─▶ Plan ─▶ Engine::submit ─▶ RunHandle        embedder
//!   ───────────────────────────│──────────────▲──────────────────────────
//!                              ▼              │
//!            ┌──────── driver: a tokio task for each run ────────┐
//!            │ append ─▶ carry out ─▶ feed back                  │──▶ lanes: OS threads
//!            └───▲──────────────────────────────────────┬────────┘    for each open guard
//!     records,   │                                      │ inputs
//!     commands   │                                      ▼
//!            ┌──────── machines: pure, no clock, no I/O ─────────┐
//!            │ run: one plan · arbiter: all claims · guard: one  │──▶ Journal: what happened
//!            └───────────────────────────────────────────────────┘
//! ```
//!
//! - A [`Plan`] is a validated graph of [`Action`]s: any edges, typed handles ([`Out`], [`In`]), all errors at once.
//! - A guard ([`GuardBuilder`]) is a section that members enter and leave: whatever happens in between (failure,
//!   time-out, panic, cancel, a blocked thread, a journal that hangs), every member that may have entered is left,
//!   and it is asked to by the guard's cutoff.
//! - A [`Claim`] keeps conflicting runs apart; all claims of a run are granted at once, first come, first served.
//! - Undo is owed from intent: when a run fails or is cancelled, every step that may have had an effect is undone, in
//!   reverse order, side by side where the graph allows. What cannot be undone is named as [`Debris`].
//! - From its point of no return ([`StepBuilder::no_return`]) on, nothing is undone: the run ends or is parked.
//! - The [`Journal`] holds every record before what it announces begins; [`RunState::replay`] makes the state of a run
//!   from its records alone.
//!
//! - [`Engine::recover`] carries on with what a process left open that is gone: owed exits first, then what was at work is
//!   asked about, then it is undone or goes on. Processes that share a journal have a [`Lease`] each, and the journal refuses
//!   every word of one that was taken over.
//! - [`EngineBuilder::pool`] limits what runs at once, [`Engine::drain`] and [`Engine::suspend`] end an engine well.
//!
//! # Features
//!
//! - `testing`: `testing::Sim`, a deterministic executor with virtual time that
//!   implements every seam, and journals that stall or fail.

#![forbid(unsafe_code)]

mod action;
mod claim;
mod diagram;
mod driver;
mod engine;
mod journal;
mod lane;
mod lease;
mod machine;
mod payload;
mod plan;
mod pool;
mod retry;
mod seams;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use action::{
    Action, ActionRegistry, Call, Done, EffectKind, Known, Probe, RegistryError, Undone, step_fn,
};
pub use claim::{Claim, ClaimKey, ClaimMode};
pub use engine::{
    Claims, Drained, Engine, EngineBuilder, EngineError, Notice, NoticeKind, OpenRun, ParkedNode,
    Recovery, RunAccount, RunHandle, RunPhase, RunReport, RunStatus, StepReport, Submission,
    Subscription, WaitingForSlots,
};
pub use journal::{
    Append, Batch, Fact, FactDraft, Forget, Journal, JournalError, MemoryJournal, Now, OpenStream,
    Position, RECORD_FORMAT, Seq, Stored, StreamId, Topic, decode_records, encode_records,
};
pub use lane::{LaneThread, Lanes, ThreadLanes};
pub use lease::{Fencing, Lease, Leases};
pub use machine::{
    ArbiterRecord, CancelAnswer, Cause, Claimant, Debris, End, GrantPolicy, GuardEntry,
    GuardRecord, GuardVerdict, Hold, KeyRecord, Next, NodeProgress, ParkReason, Parked,
    PartOutcome, Record, Resolution, RunRecord, RunState, Snapshot, Submitted, Waiting, Warning,
};
pub use payload::Payload;
pub use plan::{
    Bind, Binding, BodyBuilder, DEFAULT_GRACE, DEFAULT_UNDO_TIMEOUT, Feed, Guard, GuardBuilder,
    Handle, In, Inside, Leave, Member, Node, NodeKind, NodeNo, OnBroken, Out, Outside, PLAN_FORMAT,
    Plan, PlanBuilder, PlanError, PlanProblem, Role, Step, StepBuilder,
};
pub use pool::PoolName;
pub use retry::Retry;
pub use seams::{SystemIds, TokioClock, TokioSeams};
