//! The journal in memory, with faults around it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use stillpoint_context::{Mono, ProcessId};
use stillpoint_testkit::conformance::{BoxError, Place, Store, StoreFactory};
use stillpoint_workflow::{
    Append, Batch, Fact, Fencing, Journal, JournalError, Lease, Leases, MemoryJournal, Now,
    OpenStream, Payload, Position, Record, RunRecord, Seq, Stored, StreamId, Topic,
};

use super::pause;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    None,
    /// Not a fault: a journal that several processes may share.
    Shared,
    CommitsOneAppendAtATime,
    StatesFactsOfRefusedCommits,
    FactsBeforeRecords,
    AppendsBehind,
    AppendsAhead,
    NamesAnotherHead,
    RefusesEmptyAppends,
    OpensEmptyStreams,
    ForgetsFactsAlone,
    AnswersWithAnotherPosition,
    PositionsStandStill,
    RefusesRepeats,
    RefusesLateRepeats,
    AnswersRepeatsWithTheLatest,
    StatesFactsTwice,
    TakesAnyRepeat,
    TakesLongerRepeats,
    CompletesParts,
    ReadsFromTheCommit,
    ReadsOneMore,
    ForgetsInstants,
    CountsOneLess,
    ForgetsTheEnded,
    MixesKeysAndRuns,
    MixesKeyZeroAndArbiter,
    ForgetsFailures,
    TakesTextForAscii,
    EndsTextAtNul,
    MangledPayloads,
    RefusesPayloadsHalfway,
    CutsBigRecords,
    CutsBigCommits,
    ListsEnded,
    SortsAsSigned,
    SortsAsText,
    IgnoresAfter,
    IgnoresMax,
    NeedsAfterToBeOpen,
    ListsKeys,
    ListsTheArbiter,
    OwnerIsTheFirst,
    OwnerIsWhoTries,
    ListsHeadOne,
    MixesTopics,
    FactsFromThePosition,
    SortsFacts,
    KeepsTheLatestFact,
    FactsAreOfNobody,
    SplitsFacts,
    GivesAllFacts,
    CountsCommits,
    LateFacts,
    OneAtATime,
    LooksThenCommits,
    IgnoresEpochs,
    KnowsProcessesOnly,
    ConflictFirst,
    RepeatFirst,
    SharedTakesEpochZero,
    PrivateRefusesEpochZero,
    ForgetsEverything,
    ForgetsFacts,
    ForgetsOwners,
    ForgetsPositions,
    ForgetsTheLastRecord,
}

