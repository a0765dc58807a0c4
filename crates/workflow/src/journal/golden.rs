//! Every kind of record as it is stored: files that never change, only grow.
//!
//! A record whose stored form has changed needs a new [`RECORD_FORMAT`](super::RECORD_FORMAT) and a reader of the old one. A new
//! kind of record needs a line of its own: `GOLDEN=add cargo test -p stillpoint-workflow --lib golden` adds what is missing, and
//! changes nothing that is there.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use stillpoint_context::{
    Effect, ErrorClass, Failure, FencingToken, IdempotencyKey, Mono, RunId, StepName, Subject,
};
use uuid::Uuid;

use super::{JournalError, decode_records, encode_records};
use crate::action::{Done, Known, step_fn};
use crate::claim::{Claim, ClaimKey};
use crate::machine::{
    ArbiterRecord, Cause, Claimant, Debris, End, GuardEntry, GuardRecord, KeyRecord, Next,
    ParkReason, Parked, PartOutcome, Record, Resolution, RunRecord, Snapshot, Submitted,
};
use crate::payload::Payload;
use crate::plan::{NodeNo, PLAN_FORMAT, PlanBuilder};

const NODE: NodeNo = NodeNo(3);

fn at(seconds: u64) -> Mono {
    Mono(Duration::new(seconds, 250_000_000))
}

fn run(number: u128) -> RunId {
    RunId(Uuid::from_u128(number))
}

fn failure() -> Failure {
    let mut failure = Failure::new("test.refused", ErrorClass::Unavailable, "it was refused")
        .with_effect(Effect::Unknown)
        .with_subject(Subject::new("volume", "v1"))
        .with_remedy("Look at it.")
        .with_cause("the cause");
    failure.retry_after = Some(Duration::from_millis(1500));
    failure
}

fn boxed() -> Box<Failure> {
    Box::new(failure())
}

fn payload() -> Payload {
    Payload::of(&vec![("ä", 1), ("b", 2)]).unwrap()
}

fn claims() -> Vec<Claim> {
    let key = |text| ClaimKey::new(text).unwrap();
    let until = StepName::new("guard").unwrap();
    vec![Claim::shared(key("db")), Claim::exclusive(key("db/1/live")).until(until)]
}

fn debris() -> Debris {
    Debris {
        step: StepName::new("snap").unwrap(),
        object: Subject::new("snapshot", "s1"),
        possible: true,
        why: "the undo left it".to_owned(),
    }
}

fn submitted() -> Arc<Submitted> {
    let step = || step_fn(|_, ()| async { Ok(Done::new(())) });
    let exit = step_fn(|_, (_, ()): (Known<()>, ())| async { Ok(Done::new(())) });
    let mut plan = PlanBuilder::new("golden");
    let first = plan.step("first", step().idempotent()).timeout(Duration::from_secs(9)).add();
    let guard = plan.guard("guard").after(first).limit(Duration::from_mins(1));
    let guard = guard.exit_timeout(Duration::from_secs(5)).member("m", step(), exit);
    let (verdict, ()) = guard
        .body(|body| {
            body.step("snap", step()).worst_case(Duration::from_secs(2)).add();
        })
        .close();
    plan.step("point", step()).no_return().after(verdict).add();
    Arc::new(Submitted {
        run: run(7),
        plan: plan.build().unwrap(),
        inputs: BTreeMap::from([(StepName::new("input").unwrap(), payload())]),
        claims: claims(),
        key: Some(IdempotencyKey::new("the-key").unwrap()),
        labels: BTreeMap::from([("job".to_owned(), "j1".to_owned())]),
        head_start: Duration::from_secs(30),
        seed: u64::MAX,
    })
}

