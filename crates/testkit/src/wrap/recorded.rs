//! Every call of a side, with what was asked and what was said.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use stillpoint_context::{BoxFuture, Cx};
use stillpoint_exchange::{ExchangePlugin, ForwardPlugin, PluginCall, PluginResult};
use stillpoint_storage::{ForwardProvider, ProviderCall, ProviderResult, SnapshotProvider};

use super::error::Recordable;
use super::line::{self, Line, RecordedCall, SCHEMA, Said};
use crate::call::{Calls, Outcome, Side};

/// What the record of a call does not have.
#[derive(Debug)]
struct Spoken {
    of: Arc<str>,
    asked: Value,
    said: Option<Said>,
}

#[derive(Debug, Default)]
struct Kept {
    sides: Vec<Line>,
    spoken: BTreeMap<u64, Spoken>,
}

/// What [`Recorded`] sides were asked and said, in one order. Cheap to clone; all clones are one recording.
///
/// It keeps everything until it is dropped. As [lines](Self::to_lines) of JSON it can be stored, and [replayed](super::Replay).
#[derive(Debug, Clone, Default)]
pub struct Recording {
    calls: Calls,
    kept: Arc<Mutex<Kept>>,
}

fn json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_else(|error| format!("it is not JSON: {error}").into())
}

impl Recording {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// The calls, with times and outcomes, to be asked about.
    pub fn calls(&self) -> Calls {
        self.calls.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn introduce(&self, side: Line) {
        let mut kept = self.lock();
        if !kept.sides.contains(&side) {
            kept.sides.push(side);
        }
    }

    /// The whole recording: a line that says [`SCHEMA`](super::SCHEMA), one for each side, one for each call in the order in
    /// which they began. Each is a JSON object.
    pub fn to_lines(&self) -> String {
        let kept = self.lock();
        let mut lines = vec![Line::Schema(SCHEMA.to_owned())];
        lines.extend(kept.sides.iter().cloned());
        for call in self.calls.all() {
            let Some(spoken) = kept.spoken.get(&call.entered) else { continue };
            let said = spoken.said.clone().unwrap_or(match call.outcome {
                Outcome::Panicked => Said::Panicked,
                Outcome::Dropped => Said::Dropped,
                Outcome::Running | Outcome::Ok | Outcome::Failed(_) => Said::Running,
            });
            lines.push(Line::Call(Box::new(RecordedCall {
                entered: call.entered,
                left: call.left,
                side: call.side,
                of: spoken.of.to_string(),
                about: format!("{} {}", call.name, call.about).trim_end().to_owned(),
                run: call.run,
                step: call.step,
                attempt: call.attempt,
                fence: call.fence,
                started: call.started,
                ended: call.ended,
                asked: spoken.asked.clone(),
                said,
            })));
        }
        line::write(&lines)
    }

    async fn record<T: Serialize, E: Recordable>(
        &self,
        cx: &Cx,
        (side, of): (Side, &Arc<str>),
        (name, about, asked): (&'static str, String, Value),
        work: BoxFuture<'_, Result<T, E>>,
    ) -> Result<T, E> {
        let ticket = self.calls.enter(cx, side, name, about, None);
        let entered = ticket.entered();
        self.lock().spoken.insert(entered, Spoken { of: Arc::clone(of), asked, said: None });
        let result = work.await;
        let said = match &result {
            Ok(answer) => Said::Answered(json(answer)),
            Err(error) => Said::Failed(error.record()),
        };
        if let Some(spoken) = self.lock().spoken.get_mut(&entered) {
            spoken.said = Some(said);
        }
        ticket.end(&result);
        result
    }
}

/// A plug-in or provider whose calls are recorded: what was asked, by which run and step, when, and what came of it.
///
/// What it does in a freeze costs memory and microseconds; it writes nowhere.
///
/// ```
/// use std::sync::Arc;
/// use stillpoint_context::Cx;
/// use stillpoint_exchange::{ExchangePlugin, Scope};
/// use stillpoint_testkit::World;
/// use stillpoint_testkit::wrap::{Recorded, Recording, Replay};
/// use stillpoint_workflow::testing::Sim;
///
/// let (world, sim, recording) = (World::one_server(2), Sim::new(1), Recording::new());
/// let plugin = Recorded::plugin(Arc::new(world.exchange()), &recording);
/// let cx = Cx::detached(&sim.seams());
/// let seen = sim.run(plugin.inventory(&cx, &Scope::Everything))?;
/// assert_eq!(recording.calls().names(), ["inventory"]);
///
/// let replay = Replay::read(&recording.to_lines())?;
/// let plugin = replay.plugin("simulated").ok_or("it was recorded")?;
/// assert_eq!(sim.run(plugin.inventory(&cx, &Scope::Everything))?, seen);
/// // Once more was not recorded.
/// let error = sim.run(plugin.inventory(&cx, &Scope::Everything)).unwrap_err();
/// assert!(error.to_string().contains("the recording is over, and `inventory Everything` was asked"), "{error}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Recorded<S: ?Sized> {
    inner: Arc<S>,
    of: Arc<str>,
    recording: Recording,
}

impl Recorded<dyn SnapshotProvider> {
    /// A provider whose calls go there.
    pub fn provider(inner: Arc<dyn SnapshotProvider>, recording: &Recording) -> Self {
        let caps = inner.caps();
        let of = caps.provider.as_str().into();
        let (restore, lock) = (inner.restore().is_some(), inner.lock().is_some());
        recording.introduce(Line::Provider { caps, restore, lock });
        Self { inner, of, recording: recording.clone() }
    }
}

impl Recorded<dyn ExchangePlugin> {
    /// A plug-in whose calls go there.
    pub fn plugin(inner: Arc<dyn ExchangePlugin>, recording: &Recording) -> Self {
        let caps = inner.caps();
        let of = caps.name.as_str().into();
        let restore = inner.restore().is_some();
        recording.introduce(Line::Plugin { caps, restore });
        Self { inner, of, recording: recording.clone() }
    }
}

impl ForwardProvider for Recorded<dyn SnapshotProvider> {
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
            let asked = (call.name(), call.about(), json(&call));
            self.recording.record(cx, (Side::Storage, &self.of), asked, work).await
        })
    }
}

impl ForwardPlugin for Recorded<dyn ExchangePlugin> {
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
            let asked = (call.name(), call.about(), json(&call));
            self.recording.record(cx, (Side::Exchange, &self.of), asked, work).await
        })
    }
}