/// Which cases see it.
pub(crate) const WANTED: &[(Fault, &[&str])] = &[
    (
        Fault::CommitsOneAppendAtATime,
        &[
            "a_commit_is_all_or_nothing",
            "a_commit_that_is_there_in_part_is_a_conflict",
            "a_dropped_commit_is_there_whole_or_not_at_all",
            "a_reader_never_sees_half_a_commit",
            "big_records_and_big_commits_arrive",
            "positions_rise",
        ],
    ),
    (
        Fault::StatesFactsOfRefusedCommits,
        &[
            "a_commit_is_all_or_nothing",
            "a_dropped_commit_is_there_whole_or_not_at_all",
            "one_of_many_commits_to_one_place_lands",
        ],
    ),
    (
        Fault::FactsBeforeRecords,
        &[
            "a_batch_of_facts_alone_is_a_commit",
            "a_commit_that_is_there_in_part_is_a_conflict",
            "a_dropped_commit_is_there_whole_or_not_at_all",
            "a_reader_never_sees_half_a_commit",
            "big_records_and_big_commits_arrive",
            "commits_to_different_streams_all_land",
            "facts_are_read_by_topic_in_order",
            "one_of_many_commits_to_one_place_lands",
            "positions_rise",
        ],
    ),
    (
        Fault::AppendsBehind,
        &[
            "a_commit_is_all_or_nothing",
            "a_dropped_commit_is_there_whole_or_not_at_all",
            "a_repeat_of_other_content_is_a_conflict",
            "an_append_behind_the_head_is_a_conflict",
            "one_of_many_commits_to_one_place_lands",
            "open_names_the_last_writer",
            "positions_rise",
            "records_come_back_as_they_were",
        ],
    ),
    (
        Fault::AppendsAhead,
        &["an_append_ahead_of_the_head_is_a_conflict", "an_append_of_no_records_changes_no_stream"],
    ),
    (
        Fault::NamesAnotherHead,
        &[
            "a_commit_is_all_or_nothing",
            "a_commit_that_is_there_in_part_is_a_conflict",
            "a_dropped_commit_is_there_whole_or_not_at_all",
            "a_repeat_of_other_content_is_a_conflict",
            "an_append_ahead_of_the_head_is_a_conflict",
            "an_append_behind_the_head_is_a_conflict",
            "an_append_of_no_records_changes_no_stream",
            "one_of_many_commits_to_one_place_lands",
            "open_names_the_last_writer",
        ],
    ),
    (
        Fault::RefusesEmptyAppends,
        &["a_fenced_owner_learns_that_first", "an_append_of_no_records_changes_no_stream"],
    ),
    (
        Fault::OpensEmptyStreams,
        &["a_commit_is_all_or_nothing", "an_append_of_no_records_changes_no_stream"],
    ),
    (Fault::ForgetsFactsAlone, &["a_batch_of_facts_alone_is_a_commit"]),
    (
        Fault::AnswersWithAnotherPosition,
        &[
            "a_batch_of_facts_alone_is_a_commit",
            "big_records_and_big_commits_arrive",
            "commits_to_different_streams_all_land",
            "facts_are_read_by_topic_in_order",
            "positions_rise",
        ],
    ),
    (
        Fault::PositionsStandStill,
        &[
            "a_batch_of_facts_alone_is_a_commit",
            "a_commit_is_all_or_nothing",
            "a_dropped_commit_is_there_whole_or_not_at_all",
            "a_follower_of_facts_misses_nothing",
            "a_repeated_commit_answers_with_its_position",
            "big_records_and_big_commits_arrive",
            "commits_to_different_streams_all_land",
            "everything_is_there_after_opening_again",
            "facts_are_read_by_topic_in_order",
            "one_of_many_commits_to_one_place_lands",
            "positions_rise",
            "the_facts_of_a_commit_are_never_split",
        ],
    ),
    (
        Fault::RefusesRepeats,
        &[
            "a_dropped_commit_is_there_whole_or_not_at_all",
            "a_fenced_owner_learns_that_first",
            "a_repeated_commit_answers_with_its_position",
            "big_records_and_big_commits_arrive",
            "everything_is_there_after_opening_again",
        ],
    ),
    (
        Fault::RefusesLateRepeats,
        &["a_repeated_commit_answers_with_its_position", "everything_is_there_after_opening_again"],
    ),
    (
        Fault::AnswersRepeatsWithTheLatest,
        &[
            "a_fenced_owner_learns_that_first",
            "a_repeated_commit_answers_with_its_position",
            "everything_is_there_after_opening_again",
        ],
    ),
    (
        Fault::StatesFactsTwice,
        &[
            "a_dropped_commit_is_there_whole_or_not_at_all",
            "a_repeated_commit_answers_with_its_position",
            "big_records_and_big_commits_arrive",
            "everything_is_there_after_opening_again",
        ],
    ),
    (
        Fault::TakesAnyRepeat,
        &[
            "a_dropped_commit_is_there_whole_or_not_at_all",
            "a_repeat_of_other_content_is_a_conflict",
            "an_append_behind_the_head_is_a_conflict",
            "open_names_the_last_writer",
            "positions_rise",
            "records_come_back_as_they_were",
        ],
    ),
    (Fault::TakesLongerRepeats, &["a_repeat_of_other_content_is_a_conflict"]),
    (Fault::CompletesParts, &["a_commit_that_is_there_in_part_is_a_conflict"]),
    (Fault::ReadsFromTheCommit, &["records_are_read_from_any_place"]),
    (Fault::ReadsOneMore, &["records_are_read_from_any_place"]),
    (Fault::ForgetsInstants, &["records_are_read_from_any_place"]),
    (
        Fault::CountsOneLess,
        &[
            "a_batch_of_facts_alone_is_a_commit",
            "a_commit_is_all_or_nothing",
            "a_commit_that_is_there_in_part_is_a_conflict",
            "a_dropped_commit_is_there_whole_or_not_at_all",
            "a_payload_that_is_no_text_is_kept_or_refused",
            "a_private_journal_takes_epoch_0",
            "a_reader_never_sees_half_a_commit",
            "a_repeat_of_other_content_is_a_conflict",
            "a_repeated_commit_answers_with_its_position",
            "an_append_ahead_of_the_head_is_a_conflict",
            "an_append_behind_the_head_is_a_conflict",
            "an_append_of_no_records_changes_no_stream",
            "an_owner_without_the_lease_of_its_epoch_is_refused",
            "everything_is_there_after_opening_again",
            "keys_and_the_arbiter_are_never_open",
            "one_of_many_commits_to_one_place_lands",
            "positions_rise",
            "streams_of_one_number_are_apart",
            "the_head_counts_the_records",
        ],
    ),
    (
        Fault::ForgetsTheEnded,
        &["everything_is_there_after_opening_again", "the_head_counts_the_records"],
    ),
    (
        Fault::MixesKeysAndRuns,
        &[
            "everything_is_there_after_opening_again",
            "keys_and_the_arbiter_are_never_open",
            "streams_of_one_number_are_apart",
        ],
    ),
    (
        Fault::MixesKeyZeroAndArbiter,
        &["everything_is_there_after_opening_again", "streams_of_one_number_are_apart"],
    ),
    (Fault::ForgetsFailures, &["records_come_back_as_they_were"]),
    (Fault::TakesTextForAscii, &["records_come_back_as_they_were"]),
    (Fault::EndsTextAtNul, &["records_come_back_as_they_were"]),
    (Fault::MangledPayloads, &["a_payload_that_is_no_text_is_kept_or_refused"]),
    (Fault::RefusesPayloadsHalfway, &["a_payload_that_is_no_text_is_kept_or_refused"]),
    (Fault::CutsBigRecords, &["big_records_and_big_commits_arrive"]),
    (Fault::CutsBigCommits, &["big_records_and_big_commits_arrive"]),
    (
        Fault::ListsEnded,
        &[
            "everything_is_there_after_opening_again",
            "open_is_paged",
            "open_lists_runs_that_have_not_ended",
            "open_names_the_last_writer",
        ],
    ),
    (Fault::SortsAsSigned, &["open_lists_runs_that_have_not_ended"]),
    (Fault::SortsAsText, &["open_is_paged", "open_lists_runs_that_have_not_ended"]),
    (Fault::IgnoresAfter, &["open_is_paged"]),
    (Fault::IgnoresMax, &["open_is_paged"]),
    (Fault::NeedsAfterToBeOpen, &["open_is_paged"]),
    (
        Fault::ListsKeys,
        &["everything_is_there_after_opening_again", "keys_and_the_arbiter_are_never_open"],
    ),
    (
        Fault::ListsTheArbiter,
        &[
            "everything_is_there_after_opening_again",
            "keys_and_the_arbiter_are_never_open",
            "open_names_the_last_writer",
        ],
    ),
    (Fault::OwnerIsTheFirst, &["open_names_the_last_writer"]),
    (Fault::OwnerIsWhoTries, &["open_names_the_last_writer"]),
    (Fault::ListsHeadOne, &["open_names_the_last_writer"]),
    (
        Fault::MixesTopics,
        &["facts_are_read_by_topic_in_order", "the_facts_of_a_commit_are_never_split"],
    ),
    (
        Fault::FactsFromThePosition,
        &[
            "a_batch_of_facts_alone_is_a_commit",
            "a_commit_is_all_or_nothing",
            "a_dropped_commit_is_there_whole_or_not_at_all",
            "a_follower_of_facts_misses_nothing",
            "a_payload_that_is_no_text_is_kept_or_refused",
            "a_repeated_commit_answers_with_its_position",
            "big_records_and_big_commits_arrive",
            "commits_to_different_streams_all_land",
            "everything_is_there_after_opening_again",
            "facts_are_read_by_topic_in_order",
            "one_of_many_commits_to_one_place_lands",
            "positions_rise",
            "the_facts_of_a_commit_are_never_split",
        ],
    ),
    (
        Fault::SortsFacts,
        &["big_records_and_big_commits_arrive", "facts_are_read_by_topic_in_order"],
    ),
    (
        Fault::KeepsTheLatestFact,
        &[
            "a_follower_of_facts_misses_nothing",
            "a_reader_never_sees_half_a_commit",
            "everything_is_there_after_opening_again",
            "facts_are_read_by_topic_in_order",
            "positions_rise",
        ],
    ),
    (
        Fault::FactsAreOfNobody,
        &[
            "a_follower_of_facts_misses_nothing",
            "big_records_and_big_commits_arrive",
            "facts_are_read_by_topic_in_order",
        ],
    ),
    (
        Fault::SplitsFacts,
        &[
            "a_follower_of_facts_misses_nothing",
            "big_records_and_big_commits_arrive",
            "the_facts_of_a_commit_are_never_split",
        ],
    ),
    (Fault::GivesAllFacts, &["the_facts_of_a_commit_are_never_split"]),
    (Fault::CountsCommits, &["the_facts_of_a_commit_are_never_split"]),
    (
        Fault::LateFacts,
        &[
            "a_dropped_commit_is_there_whole_or_not_at_all",
            "a_follower_of_facts_misses_nothing",
            "a_payload_that_is_no_text_is_kept_or_refused",
            "a_reader_never_sees_half_a_commit",
            "a_repeated_commit_answers_with_its_position",
            "commits_to_different_streams_all_land",
            "everything_is_there_after_opening_again",
            "facts_are_read_by_topic_in_order",
            "one_of_many_commits_to_one_place_lands",
            "positions_rise",
            "the_facts_of_a_commit_are_never_split",
        ],
    ),
    (
        Fault::OneAtATime,
        &[
            "a_dropped_commit_is_there_whole_or_not_at_all",
            "a_follower_of_facts_misses_nothing",
            "commits_to_different_streams_all_land",
            "one_of_many_commits_to_one_place_lands",
        ],
    ),
    (
        Fault::LooksThenCommits,
        &["a_commit_that_is_there_in_part_is_a_conflict", "one_of_many_commits_to_one_place_lands"],
    ),
    (
        Fault::IgnoresEpochs,
        &["a_fenced_owner_learns_that_first", "an_owner_without_the_lease_of_its_epoch_is_refused"],
    ),
    (Fault::KnowsProcessesOnly, &["an_owner_without_the_lease_of_its_epoch_is_refused"]),
    (Fault::ConflictFirst, &["a_fenced_owner_learns_that_first"]),
    (Fault::RepeatFirst, &["a_fenced_owner_learns_that_first"]),
    (Fault::SharedTakesEpochZero, &["a_shared_journal_refuses_epoch_0"]),
    (Fault::PrivateRefusesEpochZero, &["a_private_journal_takes_epoch_0"]),
    (Fault::ForgetsEverything, &["everything_is_there_after_opening_again"]),
    (Fault::ForgetsFacts, &["everything_is_there_after_opening_again"]),
    (Fault::ForgetsOwners, &["everything_is_there_after_opening_again"]),
    (Fault::ForgetsPositions, &["everything_is_there_after_opening_again"]),
    (Fault::ForgetsTheLastRecord, &["everything_is_there_after_opening_again"]),
];