/// Every kind of record of a run, with every kind of word in it.
fn runs() -> Vec<RunRecord> {
    let parked = |reason| RunRecord::Parked(Parked { node: NODE, reason, failure: boxed() });
    let ended = |end| RunRecord::Ended { end };
    let failed = |next| RunRecord::Failed { node: NODE, attempt: 2, failure: boxed(), next };
    let unwinding = |cause| RunRecord::Unwinding { cause };
    let log = guards().into_iter().map(|record| GuardEntry { at: at(4), record }).collect();
    vec![
        RunRecord::Submitted(submitted()),
        RunRecord::Tick { at: at(1) },
        RunRecord::Recovered { fence: FencingToken(9), elapsed: Duration::from_millis(2500) },
        RunRecord::Started { fence: FencingToken(u64::MAX) },
        RunRecord::Intended { node: NODE, attempt: 1 },
        RunRecord::Succeeded { node: NODE, attempt: 1, output: payload(), warnings: vec![] },
        RunRecord::Succeeded {
            node: NODE,
            attempt: 1,
            output: payload(),
            warnings: vec![failure()],
        },
        failed(Next::Retry(at(2))),
        failed(Next::Final),
        RunRecord::Unclear { node: NODE, attempt: 1, failure: boxed(), dropped: true },
        RunRecord::Stopped { node: NODE },
        RunRecord::Lingers { node: NODE },
        RunRecord::RetryDue { node: NODE },
        RunRecord::ProbeDue { node: NODE },
        RunRecord::InFlight { node: NODE, until: at(3) },
        RunRecord::Preparing { guard: NODE },
        RunRecord::Armed { guard: NODE },
        RunRecord::Guarded { guard: NODE, log },
        unwinding(Cause::Failed { node: NODE, failure: boxed() }),
        unwinding(Cause::Cancelled { by: "op".to_owned() }),
        RunRecord::UndoIntended { node: NODE, attempt: 1 },
        RunRecord::Undone { node: NODE, debris: vec![] },
        RunRecord::Undone { node: NODE, debris: vec![debris()] },
        RunRecord::UndoFailed { node: NODE, attempt: 1, failure: boxed(), retry_at: at(5) },
        RunRecord::UndoDropped { node: NODE },
        RunRecord::CancelRequested { by: "op".to_owned(), late: None },
        RunRecord::CancelRequested { by: "op".to_owned(), late: Some(NODE) },
        parked(ParkReason::ExitOwed),
        parked(ParkReason::PastNoReturn),
        RunRecord::Resumed { by: "op".to_owned() },
        RunRecord::Resolved {
            by: "op".to_owned(),
            node: NODE,
            resolution: Resolution::Done(payload()),
        },
        RunRecord::Abandoned { by: "op".to_owned(), debris: vec![debris()] },
        ended(End::Succeeded),
        ended(End::SucceededWithWarnings),
        ended(End::Failed),
        ended(End::Cancelled),
        ended(End::NeedsAttention),
    ]
}

/// The place of a kind in the list of all; a new one does not compile until it has a place, and a line.
fn kind_of_run(record: &RunRecord) -> usize {
    match record {
        RunRecord::Submitted(_) => 0,
        RunRecord::Tick { .. } => 1,
        RunRecord::Recovered { .. } => 2,
        RunRecord::Started { .. } => 3,
        RunRecord::Intended { .. } => 4,
        RunRecord::Succeeded { .. } => 5,
        RunRecord::Failed { .. } => 6,
        RunRecord::Unclear { .. } => 7,
        RunRecord::Stopped { .. } => 8,
        RunRecord::Lingers { .. } => 9,
        RunRecord::RetryDue { .. } => 10,
        RunRecord::ProbeDue { .. } => 11,
        RunRecord::InFlight { .. } => 12,
        RunRecord::Preparing { .. } => 13,
        RunRecord::Armed { .. } => 14,
        RunRecord::Guarded { .. } => 15,
        RunRecord::Unwinding { .. } => 16,
        RunRecord::UndoIntended { .. } => 17,
        RunRecord::Undone { .. } => 18,
        RunRecord::UndoFailed { .. } => 19,
        RunRecord::UndoDropped { .. } => 20,
        RunRecord::CancelRequested { .. } => 21,
        RunRecord::Parked(_) => 22,
        RunRecord::Resumed { .. } => 23,
        RunRecord::Resolved { .. } => 24,
        RunRecord::Abandoned { .. } => 25,
        RunRecord::Ended { .. } => 26,
    }
}

