//! A plug-in around another one.

use std::borrow::Cow::Borrowed;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde::de::DeserializeOwned;
use stillpoint_context::{BoxFuture, Cx};
use stillpoint_model::capability::PluginCaps;
use stillpoint_model::evidence::SetOutcome;
use stillpoint_model::handover::{Exposure, NativeSnapshot, Prepared};
use stillpoint_model::id::{CopyId, SessionId};
use stillpoint_model::inventory::Inventory;
use stillpoint_model::verdict::{Verdict, VerifyReport};

use crate::call::{PluginCall, restore_of};
use crate::error::PluginResult;
use crate::plugin::ExchangePlugin;
use crate::restore::{ExchangeRestore, Recovered, RestoreSpec};
use crate::session::{
    ClosedLogs, Completion, Frozen, Scope, Session, SessionSpec, SessionState, Truncation,
    VerifySpec,
};

/// What stands around another plug-in: implement [`inner`](Self::inner), and it is an [`ExchangePlugin`] that can do what
/// that one can, in all calls, those with a default and those of the restore side among them.
///
/// Change one call by implementing its method, or every call in one place, [`around`](Self::around). What a trait of this
/// crate gains later is forwarded without a change.
///
/// ```
/// use std::sync::Arc;
/// use async_trait::async_trait;
/// use stillpoint_exchange::{Cx, ExchangePlugin, ForwardPlugin, Inventory, PluginResult, Scope};
///
/// /// Speaks of everything, whatever is asked.
/// #[derive(Debug)]
/// struct Whole(Arc<dyn ExchangePlugin>);
///
/// #[async_trait]
/// impl ForwardPlugin for Whole {
///     fn inner(&self) -> &dyn ExchangePlugin {
///         &*self.0
///     }
///     async fn inventory(&self, cx: &Cx, _: &Scope) -> PluginResult<Inventory> {
///         self.0.inventory(cx, &Scope::Everything).await
///     }
/// }
///
/// fn whole(inner: Arc<dyn ExchangePlugin>) -> Arc<dyn ExchangePlugin> {
///     Arc::new(Whole(inner))
/// }
/// ```
///
/// # Cancel safety
/// That of the inner plug-in: a future that is dropped drops the inner one.
#[async_trait]
pub trait ForwardPlugin: Debug + Send + Sync + 'static {
    /// The plug-in that does the work.
    fn inner(&self) -> &dyn ExchangePlugin;

    /// Stands around every call: `work` asks, by the method of this trait that belongs to the call. The calls of the restore
    /// side come here too; [`caps`](Self::caps) does not.
    ///
    /// What it does inside a freeze is what the plug-in does (X2, X8): no write to what is frozen, no waiting on tasks
    /// elsewhere.
    fn around<'a, T>(
        &'a self,
        cx: &'a Cx,
        call: PluginCall<'a>,
        work: BoxFuture<'a, PluginResult<T>>,
    ) -> BoxFuture<'a, PluginResult<T>>
    where
        T: Serialize + DeserializeOwned + Send + 'static,
    {
        let (_, _) = (cx, call);
        work
    }

    /// [`caps`](ExchangePlugin::caps).
    fn caps(&self) -> PluginCaps {
        self.inner().caps()
    }

    /// Whether there is a side that brings databases back into service.
    fn has_restore(&self) -> bool {
        self.inner().restore().is_some()
    }

    /// [`inventory`](ExchangePlugin::inventory).
    async fn inventory(&self, cx: &Cx, scope: &Scope) -> PluginResult<Inventory> {
        self.inner().inventory(cx, scope).await
    }

    /// [`begin`](ExchangePlugin::begin).
    async fn begin(&self, cx: &Cx, spec: &SessionSpec) -> PluginResult<Session> {
        self.inner().begin(cx, spec).await
    }

    /// [`session`](ExchangePlugin::session).
    async fn session(&self, cx: &Cx, id: SessionId) -> PluginResult<SessionState> {
        self.inner().session(cx, id).await
    }

    /// [`renew`](ExchangePlugin::renew).
    async fn renew(&self, cx: &Cx, id: SessionId, lease: Duration) -> PluginResult<()> {
        self.inner().renew(cx, id, lease).await
    }

    /// [`freeze`](ExchangePlugin::freeze).
    async fn freeze(
        &self,
        cx: &Cx,
        id: SessionId,
        limit: Option<Duration>,
    ) -> PluginResult<Frozen> {
        self.inner().freeze(cx, id, limit).await
    }

    /// [`thaw`](ExchangePlugin::thaw).
    async fn thaw(&self, cx: &Cx, id: SessionId) -> PluginResult<()> {
        self.inner().thaw(cx, id).await
    }

    /// [`snap`](ExchangePlugin::snap).
    async fn snap(
        &self,
        cx: &Cx,
        id: SessionId,
        prepared: &[Prepared],
    ) -> PluginResult<Vec<NativeSnapshot>> {
        self.inner().snap(cx, id, prepared).await
    }

    /// [`evidence`](ExchangePlugin::evidence).
    async fn evidence(&self, cx: &Cx, id: SessionId) -> PluginResult<SetOutcome> {
        self.inner().evidence(cx, id).await
    }

    /// [`verify`](ExchangePlugin::verify).
    async fn verify(
        &self,
        cx: &Cx,
        exposure: &Exposure,
        spec: &VerifySpec,
    ) -> PluginResult<VerifyReport> {
        self.inner().verify(cx, exposure, spec).await
    }

    /// [`complete`](ExchangePlugin::complete).
    async fn complete(
        &self,
        cx: &Cx,
        id: SessionId,
        verdicts: &BTreeMap<CopyId, Verdict>,
    ) -> PluginResult<BTreeMap<CopyId, Completion>> {
        self.inner().complete(cx, id, verdicts).await
    }

    /// [`abort`](ExchangePlugin::abort).
    async fn abort(&self, cx: &Cx, id: SessionId) -> PluginResult<()> {
        self.inner().abort(cx, id).await
    }

    /// [`truncation`](ExchangePlugin::truncation).
    async fn truncation(
        &self,
        cx: &Cx,
        copy: &CopyId,
        since: DateTime<Utc>,
    ) -> PluginResult<Truncation> {
        self.inner().truncation(cx, copy, since).await
    }

    /// [`closed_logs`](ExchangePlugin::closed_logs).
    async fn closed_logs(&self, cx: &Cx, copy: &CopyId) -> PluginResult<ClosedLogs> {
        self.inner().closed_logs(cx, copy).await
    }

    /// [`open`](ExchangeRestore::open).
    async fn restore_open(&self, cx: &Cx, spec: &RestoreSpec) -> PluginResult<()> {
        restore_of(self.inner())?.open(cx, spec).await
    }

    /// [`finish`](ExchangeRestore::finish).
    async fn restore_finish(&self, cx: &Cx, spec: &RestoreSpec) -> PluginResult<Recovered> {
        restore_of(self.inner())?.finish(cx, spec).await
    }

    /// [`cancel`](ExchangeRestore::cancel).
    async fn restore_cancel(&self, cx: &Cx, spec: &RestoreSpec) -> PluginResult<()> {
        restore_of(self.inner())?.cancel(cx, spec).await
    }
}

