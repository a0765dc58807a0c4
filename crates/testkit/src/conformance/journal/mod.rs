//! What every [`Journal`] has to do.
//!
//! A journal that keeps [`Leases`](stillpoint_workflow::Leases) is tried with those too: hand both in.

mod append;
mod facts;
mod forget;
mod owner;
mod race;
mod read;
mod repeat;

use std::sync::Arc;
use std::time::Duration;

use stillpoint_context::{Mono, ProcessId, RunId};
use stillpoint_workflow::{
    Append, Batch, End, Fact, FactDraft, Journal, JournalError, Now, Position, Record, RunRecord,
    Seq, Stored, StreamId, Topic,
};
use uuid::Uuid;

use super::frame::{self, Flaw, cases, ensure, same};
use super::{Case, Report, StoreFactory, Subject};
use append::{
    a_batch_of_facts_alone_is_a_commit, a_commit_is_all_or_nothing,
    an_append_ahead_of_the_head_is_a_conflict, an_append_behind_the_head_is_a_conflict,
    an_append_of_no_records_changes_no_stream, positions_rise,
};
use facts::{
    a_follower_of_facts_misses_nothing, facts_are_read_by_topic_in_order,
    the_facts_of_a_commit_are_never_split,
};
use forget::{
    an_open_run_is_never_forgotten, positions_rise_over_what_is_forgotten,
    what_is_forgotten_is_gone_whole, what_is_left_of_the_arbiter_keeps_its_place,
};
use owner::{
    a_fenced_owner_learns_that_first, a_private_journal_takes_epoch_0,
    a_shared_journal_refuses_epoch_0, an_owner_without_the_lease_of_its_epoch_is_refused,
    open_names_the_last_writer,
};
use race::{
    a_dropped_commit_is_there_whole_or_not_at_all, a_reader_never_sees_half_a_commit,
    commits_to_different_streams_all_land, one_of_many_commits_to_one_place_lands,
};
use read::{
    a_payload_that_is_no_text_is_kept_or_refused, big_records_and_big_commits_arrive,
    everything_is_there_after_opening_again, keys_and_the_arbiter_are_never_open, open_is_paged,
    open_lists_runs_that_have_not_ended, records_are_read_from_any_place,
    records_come_back_as_they_were, streams_of_one_number_are_apart, the_head_counts_the_records,
};
use repeat::{
    a_commit_that_is_there_in_part_is_a_conflict, a_repeat_by_another_owner_is_a_conflict,
    a_repeat_of_other_content_is_a_conflict, a_repeated_commit_answers_with_its_position,
};

