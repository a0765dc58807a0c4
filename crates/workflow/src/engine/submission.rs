//! What is submitted.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use stillpoint_context::{IdempotencyKey, RunId, StepName};

use super::EngineError;
use crate::claim::Claim;
use crate::machine::Submitted;
use crate::payload::Payload;
use crate::plan::{Out, Plan};

/// A plan with what belongs to this one carrying out of it.
#[derive(Debug, Clone)]
#[must_use]
pub struct Submission {
    pub(crate) plan: Plan,
    pub(super) run: Option<RunId>,
    inputs: BTreeMap<StepName, Payload>,
    claims: Vec<Claim>,
    key: Option<IdempotencyKey>,
    labels: BTreeMap<String, String>,
    head_start: Duration,
    failed: Option<EngineError>,
}

impl Submission {
    /// This plan, with its own claims.
    pub fn new(plan: Plan) -> Self {
        let claims = plan.claims().to_vec();
        Self {
            plan,
            run: None,
            inputs: BTreeMap::new(),
            claims,
            key: None,
            labels: BTreeMap::new(),
            head_start: Duration::ZERO,
            failed: None,
        }
    }

    /// The id of the run; a new one unless said. For plans whose parameters name the run, such as the names of what it
    /// makes.
    pub fn run(mut self, run: RunId) -> Self {
        self.run = Some(run);
        self
    }

    /// Gives the value of an input of the plan.
    pub fn input<T: Serialize + 'static>(mut self, input: &Out<T>, value: &T) -> Self {
        let name = self.plan.nodes().get(input.node().index()).map(|node| node.name.clone());
        match (Payload::of(value), name) {
            (Ok(payload), Some(name)) => {
                self.inputs.insert(name, payload);
            }
            (Err(failure), _) => self.failed = Some(EngineError::BadValue(failure)),
            // A handle of another plan: its input will be found missing.
            (Ok(_), None) => {}
        }
        self
    }

    /// Claims something beyond what the plan claims.
    pub fn claim(mut self, claim: Claim) -> Self {
        self.claims.push(claim);
        self
    }

    /// The key under which a repeated submission is the same run.
    pub fn key(mut self, key: IdempotencyKey) -> Self {
        self.key = Some(key);
        self
    }

    /// Words of the embedder's, kept with the run and never read by the engine.
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }

    /// Goes before those that came up to this long before: what a priority is here, so that nobody starves.
    pub fn head_start(mut self, head_start: Duration) -> Self {
        self.head_start = head_start;
        self
    }

    pub(super) fn into_record(self, run: RunId, seed: u64) -> Result<Submitted, EngineError> {
        if let Some(failed) = self.failed {
            return Err(failed);
        }
        for claim in &self.claims {
            let Some(guard) = &claim.until else { continue };
            let outside = |node| self.plan.node(node).within.is_none();
            if !self.plan.find(guard.as_str()).is_some_and(outside) {
                return Err(EngineError::UnknownGuard { guard: guard.clone() });
            }
        }
        let mut claims = self.claims;
        claims.sort();
        claims.dedup();
        let submitted = Submitted {
            run,
            plan: self.plan,
            inputs: self.inputs,
            claims,
            key: self.key,
            labels: self.labels,
            head_start: self.head_start,
            seed,
        };
        Ok(submitted)
    }
}
