//! Work of a job outside the engine: it ends, also if what it calls panics, hangs or is not wanted any more.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{Either, select};
use stillpoint_context::{Cancel, Effect, ErrorClass, Failure, Seams};

use crate::error::Error;

/// The code of the failure of work that was given up because its job was cancelled.
pub(crate) const CANCELLED: &str = "job.cancelled";

/// The work's result; a panic is a failure of it.
pub(crate) async fn caught<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(result) => result,
        Err(panic) => Err(Error::Failed(
            Failure::new(
                "job.panicked",
                ErrorClass::Internal,
                format!("what the job called has panicked: {}", words(&*panic)),
            )
            .with_effect(Effect::Unknown)
            .with_remedy("Report it to the makers of the plug-in, provider or catalogue."),
        )),
    }
}

/// The work's result, unless it panics or takes longer than this.
pub(crate) async fn within<T>(
    seams: &Seams,
    limit: Duration,
    what: &'static str,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let late = seams.clock.sleep_until(seams.clock.mono() + limit);
    match select(pin!(caught(work)), late).await {
        Either::Left((result, _)) => result,
        Either::Right(_) => Err(Error::Failed(
            Failure::new(
                "job.timed_out",
                ErrorClass::Unavailable,
                format!("{what} took longer than {} s", limit.as_secs()),
            )
            .with_effect(Effect::Unknown)
            .with_remedy("Find out which side does not answer, then ask again."),
        )),
    }
}

/// The same for work that only reads: a cancel drops it at once.
pub(crate) async fn unless_cancelled<T>(
    cancel: &Cancel,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    match select(pin!(cancel.cancelled()), pin!(work)).await {
        Either::Right((result, _)) => result,
        Either::Left(_) => Err(cancelled()),
    }
}

/// What a job ends with that somebody cancelled.
pub(crate) fn cancelled() -> Error {
    Error::Failed(
        Failure::new(CANCELLED, ErrorClass::Unavailable, "the job was cancelled")
            .with_effect(Effect::None)
            .with_remedy("Ask for it again if it is still wanted."),
    )
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "it does not say why".to_owned())
}
