//! A batch on its way to the writer.

use std::sync::Arc;

use stillpoint_context::{ProcessId, RunId};
use stillpoint_model::point::PointFact;
use stillpoint_workflow::{self as workflow, FactDraft, JournalError, Record, StreamId};
use tokio::sync::oneshot;

use crate::catalog;
use crate::error::{Lost, Refusal};
use crate::key::{nanos, signed};
use crate::pen::{Append, Fact, Pen, Written};
use crate::writer::Work;

/// A batch in its stored form: what costs time is done before the writer gets it.
pub(super) struct Commit {
    owner: ProcessId,
    epoch: u64,
    appends: Vec<Append>,
    facts: Vec<Fact>,
    /// What the facts say to the catalogue; `None` where that cannot be read.
    points: Vec<Option<PointFact>>,
    written: Option<Written>,
    tell: oneshot::Sender<Result<Written, JournalError>>,
}

type Answer = oneshot::Receiver<Result<Written, JournalError>>;

impl Commit {
    pub(super) fn new(
        owner: ProcessId,
        epoch: u64,
        appends: &[workflow::Append],
        facts: Vec<(RunId, FactDraft)>,
    ) -> Result<(Self, Answer), JournalError> {
        let points = facts
            .iter()
            .filter(|(_, fact)| fact.topic.as_str() == catalog::TOPIC)
            .map(|(_, fact)| serde_json::from_slice(&fact.body).ok())
            .collect();
        let facts = facts
            .into_iter()
            .map(|(run, FactDraft { topic, key, body })| Fact {
                topic: topic.as_str().to_owned(),
                run: *run.0.as_bytes(),
                key,
                body,
            })
            .collect();
        let appends = appends.iter().map(store).collect::<Result<_, _>>()?;
        let (tell, answer) = oneshot::channel();
        Ok((Self { owner, epoch, appends, facts, points, written: None, tell }, answer))
    }
}

fn store(append: &workflow::Append) -> Result<Append, JournalError> {
    let civil = append.at.civil;
    let is_early = civil.timestamp() < 0;
    Ok(Append {
        stream: append.stream,
        expected: signed(append.expected.0),
        count: i64::try_from(append.records.len()).unwrap_or(i64::MAX),
        mono: nanos(append.at.mono.0),
        // The years 1677 to 2262.
        civil: civil.timestamp_nanos_opt().unwrap_or(if is_early { i64::MIN } else { i64::MAX }),
        open: matches!(append.stream, StreamId::Run(_))
            && append.records.last().is_some_and(|last| !Record::ends_run(last)),
        records: workflow::encode_records(&append.records)?,
    })
}

impl Work for Commit {
    fn run(&mut self, pen: &mut Pen<'_>) -> rusqlite::Result<()> {
        let written = pen.write(self.owner, self.epoch, &self.appends, &self.facts)?;
        if let Written::At(position) = written
            && !self.points.is_empty()
        {
            catalog::take_in(pen, &self.points, position)?;
        }
        self.written = Some(written);
        Ok(())
    }

    fn can_run_again(&self) -> bool {
        true
    }

    fn end(self: Box<Self>, lost: Option<&Arc<Lost>>) {
        let answer = match (lost, self.written) {
            (None, Some(written)) => Ok(written),
            (Some(lost), _) => Err(JournalError::lost(lost)),
            (None, None) => Err(JournalError::gone(stillpoint_context::Effect::None)),
        };
        // Nobody may be waiting any more.
        drop(self.tell.send(answer));
    }
}
