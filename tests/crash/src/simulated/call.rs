//! What each call comes to, noted before and after.

use std::sync::atomic::{AtomicU64, Ordering};

use stillpoint_context::Cx;
use stillpoint_exchange::{ExchangePlugin as _, Inventory, PluginErrorKind, Scope, SessionSpec};
use stillpoint_model::availability::Reason;
use stillpoint_model::inventory::{CopyStatus, FileRole, WriterState};
use tokio::runtime::Handle;

use super::SimulatedExchange;
use super::write::pulse_of;
use crate::ledger::What;
use crate::wire::{Answer, Ask, Caller, Refusal, Reply, Request};

/// Numbers the calls of this process.
static CALLS: AtomicU64 = AtomicU64::new(1);

impl SimulatedExchange {
    /// Answers a call. Blocks; `runtime` is where files are read.
    ///
    /// # Errors
    /// As the trait says for each call.
    pub fn answer(&self, cx: &Cx, runtime: &Handle, request: &Request) -> Answer {
        let Request { caller, ask } = request;
        if let Ask::AwaitThaw = ask {
            self.await_thaw();
            return Ok(Reply::Done);
        }
        let call = CALLS.fetch_add(1, Ordering::Relaxed);
        let (name, session) = (ask.name().to_owned(), ask.session());
        let (run, fence) = (caller.run, caller.fence);
        let step = caller.step.clone();
        self.0.ledger.note(What::Called { call, ask: name.clone(), run, step, fence, session });
        let answer = self.perform(cx, runtime, caller, ask);
        let outcome = match &answer {
            Ok(_) => "ok".to_owned(),
            Err(refusal) => refusal.code.clone(),
        };
        self.0.ledger.note(What::Answered { call, ask: name, run, fence, session, outcome });
        answer
    }

    fn perform(&self, cx: &Cx, runtime: &Handle, caller: &Caller, ask: &Ask) -> Answer {
        let inner = &self.0;
        match ask {
            Ask::Caps => Ok(Reply::Caps(Box::new(self.caps()))),
            Ask::Inventory(scope) => {
                self.inventory(cx, runtime, scope).map(|found| Reply::Inventory(Box::new(found)))
            }
            Ask::Begin(spec) => self.begin(cx, runtime, caller, spec),
            Ask::Session(id) => Ok(Reply::State(inner.look_up(cx, *id))),
            Ask::Renew { id, lease } => inner.renew(cx, caller, *id, *lease).map(|()| Reply::Done),
            Ask::Freeze { id, limit } => inner.freeze(cx, caller, *id, *limit).map(Reply::Frozen),
            Ask::Thaw(id) => inner.thaw(cx, caller, *id).map(|()| Reply::Done),
            Ask::Evidence(id) => {
                inner.evidence(cx, *id).map(|outcome| Reply::Evidence(Box::new(outcome)))
            }
            Ask::Verify { exposure, spec } => {
                let report = runtime.block_on(inner.files.verify(cx, exposure, spec));
                report.map(|report| Reply::Verified(Box::new(report))).map_err(|e| Refusal::of(&e))
            }
            Ask::Complete { id, verdicts } => {
                inner.complete(cx, caller, *id, verdicts).map(Reply::Completed)
            }
            Ask::Abort(id) => inner.abort(cx, caller, *id).map(|()| Reply::Done),
            Ask::Truncation { copy, .. } => Ok(Reply::Truncation(inner.truncation(copy))),
            Ask::AwaitThaw => Ok(Reply::Done),
        }
    }

    fn begin(&self, cx: &Cx, runtime: &Handle, caller: &Caller, spec: &SessionSpec) -> Answer {
        if !self.caps().kinds.contains(&spec.kind) {
            return Err(Refusal::of(&stillpoint_exchange::PluginError::unsupported("kind")));
        }
        if spec.copies.is_empty() {
            let message = "a session needs at least one copy";
            return Err(Refusal::new(PluginErrorKind::Invalid, message));
        }
        if let Some(session) = self.0.begun_before(cx, caller, spec)? {
            return Ok(Reply::Session(Box::new(session)));
        }
        let databases = spec.copies.iter().map(|copy| copy.database).collect();
        let inventory = self.inventory(cx, runtime, &Scope::Databases(databases))?;
        self.0.begin(cx, caller, spec, &inventory).map(|session| Reply::Session(Box::new(session)))
    }

    /// What lies in the folder, as a server that has it mounted would tell it.
    fn inventory(&self, cx: &Cx, runtime: &Handle, scope: &Scope) -> Result<Inventory, Refusal> {
        let found = runtime.block_on(self.0.files.inventory(cx, scope));
        let mut inventory = found.map_err(|error| Refusal::of(&error))?;
        for host in inventory.hosts.values_mut() {
            host.writer = WriterState::Stable;
        }
        for copy in inventory.copies.values_mut() {
            copy.status = CopyStatus::Mounted;
            let databases = copy.files.iter().filter(|file| file.role == FileRole::Database);
            let pulses: Vec<_> = databases.filter_map(|file| pulse_of(&file.path)).collect();
            copy.files.extend(pulses);
            if self.0.in_backup(cx, &copy.id) {
                copy.availability.reasons.push(Reason::BackupInProgress);
            }
        }
        inventory.epoch = inventory.structural_epoch();
        Ok(inventory)
    }
}
