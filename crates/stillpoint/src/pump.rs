//! Feeds the catalogue with the facts of the journal.
//!
//! A store that holds both writes the catalogue's tables in the commit of the facts. Any other catalogue is fed from here:
//! each fact in order, idempotently, so that feeding one twice changes nothing. How far it has been fed is kept in the
//! catalogue, with what was fed; only the positions of a journal that forgets mean nothing to the next process.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::lock::Mutex;
use stillpoint_catalog::{Catalog, Cursor};
use stillpoint_context::{ErrorClass, Failure, RunId};
use stillpoint_model::point::PointFact;
use stillpoint_workflow::{FactDraft, Journal, Position, StreamId, Topic};

/// The topic of facts about restore points.
pub const TOPIC: &str = "restore-point";

/// The most facts that are read at once.
const BATCH: usize = 256;

/// A fact about a restore point, ready for the journal.
pub(crate) fn fact(fact: &PointFact) -> Result<FactDraft, Failure> {
    let body = serde_json::to_vec(fact)
        .map_err(|error| Failure::new("fact.encode", ErrorClass::Internal, error.to_string()))?;
    Ok(FactDraft::new(topic()?, fact.point().to_string(), body))
}

fn topic() -> Result<Topic, Failure> {
    Topic::new(TOPIC)
        .map_err(|error| Failure::new("fact.topic", ErrorClass::Internal, error.to_string()))
}

/// The pump: a journal, and how far the catalogue has been fed from it.
#[derive(Debug)]
pub(crate) struct Pump {
    journal: Arc<dyn Journal>,
    /// Unknown until the catalogue has been asked.
    cursor: Mutex<Option<Position>>,
}

impl Pump {
    /// A pump that begins where the catalogue stands.
    pub(crate) fn new(journal: Arc<dyn Journal>) -> Self {
        Self { journal, cursor: Mutex::new(None) }
    }

    /// The runs of all processes that the journal has no end of.
    ///
    /// # Errors
    /// Of the journal.
    pub(crate) async fn open_runs(&self) -> Result<BTreeSet<RunId>, Failure> {
        let (mut open, mut after) = (BTreeSet::new(), None);
        loop {
            let page = self.journal.open(after, BATCH).await;
            let page = page.map_err(|error| Failure::of(&error))?;
            let Some(last) = page.last() else { return Ok(open) };
            after = Some(last.stream);
            open.extend(page.iter().filter_map(|stream| match stream.stream {
                StreamId::Run(run) => Some(run),
                _ => None,
            }));
        }
    }

    /// Feeds the catalogue with every fact that is in the journal now.
    ///
    /// # Errors
    /// Of the journal or the catalogue; it goes on from there the next time.
    ///
    /// # Cancel safety
    /// May be dropped; what was fed may be fed again.
    pub(crate) async fn run(&self, catalog: &dyn Catalog) -> Result<(), Failure> {
        let mut known = self.cursor.lock().await;
        let topic = topic()?;
        let durable = self.journal.is_durable();
        let mut cursor = match *known {
            Some(cursor) => cursor,
            None if durable => {
                let cursor = catalog.cursor().await.map_err(|error| Failure::of(&error))?;
                cursor.map_or(Position::default(), |cursor| Position(cursor.0))
            }
            None => Position::default(),
        };
        loop {
            let facts = self
                .journal
                .facts(&topic, cursor, BATCH)
                .await
                .map_err(|error| Failure::of(&error))?;
            let Some(last) = facts.last().map(|fact| fact.position) else { return Ok(()) };
            let points = facts
                .iter()
                .map(|fact| {
                    serde_json::from_slice::<PointFact>(&fact.fact.body).map_err(|error| {
                        Failure::new("fact.decode", ErrorClass::Integrity, error.to_string())
                    })
                })
                .collect::<Result<Vec<_>, _>>()?;
            let to = durable.then_some(Cursor(last.0));
            catalog.apply(&points, to).await.map_err(|error| Failure::of(&error))?;
            cursor = last;
            *known = Some(cursor);
        }
    }
}
