//! A recording in the place of the side that was recorded.

use std::fmt;
use std::future::pending;
use std::marker::PhantomData;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use stillpoint_context::{BoxFuture, Cx};
use stillpoint_exchange::{
    ExchangePlugin, ForwardPlugin, PluginCall, PluginCaps, PluginError, PluginResult,
};
use stillpoint_model::id::ProviderId;
use stillpoint_storage::{
    ForwardProvider, ProviderCall, ProviderCaps, ProviderError, ProviderResult, SnapshotProvider,
};

use super::error::{Recordable, RecordingError};
use super::line::{self, Line, RecordedCall, Said};
use crate::call::Side;

/// The first call that was asked otherwise than it was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Divergence {
    /// The line of the recording at which something else was wanted; `None` when it is over.
    pub line: Option<usize>,
    /// What would have been asked next, as the recording tells it.
    pub wanted: Option<String>,
    /// What was asked.
    pub asked: String,
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let asked = &self.asked;
        match (&self.wanted, self.line) {
            (Some(wanted), Some(line)) if wanted == asked => {
                write!(
                    f,
                    "line {line} of the recording is `{wanted}`, and the same was asked with other arguments"
                )
            }
            (Some(wanted), Some(line)) => {
                write!(f, "line {line} of the recording is `{wanted}`, and `{asked}` was asked")
            }
            _ => write!(f, "the recording is over, and `{asked}` was asked"),
        }
    }
}

#[derive(Debug)]
struct Tape {
    /// Every call with the number of its line, and whether it was asked again.
    calls: Vec<(usize, RecordedCall, bool)>,
    divergence: Option<Divergence>,
}

impl Tape {
    /// What was said to a call that is asked now, if it may come now: after all that had ended before it began.
    fn play(
        &mut self,
        (side, of): (Side, &str),
        about: &str,
        asked: &Value,
    ) -> Result<Said, Divergence> {
        if let Some(divergence) = &self.divergence {
            return Err(divergence.clone());
        }
        let mut open: Vec<_> = self
            .calls
            .iter_mut()
            .filter(|(_, call, is_asked)| !is_asked && call.side == side && call.of == of)
            .collect();
        let first_end = open.iter().filter_map(|(_, call, _)| call.left).min();
        let may_come = |call: &RecordedCall| first_end.is_none_or(|end| call.entered < end);
        let found = open.iter_mut().find(|(_, call, _)| may_come(call) && call.asked == *asked);
        if let Some((_, call, is_asked)) = found {
            *is_asked = true;
            return Ok(call.said.clone());
        }
        let next = open.first();
        let divergence = Divergence {
            line: next.map(|(line, ..)| *line),
            wanted: next.map(|(_, call, _)| call.about.clone()),
            asked: about.to_owned(),
        };
        self.divergence = Some(divergence.clone());
        Err(divergence)
    }
}

/// A recording that answers in the place of what was recorded.
///
/// Each side answers what it said when it was recorded, if it is asked the same in the same order; calls that were under way at
/// once may come in any order. The first call that is asked otherwise fails, with an internal error that names it, and so does
/// every call after it. What was dropped or had not ended does not end; what panicked panics. Times are not replayed: every
/// answer comes at once. The arguments of a call are compared, and not who asked.
#[derive(Debug, Clone)]
pub struct Replay {
    sides: Arc<[Line]>,
    tape: Arc<Mutex<Tape>>,
}

impl Replay {
    /// A recording from its [lines](super::Recording::to_lines).
    ///
    /// # Errors
    /// [`RecordingError`] when they are not those of a recording of this version.
    pub fn read(lines: &str) -> Result<Self, RecordingError> {
        let mut sides = Vec::new();
        let mut calls = Vec::new();
        for (at, line) in line::read(lines)?.into_iter().enumerate() {
            match line {
                // The first line is not among them, and people count from 1.
                Line::Call(call) => calls.push((at + 2, *call, false)),
                other => sides.push(other),
            }
        }
        let tape = Tape { calls, divergence: None };
        Ok(Self { sides: sides.into(), tape: Arc::new(Mutex::new(tape)) })
    }

    fn lock(&self) -> MutexGuard<'_, Tape> {
        self.tape.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has(&self, side: Side, of: &str) -> bool {
        self.sides.iter().any(|line| line.side() == Some((side, of)))
    }

    /// The provider of this id, if it was recorded.
    pub fn provider(&self, id: &str) -> Option<Replayed<dyn SnapshotProvider>> {
        self.has(Side::Storage, id).then(|| Replayed::of(self, id))
    }

    /// The plug-in of this name, if it was recorded.
    pub fn plugin(&self, name: &str) -> Option<Replayed<dyn ExchangePlugin>> {
        self.has(Side::Exchange, name).then(|| Replayed::of(self, name))
    }

    /// The first call that was asked otherwise than it was recorded, if one was.
    pub fn divergence(&self) -> Option<Divergence> {
        self.lock().divergence.clone()
    }

