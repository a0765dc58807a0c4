//! Plug-ins of our own around the simulated one, with a place for each fault.

mod fault;
mod wanted;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use stillpoint_context::{Cx, Mono, Seams};
use stillpoint_exchange::{
    BackupKind, ClosedLogs, Completion, Coordination, CopyId, ExchangePlugin, ExchangeRestore,
    Exposure, Frozen, Held, Inventory, NativeSnapshot, PluginCaps, PluginError,
    PluginErrorKind as Kind, PluginResult, Prepared, QuiesceLevel, Scope, Session, SessionId,
    SessionSpec, SessionState, SetOutcome, Truncation, Verdict, VerifyReport, VerifySpec,
};
use stillpoint_model::evidence::EvidenceGrain;
use stillpoint_model::id::DatabaseId;
use stillpoint_model::inventory::{CopyFile, FileRole};
use stillpoint_testkit::conformance::plugin::SimOrganisations;
use stillpoint_testkit::{Change, SimExchange};

pub(crate) use fault::Fault;
pub(crate) use wanted::WANTED;

/// What a plug-in knows over all its openings. Sessions are never used twice, so one serves all places.
#[derive(Debug, Default)]
struct Memory {
    sessions: BTreeMap<SessionId, Session>,
    beginning: BTreeSet<SessionId>,
    freezing: BTreeSet<SessionId>,
    thawed: BTreeSet<SessionId>,
    aborted: BTreeSet<SessionId>,
    completed: BTreeSet<SessionId>,
    frozen: BTreeMap<SessionId, Mono>,
    answers: u32,
}

/// What writes late in a freeze writes so long after its beginning.
const LATE: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(crate) struct Faulty {
    fault: Fault,
    inner: SimExchange,
    memory: Arc<Mutex<Memory>>,
    /// The sessions that this opening has begun.
    begun: Mutex<BTreeSet<SessionId>>,
}

/// Places of the plug-in with this fault.
pub(crate) fn places(fault: Fault, seams: Seams) -> SimOrganisations {
    let memory = Arc::new(Mutex::new(Memory::default()));
    SimOrganisations::new(seams).with(move |plugin| {
        let inner = match fault {
            Fault::IgnoresTheLimit => plugin.with_caps(|caps| caps.freeze_limit = None),
            Fault::IgnoresTokens => plugin.with_caps(|caps| caps.fencing = false),
            Fault::FewDatabases => plugin.with_caps(|caps| caps.max_databases = NonZeroU32::new(2)),
            Fault::SnapsOnly => plugin.only(Coordination::Plugin),
            Fault::NoLogBackups => {
                plugin.with_caps(|caps| caps.kinds.retain(|kind| kind.takes_database()))
            }
            _ => plugin,
        };
        let (memory, begun) = (Arc::clone(&memory), Mutex::default());
        Arc::new(Faulty { fault, inner, memory, begun })
    })
}

fn refuse<T>(kind: Kind, message: &str) -> PluginResult<T> {
    Err(PluginError::new(kind, message).without_effect())
}

impl Faulty {
    fn is(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap()
    }

    fn begun_it(&self, id: SessionId) -> bool {
        self.begun.lock().unwrap().contains(&id)
    }

    fn answered(&self) -> TimeDelta {
        let mut memory = self.memory();
        memory.answers += 1;
        TimeDelta::seconds(memory.answers.into())
    }

    fn thaw_all(&self) {
        for host in self.inner.world().hosts() {
            self.inner.world().change(&Change::ThawByOperator(host));
        }
    }

    fn write_somewhere(&self, id: SessionId) {
        let files = self.memory().sessions.get(&id).map(|session| session.files.clone());
        // A closed log: the others are written anew by whoever looks.
        let closed = |file: &stillpoint_exchange::RequiredFile| file.generation.is_some();
        let log = files.and_then(|files| files.into_iter().find(closed));
        if let Some(log) = log {
            self.inner.world().write(&log.path, b"a line");
        }
    }
}