/// How a commit stands to what is there.
struct Fit {
    /// Those that fit at the head.
    new: usize,
    /// Those that do not fit, and are not there either.
    misfits: usize,
}

#[derive(Debug)]
struct Faulty {
    fault: Fault,
    inner: Arc<MemoryJournal>,
    busy: AtomicBool,
    latest: AtomicU64,
    /// Who wrote first, and who tried last.
    writers: Mutex<BTreeMap<StreamId, (ProcessId, ProcessId)>>,
    reopened: bool,
}

impl Faulty {
    fn is(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    /// Where the faulty journal keeps a stream.
    fn stream(&self, stream: StreamId) -> StreamId {
        match stream {
            StreamId::Key(key) if self.is(Fault::MixesKeysAndRuns) => {
                StreamId::Run(stillpoint_context::RunId(key))
            }
            StreamId::Key(key) if self.is(Fault::MixesKeyZeroAndArbiter) && key.is_nil() => {
                StreamId::Arbiter
            }
            stream => stream,
        }
    }

    /// What it makes of a record.
    fn record(&self, record: Record) -> Record {
        let text = |by: String| match self.fault {
            Fault::TakesTextForAscii => by.replace(|c: char| !c.is_ascii(), "?"),
            Fault::EndsTextAtNul => by.split('\0').next().unwrap_or_default().to_owned(),
            Fault::CutsBigRecords => by.chars().take(65_535).collect(),
            _ => by,
        };
        match record {
            Record::Run(RunRecord::CancelRequested { by, late }) => {
                Record::Run(RunRecord::CancelRequested { by: text(by), late })
            }
            Record::Run(RunRecord::Failed { node, attempt, mut failure, next })
                if self.is(Fault::ForgetsFailures) =>
            {
                failure.causes.clear();
                Record::Run(RunRecord::Failed { node, attempt, failure, next })
            }
            Record::Run(RunRecord::Succeeded { node, attempt, output, warnings })
                if self.is(Fault::MangledPayloads) =>
            {
                let text = String::from_utf8_lossy(output.as_bytes()).into_owned();
                let output = Payload::from_json(text.into_bytes());
                Record::Run(RunRecord::Succeeded { node, attempt, output, warnings })
            }
            record => record,
        }
    }

    async fn fit(&self, batch: &Batch) -> Fit {
        let mut fit = Fit { new: 0, misfits: 0 };
        for append in &batch.appends {
            let head = self.inner.head(&append.stream).await.unwrap();
            let stored = self
                .inner
                .read(&append.stream, append.expected, append.records.len())
                .await
                .unwrap();
            if append.expected == head {
                fit.new += 1;
            } else if append.expected > head
                || !stored.iter().map(|stored| &stored.record).eq(&append.records)
            {
                fit.misfits += 1;
            }
        }
        fit
    }

    async fn head_of(&self, append: &Append) -> u64 {
        self.inner.head(&append.stream).await.unwrap().0
    }

    /// What the fault makes of a commit before it comes to the journal; an answer, if it does not come there.
    async fn before(&self, batch: &mut Batch) -> Option<Result<Position, JournalError>> {
        let fit = self.fit(batch).await;
        let repeated = fit.new == 0 && fit.misfits == 0 && !batch.appends.is_empty();
        let conflict = |append: &Append, head| {
            Some(Err(JournalError::Conflict { stream: append.stream, head: Seq(head) }))
        };
        match self.fault {
            Fault::CommitsOneAppendAtATime => {
                if batch.appends.len() > 1 && !repeated {
                    let last = batch.appends.pop();
                    for append in std::mem::take(&mut batch.appends) {
                        let one =
                            Batch { appends: vec![append], facts: Vec::new(), ..batch.clone() };
                        if let Err(error) = self.inner.commit(one).await {
                            return Some(Err(error));
                        }
                        pause().await;
                    }
                    batch.appends.extend(last);
                }
            }
            Fault::StatesFactsOfRefusedCommits if fit.misfits > 0 => {
                let facts = Batch { appends: Vec::new(), ..batch.clone() };
                drop(self.inner.commit(facts).await);
            }
            Fault::FactsBeforeRecords
                if fit.misfits == 0 && !repeated && !batch.facts.is_empty() =>
            {
                let facts = Batch { appends: Vec::new(), ..batch.clone() };
                if let Err(error) = self.inner.commit(facts).await {
                    return Some(Err(error));
                }
                batch.facts.clear();
                pause().await;
            }
            Fault::AppendsBehind | Fault::AppendsAhead => {
                for append in &mut batch.appends {
                    let head = self.inner.head(&append.stream).await.unwrap();
                    let behind = append.expected < head && fit.misfits > 0;
                    let ahead = append.expected > head;
                    if behind && self.is(Fault::AppendsBehind)
                        || ahead && self.is(Fault::AppendsAhead)
                    {
                        append.expected = head;
                    }
                }
            }
            Fault::RefusesEmptyAppends => {
                let empty = batch.appends.iter().find(|append| append.records.is_empty())?;
                return conflict(empty, self.head_of(empty).await);
            }
            Fault::ForgetsFactsAlone if batch.appends.is_empty() => batch.facts.clear(),
            Fault::RefusesRepeats if repeated => {
                let first = &batch.appends[0];
                return conflict(first, self.head_of(first).await);
            }
            Fault::RefusesLateRepeats if repeated => {
                for append in &batch.appends {
                    let head = self.head_of(append).await;
                    if append.expected.0 + (append.records.len() as u64) < head {
                        return conflict(append, head);
                    }
                }
            }
            Fault::AnswersRepeatsWithTheLatest if repeated => {
                return Some(Ok(Position(self.latest.load(Ordering::SeqCst))));
            }
            Fault::StatesFactsTwice if repeated => batch.appends.clear(),
            Fault::TakesAnyRepeat | Fault::TakesLongerRepeats
                if fit.misfits > 0 && fit.new == 0 =>
            {
                for append in &mut batch.appends {
                    let stored =
                        self.inner.read(&append.stream, append.expected, append.records.len());
                    let stored: Vec<_> =
                        stored.await.unwrap().into_iter().map(|stored| stored.record).collect();
                    let longer = stored.len() < append.records.len();
                    let prefix = append.records.starts_with(&stored);
                    let any = self.is(Fault::TakesAnyRepeat) && !longer;
                    let long = self.is(Fault::TakesLongerRepeats) && longer && prefix;
                    if !stored.is_empty() && (any || long) {
                        append.records = stored;
                    }
                }
            }
            Fault::CompletesParts if fit.misfits == 0 && fit.new > 0 => {
                let mut new = Vec::new();
                for append in std::mem::take(&mut batch.appends) {
                    if append.expected.0 == self.head_of(&append).await {
                        new.push(append);
                    }
                }
                batch.appends = new;
            }
            Fault::RefusesPayloadsHalfway => {
                let odd = |record: &Record| match record {
                    Record::Run(RunRecord::Succeeded { output, .. }) => {
                        std::str::from_utf8(output.as_bytes()).is_err()
                    }
                    _ => false,
                };
                if let Some(append) =
                    batch.appends.iter_mut().find(|append| append.records.iter().any(odd))
                {
                    append.records.retain(|record| !odd(record));
                    drop(self.inner.commit(batch.clone()).await);
                    return Some(Err(JournalError::Corrupt("no text".into())));
                }
            }
            Fault::CutsBigCommits => {
                batch.appends.truncate(50);
                batch.facts.truncate(200);
            }
            Fault::FactsAreOfNobody => {
                for (run, _) in &mut batch.facts {
                    *run = stillpoint_context::RunId(uuid::Uuid::nil());
                }
            }
            Fault::OneAtATime => {
                if self.busy.swap(true, Ordering::SeqCst) {
                    return Some(Err(JournalError::Busy("another commit".into())));
                }
                pause().await;
            }
            Fault::LooksThenCommits if fit.misfits == 0 && !repeated => {
                pause().await;
                for append in &mut batch.appends {
                    append.expected = self.inner.head(&append.stream).await.unwrap();
                }
            }
            _ => {}
        }
        None
    }

    /// The same for who may commit.
    async fn may_commit(&self, batch: &mut Batch) -> Option<Result<Position, JournalError>> {
        let (owner, epoch) = (batch.owner, batch.epoch);
        let fenced = Some(Err(JournalError::Fenced { owner, epoch }));
        let lease = self.inner.leases().await.unwrap().into_iter();
        let lease = lease.into_iter().find(|lease| lease.process == owner);
        let held = lease.is_some_and(|lease| lease.epoch == epoch);
        match self.fault {
            Fault::IgnoresEpochs => batch.epoch = 0,
            Fault::KnowsProcessesOnly => batch.epoch = lease.map_or(epoch, |lease| lease.epoch),
            Fault::PrivateRefusesEpochZero | Fault::Shared if epoch == 0 => return fenced,
            Fault::ConflictFirst | Fault::RepeatFirst if !held && epoch != 0 => {
                let fit = self.fit(batch).await;
                if fit.misfits > 0 && self.is(Fault::ConflictFirst) {
                    let (stream, head) = (batch.appends[0].stream, Seq(0));
                    return Some(Err(JournalError::Conflict { stream, head }));
                }
                if fit.misfits + fit.new == 0 && self.is(Fault::RepeatFirst) {
                    batch.epoch = 0;
                }
            }
            _ => {}
        }
        None
    }
}

#[async_trait]
impl Journal for Faulty {
    fn is_durable(&self) -> bool {
        true
    }

