//! The simulated Exchange plug-in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use stillpoint_context::{Cx, Progress};
use stillpoint_exchange::{
    ClosedLogs, Completion, Coordination, EvidenceGrain, ExchangePlugin, ExchangeRestore, Frozen,
    PluginCaps, PluginError, PluginResult, Scope, Session, SessionSpec, SessionState, Truncation,
    VerifySpec,
};
use stillpoint_model::evidence::SetOutcome;
use stillpoint_model::handover::{Exposure, NativeSnapshot, Prepared};
use stillpoint_model::id::{CopyId, SessionId};
use stillpoint_model::inventory::Inventory;
use stillpoint_model::kind::BackupKind;
use stillpoint_model::quiesce::{Held, QuiesceLevel};
use stillpoint_model::verdict::{Finding, FindingKind, Verdict, VerifyReport};

use crate::call::Side;
use crate::fault::Lie;
use crate::moment::Moment;
use crate::world::World;
use crate::world::state::{Entry, State};

mod inventory;
mod restore;
mod verify;

/// The plug-in of a [`World`]: both coordination modes, verification and restore, and a freeze that ends by itself after 20 s.
///
/// Made by [`World::exchange`]; several of one world are several agents of one organisation.
#[derive(Debug, Clone)]
pub struct SimExchange {
    world: World,
    caps: Arc<PluginCaps>,
}

impl World {
    /// Its plug-in.
    pub fn exchange(&self) -> SimExchange {
        let mut caps = PluginCaps::new("simulated");
        caps.coordination = [Coordination::Engine, Coordination::Plugin].into();
        caps.kinds = BackupKind::ALL.into();
        caps.quiesce = QuiesceLevel::App;
        caps.freeze_limit = Some(Duration::from_secs(20));
        caps.grain = EvidenceGrain::PerDatabase;
        caps.verify = true;
        caps.restore = true;
        caps.fencing = true;
        SimExchange { world: self.clone(), caps: Arc::new(caps) }
    }
}

impl SimExchange {
    /// The same with other capabilities, which it keeps to.
    pub fn with_caps(mut self, change: impl FnOnce(&mut PluginCaps)) -> Self {
        change(Arc::make_mut(&mut self.caps));
        self
    }

    /// The same in this coordination mode alone.
    pub fn only(self, mode: Coordination) -> Self {
        self.with_caps(|caps| caps.coordination = [mode].into())
    }

    /// The world that it speaks for.
    pub fn world(&self) -> &World {
        &self.world
    }

    async fn perform<T, F>(
        &self,
        cx: &Cx,
        name: &'static str,
        about: String,
        effect: F,
    ) -> PluginResult<T>
    where
        T: Send,
        F: Fn(&mut State, &Entry) -> PluginResult<T> + Send + Sync + 'static,
    {
        self.world.perform(cx, Side::Exchange, name, about, effect).await
    }
}

fn listed<T: ToString>(things: impl IntoIterator<Item = T>) -> String {
    things.into_iter().map(|thing| thing.to_string()).collect::<Vec<_>>().join(" ")
}

#[async_trait]
impl ExchangePlugin for SimExchange {
    fn caps(&self) -> PluginCaps {
        (*self.caps).clone()
    }

    async fn inventory(&self, cx: &Cx, scope: &Scope) -> PluginResult<Inventory> {
        let wanted = scope.clone();
        let effect = move |state: &mut State, entry: &Entry| state.inventory(&wanted, entry.at);
        self.perform(cx, "inventory", format!("{scope:?}"), effect).await
    }

    async fn begin(&self, cx: &Cx, spec: &SessionSpec) -> PluginResult<Session> {
        let about = format!("{} {} {}", spec.id, spec.kind.word(), listed(&spec.copies));
        let (caps, spec) = (Arc::clone(&self.caps), spec.clone());
        let effect = move |state: &mut State, entry: &Entry| state.begin(entry, &spec, &caps);
        self.perform(cx, "begin", about, effect).await
    }

    async fn session(&self, cx: &Cx, id: SessionId) -> PluginResult<SessionState> {
        let effect = move |state: &mut State, _: &Entry| Ok(state.session_state(id));
        self.perform(cx, "session", id.to_string(), effect).await
    }

    async fn renew(&self, cx: &Cx, id: SessionId, lease: Duration) -> PluginResult<()> {
        let effect = move |state: &mut State, entry: &Entry| state.renew(entry, id, lease);
        self.perform(cx, "renew", format!("{id} {lease:?}"), effect).await
    }

    async fn freeze(
        &self,
        cx: &Cx,
        id: SessionId,
        limit: Option<Duration>,
    ) -> PluginResult<Frozen> {
        let caps = Arc::clone(&self.caps);
        let effect = move |state: &mut State, entry: &Entry| state.freeze(entry, id, limit, &caps);
        self.perform(cx, "freeze", format!("{id} {limit:?}"), effect).await
    }

    async fn thaw(&self, cx: &Cx, id: SessionId) -> PluginResult<()> {
        let call = self.world.enter(cx, Side::Exchange, "thaw", id.to_string());
        // Asking counts from the moment of asking, whatever comes of it.
        call.see(|state| state.note_asked(id, self.world.at(Moment::of(cx))));
        let caps = Arc::clone(&self.caps);
        let effect = move |state: &mut State, entry: &Entry| state.thaw(entry, id, &caps);
        let result = call.run(effect).await.map(|done| done.value);
        call.end(result)
    }