#[async_trait]
impl ExchangePlugin for Faulty {
    fn caps(&self) -> PluginCaps {
        let mut caps = self.inner.caps();
        match self.fault {
            Fault::ChangesItsCaps => {
                caps.restore = self.begun.lock().unwrap().is_empty();
            }
            Fault::IgnoresTheLimit => caps.freeze_limit = Some(Duration::from_secs(20)),
            Fault::IgnoresTokens => caps.fencing = true,
            Fault::SnapsUndeclared => caps.coordination = [Coordination::Engine].into(),
            Fault::FreezesUndeclared => caps.coordination = [Coordination::Plugin].into(),
            Fault::NamesLogsUndeclared => caps.kinds.retain(|kind| kind.takes_database()),
            Fault::TakesAnyNumber => caps.max_databases = NonZeroU32::new(2),
            _ => {}
        }
        caps
    }

    async fn inventory(&self, cx: &Cx, scope: &Scope) -> PluginResult<Inventory> {
        let scope = match scope {
            Scope::Databases(ids)
                if self.is(Fault::TakesNothingForEverything) && ids.is_empty() =>
            {
                &Scope::Everything
            }
            Scope::Databases(_) | Scope::Hosts(_) if self.is(Fault::KnowsNoScope) => {
                &Scope::Everything
            }
            scope => scope,
        };
        let mut inventory = self.inner.inventory(cx, scope).await?;
        match self.fault {
            Fault::CountsEpochs => {
                let epoch = format!("epoch-{}", self.answered().num_seconds());
                inventory.epoch = epoch.parse().unwrap();
            }
            Fault::IdsFollowNames => {
                let renamed = inventory.databases.values().find(|d| d.name.starts_with("renamed"));
                if let Some(old) = renamed.map(|database| database.id) {
                    let new = DatabaseId::at_rest(&[], "renamed");
                    let mut database = inventory.databases.remove(&old).unwrap();
                    database.id = new;
                    inventory.databases.insert(new, database);
                    for (mut id, mut copy) in std::mem::take(&mut inventory.copies) {
                        if id.database == old {
                            id.database = new;
                            copy.id = id.clone();
                        }
                        inventory.copies.insert(id, copy);
                    }
                }
            }
            Fault::LeavesOutDatabases => inventory.databases.clear(),
            _ => {}
        }
        Ok(inventory)
    }

    async fn begin(&self, cx: &Cx, spec: &SessionSpec) -> PluginResult<Session> {
        let known = self.memory().sessions.get(&spec.id).cloned();
        let mut wanted = spec.clone();
        match self.fault {
            Fault::BeginsOnce if known.is_some() => {
                return refuse(Kind::SessionGone, "it is begun");
            }
            Fault::BeginsAnyKind if !spec.kind.takes_database() => {
                wanted.kind = BackupKind::Full;
            }
            Fault::TruncatesCopies => wanted.kind = BackupKind::FullAndLog,
            Fault::KeepsSessionsForEver => wanted.lease = Duration::from_hours(10_000),
            Fault::BeginsOnTwoServers => {
                let host = wanted.copies[0].host.clone();
                wanted.copies.retain(|copy| copy.host == host);
            }
            Fault::LeavesWhatWasDropped => {
                self.memory().beginning.insert(spec.id);
            }
            _ => {}
        }
        let answer = self.inner.begin(cx, &wanted).await;
        let mut session = match (self.fault, answer) {
            (Fault::BeginsUnknownCopies, Err(e)) if *e.kind() == Kind::NotFound => {
                Session::new(spec, Vec::new(), cx.now())
            }
            (Fault::EndsTheFirstSession, Err(e)) if *e.kind() == Kind::NotAvailable => {
                for open in self.inner.world().open_sessions() {
                    self.inner.abort(cx, open).await?;
                }
                self.inner.begin(cx, &wanted).await?
            }
            (_, answer) => answer?,
        };
        if self.is(Fault::LeavesWhatWasDropped) {
            cx.sleep(Duration::from_millis(1)).await?;
            self.memory().beginning.remove(&spec.id);
        }
        self.begun.lock().unwrap().insert(spec.id);
        match self.fault {
            Fault::TruncatesCopies | Fault::ChangesTheKind => session.kind = spec.kind,
            Fault::KeepsTheLease => {
                if let Some(known) = &known {
                    session.lease_until = known.lease_until;
                }
            }
            Fault::NamesNoDatabaseFile => session.files.retain(|f| f.role != FileRole::Database),
            Fault::NamesOthersFiles => {
                let other = CopyId::new(DatabaseId::at_rest(&[], "x"), spec.copies[0].host.clone());
                session.files[0].copy = other;
            }
            _ => {}
        }
        self.memory().sessions.entry(spec.id).or_insert_with(|| session.clone());
        Ok(session)
    }

