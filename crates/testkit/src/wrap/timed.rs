//! How long calls take.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;
use stillpoint_context::{BoxFuture, Cx, Effect, ErrorFacts, Mono};
use stillpoint_exchange::{ExchangePlugin, ForwardPlugin, PluginCall, PluginResult, SessionId};
use stillpoint_storage::{ForwardProvider, ProviderCall, ProviderResult, SnapshotProvider};

use super::timings::{CallTimes, KEPT, SetTime, Timings, Values};

/// A freeze that is not over as far as anybody knows.
#[derive(Debug)]
struct Open {
    since: Mono,
    /// Whether it was said to have come.
    came: bool,
}

/// The most freezes that may be open before the oldest is forgotten: one whose process died is never thawed through us.
const MOST_OPEN: usize = 1000;

#[derive(Debug, Default)]
struct Seen {
    freezes: Values,
    commits: Values,
    sets: VecDeque<SetTime>,
    calls: BTreeMap<&'static str, (Values, u64, u64)>,
    open: BTreeMap<SessionId, Open>,
}

impl Seen {
    fn freezing(&mut self, id: SessionId, since: Mono) {
        if self.open.len() >= MOST_OPEN {
            let oldest = self.open.iter().min_by_key(|(_, open)| open.since).map(|(id, _)| *id);
            oldest.map(|id| self.open.remove(&id));
        }
        self.open.entry(id).or_insert(Open { since, came: false });
    }

    fn thawed(&mut self, id: SessionId, now: Mono) {
        if let Some(open) = self.open.remove(&id).filter(|open| open.came) {
            self.freezes.add(now.saturating_since(open.since));
        }
    }
}

/// Where [`Timed`] sides put their times. Cheap to clone; all clones are one. What it keeps is bounded, however long it is
/// used.
#[derive(Debug, Clone, Default)]
pub struct Times(Arc<Mutex<Seen>>);

impl Times {
    /// No times yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was seen so far.
    pub fn timings(&self) -> Timings {
        let seen = self.lock();
        let times = |(values, failed, dropped): &(Values, u64, u64)| CallTimes {
            answered: values.spread(),
            failed: *failed,
            dropped: *dropped,
        };
        Timings {
            freezes: seen.freezes.spread(),
            commits: seen.commits.spread(),
            sets: seen.sets.iter().cloned().collect(),
            calls: seen.calls.iter().map(|(name, call)| (*name, times(call))).collect(),
        }
    }

    /// Forgets what was seen, but not the freezes that are open.
    pub fn clear(&self) {
        let mut seen = self.lock();
        let open = std::mem::take(&mut seen.open);
        *seen = Seen { open, ..Seen::default() };
    }

    fn begin<'a>(&'a self, cx: &'a Cx, name: &'static str) -> Watch<'a> {
        Watch { times: self, cx, name, since: cx.mono(), open: true }
    }
}

/// A call that is under way. Dropped without an end, it says so.
struct Watch<'a> {
    times: &'a Times,
    cx: &'a Cx,
    name: &'static str,
    since: Mono,
    open: bool,
}

impl Watch<'_> {
    /// Ends it, and gives its beginning and its end.
    fn end(mut self, answered: bool) -> (Mono, Mono) {
        self.open = false;
        let now = self.cx.mono();
        let mut seen = self.times.lock();
        let (values, failed, _) = seen.calls.entry(self.name).or_default();
        if answered {
            values.add(now.saturating_since(self.since));
        } else {
            *failed += 1;
        }
        drop(seen);
        (self.since, now)
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if self.open {
            self.times.lock().calls.entry(self.name).or_default().2 += 1;
        }
    }
}