    fn is_shared(&self) -> bool {
        [Fault::Shared, Fault::SharedTakesEpochZero].contains(&self.fault)
    }

    async fn commit(&self, mut batch: Batch) -> Result<Position, JournalError> {
        for append in &mut batch.appends {
            append.stream = self.stream(append.stream);
            let records = std::mem::take(&mut append.records);
            append.records = records.into_iter().map(|record| self.record(record)).collect();
            if self.is(Fault::ForgetsInstants) {
                append.at = Now::default();
            }
            let writers = &mut self.writers.lock().unwrap();
            writers.entry(append.stream).or_insert((batch.owner, batch.owner)).1 = batch.owner;
        }
        if let Some(answer) = self.may_commit(&mut batch).await {
            return answer;
        }
        if let Some(answer) = self.before(&mut batch).await {
            return answer;
        }
        let answer = self.inner.commit(batch).await;
        self.busy.store(false, Ordering::SeqCst);
        match (self.fault, answer) {
            (Fault::NamesAnotherHead, Err(JournalError::Conflict { stream, head })) => {
                Err(JournalError::Conflict { stream, head: Seq(head.0 + 1) })
            }
            (Fault::AnswersWithAnotherPosition, Ok(position)) => Ok(Position(position.0 + 1)),
            (Fault::PositionsStandStill, Ok(_)) => Ok(Position(1)),
            (Fault::ForgetsPositions, Ok(position)) if self.reopened => {
                Ok(Position(position.0 % 2 + 1))
            }
            (_, Ok(position)) => {
                self.latest.fetch_max(position.0, Ordering::SeqCst);
                Ok(position)
            }
            (_, Err(error)) => Err(error),
        }
    }