fn guards() -> Vec<GuardRecord> {
    let ok = |warnings| PartOutcome::Ok { output: payload(), warnings };
    let failed = || PartOutcome::Failed(boxed());
    let exit =
        |outcome, retry_at| GuardRecord::ExitEnded { member: 1, attempt: 2, outcome, retry_at };
    vec![
        GuardRecord::Opened,
        GuardRecord::Polled { member: 1 },
        GuardRecord::Entered { member: 1, outcome: ok(vec![]) },
        GuardRecord::Entered { member: 1, outcome: failed() },
        GuardRecord::Shut { member: 1 },
        GuardRecord::BodyStarted { node: NODE },
        GuardRecord::BodyEnded { node: NODE, outcome: ok(vec![failure()]) },
        GuardRecord::BodyDropped { node: NODE, failure: boxed() },
        GuardRecord::BodyStopped { node: NODE },
        GuardRecord::Stopping { cause: boxed(), until: at(6) },
        GuardRecord::Closing { cause: None },
        GuardRecord::Closing { cause: Some(boxed()) },
        GuardRecord::ExitStarted { member: 1, attempt: 2 },
        exit(ok(vec![]), None),
        exit(failed(), Some(at(7))),
        GuardRecord::ExitOwed { member: 1, failure: boxed() },
        GuardRecord::Lost,
        GuardRecord::Reopened,
        GuardRecord::Resolved,
    ]
}

fn kind_of_guard(record: &GuardRecord) -> usize {
    match record {
        GuardRecord::Opened => 0,
        GuardRecord::Polled { .. } => 1,
        GuardRecord::Entered { .. } => 2,
        GuardRecord::Shut { .. } => 3,
        GuardRecord::BodyStarted { .. } => 4,
        GuardRecord::BodyEnded { .. } => 5,
        GuardRecord::BodyDropped { .. } => 6,
        GuardRecord::BodyStopped { .. } => 7,
        GuardRecord::Stopping { .. } => 8,
        GuardRecord::Closing { .. } => 9,
        GuardRecord::ExitStarted { .. } => 10,
        GuardRecord::ExitEnded { .. } => 11,
        GuardRecord::ExitOwed { .. } => 12,
        GuardRecord::Lost => 13,
        GuardRecord::Reopened => 14,
        GuardRecord::Resolved => 15,
    }
}

fn arbiters() -> Vec<ArbiterRecord> {
    let claimant = |number, token| Claimant {
        run: run(number),
        claims: claims(),
        head_start: Duration::from_secs(5),
        at: at(8),
        asked: 4,
        token,
    };
    let runs = vec![claimant(1, Some(FencingToken(5))), claimant(2, None)];
    vec![
        ArbiterRecord::Queued {
            run: run(1),
            claims: claims(),
            head_start: Duration::ZERO,
            at: at(8),
        },
        ArbiterRecord::Granted { run: run(1) },
        ArbiterRecord::Regranted { run: run(1) },
        ArbiterRecord::Released { run: run(1), claims: vec![] },
        ArbiterRecord::Released { run: run(1), claims: claims() },
        ArbiterRecord::Snapshot(Box::new(Snapshot { runs })),
    ]
}

fn kind_of_arbiter(record: &ArbiterRecord) -> usize {
    match record {
        ArbiterRecord::Queued { .. } => 0,
        ArbiterRecord::Granted { .. } => 1,
        ArbiterRecord::Regranted { .. } => 2,
        ArbiterRecord::Released { .. } => 3,
        ArbiterRecord::Snapshot(_) => 4,
    }
}

fn all_kinds(kinds: impl Iterator<Item = usize>, count: usize) {
    let kinds: std::collections::BTreeSet<_> = kinds.collect();
    assert!(kinds.into_iter().eq(0..count), "a kind of record has no golden line");
}

