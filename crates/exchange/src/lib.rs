//! The trait that an Exchange plug-in implements, with its types, errors and mock.
//!
//! A plug-in speaks for one Exchange organisation, or for one folder of databases at rest: it says what there is and what
//! can be backed up, holds a backup session, freezes and thaws, tells afterwards whether the freeze held, verifies, and
//! completes the session, on which Exchange may truncate logs. It never sees the engine or a storage provider.
//!
//! ```text
//!   engine-coordinated    begin ─ ( freeze ─ … ─ thaw ) ─ evidence ─ verify ─ complete
//!   plug-in-coordinated   begin ─      snap             ─ evidence ─ verify ─ complete
//!                           └────────── abort: the one undo ──────────────┘
//!
//!   session   Unknown ─begin▶ Open ─freeze▶ Frozen{until} ─thaw▶ Open ─complete▶ Completed
//!                              └─snap▶ Snapped ─complete▶ Completed        any ─abort▶ Aborted
//! ```
//!
//! The contracts X1–X8 are in the docs of [`ExchangePlugin`]. A complete plug-in for one database that nobody writes:
//!
//! ```
#![doc = include_str!("../doc/minimal.rs")]
//! ```
//!
//! - [`plugin`] has [`ExchangePlugin`].
//! - [`restore`] has [`ExchangeRestore`], the optional side that brings databases back into service.
//! - [`session`]: what the calls take and give.
//! - [`forward`] has [`ForwardPlugin`], a plug-in around another one, and [`call`] has [`PluginCall`], a call as data.
//! - [`error`] has [`PluginError`].
//! - `mock` (feature `mock`): `MockExchangePlugin` and `MockExchangeRestore`, usable from any crate's tests.

#![forbid(unsafe_code)]

pub mod call;
pub mod error;
pub mod forward;
#[cfg(feature = "mock")]
pub mod mock;
pub mod plugin;
pub mod restore;
pub mod session;

pub use call::PluginCall;
pub use error::{PluginError, PluginErrorKind, PluginResult};
pub use forward::ForwardPlugin;
#[cfg(feature = "mock")]
pub use mock::{MockExchangePlugin, MockExchangeRestore};
pub use plugin::ExchangePlugin;
pub use restore::{ExchangeRestore, Recovered, RestoreSpec};
pub use session::{
    ClosedLogs, Completion, Frozen, RequiredFile, Scope, Session, SessionSpec, SessionState,
    Truncation, VerifyFile, VerifySpec,
};
pub use stillpoint_context::Cx;
pub use stillpoint_model::capability::{Coordination, PluginCaps};
pub use stillpoint_model::evidence::{CopyEvidence, EvidenceGrain, SetOutcome};
pub use stillpoint_model::handover::{Exposure, NativeSnapshot, Prepared};
pub use stillpoint_model::id::{CopyId, DatabaseId, SessionId};
pub use stillpoint_model::inventory::Inventory;
pub use stillpoint_model::kind::BackupKind;
pub use stillpoint_model::quiesce::{Cause, Held, QuiesceLevel};
pub use stillpoint_model::verdict::{CopyReport, Verdict, VerifyReport};
