//! A plug-in for ledgers: text files at rest that begin with the id of their database and end with `end`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use stillpoint::context::{HostId, HostPath};
use stillpoint::exchange::{
    Cause, Completion, CopyEvidence, CopyId, CopyReport, Cx, DatabaseId, EvidenceGrain,
    ExchangePlugin, Exposure, Frozen, Held, Inventory, PluginCaps, PluginError, PluginErrorKind,
    PluginResult, QuiesceLevel, RequiredFile, Scope, Session, SessionId, SessionSpec, SessionState,
    SetOutcome, Truncation, Verdict, VerifyFile, VerifyReport, VerifySpec,
};
use stillpoint::model::availability::{Availability, Reason};
use stillpoint::model::inventory::{
    CopyFile, CopyRole, CopyStatus, Database, DatabaseCopy, FileRole, Host,
};
use stillpoint::model::verdict::{Finding, FindingKind};

/// What a file looked like; another look tells whether somebody wrote it.
type Stamp = Option<(u64, SystemTime)>;

fn stamp(path: &HostPath) -> Stamp {
    let facts = fs::metadata(path.to_native().ok()?).ok()?;
    Some((facts.len(), facts.modified().ok()?))
}

#[derive(Debug, Clone)]
struct Open {
    session: Session,
    state: SessionState,
    frozen_at: Option<DateTime<Utc>>,
    thawed_at: Option<DateTime<Utc>>,
    ran_out: bool,
    stamps: BTreeMap<HostPath, Stamp>,
}

fn gone() -> PluginError {
    PluginError::new(PluginErrorKind::SessionGone, "the session is not open").without_effect()
}

impl Open {
    fn is_open(&self) -> bool {
        matches!(self.state, SessionState::Open | SessionState::Frozen { .. })
    }

    fn thaw(&mut self, at: DateTime<Utc>) {
        if matches!(self.state, SessionState::Frozen { .. }) {
            self.state = SessionState::Open;
            self.thawed_at = Some(at);
        }
    }

    /// Ends what is over by now.
    fn pass(&mut self, now: DateTime<Utc>) {
        if let SessionState::Frozen { until: Some(until) } = self.state
            && until <= now
        {
            self.thaw(until);
            self.ran_out = true;
        }
        if self.is_open() && self.session.lease_until <= now {
            self.thaw(now);
            self.state = SessionState::Aborted;
        }
    }
}

/// Ledgers in one folder.
#[derive(Debug)]
pub struct Ledger {
    host: HostId,
    root: PathBuf,
    sessions: Mutex<BTreeMap<SessionId, Open>>,
}

impl Ledger {
    /// The ledgers in `root`.
    pub fn new(host: HostId, root: &Path) -> Self {
        Self { host, root: root.to_owned(), sessions: Mutex::default() }
    }

    /// The verdicts with which the sessions so far were completed.
    pub fn completed(&self) -> Vec<BTreeMap<CopyId, Completion>> {
        let done = |open: &Open| match &open.state {
            SessionState::Completed(answers) => Some(answers.clone()),
            _ => None,
        };
        self.sessions().values().filter_map(done).collect()
    }

    fn sessions(&self) -> MutexGuard<'_, BTreeMap<SessionId, Open>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session as it is now: leases and limits end by the clock, whoever looks.
    fn with<T>(&self, cx: &Cx, id: SessionId, act: impl FnOnce(&mut Open) -> T) -> PluginResult<T> {
        let mut sessions = self.sessions();
        let open = sessions.get_mut(&id).ok_or_else(gone)?;
        open.pass(cx.now());
        Ok(act(open))
    }

    /// A session that is open, frozen or not.
    fn with_open<T>(
        &self,
        cx: &Cx,
        id: SessionId,
        act: impl FnOnce(&mut Open) -> T,
    ) -> PluginResult<T> {
        self.with(cx, id, |open| open.is_open().then(|| act(open)))?.ok_or_else(gone)
    }