/// Compares with the file of this name, a line for each record; adds what is missing if that is asked for.
fn check(name: &str, records: &[Record]) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(format!("records-1-{name}.jsonl"));
    let mut golden = std::fs::read_to_string(&path).unwrap_or_default();
    let have = golden.lines().count();
    if std::env::var("GOLDEN").is_ok_and(|what| what == "add") {
        for record in records.iter().skip(have) {
            let stored = encode_records(std::slice::from_ref(record)).unwrap();
            golden.push_str(std::str::from_utf8(&stored).unwrap());
            golden.push('\n');
        }
        std::fs::write(&path, &golden).unwrap();
    }
    let lines: Vec<_> = golden.lines().collect();
    assert_eq!(lines.len(), records.len(), "{name}: each record has a line");
    for (line, record) in lines.into_iter().zip(records) {
        let stored = encode_records(std::slice::from_ref(record)).unwrap();
        assert_eq!(
            std::str::from_utf8(&stored).unwrap(),
            line,
            "a changed stored form needs a new format and a reader of the old one"
        );
        let read = decode_records(line.as_bytes()).unwrap();
        assert_eq!(read, std::slice::from_ref(record), "{name}: what is read");
        let again = encode_records(&read).unwrap();
        assert_eq!(std::str::from_utf8(&again).unwrap(), line, "{name}: written again");
    }
}

/// Runs that were submitted when plans were stored in an older format, in the order of those of today.
#[test]
fn submissions_with_older_plans_are_read() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let today: Vec<_> =
        runs().into_iter().filter(|record| kind_of_run(record) == 0).map(Record::Run).collect();
    for format in 1..PLAN_FORMAT {
        let path = folder.join(format!("submitted-plan-{format}.jsonl"));
        let golden = std::fs::read_to_string(path).unwrap();
        let read: Vec<_> =
            golden.lines().flat_map(|line| decode_records(line.as_bytes()).unwrap()).collect();
        assert_eq!(read, today, "format {format}");
        assert!(
            golden.lines().all(|line| line.contains(&format!(r#""plan":{{"format":{format},"#)))
        );
    }
}

#[test]
fn every_record_keeps_its_stored_form() {
    all_kinds(runs().iter().map(kind_of_run), 27);
    all_kinds(guards().iter().map(kind_of_guard), 16);
    all_kinds(arbiters().iter().map(kind_of_arbiter), 5);
    check("run", &runs().into_iter().map(Record::Run).collect::<Vec<_>>());
    check("arbiter", &arbiters().into_iter().map(Record::Arbiter).collect::<Vec<_>>());
    // One line for each guard record, so that a difference shows which.
    let alone =
        |record| RunRecord::Guarded { guard: NODE, log: vec![GuardEntry { at: at(4), record }] };
    check("guard", &guards().into_iter().map(|r| Record::Run(alone(r))).collect::<Vec<_>>());
    let key = KeyRecord {
        key: IdempotencyKey::new("the-key").unwrap(),
        run: run(1),
        digest: "0123abcd".to_owned(),
    };
    check("key", &[Record::Key(key)]);
}

/// The words that a new reader may meet of an old writer are all there; so are those that it must not guess at.
#[test]
fn a_plan_of_a_newer_format_is_named_with_both_versions() {
    let stored = encode_records(&[Record::Run(RunRecord::Submitted(submitted()))]).unwrap();
    let stored = String::from_utf8(stored).unwrap();
    let known = format!(r#""plan":{{"format":{PLAN_FORMAT},"#);
    assert!(stored.contains(&known));
    // As a newer version may write it: with what nobody here knows.
    let newer = stored.replace(&known, r#""plan":{"format":9,"moon":[],"#);
    let newer = newer.replace(r#""kind":"#, r#""sort":"#);
    let error = decode_records(newer.as_bytes()).unwrap_err();
    assert_eq!(error, JournalError::PlanFormat { found: 9, known: PLAN_FORMAT });
    let message = error.to_string();
    assert!(message.contains("format 9") && message.contains(&format!("to {PLAN_FORMAT}")));
    let error = decode_records(br#"{"format":9,"records":[]}"#).unwrap_err().to_string();
    assert!(error.contains("format 9") && error.contains("up to 1"), "{error}");
    let plan = stored.split(r#""plan":"#).nth(1).unwrap();
    let plan = plan.replacen(&format!("{{\"format\":{PLAN_FORMAT}"), "{\"format\":9", 1);
    let mut plans = serde_json::Deserializer::from_str(&plan).into_iter::<crate::plan::Plan>();
    let error = plans.next().unwrap().unwrap_err().to_string();
    assert!(
        error.contains("format 9") && error.contains(&format!("up to {PLAN_FORMAT}")),
        "{error}"
    );
}
