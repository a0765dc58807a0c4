//! Faults around any side.

use std::any::Any;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{Either, RemoteHandle, select};
use serde::Serialize;
use serde::de::DeserializeOwned;
use stillpoint_context::{BoxFuture, Cx};
use stillpoint_exchange::{
    Completion, ExchangePlugin, ForwardPlugin, Frozen, Held, PluginCall, PluginResult, SetOutcome,
    VerifyReport,
};
use stillpoint_model::verdict::{Finding, FindingKind, Verdict};
use stillpoint_storage::{
    Deleted, Discarded, ForwardProvider, Member, ProviderCall, ProviderResult, SnapshotProvider,
};

use crate::call::{Calls, Side};
use crate::fault::{Fault, Faults, Injected, Lie, SideError, Trouble, flies};

type AnyAnswer = Box<dyn Any + Send>;

/// How long somebody waits for a slow call that nothing else ends.
const PATIENCE: Duration = Duration::from_hours(24 * 365);

/// A plug-in or provider some of whose calls go wrong, as [`Faults`] say: by rules, or at random from a seed.
///
/// Without faults it is the inner one. Everything in [`Fault`] can be injected, but what belongs to a simulated
/// [`World`](crate::World): a [`Fault::Change`], and a [`Lie::Done`] of a call whose answer nobody can make up (`prepare`, say),
/// fail the call with an internal error that says so.
///
/// Two faults need more than the call itself: what is late (a [`Fault::LateArrival`], or a [`Fault::Slow`] `commit` or `snap`)
/// goes on in a task of the call's own seams, also when nobody waits any more. After a [`Fault::Die`] every call fails until
/// [`revive`](Self::revive).
///
/// A test that draws seeds prints the one that failed, and the command that does the same again:
///
/// ```
/// use std::sync::Arc;
/// use stillpoint_context::Cx;
/// use stillpoint_storage::{SetToken, SnapshotProvider};
/// use stillpoint_testkit::wrap::Faulty;
/// use stillpoint_testkit::{Fault, Faults, RandomFaults, Trouble, World};
/// use stillpoint_workflow::testing::Sim;
///
/// let only = std::env::var("MY_SEED").ok().and_then(|seed| seed.parse().ok());
/// let seeds = only.map_or(0..20, |seed| seed..seed + 1);
/// let mut fired = 0;
/// for seed in seeds {
///     let (sim, faults) = (Sim::new(seed), Faults::default());
///     let menu = vec![Fault::Fail(Trouble::io()), Fault::Fail(Trouble::timed_out())];
///     faults.random(RandomFaults::new(seed).one_in(4).menu(menu));
///     let provider = Faulty::provider(Arc::new(World::one_server(1).storage()), &faults);
///     let cx = Cx::detached(&sim.seams());
///     let token = SetToken::new("set-1")?;
///     // Whatever fails, the undo gets through in the end.
///     let gone = sim.run(async {
///         for _ in 0..100 {
///             if provider.discard(&cx, &token).await.is_ok() {
///                 return true;
///             }
///         }
///         false
///     });
///     assert!(gone, "seed {seed}; again: MY_SEED={seed} cargo test --doc faulty");
///     fired += faults.fired();
/// }
/// assert!(fired > 0 || only.is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Faulty<S: ?Sized> {
    inner: Arc<S>,
    faults: Faults,
    calls: Calls,
    dead: AtomicBool,
}

impl<S: ?Sized> Faulty<S> {
    fn over(inner: Arc<S>, faults: &Faults) -> Self {
        let (faults, calls) = (faults.clone(), Calls::default());
        Self { inner, faults, calls, dead: AtomicBool::new(false) }
    }

    /// Every call, with the fault that it suffered.
    pub fn calls(&self) -> Calls {
        self.calls.clone()
    }

    /// Lets a side that [died](Fault::Die) answer again.
    pub fn revive(&self) {
        self.dead.store(false, Ordering::SeqCst);
    }
}

impl Faulty<dyn SnapshotProvider> {
    /// A provider with these faults.
    pub fn provider(inner: Arc<dyn SnapshotProvider>, faults: &Faults) -> Self {
        Self::over(inner, faults)
    }
}

impl Faulty<dyn ExchangePlugin> {
    /// A plug-in with these faults.
    pub fn plugin(inner: Arc<dyn ExchangePlugin>, faults: &Faults) -> Self {
        Self::over(inner, faults)
    }
}

/// The same caller, whose call nobody can cancel any more.
fn on_its_own(cx: &Cx) -> Cx {
    let builder = Cx::builder(cx.seams()).run(cx.run()).step(cx.step().clone());
    builder.attempt(cx.attempt()).key(cx.key().clone()).fence(cx.fence()).build()
}

