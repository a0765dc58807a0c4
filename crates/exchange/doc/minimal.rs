use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use stillpoint_exchange::*;

/// Databases at rest on one server, handed in as an inventory: a skeleton to start from.
#[derive(Debug)]
struct Minimal {
    inventory: Inventory,
    sessions: Mutex<BTreeMap<SessionId, Known>>,
}

#[derive(Debug)]
struct Known {
    session: Session,
    frozen: Option<Frozen>,
    end: Option<SessionState>,
}

impl Known {
    /// Freezes end at their limit and sessions with their lease (X1, X4): it shows when somebody looks.
    fn state(&mut self, now: DateTime<Utc>) -> SessionState {
        if self.session.lease_until <= now {
            self.end.get_or_insert(SessionState::Aborted);
        }
        self.frozen = self.frozen.take().filter(|frozen| frozen.until.is_none_or(|until| now < until));
        match (&self.end, &self.frozen) {
            (Some(end), _) => end.clone(),
            (None, Some(frozen)) => SessionState::Frozen { until: frozen.until },
            (None, None) => SessionState::Open,
        }
    }
}

fn refuse(kind: PluginErrorKind, message: &str) -> PluginError {
    PluginError::new(kind, message).without_effect()
}

fn gone() -> PluginError {
    refuse(PluginErrorKind::SessionGone, "there is no such session, or it is over")
}

impl Minimal {
    fn with<T>(&self, id: SessionId, act: impl FnOnce(&mut Known) -> T) -> Option<T> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.get_mut(&id).map(act)
    }

    /// The same with a session that is open or frozen.
    fn with_open<T>(&self, cx: &Cx, id: SessionId, act: impl FnOnce(&mut Known) -> T) -> PluginResult<T> {
        let is_on = |state| matches!(state, SessionState::Open | SessionState::Frozen { .. });
        self.with(id, |known| is_on(known.state(cx.now())).then(|| act(known))).flatten().ok_or_else(gone)
    }
}

#[async_trait]
impl ExchangePlugin for Minimal {
    fn caps(&self) -> PluginCaps {
        PluginCaps::new("minimal")
    }

    async fn inventory(&self, _: &Cx, scope: &Scope) -> PluginResult<Inventory> {
        let mut found = self.inventory.clone();
        found.copies.retain(|copy, _| match scope {
            Scope::Everything => true,
            Scope::Hosts(hosts) => hosts.contains(&copy.host),
            Scope::Databases(databases) => databases.contains(&copy.database),
            _ => false,
        });
        let copies = &found.copies;
        found.databases.retain(|id, _| copies.keys().any(|copy| copy.database == *id));
        Ok(found)
    }

    async fn begin(&self, cx: &Cx, spec: &SessionSpec) -> PluginResult<Session> {
        if !self.caps().kinds.contains(&spec.kind) {
            return Err(PluginError::unsupported("kind"));
        }
        let of_copy = |copy: &CopyId| {
            let known = self.inventory.copies.get(copy)?;
            Some(known.files.iter().map(|file| RequiredFile::of(copy.clone(), file)).collect::<Vec<_>>())
        };
        let files = spec.copies.iter().map(of_copy).collect::<Option<Vec<_>>>();
        let files = files.ok_or_else(|| refuse(PluginErrorKind::NotFound, "a copy is not in the inventory"))?;
        let session = Session::new(spec, files.concat(), cx.now() + spec.lease);
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let known = sessions.entry(spec.id).or_insert(Known { session, frozen: None, end: None });
        if !matches!(known.state(cx.now()), SessionState::Open | SessionState::Frozen { .. }) {
            return Err(gone());
        }
        known.session.lease_until = cx.now() + spec.lease; // X4: repeated, it is the same session, with a new lease
        Ok(known.session.clone())
    }

    async fn session(&self, cx: &Cx, id: SessionId) -> PluginResult<SessionState> {
        Ok(self.with(id, |known| known.state(cx.now())).unwrap_or(SessionState::Unknown))
    }

    async fn renew(&self, cx: &Cx, id: SessionId, lease: Duration) -> PluginResult<()> {
        self.with_open(cx, id, |known| known.session.lease_until = cx.now() + lease)
    }

    async fn freeze(&self, cx: &Cx, id: SessionId, limit: Option<Duration>) -> PluginResult<Frozen> {
        // Nobody writes: no limit is legal (X1). Repeated, it is the same freeze (X4).
        let now = cx.now();
        let frozen = Frozen::new(now, QuiesceLevel::AtRest, limit.map(|limit| now + limit));
        self.with_open(cx, id, |known| known.frozen.get_or_insert(frozen).clone())
    }

    async fn thaw(&self, _: &Cx, id: SessionId) -> PluginResult<()> {
        self.with(id, |known| known.frozen = None); // X2: right in any state
        Ok(())
    }

    async fn evidence(&self, _: &Cx, id: SessionId) -> PluginResult<SetOutcome> {
        let mut outcome = SetOutcome::new(QuiesceLevel::AtRest, EvidenceGrain::PerDatabase);
        let copies = self.with(id, |known| known.session.copies.clone()).ok_or_else(gone)?;
        // It looked at nothing, so it does not know (X7).
        outcome.copies = copies.into_iter().map(|copy| (copy, CopyEvidence::new(Held::Unknown))).collect();
        Ok(outcome)
    }

    async fn verify(&self, _: &Cx, _: &Exposure, _: &VerifySpec) -> PluginResult<VerifyReport> {
        Err(PluginError::unsupported("verify"))
    }

    async fn complete(
        &self, cx: &Cx, id: SessionId, _: &BTreeMap<CopyId, Verdict>,
    ) -> PluginResult<BTreeMap<CopyId, Completion>> {
        // At rest nothing is truncated, whatever the verdicts: the first call is the one that counts (X3).
        let end = |known: &mut Known| {
            let copies = known.session.copies.iter();
            let answers: BTreeMap<_, _> = copies.map(|copy| (copy.clone(), Completion::Completed)).collect();
            (known.frozen, known.end) = (None, Some(SessionState::Completed(answers.clone())));
            answers
        };
        match self.session(cx, id).await? {
            SessionState::Completed(answers) => Ok(answers),
            _ => self.with_open(cx, id, end),
        }
    }

    async fn abort(&self, _: &Cx, id: SessionId) -> PluginResult<()> {
        let end = |known: &mut Known| {
            known.frozen = None;
            known.end.get_or_insert(SessionState::Aborted);
        };
        self.with(id, end);
        Ok(())
    }

    async fn truncation(&self, _: &Cx, _: &CopyId, _: DateTime<Utc>) -> PluginResult<Truncation> {
        Ok(Truncation::NothingEligible { why: "nobody writes these files".to_owned() })
    }
}
