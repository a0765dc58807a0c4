//! A durable DAG engine: pure state machines, a tokio driver, guard lanes, claims and a journal.

#![forbid(unsafe_code)]

mod action;
mod claim;
mod diagram;
mod driver;
mod engine;
mod journal;
mod lane;
mod machine;
mod payload;
mod plan;
mod retry;
mod seams;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use action::{
    Action, ActionRegistry, Call, Done, EffectKind, Known, Probe, RegistryError, Undone, step_fn,
};
pub use claim::{Claim, ClaimKey, ClaimMode};
pub use engine::{
    Engine, EngineBuilder, EngineError, Notice, NoticeKind, RunHandle, RunPhase, RunReport,
    RunStatus, StepReport, Submission, Subscription,
};
pub use journal::{
    Append, Batch, Fact, FactDraft, Journal, JournalError, MemoryJournal, Now, Position, Seq,
    Stored, StreamId, Topic,
};
pub use lane::{LaneThread, Lanes, ThreadLanes};
pub use machine::{
    ArbiterRecord, CancelAnswer, Cause, Debris, End, GrantPolicy, GuardEntry, GuardRecord,
    GuardVerdict, Hold, Next, NodeProgress, ParkReason, Parked, PartOutcome, Record, Resolution,
    RunRecord, RunState, Submitted, Waiting, Warning,
};
pub use payload::Payload;
pub use plan::{
    Bind, Binding, BodyBuilder, DEFAULT_GRACE, Feed, Guard, GuardBuilder, Handle, In, Inside,
    Leave, Member, Node, NodeKind, NodeNo, OnBroken, Out, Outside, PLAN_FORMAT, Plan, PlanBuilder,
    PlanError, PlanProblem, Role, Step, StepBuilder,
};
pub use retry::Retry;
pub use seams::{SystemIds, TokioClock, TokioSeams};
