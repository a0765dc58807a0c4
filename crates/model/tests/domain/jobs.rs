//! The stored form of jobs.

use chrono::{DateTime, Utc};
use stillpoint_context::{JobId, ProcessId, RunId};
use stillpoint_model::id::DatabaseId;
use stillpoint_model::job::{Elsewhere, Job, JobKind, JobOwner, JobRun};
use stillpoint_model::request::Trigger;
use uuid::Uuid;

/// A job with everything that was added to the form since it was first stored.
fn job() -> Job {
    let at: DateTime<Utc> = "2026-01-01T00:07:00Z".parse().unwrap();
    let id = |number| Uuid::from_u128(number);
    let mut job =
        Job::new(JobId(id(1)), JobKind::Backup, "night".parse().unwrap(), Trigger::Api, at);
    "backup of mail".clone_into(&mut job.title);
    job.stopped_by = Some("the operator".to_owned());
    job.runs.push(JobRun::new(RunId(id(2)), at));
    job.held.push(Elsewhere::new(DatabaseId(id(3)), "DB01", JobId(id(4))));
    job.coalesced.push(Elsewhere::new(DatabaseId(id(5)), "DB02", JobId(id(6))));
    job.owner = Some(JobOwner::new(ProcessId(id(7)), 8));
    job
}

#[test]
fn a_job_is_stored_as_it_always_was() {
    let job = job();
    let text = serde_json::to_string_pretty(&job).unwrap() + "\n";
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/job.json");
    if std::env::var_os("STILLPOINT_BLESS").is_some() {
        std::fs::write(golden, &text).unwrap();
    }
    let stored = std::fs::read_to_string(golden).unwrap();
    assert_eq!(text, stored, "the stored form changed; what was stored before must be read");
    assert_eq!(serde_json::from_str::<Job>(&stored).unwrap(), job);
}

#[test]
fn a_job_of_before_its_later_fields_is_read_and_written_without_them() {
    let mut job = job();
    (job.stopped_by, job.owner) = (None, None);
    job.held.clear();
    job.coalesced.clear();
    let text = serde_json::to_string(&job).unwrap();
    for later in ["stopped_by", "held", "coalesced", "owner"] {
        assert!(!text.contains(&format!("\"{later}\"")), "{later} in {text}");
    }
    assert_eq!(serde_json::from_str::<Job>(&text).unwrap(), job);
}
