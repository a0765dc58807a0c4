//! Mocks of the traits, made with `mockall`; usable from any crate's tests with the feature `mock`.
//!
//! ```
//! use stillpoint_exchange::{ExchangePlugin, MockExchangePlugin};
//!
//! let mut plugin = MockExchangePlugin::new();
//! plugin.expect_thaw().returning(|_, _| Ok(()));
//! let shared: std::sync::Arc<dyn ExchangePlugin> = std::sync::Arc::new(plugin);
//! # drop(shared);
//! ```
//!
//! A mock has no restore side: [`ExchangePlugin::restore`] answers `None`. Where one is needed, wrap both mocks in a type of
//! the test's own.

// What the macro writes is not ours to document or to lint.
#![allow(missing_docs, clippy::pedantic, unreachable_pub)]

use std::collections::BTreeMap;
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

use crate::error::PluginResult;
use crate::plugin::ExchangePlugin;
use crate::restore::{ExchangeRestore, Recovered, RestoreSpec};
use crate::session::{
    ClosedLogs, Completion, Frozen, Scope, Session, SessionSpec, SessionState, Truncation,
    VerifySpec,
};

mockall::mock! {
    #[derive(Debug)]
    pub ExchangePlugin {}

    #[async_trait]
    impl ExchangePlugin for ExchangePlugin {
        fn caps(&self) -> PluginCaps;
        async fn inventory(&self, cx: &Cx, scope: &Scope) -> PluginResult<Inventory>;
        async fn begin(&self, cx: &Cx, spec: &SessionSpec) -> PluginResult<Session>;
        async fn session(&self, cx: &Cx, id: SessionId) -> PluginResult<SessionState>;
        async fn renew(&self, cx: &Cx, id: SessionId, lease: Duration) -> PluginResult<()>;
        async fn freeze(&self, cx: &Cx, id: SessionId, limit: Option<Duration>) -> PluginResult<Frozen>;
        async fn thaw(&self, cx: &Cx, id: SessionId) -> PluginResult<()>;
        async fn snap(&self, cx: &Cx, id: SessionId, prepared: &[Prepared]) -> PluginResult<Vec<NativeSnapshot>>;
        async fn evidence(&self, cx: &Cx, id: SessionId) -> PluginResult<SetOutcome>;
        async fn verify(&self, cx: &Cx, exposure: &Exposure, spec: &VerifySpec) -> PluginResult<VerifyReport>;
        async fn complete(&self, cx: &Cx, id: SessionId, verdicts: &BTreeMap<CopyId, Verdict>) -> PluginResult<BTreeMap<CopyId, Completion>>;
        async fn abort(&self, cx: &Cx, id: SessionId) -> PluginResult<()>;
        async fn truncation(&self, cx: &Cx, copy: &CopyId, since: DateTime<Utc>) -> PluginResult<Truncation>;
        async fn closed_logs(&self, cx: &Cx, copy: &CopyId) -> PluginResult<ClosedLogs>;
    }
}

mockall::mock! {
    #[derive(Debug)]
    pub ExchangeRestore {}

    #[async_trait]
    impl ExchangeRestore for ExchangeRestore {
        async fn open(&self, cx: &Cx, spec: &RestoreSpec) -> PluginResult<()>;
        async fn finish(&self, cx: &Cx, spec: &RestoreSpec) -> PluginResult<Recovered>;
        async fn cancel(&self, cx: &Cx, spec: &RestoreSpec) -> PluginResult<()>;
    }
}
