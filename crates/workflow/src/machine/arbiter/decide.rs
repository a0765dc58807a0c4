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

    /// A machine that goes on from a state.
    pub(crate) fn of(state: ArbiterState, policy: GrantPolicy) -> Self {
        Self { state, policy }
    }

    pub(crate) fn state(&self) -> &ArbiterState {
        &self.state
    }

    /// Takes note of a record that was read from the log.
    pub(crate) fn apply(&mut self, record: &ArbiterRecord) {
        let _looked_at = self.state.apply(record, self.policy);
    }

    /// Takes note of a record of its own; gives the waiting runs to which it may make a difference.
    fn note(&mut self, record: ArbiterRecord, records: &mut Vec<ArbiterRecord>) -> Vec<RunId> {
        let looked_at = self.state.apply(&record, self.policy);
        records.push(record);
        looked_at
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
                // The line has one time, whatever the clocks of the processes that stand in it say.
                let at = now.max(self.state.latest());
                let record = ArbiterRecord::Queued { run, claims, head_start, at };
                let looked_at = self.note(record, records);
                self.grant(looked_at, records, gated);
            }
            ArbiterInput::Adopt { run, claims, head_start } => {
                if !self.state.knows(run) {
                    self.on(now, ArbiterInput::Ask { run, claims, head_start }, records, gated);
                } else if self.state.waits(run) {
                    gated.push(ArbiterCommand::Waits { run });
                } else {
                    let _nobody = self.note(ArbiterRecord::Regranted { run }, records);
                    let fence = FencingToken(self.state.head());
                    gated.push(ArbiterCommand::Granted { run, fence });
                }
            }
            ArbiterInput::Release { run, claims } => {
                if !self.state.knows(run) {
                    return;
                }
                let looked_at = self.note(ArbiterRecord::Released { run, claims }, records);
                self.grant(looked_at, records, gated);
            }
        }
    }

    /// Adds a snapshot, if enough has been written since the last one to pay for it.
    pub(crate) fn snapshot_if_due(&mut self, records: &mut Vec<ArbiterRecord>) {
        if self.state.is_snapshot_due() {
            let record = ArbiterRecord::Snapshot(Box::new(self.state.snapshot()));
            let _nobody = self.note(record, records);
        }
    }

    /// Grants runs what they wait for, if nothing stands in their way any more.
    fn grant(
        &mut self,
        runs: Vec<RunId>,
        records: &mut Vec<ArbiterRecord>,
        gated: &mut Vec<ArbiterCommand>,
    ) {
        for run in runs {
            if self.state.is_free(run) {
                let _nobody = self.note(ArbiterRecord::Granted { run }, records);
                gated.push(ArbiterCommand::Granted { run, fence: FencingToken(self.state.head()) });
            } else {
                gated.push(ArbiterCommand::Waits { run });
            }
        }
    }
}
