//! What every call of Stillpoint carries, small and free of tokio: ids, deadline, cancellation, the seams for
//! clock, spawn and ids, host paths, and the facts that every error tells.
//!
//! A storage provider or an Exchange plug-in receives a [`Cx`] with each call and does its sleeping, waiting and
//! blocking work through it, so that the same code runs under a real runtime and under virtual time:
//!
//! ```
//! use std::time::Duration;
//! use stillpoint_context::{Cx, Interrupted};
//!
//! /// Polls an array until it says that the snapshot is ready.
//! async fn wait_until_ready(cx: &Cx, mut ready: impl FnMut() -> bool) -> Result<(), Interrupted> {
//!     while !ready() {
//!         cx.sleep(Duration::from_millis(200)).await?; // wakes early on cancel and at the deadline
//!     }
//!     Ok(())
//! }
//! ```
//!
//! ```text
//!            Seams                        Cx (one for each attempt of a step)
//!   ┌───────────────────────┐     ┌──────────────────────────────────────────────┐
//!   │ Clock  now mono boot  │◀────│ run · step · attempt · key · fence           │
//!   │        sleep_until    │     │ deadline · cancel                            │
//!   │ Spawner spawn blocking│     │ sleep · blocking · check · now · report      │
//!   │ Ids    uuid random    │     └──────────────────────────────────────────────┘
//!   └───────────────────────┘
//! ```
//!
//! - [`id`]: newtypes of the engine's ids.
//! - [`time`] has [`Mono`] and [`Deadline`].
//! - [`seam`] has [`Clock`], [`Spawner`], [`Ids`], bundled as [`Seams`].
//! - [`cancel`] has [`Cancel`], a tree of cancellation tokens.
//! - [`cx`](mod@cx): [`Cx`] itself.
//! - [`failure`] has [`ErrorFacts`], and [`Failure`], the same as data.
//! - [`progress`]: how far a call has come.
//! - [`path`] has [`HostPath`], a path of some host, never of this one by accident.

#![forbid(unsafe_code)]

pub mod cancel;
pub mod cx;
pub mod failure;
pub mod id;
pub mod path;
pub mod progress;
pub mod seam;
pub mod time;

pub use cancel::Cancel;
pub use cx::{Cx, CxBuilder, InFlight, Interrupted, Panicked};
pub use failure::{Effect, ErrorClass, ErrorCode, ErrorFacts, Failure, Subject};
pub use id::{
    Attempt, FencingToken, HostId, IdError, IdempotencyKey, JobId, ProcessId, RunId, StepName,
};
pub use path::{HostPath, PathError, PathFlavor};
pub use progress::{Progress, ProgressSink, ProgressUnit};
pub use seam::{BoxFuture, Clock, Ids, OsClock, Seams, Spawner};
pub use time::{Deadline, Mono};