#[deny(clippy::missing_trait_methods, reason = "what is not here is not forwarded")]
#[async_trait]
impl<F: ForwardPlugin> ExchangePlugin for F {
    fn caps(&self) -> PluginCaps {
        ForwardPlugin::caps(self)
    }

    async fn inventory(&self, cx: &Cx, scope: &Scope) -> PluginResult<Inventory> {
        let call = PluginCall::Inventory { scope: Borrowed(scope) };
        self.around(cx, call, ForwardPlugin::inventory(self, cx, scope)).await
    }

    async fn begin(&self, cx: &Cx, spec: &SessionSpec) -> PluginResult<Session> {
        let call = PluginCall::Begin { spec: Borrowed(spec) };
        self.around(cx, call, ForwardPlugin::begin(self, cx, spec)).await
    }

    async fn session(&self, cx: &Cx, id: SessionId) -> PluginResult<SessionState> {
        let call = PluginCall::Session { id };
        self.around(cx, call, ForwardPlugin::session(self, cx, id)).await
    }

    async fn renew(&self, cx: &Cx, id: SessionId, lease: Duration) -> PluginResult<()> {
        let call = PluginCall::Renew { id, lease };
        self.around(cx, call, ForwardPlugin::renew(self, cx, id, lease)).await
    }

