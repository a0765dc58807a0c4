use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use stillpoint_exchange::*;

/// One database at rest, handed in as an inventory: a skeleton to start from.
#[derive(Debug)]
struct Minimal {
    inventory: Inventory,
    sessions: Mutex<BTreeMap<SessionId, (Session, SessionState)>>,
}

impl Minimal {
    fn with<T>(&self, id: SessionId, act: impl FnOnce(&mut (Session, SessionState)) -> T) -> PluginResult<T> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = || PluginError::new(PluginErrorKind::SessionGone, "no such session").without_effect();
        sessions.get_mut(&id).map(act).ok_or_else(gone)
    }
}

#[async_trait]
impl ExchangePlugin for Minimal {
    fn caps(&self) -> PluginCaps {
        PluginCaps::new("minimal")
    }

    async fn inventory(&self, _: &Cx, _: &Scope) -> PluginResult<Inventory> {
        Ok(self.inventory.clone())
    }

    async fn begin(&self, cx: &Cx, spec: &SessionSpec) -> PluginResult<Session> {
        let of_copy = |copy: &CopyId| {
            let known = self.inventory.copies.get(copy)?;
            Some(known.files.iter().map(|file| RequiredFile::of(copy.clone(), file)).collect::<Vec<_>>())
        };
        let files = spec.copies.iter().map(of_copy).collect::<Option<Vec<_>>>().ok_or_else(|| {
            PluginError::new(PluginErrorKind::NotFound, "a copy is not in the inventory").without_effect()
        })?;
        let session = Session::new(spec, files.concat(), cx.now() + spec.lease);
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let (session, _) = sessions.entry(spec.id).or_insert((session, SessionState::Open)); // X4
        Ok(session.clone())
    }

    async fn session(&self, _: &Cx, id: SessionId) -> PluginResult<SessionState> {
        Ok(self.with(id, |(_, state)| state.clone()).unwrap_or(SessionState::Unknown))
    }

    async fn renew(&self, cx: &Cx, id: SessionId, lease: Duration) -> PluginResult<()> {
        self.with(id, |(session, _)| session.lease_until = cx.now() + lease)
    }

    async fn freeze(&self, cx: &Cx, id: SessionId, _: Option<Duration>) -> PluginResult<Frozen> {
        self.with(id, |(_, state)| *state = SessionState::Frozen { until: None })?;
        Ok(Frozen::new(cx.now(), QuiesceLevel::AtRest, None)) // nobody writes: no limit is legal (X1)
    }

    async fn thaw(&self, _: &Cx, id: SessionId) -> PluginResult<()> {
        let thaw = |(_, state): &mut (Session, SessionState)| {
            if matches!(state, SessionState::Frozen { .. }) {
                *state = SessionState::Open;
            }
        };
        self.with(id, thaw).or(Ok(())) // X2: right in any state
    }

    async fn evidence(&self, _: &Cx, id: SessionId) -> PluginResult<SetOutcome> {
        let mut outcome = SetOutcome::new(QuiesceLevel::AtRest, EvidenceGrain::PerDatabase);
        let copies = self.with(id, |(session, _)| session.copies.clone())?;
        // It looked at nothing, so it does not know (X7).
        outcome.copies = copies.into_iter().map(|copy| (copy, CopyEvidence::new(Held::Unknown))).collect();
        Ok(outcome)
    }

    async fn verify(&self, _: &Cx, _: &Exposure, _: &VerifySpec) -> PluginResult<VerifyReport> {
        Err(PluginError::unsupported("verify"))
    }

    async fn complete(
        &self, _: &Cx, id: SessionId, verdicts: &BTreeMap<CopyId, Verdict>,
    ) -> PluginResult<BTreeMap<CopyId, Completion>> {
        let answers: BTreeMap<_, _> =
            verdicts.keys().map(|copy| (copy.clone(), Completion::Completed)).collect();
        self.with(id, |(_, state)| *state = SessionState::Completed(answers.clone()))?;
        Ok(answers)
    }

    async fn abort(&self, _: &Cx, id: SessionId) -> PluginResult<()> {
        self.with(id, |(_, state)| *state = SessionState::Aborted).or(Ok(()))
    }

    async fn truncation(&self, _: &Cx, _: &CopyId, _: DateTime<Utc>) -> PluginResult<Truncation> {
        Ok(Truncation::NothingEligible { why: "nobody writes these files".to_owned() })
    }
}