    async fn read(
        &self,
        stream: &StreamId,
        from: Seq,
        max: usize,
    ) -> Result<Vec<Stored>, JournalError> {
        let at = self.stream(*stream);
        let (mut from, mut max) = (from, max);
        match self.fault {
            Fault::ReadsOneMore => max = max.saturating_add(1),
            Fault::ReadsFromTheCommit if from.0 > 0 => {
                // A commit that has begun before the place is left out.
                let around = self.inner.read(&at, Seq(from.0 - 1), usize::MAX).await?;
                let begun = around.first().map(|stored| stored.position);
                let rest = around.iter().skip(1);
                let cut = rest.take_while(|stored| Some(stored.position) == begun).count();
                from.0 = from.0.saturating_add(cut as u64);
            }
            _ => {}
        }
        let mut found = self.inner.read(&at, from, max).await?;
        for stored in &mut found {
            stored.stream = *stream;
            if self.is(Fault::PositionsStandStill) {
                stored.position = Position(1);
            }
        }
        if self.is(Fault::ForgetsTheLastRecord) && self.reopened {
            let head = self.head(stream).await?;
            found.retain(|stored| stored.seq < head);
        }
        Ok(found)
    }

    async fn head(&self, stream: &StreamId) -> Result<Seq, JournalError> {
        let stream = self.stream(*stream);
        let head = self.inner.head(&stream).await?;
        let last = self.inner.read(&stream, Seq(head.0.saturating_sub(1)), 1).await?;
        let ended = last.first().is_some_and(|stored| stored.record.ends_run());
        Ok(match self.fault {
            Fault::CountsOneLess => Seq(head.0.saturating_sub(1)),
            Fault::ForgetsTheEnded if ended => Seq(0),
            Fault::ForgetsTheLastRecord if self.reopened => Seq(head.0.saturating_sub(1)),
            _ => head,
        })
    }