    async fn freeze(
        &self,
        cx: &Cx,
        id: SessionId,
        limit: Option<Duration>,
    ) -> PluginResult<Frozen> {
        let call = PluginCall::Freeze { id, limit };
        self.around(cx, call, ForwardPlugin::freeze(self, cx, id, limit)).await
    }

    async fn thaw(&self, cx: &Cx, id: SessionId) -> PluginResult<()> {
        let call = PluginCall::Thaw { id };
        self.around(cx, call, ForwardPlugin::thaw(self, cx, id)).await
    }

    async fn snap(
        &self,
        cx: &Cx,
        id: SessionId,
        prepared: &[Prepared],
    ) -> PluginResult<Vec<NativeSnapshot>> {
        let call = PluginCall::Snap { id, prepared: Borrowed(prepared) };
        self.around(cx, call, ForwardPlugin::snap(self, cx, id, prepared)).await
    }

    async fn evidence(&self, cx: &Cx, id: SessionId) -> PluginResult<SetOutcome> {
        let call = PluginCall::Evidence { id };
        self.around(cx, call, ForwardPlugin::evidence(self, cx, id)).await
    }

    async fn verify(
        &self,
        cx: &Cx,
        exposure: &Exposure,
        spec: &VerifySpec,
    ) -> PluginResult<VerifyReport> {
        let call = PluginCall::Verify { exposure: Borrowed(exposure), spec: Borrowed(spec) };
        self.around(cx, call, ForwardPlugin::verify(self, cx, exposure, spec)).await
    }

    async fn complete(
        &self,
        cx: &Cx,
        id: SessionId,
        verdicts: &BTreeMap<CopyId, Verdict>,
    ) -> PluginResult<BTreeMap<CopyId, Completion>> {
        let call = PluginCall::Complete { id, verdicts: Borrowed(verdicts) };
        self.around(cx, call, ForwardPlugin::complete(self, cx, id, verdicts)).await
    }

    async fn abort(&self, cx: &Cx, id: SessionId) -> PluginResult<()> {
        let call = PluginCall::Abort { id };
        self.around(cx, call, ForwardPlugin::abort(self, cx, id)).await
    }

    async fn truncation(
        &self,
        cx: &Cx,
        copy: &CopyId,
        since: DateTime<Utc>,
    ) -> PluginResult<Truncation> {
        let call = PluginCall::Truncation { copy: Borrowed(copy), since };
        self.around(cx, call, ForwardPlugin::truncation(self, cx, copy, since)).await
    }

    async fn closed_logs(&self, cx: &Cx, copy: &CopyId) -> PluginResult<ClosedLogs> {
        let call = PluginCall::ClosedLogs { copy: Borrowed(copy) };
        self.around(cx, call, ForwardPlugin::closed_logs(self, cx, copy)).await
    }

    fn restore(&self) -> Option<&dyn ExchangeRestore> {
        self.has_restore().then_some(self as &dyn ExchangeRestore)
    }
}

#[deny(clippy::missing_trait_methods, reason = "what is not here is not forwarded")]
#[async_trait]
impl<F: ForwardPlugin> ExchangeRestore for F {
    async fn open(&self, cx: &Cx, spec: &RestoreSpec) -> PluginResult<()> {
        let call = PluginCall::Open { spec: Borrowed(spec) };
        self.around(cx, call, ForwardPlugin::restore_open(self, cx, spec)).await
    }

    async fn finish(&self, cx: &Cx, spec: &RestoreSpec) -> PluginResult<Recovered> {
        let call = PluginCall::Finish { spec: Borrowed(spec) };
        self.around(cx, call, ForwardPlugin::restore_finish(self, cx, spec)).await
    }

    async fn cancel(&self, cx: &Cx, spec: &RestoreSpec) -> PluginResult<()> {
        let call = PluginCall::Cancel { spec: Borrowed(spec) };
        self.around(cx, call, ForwardPlugin::restore_cancel(self, cx, spec)).await
    }
}
