//! A world: a small Exchange organisation and the storage it lies on, in one shared state.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::TimeDelta;
use stillpoint_context::{Clock, Cx, Interrupted};

use crate::call::{Calls, Side, Ticket};
use crate::change::Change;
use crate::fault::{Fault, Faults, Injected, Lie, SideError, Trouble, flies};
use crate::moment::Moment;

pub(crate) mod array;
pub(crate) mod builder;
mod completion;
mod freeze;
mod happening;
mod question;
pub(crate) mod record;
mod session;
pub(crate) mod state;

use state::{Entry, Event, Late, State};

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    clock: Mutex<Option<Arc<dyn Clock>>>,
    calls: Calls,
    faults: Faults,
    /// By how much its civil clocks are ahead of the callers'.
    ahead: Mutex<TimeDelta>,
}

/// A small Exchange organisation and the storage it lies on. Cheap to clone; all clones are one world.
///
/// Its two sides are got from it with [`exchange`](World::exchange) and [`storage`](World::storage); what goes wrong with
/// [`faults`](World::faults), [`change`](World::change) and [`damage`](World::damage); what was done to it with
/// [`calls`](World::calls) and the questions below.
///
/// Time is that of the calls: the world goes on by the clock of the last caller's `Cx`, in order, and whatever is due
/// happens before anybody looks. Before the first call it stands still.
#[derive(Debug, Clone, Default)]
pub struct World(Arc<Shared>);

/// A result, and the lie that is to be told with it.
pub(crate) struct Done<T> {
    pub(crate) value: T,
    pub(crate) lie: Option<Lie>,
}

impl<T> Done<T> {
    /// Whether nothing was done.
    pub(crate) fn is_pretence(&self) -> bool {
        self.lie == Some(Lie::Done)
    }
}

/// A call that is under way.
pub(crate) struct Entered<'a> {
    world: &'a World,
    cx: &'a Cx,
    side: Side,
    name: &'static str,
    injected: Option<Injected>,
    ticket: Ticket,
}

impl Entered<'_> {
    fn unreachable<E: SideError>(&self) -> E {
        E::of_trouble(&Trouble::unreachable(), self.name)
    }

    /// Lets the effect happen, unless the fault says otherwise.
    pub(crate) async fn run<T, E, F>(&self, effect: F) -> Result<Done<T>, E>
    where
        T: Send,
        E: SideError,
        F: Fn(&mut State, &Entry) -> Result<T, E> + Send + Sync + 'static,
    {
        let (world, cx) = (self.world, self.cx);
        let (mut extra, mut late, mut lie) = (Duration::ZERO, false, None);
        if let Some(Injected { fault, after: false }) = &self.injected {
            match fault {
                Fault::Slow(time) if flies(self.name) => extra = *time,
                Fault::LateArrival(time) if flies(self.name) => {
                    (extra, late) = (*time, true);
                }
                Fault::LateArrival(time) => {
                    world.later(cx, self.side, *time, move |state, entry| {
                        drop(effect(state, entry));
                    });
                    return Err(E::of_trouble(&Trouble::timed_out(), self.name));
                }
                Fault::Lie(told) => lie = Some(*told),
                other => self.suffer::<E>(other).await?,
            }
        }
        if world.lock().dead.contains(&self.side) {
            return Err(self.unreachable());
        }
        let value = world.act(cx, extra, lie == Some(Lie::Done), &effect)?;
        if late {
            return Err(E::of_trouble(&Trouble::timed_out(), self.name));
        }
        if let Some(Injected { fault, after: true }) = &self.injected {
            self.suffer::<E>(fault).await?;
        }
        Ok(Done { value, lie })
    }

    async fn suffer<E: SideError>(&self, fault: &Fault) -> Result<(), E> {
        if let Some(suffered) = fault.befall(self.cx, self.name).await {
            return suffered;
        }
        match fault {
            Fault::Die => {
                self.world.happen(self.cx, &Change::Die(self.side));
                Err(self.unreachable())
            }
            Fault::Change(change) => {
                self.world.happen(self.cx, change);
                Ok(())
            }
            // What is about the effect itself was dealt with there.
            _ => Ok(()),
        }
    }

    /// Waits, as the caller's context allows, until an instant.
    pub(crate) async fn wait(&self, until: Moment) -> Result<(), Interrupted> {
        let time = until.since(Moment::of(self.cx));
        if time.is_zero() { Ok(()) } else { self.cx.sleep(time).await }
    }

    /// Looks at the state as it is now.
    pub(crate) fn see<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.world.lock();
        state.advance(self.world.at(Moment::of(self.cx)));
        look(&mut state)
    }

    /// Ends the record.
    pub(crate) fn end<T, E: SideError>(self, result: Result<T, E>) -> Result<T, E> {
        self.ticket.end(&result);
        result
    }
}