    async fn open(
        &self,
        after: Option<StreamId>,
        max: usize,
    ) -> Result<Vec<OpenStream>, JournalError> {
        let mut open = self.inner.open(None, usize::MAX).await?;
        let writers = self.writers.lock().unwrap().clone();
        let mut add = Vec::new();
        match self.fault {
            Fault::ListsEnded
            | Fault::ListsKeys
            | Fault::ListsTheArbiter
            | Fault::OpensEmptyStreams => {
                for (stream, (_, owner)) in &writers {
                    let head = self.inner.head(stream).await?;
                    add.push(OpenStream { stream: *stream, owner: *owner, head });
                }
            }
            _ => {}
        }
        add.retain(|one| match (self.fault, one.stream) {
            (Fault::ListsEnded, StreamId::Run(_))
            | (Fault::ListsKeys, StreamId::Key(_))
            | (Fault::ListsTheArbiter, StreamId::Arbiter) => one.head > Seq(0),
            (Fault::OpensEmptyStreams, StreamId::Run(_)) => one.head == Seq(0),
            _ => false,
        });
        open.retain(|known| add.iter().all(|one| one.stream != known.stream));
        open.extend(add);
        open.sort_by_key(|one| one.stream);
        for one in &mut open {
            match self.fault {
                Fault::OwnerIsTheFirst => {
                    one.owner = writers.get(&one.stream).map_or(one.owner, |writers| writers.0);
                }
                Fault::OwnerIsWhoTries => {
                    one.owner = writers.get(&one.stream).map_or(one.owner, |writers| writers.1);
                }
                Fault::ForgetsOwners if self.reopened => one.owner = ProcessId(uuid::Uuid::nil()),
                Fault::ListsHeadOne => one.head = Seq(1),
                _ => {}
            }
        }
        let known = after.is_none_or(|after| open.iter().any(|one| one.stream == after));
        match self.fault {
            Fault::IgnoresAfter => {}
            Fault::NeedsAfterToBeOpen if !known => open.clear(),
            _ => open.retain(|one| after.is_none_or(|after| one.stream > after)),
        }
        match self.fault {
            Fault::SortsAsSigned => open.sort_by_key(|one| match one.stream {
                StreamId::Run(run) => run.0.as_u128().cast_signed(),
                _ => 0,
            }),
            Fault::SortsAsText => open.sort_by_key(|one| match one.stream {
                StreamId::Run(run) => run.0.as_u128().to_string(),
                _ => String::new(),
            }),
            _ => {}
        }
        open.truncate(if self.is(Fault::IgnoresMax) { usize::MAX } else { max });
        Ok(open)
    }