    async fn session(&self, cx: &Cx, id: SessionId) -> PluginResult<SessionState> {
        match self.fault {
            Fault::LooksNothingUp => return Ok(SessionState::Unknown),
            Fault::InventsAfterACrash
                if !self.begun_it(id) && self.memory().sessions.contains_key(&id) =>
            {
                return Ok(SessionState::Completed(BTreeMap::new()));
            }
            Fault::WritesWhileFrozen => {
                if matches!(self.inner.session(cx, id).await?, SessionState::Frozen { .. }) {
                    self.write_somewhere(id);
                }
            }
            Fault::WritesLateInTheFreeze => {
                let since = self.memory().frozen.get(&id).copied();
                let late = since.is_some_and(|at| cx.mono().saturating_since(at) > LATE);
                let state = self.inner.session(cx, id).await?;
                if late && matches!(state, SessionState::Frozen { .. }) {
                    self.write_somewhere(id);
                }
            }
            Fault::KnowsNoStrangers if !self.memory().sessions.contains_key(&id) => {
                return refuse(Kind::SessionGone, "there is no such session");
            }
            _ => {}
        }
        self.inner.session(cx, id).await
    }

    async fn renew(&self, cx: &Cx, id: SessionId, lease: Duration) -> PluginResult<()> {
        match self.fault {
            Fault::RenewsInWords => match self.inner.session(cx, id).await? {
                SessionState::Open | SessionState::Frozen { .. } => Ok(()),
                _ => self.inner.renew(cx, id, lease).await,
            },
            Fault::RenewsWhatIsGone => self.inner.renew(cx, id, lease).await.or(Ok(())),
            Fault::NeverShortens => {
                self.inner.renew(cx, id, lease.max(Duration::from_hours(10))).await
            }
            _ => self.inner.renew(cx, id, lease).await,
        }
    }

    async fn freeze(
        &self,
        cx: &Cx,
        id: SessionId,
        limit: Option<Duration>,
    ) -> PluginResult<Frozen> {
        match self.fault {
            Fault::FreezesInWords => {
                return Ok(Frozen::new(cx.now(), QuiesceLevel::App, Some(cx.now())));
            }
            Fault::IgnoresTheLimit => {
                let frozen = self.inner.freeze(cx, id, None).await?;
                let own = Duration::from_secs(20);
                let most = limit.map_or(own, |limit| limit.min(own));
                return Ok(Frozen::new(frozen.at, frozen.level, Some(frozen.at + most)));
            }
            Fault::FreezesInATask => {
                let told = Arc::new(Mutex::new(None));
                let (inner, theirs, tell) = (self.inner.clone(), cx.clone(), Arc::clone(&told));
                let task = async move {
                    let answer = inner.freeze(&theirs, id, limit).await;
                    *tell.lock().unwrap() = Some(answer);
                };
                cx.seams().spawner.spawn("freeze", Box::pin(task));
                for _ in 0..100 {
                    if let Some(answer) = told.lock().unwrap().take() {
                        return answer;
                    }
                    cx.sleep(Duration::from_millis(1)).await?;
                }
                return refuse(Kind::Internal, "the task is gone");
            }
            Fault::FreezesWhatIsGone if self.memory().aborted.contains(&id) => {
                return Ok(Frozen::new(cx.now(), QuiesceLevel::App, Some(cx.now())));
            }
            Fault::LosesWhatWasDropped | Fault::OutlastsItsThaw => {
                self.memory().freezing.insert(id);
            }
            _ => {}
        }
        let answer = self.inner.freeze(cx, id, limit).await;
        let mut frozen = match (self.fault, answer) {
            (Fault::ThawsTheFirst, Err(e)) if *e.kind() == Kind::BusyOtherRequester => {
                self.thaw_all();
                self.inner.freeze(cx, id, limit).await?
            }
            (_, answer) => answer?,
        };
        match self.fault {
            Fault::LosesWhatWasDropped => {
                cx.sleep(Duration::from_millis(1)).await?;
                self.memory().freezing.remove(&id);
            }
            Fault::OutlastsItsThaw => {
                // Nobody who drops it: a thaw that comes meanwhile is passed by.
                let unmark = Unmark(&self.memory, id);
                cx.sleep(Duration::from_millis(1)).await?;
                drop(unmark);
            }
            Fault::SaysAnotherLevel => frozen.level = QuiesceLevel::AppIoHeld,
            Fault::SaysNoEnd => frozen.until = None,
            Fault::SaysALaterEnd => {
                frozen.until = frozen.until.map(|until| until + TimeDelta::minutes(1));
            }
            Fault::FreezesAnewEachTime => frozen.at += self.answered(),
            Fault::WritesLateInTheFreeze => {
                self.memory().frozen.insert(id, cx.mono());
            }
            _ => {}
        }
        Ok(frozen)
    }