    fn take_inventory(&self, now: DateTime<Utc>) -> PluginResult<Inventory> {
        let unread = |error| PluginError::io(format!("list {}", self.root.display()), error);
        let mut inventory = Inventory::new("unset".parse().expect("a legal epoch"), now);
        inventory.add_host(Host::new(self.host.clone()));
        for entry in fs::read_dir(&self.root).map_err(unread)? {
            let path = entry.map_err(unread)?.path();
            if path.extension().is_none_or(|extension| extension != "ledger") {
                continue;
            }
            let at = HostPath::from_native(self.host.clone(), &path)?;
            let (id, trouble) = match fs::read_to_string(&path) {
                Ok(text) => judge(&text),
                Err(error) => (None, Some(error.to_string())),
            };
            let place = at.as_str().to_owned();
            let id = id.unwrap_or_else(|| DatabaseId::at_rest(&[], &place));
            let reason = |message| Reason::Damaged { file: at.clone(), message };
            let availability = match trouble {
                None => Availability::available(now),
                Some(message) => Availability::unavailable(now, vec![reason(message)]),
            };
            let copy = CopyId::new(id, self.host.clone());
            let mut copy =
                DatabaseCopy::new(copy, CopyRole::Active, CopyStatus::AtRest, availability);
            let bytes = fs::metadata(&path).map(|facts| facts.len()).unwrap_or_default();
            copy.files.push(CopyFile::new(at.clone(), FileRole::Database).with_bytes(bytes));
            inventory.add_copy(copy);
            inventory.add_database(Database::new(id, at.file_name().unwrap_or(&place)));
        }
        inventory.epoch = inventory.structural_epoch();
        Ok(inventory)
    }
}

/// The id of a ledger, and what is wrong with it.
fn judge(text: &str) -> (Option<DatabaseId>, Option<String>) {
    let mut lines = text.lines();
    let id = lines.next().and_then(|line| line.parse().ok());
    let trouble = match (id, lines.next_back()) {
        (None, _) => Some("the first line is no id".to_owned()),
        (_, Some("end")) => None,
        _ => Some("it has no end".to_owned()),
    };
    (id, trouble)
}

/// What is wrong with one file of an exposure.
fn check(exposure: &Exposure, wanted: &VerifyFile) -> Option<Finding> {
    let name = wanted.file.path.file_name().unwrap_or_default();
    let finding = |kind, message: String| Some(Finding::new(name, kind, message));
    let found = exposure.find(&wanted.file.path).and_then(|path| path.to_native().ok());
    let Some(path) = found else {
        return finding(FindingKind::Missing, "it is not in the exposure".to_owned());
    };
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) => return finding(FindingKind::Unreadable, error.to_string()),
    };
    if let Some(Err(error)) = wanted.seal.as_ref().map(|seal| seal.check_all(&bytes)) {
        return finding(FindingKind::Seal, error.to_string())
            .map(|finding| finding.at_offset(error.offset()));
    }
    let (_, trouble) = judge(&String::from_utf8_lossy(&bytes));
    trouble.and_then(|message| finding(FindingKind::Structure, message))
}

#[async_trait]
impl ExchangePlugin for Ledger {
    fn caps(&self) -> PluginCaps {
        let mut caps = PluginCaps::new("ledger");
        let kinds = stillpoint::exchange::BackupKind::ALL.into_iter();
        caps.kinds = kinds.filter(|kind| kind.takes_database()).collect();
        caps.verify = true;
        caps
    }

    async fn inventory(&self, cx: &Cx, scope: &Scope) -> PluginResult<Inventory> {
        let mut all = self.take_inventory(cx.now())?;
        match scope {
            Scope::Databases(wanted) => {
                all.databases.retain(|id, _| wanted.contains(id));
                all.copies.retain(|id, _| wanted.contains(&id.database));
            }
            Scope::Hosts(wanted) if !wanted.contains(&self.host) => {
                (all.databases, all.copies) = Default::default();
            }
            _ => {}
        }
        Ok(all)
    }

    async fn begin(&self, cx: &Cx, spec: &SessionSpec) -> PluginResult<Session> {
        if !self.caps().kinds.contains(&spec.kind) {
            return Err(PluginError::unsupported("kind"));
        }
        let inventory = self.take_inventory(cx.now())?;
        let mut files = Vec::new();
        for id in &spec.copies {
            let copy = inventory.copies.get(id).filter(|copy| copy.availability.is_available());
            let copy = copy.ok_or_else(|| {
                let message = format!("{id} cannot be backed up");
                PluginError::new(PluginErrorKind::NotAvailable, message).without_effect()
            })?;
            files.extend(copy.files.iter().map(|file| RequiredFile::of(id.clone(), file)));
        }
        let session = Session::new(spec, files, cx.now() + spec.lease);
        let open = Open {
            session,
            state: SessionState::Open,
            frozen_at: None,
            thawed_at: None,
            ran_out: false,
            stamps: BTreeMap::new(),
        };
        let _new = self.sessions().entry(spec.id).or_insert(open);
        // X3 and X4: begun again it is the same session, of the same kind, with a lease that begins anew.
        self.with_open(cx, spec.id, |open| {
            open.session.lease_until = cx.now() + spec.lease;
            open.session.clone()
        })
    }

