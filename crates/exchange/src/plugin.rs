//! The trait that an Exchange plug-in implements.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use stillpoint_context::Cx;
use stillpoint_model::capability::PluginCaps;
use stillpoint_model::evidence::SetOutcome;
use stillpoint_model::handover::{Exposure, NativeSnapshot, Prepared};
use stillpoint_model::id::{CopyId, SessionId};
use stillpoint_model::inventory::Inventory;
use stillpoint_model::verdict::{Verdict, VerifyReport};

use crate::error::{PluginError, PluginResult};
use crate::restore::ExchangeRestore;
use crate::session::{
    ClosedLogs, Completion, Frozen, Scope, Session, SessionSpec, SessionState, Truncation,
    VerifySpec,
};

/// Speaks for Exchange: inventory, session, freeze, evidence, verification, completion.
///
/// The engine calls it; it never sees the engine or a storage provider. What it sleeps, waits and blocks for goes through
/// the [`Cx`].
///
/// # Contract
///
/// | | |
/// |---|---|
/// | X1 freeze | [`freeze`](Self::freeze) returns when the writes of every selected database are quiesced, and says at which level. The plug-in thaws by itself at the limit, even if the engine is gone; no limit is legal for data at rest. |
/// | X2 thaw | [`thaw`](Self::thaw) is scoped to one session and its fencing token, may be called any number of times in any state, by any process while the plug-in's agent lives, and never thaws another session's freeze. A `freeze` that completes after the `thaw` of its session thaws itself and answers `Superseded`. Both are polled on the guard's own runtime: they must not depend on tasks spawned elsewhere (a pooled HTTP client, say). |
/// | X3 completion | The kind is fixed at [`begin`](Self::begin). [`complete`](Self::complete) takes a verdict for each copy; only a good one may lead to truncation. Truncation is asked about [afterwards](Self::truncation), never assumed. An unclear or lost completion is an answer. |
/// | X4 repetition | Every call is safe to repeat with the same session id. After a crash a session can be [looked up](Self::session); `Lost` is a legal answer. A session has a lease, so that a dead engine does not leave "backup in progress" behind. |
/// | X5 identity | Copies are identified by database GUID and server, never by name. |
/// | X6 exclusivity | One freeze at a time per server, one truncating copy per database: the engine holds claims for both; the plug-in may rely on it and must survive its absence. |
/// | X7 evidence | [`evidence`](Self::evidence) is read after the thaw, with its grain; `Unknown` is an honest answer and is never treated as yes. |
/// | X8 silence | Nothing between freeze and thaw writes, logs or waits on a volume that is frozen. |
/// | X9 closed logs | A log that [`closed_logs`](Self::closed_logs) names is never written again, and its bytes and its name are on the storage when the answer is given: a snapshot that is begun afterwards holds it without a freeze, unless it was truncated meanwhile. The log being written is never named. |
///
/// A plug-in implements `freeze` and `thaw`, or `snap`, or all three, and says which in its
/// [`caps`](Self::caps): a VSS requester has no freeze and thaw of its own, as `DoSnapshotSet` runs freeze, the providers
/// and thaw inside VSS.
///
/// **Atomicity.** A session is over all its copies; verdicts, evidence and completions are for each copy.
///
/// **Ordering.** The engine calls as the crate's diagram shows, and never two calls of one session at once, but for `thaw`,
/// `abort`, `renew` and `session`, which may come at any time.
///
/// **After an error** the call may be repeated, or the session aborted; nothing else. Unless the error's effect is none, it
/// may have happened.
///
/// # Cancel safety
/// Dropping the future of any call leaves its effect unknown: `session` tells afterwards, `thaw` and `abort` are right in
/// any state.
#[async_trait]
pub trait ExchangePlugin: Debug + Send + Sync + 'static {
    /// What it can do. The same for the life of the value.
    fn caps(&self) -> PluginCaps;

    /// What there is, and what of it can be backed up, with every reason why not.
    ///
    /// # Errors
    /// When the organisation cannot be asked as a whole. A host, database or copy that cannot be read is in the inventory
    /// as unavailable, with its reason.
    async fn inventory(&self, cx: &Cx, scope: &Scope) -> PluginResult<Inventory>;

    /// Begins a session and says which files its snapshots must hold.
    ///
    /// # Errors
    /// `NotAvailable`, `WriterMissing`, `BusyOtherRequester`, `Unsupported` for a kind outside the capabilities. Copies of
    /// several servers are `Invalid`.
    ///
    /// # Idempotence
    /// Repeated with the same id it is the same session, with a lease that begins anew.
    async fn begin(&self, cx: &Cx, spec: &SessionSpec) -> PluginResult<Session>;

    /// Where a session stands, also after a crash.
    ///
    /// # Errors
    /// When the side that holds it cannot be asked.
    async fn session(&self, cx: &Cx, id: SessionId) -> PluginResult<SessionState>;

    /// Lets a session live this much longer, from now.
    ///
    /// # Errors
    /// `SessionGone` when it is not open any more.
    async fn renew(&self, cx: &Cx, id: SessionId, lease: Duration) -> PluginResult<()>;

    /// Freezes the databases of a session (engine-coordinated); by default unsupported. The plug-in thaws by itself once
    /// `limit` has passed since the freeze began.
    ///
    /// # Errors
    /// `FreezeTimeout`, `WriterFailed`, `BusyOtherRequester`, `SessionGone`, `Superseded` when the session was thawed
    /// meanwhile, `Fenced` for an old token.
    ///
    /// # Cancel safety
    /// Dropping it may leave a freeze that is under way; `thaw` ends it, now or when it comes.
    async fn freeze(
        &self,
        cx: &Cx,
        id: SessionId,
        limit: Option<Duration>,
    ) -> PluginResult<Frozen> {
        let (_, _, _) = (cx, id, limit);
        Err(PluginError::unsupported("freeze"))
    }

    /// Ends a session's freeze (engine-coordinated); by default unsupported.
    ///
    /// # Errors
    /// Only when it is not known whether the freeze has ended; it is then called again.
    ///
    /// # Idempotence
    /// Right in any state and any number of times, also for a session that is unknown or was never frozen.
    async fn thaw(&self, cx: &Cx, id: SessionId) -> PluginResult<()> {
        let (_, _) = (cx, id);
        Err(PluginError::unsupported("freeze"))
    }

    /// Freezes, has the hardware providers snap, and thaws, all inside (plug-in-coordinated); by default unsupported.
    ///
    /// # Errors
    /// As [`freeze`](Self::freeze), and `IoHoldTimeout`, `ProviderVeto`. After an error nothing is frozen any more.
    async fn snap(
        &self,
        cx: &Cx,
        id: SessionId,
        prepared: &[Prepared],
    ) -> PluginResult<Vec<NativeSnapshot>> {
        let (_, _, _) = (cx, id, prepared);
        Err(PluginError::unsupported("snap"))
    }

    /// What became of the freeze, read after the thaw.
    ///
    /// # Errors
    /// When it cannot be read; what is not known is an answer (`Held::Unknown`).
    async fn evidence(&self, cx: &Cx, id: SessionId) -> PluginResult<SetOutcome>;

    /// Reads and checks files in an exposure, byte for byte where a seal is given.
    ///
    /// # Errors
    /// Only if the check could not be done. What is bad is a verdict.
    ///
    /// # Cancel safety
    /// Reads only; may be dropped at any time.
    async fn verify(
        &self,
        cx: &Cx,
        exposure: &Exposure,
        spec: &VerifySpec,
    ) -> PluginResult<VerifyReport>;

    /// Completes a session with a verdict for each of its copies. Only [`Verdict::Good`], and
    /// [`Verdict::Unverified`] where the policy does not ask for verification, count as success; a copy without a verdict
    /// counts as failed. After a success Exchange may truncate logs: this is the point of no return of a backup.
    ///
    /// # Errors
    /// Only if surely nothing was completed (effect none), or if that is unknown and the session can be asked again.
    /// What is unclear for good is an answer.
    ///
    /// # Idempotence
    /// Repeated it answers the same; the verdicts of the first call stand.
    async fn complete(
        &self,
        cx: &Cx,
        id: SessionId,
        verdicts: &BTreeMap<CopyId, Verdict>,
    ) -> PluginResult<BTreeMap<CopyId, Completion>>;

    /// Gives a session up, thawing first if it is frozen. Never called after `complete` was.
    ///
    /// # Errors
    /// When it is not known whether the session has ended.
    ///
    /// # Idempotence
    /// Right in any state and any number of times.
    async fn abort(&self, cx: &Cx, id: SessionId) -> PluginResult<()>;

    /// What became of a copy's logs since a backup was completed.
    ///
    /// # Errors
    /// When the copy cannot be asked.
    async fn truncation(
        &self,
        cx: &Cx,
        copy: &CopyId,
        since: DateTime<Utc>,
    ) -> PluginResult<Truncation>;

    /// The logs of a copy that are closed, flushed to the storage (contract X9): for plug-ins whose
    /// [kinds](PluginCaps::kinds) include log backups; by default unsupported. A log backup has no session: it asks before
    /// its snapshots, and again after them, so that what was truncated in between is noticed.
    ///
    /// # Errors
    /// When the copy cannot be asked, or the file system not be flushed.
    ///
    /// # Idempotence
    /// Asked again it names what is there then.
    async fn closed_logs(&self, cx: &Cx, copy: &CopyId) -> PluginResult<ClosedLogs> {
        let (_, _) = (cx, copy);
        Err(PluginError::unsupported("closed_logs"))
    }

    /// The side that brings databases back into service; `None` where that cannot be done.
    fn restore(&self) -> Option<&dyn ExchangeRestore> {
        None
    }
}
