//! What the arbiter does about what it is told.

use stillpoint_context::{FencingToken, Mono, RunId};

use super::state::ArbiterState;
use super::{ArbiterCommand, ArbiterInput, ArbiterRecord, GrantPolicy};

/// The arbiter machine.
#[derive(Debug, Clone, Default)]
pub(crate) struct ArbiterMachine {
    state: ArbiterState,
    policy: GrantPolicy,
}

impl ArbiterMachine {
    pub(crate) fn new(policy: GrantPolicy) -> Self {
        Self { state: ArbiterState::default(), policy }
    }

    pub(crate) fn state(&self) -> &ArbiterState {
        &self.state
    }

    /// Takes note of a record that was read from the log.
    pub(crate) fn apply(&mut self, record: &ArbiterRecord) {
        self.state.apply(record, self.policy);
    }

    fn note(&mut self, record: ArbiterRecord, records: &mut Vec<ArbiterRecord>) {
        self.apply(&record);
        records.push(record);
    }

    /// Takes an input; adds to the records of the round and to what is told once they are appended.
    pub(crate) fn on(
        &mut self,
        now: Mono,
        input: ArbiterInput,
        records: &mut Vec<ArbiterRecord>,
        gated: &mut Vec<ArbiterCommand>,
    ) {
        match input {
            ArbiterInput::Ask { run, claims, head_start } => {
                if self.state.knows(run) {
                    return;
                }
                self.note(ArbiterRecord::Queued { run, claims, head_start, at: now }, records);
                if !self.grant(run, records, gated) {
                    gated.push(ArbiterCommand::Waits { run });
                }
            }
            ArbiterInput::Release { run, keys } => {
                if !self.state.knows(run) {
                    return;
                }
                let watchers = self.state.watchers(run);
                self.note(ArbiterRecord::Released { run, keys }, records);
                for watcher in watchers {
                    if self.state.waits(watcher) && !self.grant(watcher, records, gated) {
                        gated.push(ArbiterCommand::Waits { run: watcher });
                    }
                }
            }
        }
    }

    /// Grants a run what it waits for, if nothing stands in its way.
    fn grant(
        &mut self,
        run: RunId,
        records: &mut Vec<ArbiterRecord>,
        gated: &mut Vec<ArbiterCommand>,
    ) -> bool {
        if !self.state.is_free(run) {
            return false;
        }
        self.note(ArbiterRecord::Granted { run }, records);
        gated.push(ArbiterCommand::Granted { run, fence: FencingToken(self.state.head()) });
        true
    }
}
