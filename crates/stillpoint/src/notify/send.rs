//! Telling the notifiers of a job.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures_util::future::join_all;
use stillpoint_context::{
    Effect, ErrorClass, ErrorFacts as _, Failure, IdempotencyKey, JobId, RunId,
};
use stillpoint_model::job::{Job, JobKind, JobState, RunState};
use stillpoint_model::request::Trigger;
use stillpoint_model::warning::Warning;
use stillpoint_workflow::{JournalError, RunHandle};

use super::{JobReport, Notification, Notifier, Outcome, Subscription};
use crate::Stillpoint;
use crate::bounds::within;
use crate::error::Error;
use crate::job::LiveJob;

impl Notification {
    /// What is told of a job that ended in this state. For tests of notifiers.
    ///
    /// # Errors
    /// `notify.no_end` when a job in this state is not over.
    pub fn of_job(job: &Job, state: JobState, now: DateTime<Utc>) -> Result<Self, Failure> {
        let outcome = Outcome::of(state).ok_or_else(|| {
            let message = format!("a job that is {state} is not over");
            Failure::new("notify.no_end", ErrorClass::Invalid, message)
                .with_effect(Effect::None)
                .with_remedy("Wait for its end.")
        })?;
        Self::of(JobReport::of(job, state, now), outcome, false)
    }

    fn of(report: JobReport, outcome: Outcome, is_test: bool) -> Result<Self, Failure> {
        let key = key(format!("notify/{}", report.job))?;
        let begins = if is_test { "TEST: " } else { "" };
        let subject = format!("{begins}{}", report.subject());
        let text = format!("{begins}{}", report.text());
        Ok(Self { key, outcome, subject, text, report, is_test })
    }
}

fn key(key: String) -> Result<IdempotencyKey, Failure> {
    IdempotencyKey::new(key)
        .map_err(|error| Failure::new("notify.key", ErrorClass::Internal, error.to_string()))
}

impl Stillpoint {
    /// Tells whoever wants to know what became of a job whose end is known. What fails is a warning of the job.
    pub(crate) async fn tell(&self, live: &Arc<LiveJob>) {
        let job = live.snapshot();
        let state = self.state_at_end(&job);
        let Some(outcome) = Outcome::of(state) else { return };
        let report = JobReport::of(&job, state, self.seams().clock.now());
        self.tell_of(live, outcome, Notification::of(report, outcome, false)).await;
    }

    /// Tells whoever wants to know of what needs attention that a run of a job waits for a person. What fails is a warning of the
    /// job.
    pub(crate) async fn tell_parked(&self, live: &LiveJob, run: &RunHandle) {
        let why = run.status().parked.first().map(|(_, parked)| (*parked.failure).clone());
        // The same by whatever process it is told, and another one if it is parked again.
        let account = self.engine().account(run.id()).await.ok().flatten();
        let since = account.and_then(|known| known.parked.iter().map(|node| node.since).max());
        let since = since.unwrap_or_else(|| self.seams().clock.now()).timestamp_millis();
        let what = format!("parked/{}/{since}", run.id());
        self.tell_waiting(live, run.id(), JobState::Parked, why, &what).await;
    }

    /// The same of a run whose records cannot be read, for this.
    pub(crate) async fn tell_unreadable(
        &self,
        live: &LiveJob,
        run: RunId,
        error: &JournalError,
        why: Failure,
    ) {
        let what = format!("unreadable/{run}/{}", error.code());
        self.tell_waiting(live, run, JobState::Parked, Some(why), &what).await;
    }

    /// The same of a run that stands still, as its journal fails.
    pub(crate) async fn tell_stalled(&self, live: &LiveJob, run: RunId, why: Failure) {
        let now = self.seams().clock.now().timestamp_millis();
        let what = format!("stalled/{run}/{now}");
        self.tell_waiting(live, run, live.snapshot().state(), Some(why), &what).await;
    }

    async fn tell_waiting(
        &self,
        live: &LiveJob,
        run: RunId,
        state: JobState,
        why: Option<Failure>,
        what: &str,
    ) {
        let mut job = live.snapshot();
        for known in job.runs.iter_mut().filter(|known| known.run == run) {
            known.failure.clone_from(&why);
            if state == JobState::Parked {
                known.state = RunState::Parked;
            }
        }
        let outcome = Outcome::NeedsAttention;
        let report = JobReport::of(&job, state, self.seams().clock.now());
        let notification = Notification::of(report, outcome, false).and_then(|told| {
            let key = key(format!("{}/{what}", told.key))?;
            Ok(Notification { key, ..told })
        });
        self.tell_of(live, outcome, notification).await;
    }

    async fn tell_of(
        &self,
        live: &LiveJob,
        outcome: Outcome,
        notification: Result<Notification, Failure>,
    ) {
        let subscribed = &self.services().notifiers;
        let wanted: Vec<_> = subscribed.iter().filter(|one| one.on.includes(outcome)).collect();
        if wanted.is_empty() {
            return;
        }
        let told = match notification {
            Ok(notification) => self.send(&wanted, &notification).await,
            Err(failure) => vec![("all".to_owned(), Err(Error::Failed(failure)))],
        };
        let warnings: Vec<Warning> =
            told.into_iter().filter_map(|(name, told)| Some(failed(&name, &told.err()?))).collect();
        if !warnings.is_empty() {
            live.change(|job| job.warnings.extend(warnings));
        }
    }

    /// Sends a notification of a job that never was to every notifier, whatever it wants to be told: to try whether they arrive. What
    /// became of each, by its name.
    ///
    /// # Errors
    /// When there is nothing to send; what a notifier fails with is in the answer.
    pub async fn test_notifiers(&self) -> Result<Vec<(String, Result<(), Error>)>, Error> {
        let now = self.seams().clock.now();
        let id = JobId(self.seams().ids.uuid());
        let key = key(format!("notify/test/{id}"))?;
        let trigger = Trigger::Manual { user: None };
        let mut job = Job::new(id, JobKind::Backup, key, trigger, now);
        "of nothing, to try whether this arrives".clone_into(&mut job.title);
        job.planned_at = Some(now);
        let report = JobReport::of(&job, job.state(), now);
        let notification = Notification::of(report, Outcome::Succeeded, true)?;
        let all: Vec<_> = self.services().notifiers.iter().collect();
        Ok(self.send(&all, &notification).await)
    }

    async fn send(
        &self,
        to: &[&Subscription],
        notification: &Notification,
    ) -> Vec<(String, Result<(), Error>)> {
        let limit = self.timeouts().notify;
        let cx = self.cx().with_timeout(limit);
        let sent = to.iter().map(|one| async {
            let notifier: &dyn Notifier = &*one.notifier;
            let call = async { Ok(notifier.notify(&cx, notification).await?) };
            // Beyond its deadline it has a moment to say so itself.
            let limit = limit.saturating_add(self.timeouts().grace);
            let told = within(self.seams(), limit, "a notification", call).await;
            (notifier.name().to_owned(), told)
        });
        join_all(sent).await
    }
}

fn failed(name: &str, error: &Error) -> Warning {
    let failure = Failure::of(error);
    let remedy = if failure.remedy.is_empty() {
        "Send a test notification until it arrives.".into()
    } else {
        failure.remedy
    };
    let message =
        format!("the notification by {name} failed: {} ({})", failure.message, failure.code);
    tracing::warn!(target: "stillpoint::notify", %name, "{message}");
    Warning::new("notify.failed", message, remedy).about("notifier", name)
}