    async fn snap(
        &self,
        cx: &Cx,
        id: SessionId,
        prepared: &[Prepared],
    ) -> PluginResult<Vec<NativeSnapshot>> {
        let about = format!("{id} {}", listed(prepared.iter().map(|set| &set.token)));
        let call = self.world.enter(cx, Side::Exchange, "snap", about);
        let (caps, sets) = (Arc::clone(&self.caps), prepared.to_vec());
        let effect = move |state: &mut State, entry: &Entry| {
            let plan = state.snap(entry, id, &sets, &caps)?;
            let natives = state.sessions.get(&id).map(|session| session.natives.clone());
            Ok((plan, natives.unwrap_or_default()))
        };
        let result = match call.run(effect).await {
            Err(error) => Err(error),
            Ok(done) => match call.wait(done.value.0.until).await {
                Err(interrupted) => Err(interrupted.into()),
                Ok(()) if done.is_pretence() => Ok(done.value.1),
                Ok(()) => call.see(|state| state.snapped(id)),
            },
        };
        call.end(result)
    }

    async fn evidence(&self, cx: &Cx, id: SessionId) -> PluginResult<SetOutcome> {
        let call = self.world.enter(cx, Side::Exchange, "evidence", id.to_string());
        let caps = Arc::clone(&self.caps);
        let effect = move |state: &mut State, _: &Entry| state.evidence(id, &caps);
        let result = call.run(effect).await.map(|done| {
            let mut outcome = done.value;
            for evidence in outcome.copies.values_mut() {
                match done.lie {
                    Some(Lie::Held) => evidence.held = Held::Yes,
                    Some(Lie::Unsure) => evidence.held = Held::Unknown,
                    _ => {}
                }
            }
            outcome
        });
        call.end(result)
    }

    async fn verify(
        &self,
        cx: &Cx,
        exposure: &Exposure,
        spec: &VerifySpec,
    ) -> PluginResult<VerifyReport> {
        let about = format!("{} {}", exposure.key, listed(spec.copies()));
        let call = self.world.enter(cx, Side::Exchange, "verify", about);
        if !self.caps.verify {
            return call.end(Err(PluginError::unsupported("verify")));
        }
        let (exposure, wanted) = (exposure.clone(), spec.clone());
        let effect =
            move |state: &mut State, _: &Entry| Ok(verify::verify(state, &exposure, &wanted));
        let result = call.run(effect).await.map(|done| {
            let mut report = done.value;
            let files = spec.files.len() as u64;
            cx.report(|| Progress::items("files", files, Some(files)));
            for copy in report.copies.values_mut() {
                match done.lie {
                    Some(Lie::Good) => copy.verdict = Verdict::Good,
                    Some(Lie::Bad) => {
                        let finding = Finding::new("?", FindingKind::Structure, "it looks bad");
                        copy.verdict = Verdict::bad(vec![finding]);
                    }
                    _ => {}
                }
            }
            report
        });
        call.end(result)
    }

    async fn complete(
        &self,
        cx: &Cx,
        id: SessionId,
        verdicts: &BTreeMap<CopyId, Verdict>,
    ) -> PluginResult<BTreeMap<CopyId, Completion>> {
        let said = verdicts.iter().map(|(copy, verdict)| format!("{copy}={verdict}"));
        let about = format!("{id} {}", listed(said));
        let (caps, verdicts) = (Arc::clone(&self.caps), verdicts.clone());
        let effect =
            move |state: &mut State, entry: &Entry| state.complete(entry, id, &verdicts, &caps);
        self.perform(cx, "complete", about, effect).await
    }

    async fn abort(&self, cx: &Cx, id: SessionId) -> PluginResult<()> {
        let call = self.world.enter(cx, Side::Exchange, "abort", id.to_string());
        call.see(|state| state.note_asked(id, self.world.at(Moment::of(cx))));
        let effect = move |state: &mut State, entry: &Entry| {
            state.abort(entry, id);
            Ok(())
        };
        let result = call.run(effect).await.map(|done| done.value);
        call.end(result)
    }

    async fn truncation(
        &self,
        cx: &Cx,
        copy: &CopyId,
        since: DateTime<Utc>,
    ) -> PluginResult<Truncation> {
        let wanted = copy.clone();
        let effect = move |state: &mut State, _: &Entry| state.truncation(&wanted, since);
        self.perform(cx, "truncation", copy.to_string(), effect).await
    }

    async fn closed_logs(&self, cx: &Cx, copy: &CopyId) -> PluginResult<ClosedLogs> {
        let call = self.world.enter(cx, Side::Exchange, "closed_logs", copy.to_string());
        if !self.caps.kinds.contains(&BackupKind::Log) {
            return call.end(Err(PluginError::unsupported("closed_logs")));
        }
        let wanted = copy.clone();
        let effect = move |state: &mut State, entry: &Entry| state.closed_logs(&wanted, entry.at);
        let result = call.run(effect).await.map(|done| done.value);
        call.end(result)
    }

    fn restore(&self) -> Option<&dyn ExchangeRestore> {
        self.caps.restore.then_some(self)
    }
}