/// The call as one that outlives its caller.
fn owned<T: DeserializeOwned, E: SideError>(call: &impl Serialize) -> Result<T, E> {
    let copied = serde_json::to_value(call).and_then(serde_json::from_value);
    copied.map_err(|error| E::defect(format!("the call cannot be copied: {error}")))
}

/// A call on its own, which goes on when this is dropped.
struct Flight<T: 'static>(Option<RemoteHandle<T>>);

impl<T> Drop for Flight<T> {
    fn drop(&mut self) {
        if let Some(handle) = self.0.take() {
            handle.forget();
        }
    }
}

/// One call that may go wrong.
struct Suffering<'a> {
    cx: &'a Cx,
    name: &'static str,
    injected: Option<Injected>,
    dead: &'a AtomicBool,
}

impl Suffering<'_> {
    fn cannot<E: SideError>(&self, fault: &Fault) -> E {
        let name = self.name;
        E::defect(format!("{fault:?} of `{name}` needs a simulated world: it is not injected"))
    }

    async fn befall<E: SideError>(&self, fault: &Fault) -> Result<(), E> {
        if let Some(suffered) = fault.befall(self.cx, self.name).await {
            return suffered;
        }
        if *fault == Fault::Die {
            self.dead.store(true, Ordering::SeqCst);
            return Err(E::of_trouble(&Trouble::unreachable(), self.name));
        }
        Err(self.cannot(fault))
    }

    /// Starts the call on its own after a while; it goes on also when nobody waits.
    fn depart<E: SideError>(
        &self,
        after: Duration,
        call: impl FnOnce(Cx) -> BoxFuture<'static, Result<AnyAnswer, E>> + Send + 'static,
    ) -> Flight<Result<AnyAnswer, E>> {
        let cx = on_its_own(self.cx);
        let flight = async move {
            // It is not interrupted: nobody holds its token.
            let _slept = cx.sleep(after).await;
            call(cx).await
        };
        let (flight, handle) = flight.remote_handle();
        self.cx.seams().spawner.spawn("late call", Box::pin(flight));
        Flight(Some(handle))
    }

    /// Waits for what has departed, as long as the caller's context allows.
    async fn wait_for<E: SideError>(
        &self,
        mut flight: Flight<Result<AnyAnswer, E>>,
    ) -> Result<AnyAnswer, E> {
        // It is taken only when the flight is dropped.
        let Some(handle) = &mut flight.0 else {
            return Err(E::defect(format!("`{}` is not under way", self.name)));
        };
        let impatience = pin!(self.cx.sleep(PATIENCE));
        match select(handle, impatience).await {
            Either::Left((answer, _)) => answer,
            Either::Right((Err(interrupted), _)) => Err(E::from(interrupted)),
            Either::Right((Ok(()), _)) => Err(E::of_trouble(&Trouble::timed_out(), self.name)),
        }
    }

    /// Carries the call out, unless the fault says otherwise. `late` is the same call on its own, `pretence` its answer as if it
    /// had been carried out.
    async fn perform<T: Send + 'static, E: SideError>(
        &self,
        work: BoxFuture<'_, Result<T, E>>,
        late: impl FnOnce(Cx) -> BoxFuture<'static, Result<AnyAnswer, E>> + Send + 'static,
        pretence: Option<AnyAnswer>,
    ) -> Result<T, E> {
        let mut lie = None;
        if self.dead.load(Ordering::SeqCst) {
            return Err(E::of_trouble(&Trouble::unreachable(), self.name));
        }
        if let Some(Injected { fault, after: false }) = &self.injected {
            match fault {
                Fault::Slow(time) if flies(self.name) => {
                    let flight = self.depart(*time, late);
                    return self.wait_for(flight).await.and_then(|any| self.told(any));
                }
                Fault::LateArrival(time) => {
                    drop(self.depart(*time, late));
                    return Err(E::of_trouble(&Trouble::timed_out(), self.name));
                }
                Fault::Lie(Lie::Done) => {
                    let any = pretence.ok_or_else(|| self.cannot::<E>(fault))?;
                    return self.told(any);
                }
                Fault::Lie(told) => lie = Some(*told),
                other => self.befall::<E>(other).await?,
            }
        }
        let mut value = work.await?;
        if let Some(lie) = lie {
            falsify(&mut value, lie);
        }
        if let Some(Injected { fault, after: true }) = &self.injected {
            self.befall::<E>(fault).await?;
        }
        Ok(value)
    }

    fn told<T: 'static, E: SideError>(&self, any: AnyAnswer) -> Result<T, E> {
        let wrong = |_| E::defect(format!("the answer of `{}` is of another type", self.name));
        any.downcast::<T>().map(|value| *value).map_err(wrong)
    }
}

