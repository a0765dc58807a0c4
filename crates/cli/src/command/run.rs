//! `run`: the daemon.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use stillpoint::context::{Cx, Effect, ErrorClass, Failure};
use stillpoint::{
    JobReport, Notification, Notifier, NotifyOn, Outcome as JobOutcome, Reconciling, Scheduler,
    SchedulerEvent, SchedulerOptions, Stillpoint,
};

use super::tell;
use crate::args::schedule::{OnStop, RunArgs};
use crate::error::{CliError, Outcome};
use crate::exit::Exit;
use crate::interrupt::Following;
use crate::model::job::Job;
use crate::notifiers::Subscription;
use crate::notify::Notify;
use crate::out::{Out, Talk};
use crate::place::Places;
use crate::site::{Absent, Own, Site};
use crate::text;
use crate::view::RunView;

/// How often the state of the daemon is told while nothing happens.
const TOLD: Duration = Duration::from_mins(5);

/// After how many beats without a look the scheduler counts as stuck.
const STUCK: u32 = 20;

/// Carries on with what was left open, then makes jobs of what is due until it is told to end.
pub(super) async fn run(args: &RunArgs, places: &Places, talk: &Talk) -> Outcome<Exit> {
    if args.reconcile_every.0.is_none() && args.delete_orphans_after.is_some() {
        return Err(CliError::invalid(
            "run.no_reconcile",
            "snapshots of nobody are to be deleted, and nobody looks for them".to_owned(),
            "Leave --delete-orphans-after out, or --reconcile-every never.",
        ));
    }
    let notify = Notify::from_env();
    let interrupts = talk.interrupts.follow();
    let told: Subscription = (NotifyOn::all(), Arc::new(Line(talk.out)));
    let own = Own { storage_operations: args.storage_operations, told: Some(told) };
    let site = Site::open_shared(places, Absent::Refuse, own).await?;
    site.note(places).await?;
    let this = &site.stillpoint;
    let recovered = this.recover().await?.len();
    if recovered > 0 {
        talk.out.note(&format!("carrying on with {}", text::count(recovered, "job")));
    }
    let mut options = SchedulerOptions::default();
    (options.beat, options.grace) = (args.beat, args.grace);
    options.reconciling = args.reconcile_every.0.map(|every| {
        let mut reconciling = Reconciling::default();
        (reconciling.every, reconciling.first) = (every, args.reconcile_first);
        reconciling.grace = args.delete_orphans_after;
        reconciling
    });
    options.keep_jobs = args.keep_jobs.0;
    let scheduler = this.start_scheduler(options);
    work(this, &scheduler, talk.out, &notify, &interrupts, options.beat).await;

    notify.stopping("no new job is begun");
    talk.out.note("ending: no new job is begun; once more to leave at once");
    scheduler.stop().await;
    if args.on_stop == OnStop::Finish {
        let open = still_open(this).await?.len();
        if open > 0 {
            talk.out.note(&format!("waiting for {}", text::count(open, "job")));
        }
        let quiet = pin!(this.quiet());
        let again = pin!(interrupts.next());
        tokio::select! {
            () = quiet => {}
            () = again => return Err(left(&open_ids(&still_open(this).await?))),
        }
        site.let_go().await?;
    }
    let status = scheduler.status();
    let open = still_open(this).await?;
    let exit =
        if open.is_empty() || args.on_stop == OnStop::Leave { Exit::Done } else { Exit::Attention };
    let view = RunView::of(recovered, status.began, status.lapsed, &open);
    tell(talk.out, &view, exit, None)
}

/// Tells whoever reads the lines of the daemon what became of each job.
#[derive(Debug)]
struct Line(Out);

#[async_trait]
impl Notifier for Line {
    fn name(&self) -> &'static str {
        "standard error"
    }

    async fn notify(&self, _: &Cx, notification: &Notification) -> Result<(), Failure> {
        let JobReport { job, failures, .. } = &notification.report;
        let line = format!("{}: job {job}", notification.subject);
        if !matches!(notification.outcome, JobOutcome::Failed | JobOutcome::NeedsAttention) {
            self.0.note(&line);
            return Ok(());
        }
        let why =
            failures.first().map(|why| format!("\n  because: {} [{}]", why.message, why.code));
        Out::alarm(&format!("error: {line}{}", why.unwrap_or_default()));
        Ok(())
    }
}