impl World {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn of_state(state: State) -> Self {
        Self(Arc::new(Shared { state: Mutex::new(state), ..Shared::default() }))
    }

    /// What the clocks of the world show then.
    pub(crate) fn at(&self, moment: Moment) -> Moment {
        let ahead = *self.0.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        Moment { at: moment.at.checked_add_signed(ahead).unwrap_or(moment.at), ..moment }
    }

    /// From now on civil clocks of servers and storage are so far ahead of the callers', or behind if it is negative. Limits go by
    /// monotonic clocks, and are as they were.
    pub fn set_clocks_ahead(&self, by: TimeDelta) {
        *self.0.ahead.lock().unwrap_or_else(PoisonError::into_inner) = by;
    }

    fn meet(&self, cx: &Cx) {
        let clock = Arc::clone(&cx.seams().clock);
        *self.0.clock.lock().unwrap_or_else(PoisonError::into_inner) = Some(clock);
    }

    pub(crate) fn enter<'a>(
        &'a self,
        cx: &'a Cx,
        side: Side,
        name: &'static str,
        about: String,
    ) -> Entered<'a> {
        self.meet(cx);
        let injected = self.0.faults.pick(name, cx.step().as_str(), &about);
        let fault = injected.as_ref().map(Injected::told);
        let ticket = self.0.calls.enter(cx, side, name, about, fault);
        Entered { world: self, cx, side, name, injected, ticket }
    }

    /// One call from beginning to end, whose effect is all there is to it.
    pub(crate) async fn perform<T, E, F>(
        &self,
        cx: &Cx,
        side: Side,
        name: &'static str,
        about: String,
        effect: F,
    ) -> Result<T, E>
    where
        T: Send,
        E: SideError,
        F: Fn(&mut State, &Entry) -> Result<T, E> + Send + Sync + 'static,
    {
        let call = self.enter(cx, side, name, about);
        let result = call.run(effect).await.map(|done| done.value);
        call.end(result)
    }

    fn entry(&self, cx: &Cx, extra: Duration) -> Entry {
        let order = self.0.calls.tick();
        Entry { at: self.at(Moment::of(cx)), order, extra, run: cx.run(), fence: cx.fence() }
    }

    fn act<T, E>(
        &self,
        cx: &Cx,
        extra: Duration,
        pretend: bool,
        effect: &(impl Fn(&mut State, &Entry) -> Result<T, E> + ?Sized),
    ) -> Result<T, E> {
        let entry = self.entry(cx, extra);
        let mut state = self.lock();
        state.order = entry.order;
        state.advance(entry.at);
        if pretend {
            // The answer is that of a world in which it was done.
            let mut other = state.clone();
            drop(state);
            effect(&mut other, &entry)
        } else {
            effect(&mut state, &entry)
        }
    }

    fn later(
        &self,
        cx: &Cx,
        side: Side,
        time: Duration,
        effect: impl Fn(&mut State, &Entry) + Send + Sync + 'static,
    ) {
        let entry = self.entry(cx, Duration::ZERO);
        let mut state = self.lock();
        state.advance(entry.at);
        let late = Late { side, entry, effect: Arc::new(effect) };
        state.at(entry.at.plus(time), Event::Late(late));
    }

    fn happen(&self, cx: &Cx, change: &Change) {
        let entry = self.entry(cx, Duration::ZERO);
        let mut state = self.lock();
        state.order = entry.order;
        state.advance(entry.at);
        state.change(change, entry.at);
    }

    /// The state as it is now, by the clock of the last caller.
    fn view(&self) -> MutexGuard<'_, State> {
        let clock = self.0.clock.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut state = self.lock();
        if let Some(clock) = clock {
            state.advance(self.at(Moment::read(clock.as_ref())));
        }
        state
    }

    pub(crate) fn edit<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.view())
    }
}