/// A plug-in or provider whose calls are timed, by the clock of their contexts. It adds a look at the clock and a short lock to
/// each call, also inside a freeze, and nothing else.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
/// use stillpoint_context::Cx;
/// use stillpoint_exchange::{BackupKind, ExchangePlugin, SessionId, SessionSpec};
/// use stillpoint_testkit::World;
/// use stillpoint_testkit::wrap::{Timed, Times};
/// use stillpoint_workflow::testing::Sim;
/// use uuid::Uuid;
///
/// let (world, sim, times) = (World::one_server(1), Sim::new(1), Times::new());
/// let plugin = Timed::plugin(Arc::new(world.exchange()), &times);
/// let cx = Cx::detached(&sim.seams());
/// let (id, hour) = (SessionId(Uuid::from_u128(1)), Duration::from_secs(3600));
/// sim.run(async {
///     plugin.begin(&cx, &SessionSpec::new(id, BackupKind::Full, vec![world.active("DB01")], hour)).await?;
///     plugin.freeze(&cx, id, Some(Duration::from_secs(10))).await?;
///     cx.sleep(Duration::from_millis(350)).await?;
///     plugin.thaw(&cx, id).await
/// })?;
/// let timings = times.timings();
/// assert_eq!(timings.freezes.max, Duration::from_millis(350));
/// assert!(timings.to_string().starts_with("freezes  1×  min 350.0 ms"));
/// # Ok::<(), stillpoint_exchange::PluginError>(())
/// ```
#[derive(Debug)]
pub struct Timed<S: ?Sized> {
    inner: Arc<S>,
    times: Times,
}

impl Timed<dyn SnapshotProvider> {
    /// A provider whose times go there.
    pub fn provider(inner: Arc<dyn SnapshotProvider>, times: &Times) -> Self {
        Self { inner, times: times.clone() }
    }
}

impl Timed<dyn ExchangePlugin> {
    /// A plug-in whose times go there.
    pub fn plugin(inner: Arc<dyn ExchangePlugin>, times: &Times) -> Self {
        Self { inner, times: times.clone() }
    }
}

impl ForwardProvider for Timed<dyn SnapshotProvider> {
    fn inner(&self) -> &dyn SnapshotProvider {
        &*self.inner
    }

    fn around<'a, T>(
        &'a self,
        cx: &'a Cx,
        call: ProviderCall<'a>,
        work: BoxFuture<'a, ProviderResult<T>>,
    ) -> BoxFuture<'a, ProviderResult<T>>
    where
        T: Serialize + DeserializeOwned + Send + 'static,
    {
        Box::pin(async move {
            let watch = self.times.begin(cx, call.name());
            let result = work.await;
            let (since, now) = watch.end(result.is_ok());
            if let (ProviderCall::Commit { prepared }, true) = (&call, result.is_ok()) {
                let took = now.saturating_since(since);
                let (token, members) = (prepared.token.clone(), prepared.members.len());
                let mut seen = self.times.lock();
                seen.commits.add(took);
                if seen.sets.len() == KEPT {
                    let _oldest = seen.sets.pop_front();
                }
                seen.sets.push_back(SetTime { token, members, took });
            }
            result
        })
    }
}

impl ForwardPlugin for Timed<dyn ExchangePlugin> {
    fn inner(&self) -> &dyn ExchangePlugin {
        &*self.inner
    }

    fn around<'a, T>(
        &'a self,
        cx: &'a Cx,
        call: PluginCall<'a>,
        work: BoxFuture<'a, PluginResult<T>>,
    ) -> BoxFuture<'a, PluginResult<T>>
    where
        T: Serialize + DeserializeOwned + Send + 'static,
    {
        Box::pin(async move {
            if let PluginCall::Freeze { id, .. } = call {
                self.times.lock().freezing(id, cx.mono());
            }
            let watch = self.times.begin(cx, call.name());
            let result = work.await;
            let (since, now) = watch.end(result.is_ok());
            let mut seen = self.times.lock();
            match (&call, &result) {
                (PluginCall::Freeze { id, .. }, Ok(_)) => {
                    if let Some(open) = seen.open.get_mut(id) {
                        open.came = true;
                    }
                }
                // A freeze that surely did not come. Another one, before it, may be open.
                (PluginCall::Freeze { id, .. }, Err(error))
                    if error.effect() == Effect::None
                        && seen.open.get(id).is_some_and(|open| !open.came) =>
                {
                    let _none = seen.open.remove(id);
                }
                (PluginCall::Thaw { id } | PluginCall::Abort { id }, Ok(_)) => {
                    seen.thawed(*id, now);
                }
                (PluginCall::Snap { .. }, Ok(_)) => {
                    seen.freezes.add(now.saturating_since(since));
                }
                _ => {}
            }
            drop(seen);
            result
        })
    }
}