/// Tells what happens, and that the daemon lives, until somebody wants it to end.
async fn work(
    this: &Stillpoint,
    scheduler: &Scheduler,
    out: Out,
    notify: &Notify,
    interrupts: &Following,
    beat: Duration,
) {
    let clock = &this.seams().clock;
    let after = |time: Duration| clock.sleep_until(clock.mono() + time);
    let mut events = scheduler.watch();
    let every = notify.watchdog().unwrap_or(TOLD);
    let mut tick = after(Duration::ZERO);
    let mut is_ready = false;
    loop {
        tokio::select! {
            () = interrupts.next() => return,
            event = events.next() => match event {
                Some(event) => say(out, &event),
                None => return,
            },
            () = &mut tick => {
                let status = scheduler.status();
                let age = clock.mono().saturating_since(status.turned_at);
                let line = in_short(&status);
                if !is_ready && status.turns > 0 {
                    is_ready = true;
                    notify.ready(&line);
                    out.note(&line);
                } else if is_ready {
                    notify.status(&line);
                }
                // A loop that hangs is not called alive, so that somebody starts it anew.
                if age < beat.saturating_mul(STUCK) {
                    notify.alive();
                }
                let soon = Duration::from_millis(50);
                tick = after(if is_ready { every } else { soon.min(every) });
            }
        }
    }
}

fn in_short(status: &stillpoint::SchedulerStatus) -> String {
    let schedules = text::count(status.attachments, "schedule");
    match (&status.regress, &status.failure, status.next) {
        (Some(back), _, _) => format!(
            "the clock has gone back from {}: nothing is due [clock.regressed]",
            text::time(back.latest)
        ),
        (None, Some(failure), _) => format!("{} [{}]", failure.message, failure.code),
        (None, None, Some(next)) => format!("{schedules}, next at {}", text::time(next)),
        (None, None, None) => format!("{schedules}, nothing to come"),
    }
}

fn say(out: Out, event: &SchedulerEvent) {
    match event {
        SchedulerEvent::Began { schedule, due, is_late, job, .. } => {
            let late = if *is_late { ", made up for" } else { "" };
            out.note(&format!("{schedule}, due {}{late}: job {job}", text::time(*due)));
        }
        SchedulerEvent::Lapsed(lapse) => {
            let lapse = &lapse.lapse;
            let count = usize::try_from(lapse.count).unwrap_or(usize::MAX);
            let times = text::count(count, "due time");
            let from = text::time(lapse.from);
            out.note(&format!("{times} from {from} on became no job: {}", lapse.why));
        }
        SchedulerEvent::Regressed(back) => Out::alarm(&format!(
            "error: the clock has gone back from {} to {}: nothing is due until it is right [clock.regressed]\n  \
             remedy: Put the clock right; if it is, `stillpoint schedule believe-clock`.",
            text::time(back.latest),
            text::time(back.now)
        )),
        SchedulerEvent::ClockRight => out.note("the clock is right again"),
        SchedulerEvent::Reconciled { job: Some(job) } => {
            out.note(&format!("reconciled, and what was found has changed: job {job}"));
        }
        SchedulerEvent::Forgot { jobs } => {
            let jobs = usize::try_from(*jobs).unwrap_or(usize::MAX);
            out.note(&format!("{} forgotten that were over long ago", text::count(jobs, "job")));
        }
        SchedulerEvent::Failed(failure) => {
            Out::alarm(&format!("error: {} [{}]", failure.message, failure.code));
        }
        _ => {}
    }
}

/// The jobs of this state file that are not over.
async fn still_open(this: &Stillpoint) -> Outcome<Vec<Job>> {
    let jobs = this.jobs().await?;
    Ok(jobs.into_iter().filter(|job| !job.state().is_final()).collect())
}

fn open_ids(jobs: &[Job]) -> String {
    jobs.iter().map(|job| job.id.to_string()).collect::<Vec<_>>().join(", ")
}

fn left(jobs: &str) -> CliError {
    let error = CliError::of_class(
        "cli.interrupted",
        ErrorClass::Unavailable,
        format!("the daemon was left while jobs were under way: {jobs}"),
        "Start it again: it carries on with them.",
    );
    let failure = Box::new((*error.failure).with_effect(Effect::Unknown));
    CliError { failure, exit: Exit::Attention }
}