    /// What was recorded and not asked yet.
    pub fn remaining(&self) -> Vec<String> {
        let tape = self.lock();
        let open = tape.calls.iter().filter(|(_, _, is_asked)| !is_asked);
        open.map(|(_, call, _)| call.about.clone()).collect()
    }

    /// Stops the test unless everything was asked as it was recorded.
    ///
    /// # Panics
    /// When something was asked otherwise, or was not asked.
    #[track_caller]
    pub fn assert_played(&self) {
        let divergence = self.divergence().map(|divergence| divergence.to_string());
        assert!(divergence.is_none(), "{}", divergence.unwrap_or_default());
        let rest = self.remaining();
        assert!(rest.is_empty(), "it was not asked: {rest:#?}");
    }
}

/// A plug-in or provider that answers what was recorded. Made by [`Replay::plugin`] and [`Replay::provider`].
pub struct Replayed<S: ?Sized> {
    of: String,
    replay: Replay,
    side: PhantomData<fn(&S)>,
}

impl<S: ?Sized> fmt::Debug for Replayed<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replayed").field("of", &self.of).finish_non_exhaustive()
    }
}

impl<S: ?Sized> Replayed<S> {
    fn of(replay: &Replay, of: &str) -> Self {
        Self { of: of.to_owned(), replay: replay.clone(), side: PhantomData }
    }

    async fn answer<T: DeserializeOwned, E: Recordable>(
        &self,
        side: Side,
        about: &str,
        asked: serde_json::Result<Value>,
    ) -> Result<T, E> {
        let asked = asked.map_err(|error| E::defect(format!("`{about}` is no JSON: {error}")))?;
        let said = self.replay.lock().play((side, &self.of), about, &asked);
        match said.map_err(|divergence| E::defect(divergence.to_string()))? {
            Said::Answered(answer) => serde_json::from_value(answer).map_err(|error| {
                E::defect(format!("the answer to `{about}` cannot be read: {error}"))
            }),
            Said::Failed(error) => Err(E::again(&error)),
            Said::Dropped | Said::Running => pending().await,
            Said::Panicked => resume_unwind(Box::new(format!("`{about}` panicked (recorded)"))),
        }
    }
}

impl Replayed<dyn SnapshotProvider> {
    fn recorded(&self) -> (ProviderCaps, bool, bool) {
        let known = self.replay.sides.iter().find_map(|line| match line {
            Line::Provider { caps, restore, lock } if caps.provider.as_str() == self.of => {
                Some((caps.clone(), *restore, *lock))
            }
            _ => None,
        });
        // One without a line is never made.
        known.unwrap_or_else(|| {
            let Ok(unknown) = ProviderId::new("unknown") else { unreachable!("a plain word") };
            (ProviderCaps::new(unknown), false, false)
        })
    }
}

impl ForwardProvider for Replayed<dyn SnapshotProvider> {
    /// Itself: `around` has every answer, and nobody is asked.
    fn inner(&self) -> &dyn SnapshotProvider {
        self
    }

    fn around<'a, T>(
        &'a self,
        _: &'a Cx,
        call: ProviderCall<'a>,
        _: BoxFuture<'a, ProviderResult<T>>,
    ) -> BoxFuture<'a, ProviderResult<T>>
    where
        T: Serialize + DeserializeOwned + Send + 'static,
    {
        Box::pin(async move {
            let asked = serde_json::to_value(&call);
            self.answer::<T, ProviderError>(Side::Storage, &call.to_string(), asked).await
        })
    }

    fn caps(&self) -> ProviderCaps {
        self.recorded().0
    }

    fn has_restore(&self) -> bool {
        self.recorded().1
    }

    fn has_lock(&self) -> bool {
        self.recorded().2
    }
}

impl Replayed<dyn ExchangePlugin> {
    fn recorded(&self) -> (PluginCaps, bool) {
        let known = self.replay.sides.iter().find_map(|line| match line {
            Line::Plugin { caps, restore } if caps.name == self.of => {
                Some((caps.clone(), *restore))
            }
            _ => None,
        });
        // One without a line is never made.
        known.unwrap_or_else(|| (PluginCaps::new("unknown"), false))
    }
}

impl ForwardPlugin for Replayed<dyn ExchangePlugin> {
    /// Itself: `around` has every answer, and nobody is asked.
    fn inner(&self) -> &dyn ExchangePlugin {
        self
    }

    fn around<'a, T>(
        &'a self,
        _: &'a Cx,
        call: PluginCall<'a>,
        _: BoxFuture<'a, PluginResult<T>>,
    ) -> BoxFuture<'a, PluginResult<T>>
    where
        T: Serialize + DeserializeOwned + Send + 'static,
    {
        Box::pin(async move {
            let asked = serde_json::to_value(&call);
            self.answer::<T, PluginError>(Side::Exchange, &call.to_string(), asked).await
        })
    }

    fn caps(&self) -> PluginCaps {
        self.recorded().0
    }

    fn has_restore(&self) -> bool {
        self.recorded().1
    }
}
