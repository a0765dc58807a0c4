//! Following a job to its end, and stopping it when the operator says so.

use std::pin::pin;

use stillpoint::JobHandle;
use stillpoint::context::{Effect, ErrorClass, Failure};
use stillpoint::model::job::{Job, JobState, MemberEnd};

use crate::error::{CliError, Outcome};
use crate::exit::Exit;
use crate::out::Talk;
use crate::progress::Display;

/// Waits for a job. The first interrupt cancels it, and it unwinds; the second gives up on it.
///
/// # Errors
/// What the job itself could not say, and `cli.interrupted` after the second interrupt.
pub(crate) async fn follow(talk: &Talk, handle: &JobHandle, title: &str) -> Outcome<Job> {
    let out = talk.out;
    let mut display = Display::begin(out, title);
    let mut watch = handle.watch();
    let mut is_watched = true;
    let mut end = pin!(handle.settled());
    let interrupts = talk.interrupts.follow();
    let mut is_cancelled = false;
    loop {
        tokio::select! {
            job = &mut end => {
                display.end(job.state());
                return Ok(job);
            }
            event = watch.next(), if is_watched => match event {
                Some(event) => display.event(&event),
                None => is_watched = false,
            },
            () = interrupts.next() => {
                if is_cancelled {
                    return Err(interrupted(handle));
                }
                is_cancelled = true;
                display.note("cancelling: what was begun is undone; once more to leave at once");
                handle.cancel("the operator, by interrupt").await?;
            }
        }
    }
}

fn interrupted(handle: &JobHandle) -> CliError {
    let error = CliError::of_class(
        "cli.interrupted",
        ErrorClass::Unavailable,
        format!("job {} was left before it had unwound", handle.id()),
        "Run `stillpoint doctor` and `stillpoint jobs` to see what it left behind.",
    )
    .about("job", handle.id());
    let failure = Box::new((*error.failure).with_effect(Effect::Unknown));
    CliError { failure, exit: Exit::Attention }
}

/// What to say first of a job that did not go well: its own failure, else that of a run, else that of a database.
pub(crate) fn failure_of(job: &Job) -> Option<Failure> {
    if matches!(job.state(), JobState::Succeeded | JobState::SucceededWithWarnings) {
        return None;
    }
    let runs = || job.counted();
    let of_member = |end: &Option<MemberEnd>| match end {
        Some(MemberEnd::Failed { failure } | MemberEnd::Skipped { failure }) => {
            Some(failure.clone())
        }
        _ => None,
    };
    let known = job
        .failure
        .clone()
        .or_else(|| runs().find_map(|run| run.failure.clone()))
        .or_else(|| runs().flat_map(|run| &run.members).find_map(|member| of_member(&member.end)))
        .or_else(|| job.skipped.iter().find_map(|member| of_member(&member.end)));
    Some(known.unwrap_or_else(|| {
        let message = format!("job {} is {}", job.id, job.state());
        Failure::new("job.not_succeeded", ErrorClass::Conflict, message)
            .with_remedy("`stillpoint jobs` with the beginning of its id tells more.")
    }))
}