/// Every case.
pub fn cases() -> &'static [Case] {
    cases! {
        a_commit_is_all_or_nothing: "A commit is all or nothing over all its streams and facts.";
        an_append_behind_the_head_is_a_conflict:
            "An append whose expected place is before the head is refused as a conflict that names the head.";
        an_append_ahead_of_the_head_is_a_conflict:
            "An append whose expected place is past the head is refused as a conflict that names the head.";
        an_append_of_no_records_changes_no_stream: "An append of no records fits at the head, and changes nothing.";
        a_batch_of_facts_alone_is_a_commit: "Facts may be stated without an append.";
        positions_rise: "Commits are totally ordered by their position, which rises; what a commit brought bears it.";
        a_repeated_commit_answers_with_its_position:
            "A commit whose appends are already there with equal content answers with their position, and changes nothing.";
        a_repeat_of_other_content_is_a_conflict: "A commit to places that hold other records is a conflict.";
        a_repeat_by_another_owner_is_a_conflict:
            "Equal content of another owner is no repeat: it is a conflict.";
        a_commit_that_is_there_in_part_is_a_conflict: "A commit is repeated as a whole or not at all.";
        records_are_read_from_any_place: "Records are dense and are read in order, from a place on, at most so many.";
        the_head_counts_the_records: "The head is the number of records of a stream, 0 if there is none.";
        streams_of_one_number_are_apart: "A run and a key of the same number are different streams.";
        records_come_back_as_they_were: "Records of every kind come back as they were.";
        a_payload_that_is_no_text_is_kept_or_refused:
            "A payload that is no text is kept as it is, or its commit is refused as corrupt.";
        big_records_and_big_commits_arrive: "A commit is of any size.";
        open_lists_runs_that_have_not_ended: "Open streams are those of runs that have not ended, in the order of ids.";
        open_is_paged: "Open streams are listed after any stream, at most so many.";
        keys_and_the_arbiter_are_never_open: "Only streams of runs are open.";
        open_names_the_last_writer: "An open stream names the process whose commit it ends with, and its head.";
        facts_are_read_by_topic_in_order: "Facts of a topic are read in order, from commits later than a position.";
        the_facts_of_a_commit_are_never_split: "The facts of one commit are never split over pages.";
        a_follower_of_facts_misses_nothing: "A reader never sees a later commit without an earlier one.";
        a_reader_never_sees_half_a_commit: "A commit is seen whole or not at all, facts included.";
        commits_to_different_streams_all_land: "Commits that do not touch each other do not hinder each other.";
        one_of_many_commits_to_one_place_lands: "Of commits to one place of a stream exactly one is accepted.";
        a_dropped_commit_is_there_whole_or_not_at_all: "A dropped commit may or may not be written, and never in part.";
        an_owner_without_the_lease_of_its_epoch_is_refused:
            "A commit whose owner does not hold a lease of its epoch is refused as fenced." [Leases];
        a_fenced_owner_learns_that_first: "Whether the owner is fenced is looked at before anything else." [Leases];
        a_shared_journal_refuses_epoch_0: "A journal that several processes may share refuses epoch 0." [Shared];
        a_private_journal_takes_epoch_0: "Epoch 0 is that of an engine without leases." [Private];
        what_is_forgotten_is_gone_whole:
            "What is forgotten is as if it had never been, with the facts that its runs stated; the rest is as it was.";
        an_open_run_is_never_forgotten: "Streams of runs that have not ended stay, whoever asks.";
        positions_rise_over_what_is_forgotten: "Positions rise, whatever is forgotten." [Reopen];
        what_is_left_of_the_arbiter_keeps_its_place:
            "Of the arbiter's stream what is left keeps its places." [Reopen];
        everything_is_there_after_opening_again: "A commit is durable when it returns." [Reopen];
    }
}

/// Tries every case.
pub async fn run_all(stores: &dyn StoreFactory) -> Report {
    frame::run_all(cases(), stores).await
}

/// Who commits, under a lease if the store keeps any.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    pub(super) journal: Arc<dyn Journal>,
    pub(super) owner: ProcessId,
    pub(super) epoch: u64,
}

impl Writer {
    pub(super) async fn new(subject: &Subject, number: u128) -> Result<Self, Flaw> {
        let (journal, owner) = (subject.journal()?, process(number));
        let epoch = if subject.has_leases() {
            subject.leases()?.acquire(owner, mono(0), Duration::from_hours(1)).await?.epoch
        } else {
            0
        };
        Ok(Self { journal, owner, epoch })
    }

    pub(super) fn batch(&self, appends: Vec<Append>) -> Batch {
        Batch { owner: self.owner, epoch: self.epoch, appends, facts: Vec::new() }
    }

    pub(super) async fn write(&self, appends: Vec<Append>) -> Result<Position, JournalError> {
        self.journal.commit(self.batch(appends)).await
    }
}

pub(super) fn process(number: u128) -> ProcessId {
    ProcessId(Uuid::from_u128(number))
}

pub(super) fn mono(seconds: u64) -> Mono {
    Mono(Duration::from_secs(seconds))
}

pub(super) fn run(number: u128) -> RunId {
    RunId(Uuid::from_u128(number))
}

pub(super) fn stream(number: u128) -> StreamId {
    StreamId::Run(run(number))
}