/// Turns an answer into a lie, if the lie is about such answers.
fn falsify(value: &mut dyn Any, lie: Lie) {
    if let Some(outcome) = value.downcast_mut::<SetOutcome>() {
        for copy in outcome.copies.values_mut() {
            match lie {
                Lie::Held => copy.held = Held::Yes,
                Lie::Unsure => copy.held = Held::Unknown,
                _ => {}
            }
        }
    } else if let Some(report) = value.downcast_mut::<VerifyReport>() {
        for copy in report.copies.values_mut() {
            match lie {
                Lie::Good => copy.verdict = Verdict::Good,
                Lie::Bad => {
                    let finding = Finding::new("?", FindingKind::Structure, "it looks bad");
                    copy.verdict = Verdict::bad(vec![finding]);
                }
                _ => {}
            }
        }
    }
}

/// What a provider would answer that had done its work, where that can be made up.
fn provider_pretence(cx: &Cx, call: &ProviderCall<'_>) -> Option<AnyAnswer> {
    use ProviderCall as Call;
    Some(match call {
        Call::Commit { prepared } => {
            let members = prepared.members.iter();
            let taken = members.map(|m| Member::new(m.volume.clone(), m.role, cx.now()));
            Box::new(taken.collect::<Vec<_>>())
        }
        Call::Discard { .. } => Box::new(Discarded::Gone),
        Call::Delete { .. } => Box::new(Deleted::Gone),
        Call::Unexpose { .. }
        | Call::PutDoc { .. }
        | Call::DeleteDoc { .. }
        | Call::Unstage { .. }
        | Call::Retract { .. }
        | Call::SettleRestore { .. }
        | Call::Hold { .. }
        | Call::Release { .. }
        | Call::Lock { .. } => Box::new(()),
        _ => return None,
    })
}

impl ForwardProvider for Faulty<dyn SnapshotProvider> {
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
            let (name, about) = (call.name(), call.about());
            let injected = self.faults.pick(name, cx.step().as_str(), &about);
            let fault = injected.as_ref().map(Injected::told);
            let ticket = self.calls.enter(cx, Side::Storage, name, about, fault);
            let result = if injected.is_none() && !self.dead.load(Ordering::SeqCst) {
                work.await
            } else {
                let suffering = Suffering { cx, name, injected, dead: &self.dead };
                match owned::<ProviderCall<'static>, _>(&call) {
                    Err(error) => Err(error),
                    Ok(owned) => {
                        let inner = Arc::clone(&self.inner);
                        let late = move |cx: Cx| -> BoxFuture<'static, _> {
                            Box::pin(async move { owned.on(&*inner, &cx).await })
                        };
                        let pretence = provider_pretence(cx, &call);
                        suffering.perform(work, late, pretence).await
                    }
                }
            };
            ticket.end(&result);
            result
        })
    }
}

impl Faulty<dyn ExchangePlugin> {
    /// What a plug-in would answer that had done its work, where that can be made up.
    fn pretence(&self, cx: &Cx, call: &PluginCall<'_>) -> Option<AnyAnswer> {
        use PluginCall as Call;
        Some(match call {
            Call::Freeze { limit, .. } => {
                let until = limit.and_then(|limit| {
                    let limit = chrono::TimeDelta::from_std(limit).ok()?;
                    cx.now().checked_add_signed(limit)
                });
                Box::new(Frozen::new(cx.now(), self.inner.caps().quiesce, until))
            }
            Call::Complete { verdicts, .. } => {
                let completed = verdicts.keys().map(|copy| (copy.clone(), Completion::Completed));
                Box::new(completed.collect::<std::collections::BTreeMap<_, _>>())
            }
            Call::Renew { .. }
            | Call::Thaw { .. }
            | Call::Abort { .. }
            | Call::Open { .. }
            | Call::Cancel { .. } => Box::new(()),
            _ => return None,
        })
    }
}

impl ForwardPlugin for Faulty<dyn ExchangePlugin> {
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
            let (name, about) = (call.name(), call.about());
            let injected = self.faults.pick(name, cx.step().as_str(), &about);
            let fault = injected.as_ref().map(Injected::told);
            let ticket = self.calls.enter(cx, Side::Exchange, name, about, fault);
            let result = if injected.is_none() && !self.dead.load(Ordering::SeqCst) {
                work.await
            } else {
                let suffering = Suffering { cx, name, injected, dead: &self.dead };
                match owned::<PluginCall<'static>, _>(&call) {
                    Err(error) => Err(error),
                    Ok(owned) => {
                        let inner = Arc::clone(&self.inner);
                        let late = move |cx: Cx| -> BoxFuture<'static, _> {
                            Box::pin(async move { owned.on(&*inner, &cx).await })
                        };
                        let pretence = self.pretence(cx, &call);
                        suffering.perform(work, late, pretence).await
                    }
                }
            };
            ticket.end(&result);
            result
        })
    }
}