    async fn thaw(&self, cx: &Cx, id: SessionId) -> PluginResult<()> {
        match self.fault {
            Fault::ThawsOnce if !self.memory().thawed.insert(id) => {
                return refuse(Kind::SessionGone, "it is thawed");
            }
            Fault::ThawsNoStrangers if !self.memory().sessions.contains_key(&id) => {
                return refuse(Kind::SessionGone, "there is no such session");
            }
            Fault::ThawsEverything => self.thaw_all(),
            Fault::ThawsInWords => return Ok(()),
            Fault::LosesWhatWasDropped | Fault::OutlastsItsThaw
                if self.memory().freezing.contains(&id) =>
            {
                return Ok(());
            }
            Fault::ForgetsFreezesAtACrash if !self.begun_it(id) => return Ok(()),
            _ => {}
        }
        self.inner.thaw(cx, id).await
    }

    async fn snap(
        &self,
        cx: &Cx,
        id: SessionId,
        prepared: &[Prepared],
    ) -> PluginResult<Vec<NativeSnapshot>> {
        match self.fault {
            Fault::SnapsUndeclared => return Ok(Vec::new()),
            Fault::StaysFrozenAfterAFailure if prepared.is_empty() => {
                self.inner.freeze(cx, id, None).await?;
            }
            _ => {}
        }
        let mut natives = self.inner.snap(cx, id, prepared).await?;
        match self.fault {
            Fault::SnapsInPart => drop(natives.pop()),
            Fault::SnapsAnewEachTime => {
                let later = self.answered();
                for native in &mut natives {
                    native.taken_at += later;
                }
            }
            _ => {}
        }
        Ok(natives)
    }

    async fn evidence(&self, cx: &Cx, id: SessionId) -> PluginResult<SetOutcome> {
        if self.is(Fault::KnowsAllEvidence) && !self.memory().sessions.contains_key(&id) {
            return Ok(SetOutcome::new(QuiesceLevel::App, EvidenceGrain::PerDatabase));
        }
        let mut outcome = self.inner.evidence(cx, id).await?;
        match self.fault {
            Fault::SaysNothingOfOne => drop(outcome.copies.pop_last()),
            Fault::SaysAnotherGrain => outcome.grain = EvidenceGrain::PerWriter,
            Fault::SaysItAlwaysHeld => {
                for copy in outcome.copies.values_mut() {
                    copy.held = Held::Yes;
                }
            }
            Fault::SaysItHeldThoughBroken => {
                for copy in outcome.copies.values_mut() {
                    if matches!(copy.held, Held::Broken(_)) && outcome.thawed_at.is_some() {
                        copy.held = Held::Yes;
                    }
                }
            }
            Fault::ReadsEvidenceAnew => {
                let later = self.answered();
                outcome.thawed_at = outcome.thawed_at.map(|at| at + later);
            }
            _ => {}
        }
        Ok(outcome)
    }

    async fn verify(
        &self,
        cx: &Cx,
        exposure: &Exposure,
        spec: &VerifySpec,
    ) -> PluginResult<VerifyReport> {
        let mut report = self.inner.verify(cx, exposure, spec).await?;
        match self.fault {
            Fault::VerifiesInWords => {
                for copy in report.copies.values_mut() {
                    copy.verdict = Verdict::Good;
                }
            }
            Fault::FailsWhatIsBad if report.copies.values().any(|copy| !copy.verdict.is_good()) => {
                return Err(PluginError::new(Kind::Io, "it is bad"));
            }
            _ => {}
        }
        Ok(report)
    }

