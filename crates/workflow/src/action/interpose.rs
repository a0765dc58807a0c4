//! A test between the engine and the actions.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use stillpoint_context::{BoxFuture, Cx, Failure};

use super::erased::{AnyAction, Invocation, RawDone, RawProbe};
use super::{ActionRegistry, EffectKind, Known, Undone};
use crate::payload::Payload;

/// Which call of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// [`Action::run`](crate::Action::run): a step, an enter, an exit.
    Run,
    /// [`Action::undo`](crate::Action::undo).
    Undo,
    /// [`Action::probe`](crate::Action::probe).
    Probe,
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conduct {
    /// It is carried out.
    Do,
    /// It is left out, and answered as if it were done: a step with the unit value, an undo as clean, a probe as unknown.
    Skip,
}

/// What a test does before and after calls of actions: whatever a future may do (wait, fail, panic, never end). The step is in
/// the context.
pub trait Interpose: Debug + Send + Sync + 'static {
    /// Awaited before a call; an error is the call's failure.
    fn before(
        &self,
        cx: Cx,
        action: &str,
        part: Part,
    ) -> BoxFuture<'static, Result<Conduct, Failure>>;

    /// Awaited after a call that succeeded; an error is the call's failure.
    fn after(&self, cx: Cx, action: &str, part: Part) -> BoxFuture<'static, Result<(), Failure>>;
}

impl ActionRegistry {
    /// The same actions, with this between them and the engine.
    pub(crate) fn interposed(self, interpose: &Arc<dyn Interpose>) -> Self {
        let actions = self.0.into_iter().map(|(key, inner)| {
            let name = key.0.to_string();
            let action = Interposed { name, inner, interpose: Arc::clone(interpose) };
            (key, Arc::new(action) as Arc<dyn AnyAction>)
        });
        Self(actions.collect())
    }
}

#[derive(Debug)]
struct Interposed {
    name: String,
    inner: Arc<dyn AnyAction>,
    interpose: Arc<dyn Interpose>,
}

impl Interposed {
    fn around<T: Send + 'static>(
        &self,
        call: Invocation,
        part: Part,
        skipped: T,
        act: impl FnOnce(Arc<dyn AnyAction>, Invocation) -> BoxFuture<'static, Result<T, Failure>>
        + Send
        + 'static,
    ) -> BoxFuture<'static, Result<T, Failure>> {
        let (inner, interpose, name) =
            (Arc::clone(&self.inner), Arc::clone(&self.interpose), self.name.clone());
        Box::pin(async move {
            let cx = call.cx.clone();
            let answer = match interpose.before(cx.clone(), &name, part).await? {
                Conduct::Do => act(inner, call).await?,
                Conduct::Skip => skipped,
            };
            interpose.after(cx, &name, part).await?;
            Ok(answer)
        })
    }
}

impl AnyAction for Interposed {
    fn effect(&self) -> EffectKind {
        self.inner.effect()
    }

    fn run(&self, call: Invocation) -> BoxFuture<'static, Result<RawDone, Failure>> {
        let skipped = RawDone { output: Payload::UNIT, ..RawDone::default() };
        self.around(call, Part::Run, skipped, |inner, call| inner.run(call))
    }

    fn undo(
        &self,
        call: Invocation,
        known: Known<Payload>,
    ) -> BoxFuture<'static, Result<Undone, Failure>> {
        self.around(call, Part::Undo, Undone::clean(), |inner, call| inner.undo(call, known))
    }

    fn probe(&self, call: Invocation) -> BoxFuture<'static, Result<RawProbe, Failure>> {
        self.around(call, Part::Probe, RawProbe::Unknown, |inner, call| inner.probe(call))
    }

    fn worst_case(&self, params: &Payload, input: &Payload) -> Result<Option<Duration>, Failure> {
        self.inner.worst_case(params, input)
    }
}