/// A record with a text in it.
pub(super) fn note(text: impl Into<String>) -> Record {
    Record::Run(RunRecord::CancelRequested { by: text.into(), late: None })
}

fn ended() -> Record {
    Record::Run(RunRecord::Ended { end: End::Succeeded })
}

fn instant(milliseconds: u64) -> Now {
    let civil = i64::try_from(milliseconds).unwrap_or(i64::MAX);
    Now {
        mono: Mono(Duration::from_millis(milliseconds)),
        civil: chrono::DateTime::from_timestamp_millis(civil).unwrap_or_default(),
    }
}

pub(super) fn append(stream: StreamId, expected: u64, records: Vec<Record>) -> Append {
    Append {
        stream,
        expected: Seq(expected),
        at: instant(1_700_000_000_000_u64.saturating_add(expected)),
        records,
    }
}

fn topic(name: &str) -> Result<Topic, Flaw> {
    Topic::new(name).map_err(|error| Flaw::new(error.to_string()))
}

fn fact(topic: &Topic, key: impl Into<String>) -> FactDraft {
    let key = key.into();
    let body = key.clone().into_bytes();
    FactDraft::new(topic.clone(), key, body)
}

/// A whole stream, read in pages.
pub(super) async fn all(journal: &dyn Journal, stream: StreamId) -> Result<Vec<Stored>, Flaw> {
    let mut records: Vec<Stored> = Vec::new();
    loop {
        let from = Seq(records.len() as u64);
        let page = journal.read(&stream, from, 100).await?;
        if page.is_empty() {
            return Ok(records);
        }
        for stored in page {
            same("the next place of a stream", &stored.seq, &Seq(records.len() as u64))?;
            records.push(stored);
        }
    }
}

pub(super) async fn contents(journal: &dyn Journal, stream: StreamId) -> Result<Vec<Record>, Flaw> {
    Ok(all(journal, stream).await?.into_iter().map(|stored| stored.record).collect())
}

/// Every fact of a topic, read in pages.
async fn all_facts(journal: &dyn Journal, topic: &Topic) -> Result<Vec<Fact>, Flaw> {
    let (mut facts, mut after) = (Vec::new(), Position(0));
    loop {
        let page = journal.facts(topic, after, 100).await?;
        let Some(last) = page.last() else { return Ok(facts) };
        ensure(last.position > after, || "facts are given again after their position".to_owned())?;
        after = last.position;
        facts.extend(page);
    }
}

/// That a call was refused because a stream does not end where the writer thought.
fn conflict(
    what: &str,
    found: Result<Position, JournalError>,
    stream: StreamId,
    head: u64,
) -> Result<(), Flaw> {
    let wanted = JournalError::Conflict { stream, head: Seq(head) };
    match found {
        Err(error) if error == wanted => Ok(()),
        other => Err(Flaw(format!("{what}: found {other:?}, wanted Err({wanted:?})"))),
    }
}

/// That a call was refused because the owner is fenced off.
pub(super) fn fenced<T: std::fmt::Debug>(
    what: &str,
    found: Result<T, JournalError>,
    owner: ProcessId,
    epoch: u64,
) -> Result<(), Flaw> {
    let wanted = JournalError::Fenced { owner, epoch };
    match found {
        Err(error) if error == wanted => Ok(()),
        other => Err(Flaw(format!("{what}: found {other:?}, wanted Err({wanted:?})"))),
    }
}

/// That nothing but this was ever written.
async fn only(
    journal: &dyn Journal,
    heads: &[(StreamId, u64)],
    facts: (&Topic, usize),
) -> Result<(), Flaw> {
    for (stream, head) in heads {
        same(&format!("the head of {stream}"), &journal.head(stream).await?, &Seq(*head))?;
        let records = all(journal, *stream).await?.len();
        same(&format!("the records of {stream}"), &(records as u64), head)?;
    }
    let (topic, count) = facts;
    same(&format!("the facts of {topic}"), &all_facts(journal, topic).await?.len(), &count)
}