    async fn facts(
        &self,
        topic: &Topic,
        after: Position,
        max: usize,
    ) -> Result<Vec<Fact>, JournalError> {
        if self.is(Fault::ForgetsFacts) && self.reopened {
            return Ok(Vec::new());
        }
        let latest = self.latest.load(Ordering::SeqCst);
        let every = self.inner.facts(topic, Position(0), usize::MAX).await?;
        let mut found: Vec<Fact> =
            every.iter().filter(|fact| fact.position > after).cloned().collect();
        match self.fault {
            Fault::MixesTopics => {
                for other in ["a", "a.b", "b", "other", "conformance"] {
                    if other != topic.as_str() {
                        let other = Topic::new(other).unwrap();
                        found.extend(self.inner.facts(&other, after, usize::MAX).await?);
                    }
                }
                found.sort_by_key(|fact| fact.position);
            }
            Fault::FactsFromThePosition => {
                found = every.into_iter().filter(|fact| fact.position >= after).collect();
            }
            Fault::SortsFacts => {
                found.sort_by(|a, b| (a.position, &a.fact.key).cmp(&(b.position, &b.fact.key)));
            }
            Fault::KeepsTheLatestFact => {
                let all = found.clone();
                let mut at = 0;
                found.retain(|fact| {
                    at += 1;
                    all[at..].iter().all(|later| later.fact.key != fact.fact.key)
                });
            }
            // Every other commit is seen when the next one is there.
            Fault::LateFacts => {
                found.retain(|fact| fact.position.0 % 2 == 0 || fact.position.0 + 1 < latest);
            }
            Fault::PositionsStandStill => {
                found.iter_mut().for_each(|fact| fact.position = Position(1))
            }
            _ => {}
        }
        match self.fault {
            Fault::SplitsFacts => found.truncate(max.max(1)),
            Fault::GivesAllFacts => {}
            Fault::CountsCommits => {
                let mut positions: Vec<_> = found.iter().map(|fact| fact.position).collect();
                positions.dedup();
                if let Some(last) = positions.get(max.saturating_sub(1)) {
                    found.retain(|fact| fact.position <= *last);
                }
            }
            _ => {
                let mut end = max.max(1).min(found.len());
                while end > 0 && end < found.len() && found[end].position == found[end - 1].position
                {
                    end += 1;
                }
                found.truncate(end);
            }
        }
        Ok(found)
    }
}

/// The leases are those of the journal in memory: they have broken stores of their own.
#[async_trait]
impl Leases for Faulty {
    async fn acquire(
        &self,
        process: ProcessId,
        now: Mono,
        term: Duration,
    ) -> Result<Lease, JournalError> {
        self.inner.acquire(process, now, term).await
    }
    async fn renew(
        &self,
        process: ProcessId,
        epoch: u64,
        now: Mono,
        term: Duration,
    ) -> Result<Lease, JournalError> {
        self.inner.renew(process, epoch, now, term).await
    }
    async fn release(&self, process: ProcessId, epoch: u64) -> Result<(), JournalError> {
        self.inner.release(process, epoch).await
    }
    async fn leases(&self) -> Result<Vec<Lease>, JournalError> {
        self.inner.leases().await
    }
    async fn fence(
        &self,
        process: ProcessId,
        now: Mono,
        margin: Duration,
    ) -> Result<Fencing, JournalError> {
        self.inner.fence(process, now, margin).await
    }
}

/// Stores with this fault, which are still there when they are opened again.
pub(crate) struct Broken(pub(crate) Fault);

#[async_trait]
impl StoreFactory for Broken {
    async fn place(&self) -> Result<Box<dyn Place>, BoxError> {
        Ok(Box::new(Kept(self.0, Mutex::default())))
    }
}

struct Kept(Fault, Mutex<Option<Arc<MemoryJournal>>>);

#[async_trait]
impl Place for Kept {
    async fn open(&self) -> Result<Store, BoxError> {
        let mut kept = self.1.lock().unwrap();
        let reopened = kept.is_some();
        let inner = match kept.take() {
            Some(inner) if self.0 != Fault::ForgetsEverything => inner,
            _ => Arc::new(MemoryJournal::new()),
        };
        *kept = Some(Arc::clone(&inner));
        let store = Arc::new(Faulty {
            fault: self.0,
            inner,
            busy: AtomicBool::new(false),
            latest: AtomicU64::new(0),
            writers: Mutex::default(),
            reopened,
        });
        Ok(Store::new().with_journal(Arc::clone(&store) as _).with_leases(store))
    }
}