    async fn session(&self, cx: &Cx, id: SessionId) -> PluginResult<SessionState> {
        Ok(self.with(cx, id, |open| open.state.clone()).unwrap_or(SessionState::Unknown))
    }

    async fn renew(&self, cx: &Cx, id: SessionId, lease: Duration) -> PluginResult<()> {
        self.with_open(cx, id, |open| open.session.lease_until = cx.now() + lease)
    }

    async fn freeze(
        &self,
        cx: &Cx,
        id: SessionId,
        limit: Option<Duration>,
    ) -> PluginResult<Frozen> {
        self.with_open(cx, id, |open| {
            if !matches!(open.state, SessionState::Frozen { .. }) {
                let paths = open.session.files.iter().map(|file| file.path.clone());
                open.stamps = paths.map(|path| (path.clone(), stamp(&path))).collect();
                open.state = SessionState::Frozen { until: limit.map(|limit| cx.now() + limit) };
                (open.frozen_at, open.thawed_at) = (Some(cx.now()), None);
            }
            let SessionState::Frozen { until } = open.state else { unreachable!("just frozen") };
            Frozen::new(open.frozen_at.unwrap_or(cx.now()), QuiesceLevel::AtRest, until)
        })
    }

    async fn thaw(&self, cx: &Cx, id: SessionId) -> PluginResult<()> {
        self.with(cx, id, |open| open.thaw(cx.now())).or(Ok(())) // X2: right in any state.
    }

    async fn evidence(&self, cx: &Cx, id: SessionId) -> PluginResult<SetOutcome> {
        self.with(cx, id, |open| {
            let mut outcome = SetOutcome::new(QuiesceLevel::AtRest, EvidenceGrain::PerDatabase);
            (outcome.frozen_at, outcome.thawed_at) = (open.frozen_at, open.thawed_at);
            for copy in &open.session.copies {
                let mut files = open.session.files.iter().filter(|file| file.copy == *copy);
                let changed = files.find(|file| {
                    let then = open.stamps.get(&file.path).copied().flatten();
                    then.is_none() || then != stamp(&file.path)
                });
                let held = match changed {
                    _ if open.ran_out => Held::Broken(Cause::LimitPassed),
                    // X7: before the thaw nobody can say.
                    _ if open.thawed_at.is_none() => Held::Unknown,
                    None => Held::Yes,
                    Some(file) => Held::Broken(Cause::FileChanged {
                        file: file.path.clone(),
                        what: "size or time".to_owned(),
                    }),
                };
                outcome.copies.insert(copy.clone(), CopyEvidence::new(held));
            }
            outcome
        })
    }

    async fn verify(
        &self,
        cx: &Cx,
        exposure: &Exposure,
        spec: &VerifySpec,
    ) -> PluginResult<VerifyReport> {
        let mut report = VerifyReport::new();
        for copy in spec.copies() {
            cx.check()?;
            let files = spec.files.iter().filter(|file| file.file.copy == *copy);
            let findings: Vec<_> = files.filter_map(|file| check(exposure, file)).collect();
            let verdict = if findings.is_empty() { Verdict::Good } else { Verdict::bad(findings) };
            report.insert(copy.clone(), CopyReport::new(verdict));
        }
        Ok(report)
    }

    async fn complete(
        &self,
        cx: &Cx,
        id: SessionId,
        verdicts: &BTreeMap<CopyId, Verdict>,
    ) -> PluginResult<BTreeMap<CopyId, Completion>> {
        let answer = |copies: Vec<CopyId>, answer: Completion| -> BTreeMap<_, _> {
            copies.into_iter().map(|copy| (copy, answer.clone())).collect()
        };
        let completed = self.with(cx, id, |open| {
            if let SessionState::Completed(answers) = &open.state {
                return answers.clone(); // The verdicts of the first call stand.
            }
            if !open.is_open() {
                return answer(open.session.copies.clone(), Completion::Lost);
            }
            let answers = answer(open.session.copies.clone(), Completion::Completed);
            open.state = SessionState::Completed(answers.clone());
            answers
        });
        Ok(completed
            .unwrap_or_else(|_| answer(verdicts.keys().cloned().collect(), Completion::Lost)))
    }

    async fn abort(&self, cx: &Cx, id: SessionId) -> PluginResult<()> {
        let abort = |open: &mut Open| {
            if open.is_open() {
                open.thaw(cx.now());
                open.state = SessionState::Aborted;
            }
        };
        self.with(cx, id, abort).or(Ok(()))
    }

    async fn truncation(&self, _: &Cx, _: &CopyId, _: DateTime<Utc>) -> PluginResult<Truncation> {
        Ok(Truncation::NothingEligible { why: "a ledger has no logs".to_owned() })
    }
}