    async fn complete(
        &self,
        cx: &Cx,
        id: SessionId,
        verdicts: &BTreeMap<CopyId, Verdict>,
    ) -> PluginResult<BTreeMap<CopyId, Completion>> {
        let mut verdicts = verdicts.clone();
        let copies = self.memory().sessions.get(&id).map(|s| s.copies.clone()).unwrap_or_default();
        match self.fault {
            Fault::TakesBadForGood => {
                for verdict in verdicts.values_mut() {
                    *verdict = Verdict::Good;
                }
            }
            Fault::TakesNothingForGood => {
                for copy in &copies {
                    verdicts.entry(copy.clone()).or_insert(Verdict::Good);
                }
            }
            _ => {}
        }
        let answer = self.inner.complete(cx, id, &verdicts).await;
        if self.is(Fault::CompletesWhatIsUnknown) && answer.is_err() {
            return Ok(verdicts.keys().map(|copy| (copy.clone(), Completion::Completed)).collect());
        }
        let mut answers = answer?;
        let is_new = self.memory().completed.insert(id);
        match self.fault {
            Fault::CompletesInPart => answers.retain(|copy, _| verdicts.contains_key(copy)),
            Fault::CompletesAnewEachTime if !is_new => {
                let reason = || Completion::Unconfirmed { reason: "it was completed".to_owned() };
                for answer in answers.values_mut() {
                    *answer = reason();
                }
            }
            Fault::CompletesWhatIsGone => {
                for answer in answers.values_mut() {
                    *answer = Completion::Completed;
                }
            }
            _ => {}
        }
        Ok(answers)
    }

    async fn abort(&self, cx: &Cx, id: SessionId) -> PluginResult<()> {
        let is_new = self.memory().aborted.insert(id);
        let state = self.inner.session(cx, id).await?;
        match self.fault {
            Fault::AbortsOnce if !is_new => return refuse(Kind::SessionGone, "it is aborted"),
            Fault::AbortsNoStrangers if state == SessionState::Unknown => {
                return refuse(Kind::SessionGone, "there is no such session");
            }
            Fault::LeavesFrozenAtAnAbort if matches!(state, SessionState::Frozen { .. }) => {
                return Ok(());
            }
            Fault::LeavesWhatWasDropped if self.memory().beginning.contains(&id) => return Ok(()),
            Fault::KeepsSessionsOfTheDead if !self.begun_it(id) => return Ok(()),
            _ => {}
        }
        self.inner.abort(cx, id).await
    }

    async fn truncation(
        &self,
        cx: &Cx,
        copy: &CopyId,
        since: DateTime<Utc>,
    ) -> PluginResult<Truncation> {
        if self.is(Fault::AssumesTruncation) {
            return Ok(Truncation::Pending);
        }
        self.inner.truncation(cx, copy, since).await
    }

    async fn closed_logs(&self, cx: &Cx, copy: &CopyId) -> PluginResult<ClosedLogs> {
        let world = self.inner.world();
        let copy = match self.fault {
            Fault::NamesLogsOfStrangers => &world.copies()[0],
            _ => copy,
        };
        let mut closed = self.inner.closed_logs(cx, copy).await?;
        match self.fault {
            Fault::NamesLogsTwice => closed.files.extend(closed.files.clone()),
            Fault::NamesTheOpenLog => {
                let is_open = |file: &stillpoint_exchange::RequiredFile| {
                    file.role == FileRole::Log && file.generation.is_none()
                };
                let open = world.files(copy).into_iter().find(is_open).unwrap();
                let open = CopyFile::new(open.path, FileRole::Log);
                closed.files.push(open.with_generation(closed.state.open.unwrap()));
            }
            Fault::WritesClosedLogs => {
                let answer = self.answered().to_string();
                world.write(&closed.files[0].path, answer.as_bytes());
            }
            _ => {}
        }
        Ok(closed)
    }

    fn restore(&self) -> Option<&dyn ExchangeRestore> {
        if self.is(Fault::HasNoRestoreSide) { None } else { self.inner.restore() }
    }
}

/// Forgets, also when it is dropped, that a freeze is under way.
struct Unmark<'a>(&'a Mutex<Memory>, SessionId);

impl Drop for Unmark<'_> {
    fn drop(&mut self) {
        self.0.lock().unwrap().freezing.remove(&self.1);
    }
}
