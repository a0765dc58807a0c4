//! Steps of a backup that make restore points of snapshots.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use stillpoint_context::{Cx, ErrorClass, Failure, HostPath, JobId, Subject};
use stillpoint_exchange::{Completion, Session, VerifyFile, VerifySpec};
use stillpoint_model::evidence::SetOutcome;
use stillpoint_model::fork::branch_after;
use stillpoint_model::handover::MemberRole;
use stillpoint_model::id::{CopyId, GroupId, PointId, SetToken, SnapshotRef};
use stillpoint_model::inventory::{Dag, Database, DatabaseCopy, Generation, Host};
use stillpoint_model::kind::BackupKind;
use stillpoint_model::manifest::Manifest;
use stillpoint_model::point::{
    NewPoint, PointEvidence, PointFact, PointFile, PointLogs, PointMember, RestorePoint,
    Truncation, Trust,
};
use stillpoint_model::policy::{FrequencyClass, PolicyRef};
use stillpoint_model::seal::Seal;
use stillpoint_storage::Snapshot;
use stillpoint_workflow::{Action, Done, EffectKind, Known, Undone};

use super::judge::{CopyJudgement, Judgement};
use super::snapshots::Settled;
use crate::beside::manifest_name;
use crate::exposure::Inspection;
use crate::pump;
use crate::services::Services;

/// Says what of a settled set is to be looked into.
#[derive(Debug)]
pub(crate) struct Inspect;

#[async_trait]
impl Action for Inspect {
    const NAME: &'static str = "backup.inspect";
    const EFFECT: EffectKind = EffectKind::ReadOnly;
    type Params = ();
    type Input = (Session, Vec<Settled>);
    type Output = Inspection;

    async fn run(
        &self,
        _: &Cx,
        (): &(),
        (session, settled): (Session, Vec<Settled>),
    ) -> Result<Done<Inspection>, Failure> {
        let seals = seals(&settled);
        let files = session.files.into_iter().map(|file| {
            let seal = seals.get(&file.path).map(|seal| (*seal).clone());
            VerifyFile::new(file, seal)
        });
        let mut spec = VerifySpec::new(files.collect());
        // Logs alone make no database.
        spec.recoverable = session.kind.takes_database();
        Ok(Done::new(Inspection { snapshots: references(&settled), spec }))
    }
}

fn references(settled: &[Settled]) -> Vec<SnapshotRef> {
    settled.iter().flat_map(|part| &part.snapshots).map(Snapshot::reference).collect()
}

fn seals(settled: &[Settled]) -> BTreeMap<&HostPath, &Seal> {
    let files = settled.iter().flat_map(|part| &part.snapshots).flat_map(|shot| &shot.files);
    files.filter_map(|file| Some((&file.path, file.seal.as_ref()?))).collect()
}

/// What a plan knows of a restore point before it exists.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PlannedPoint {
    pub(crate) id: PointId,
    pub(crate) database: Database,
    pub(crate) copy: DatabaseCopy,
    pub(crate) host: Option<Host>,
    pub(crate) dag: Option<Dag>,
}

/// What a plan knows of the restore points of a set.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PublishParams {
    pub(crate) points: BTreeMap<CopyId, PlannedPoint>,
    pub(crate) kind: BackupKind,
    pub(crate) job: JobId,
    pub(crate) set: SetToken,
    pub(crate) policy: PolicyRef,
    pub(crate) group: Option<GroupId>,
    pub(crate) class: FrequencyClass,
}

/// Publishes the restore points, provisional: as facts of the journal, and as manifests beside the data.
#[derive(Debug)]
pub(crate) struct Publish(pub(crate) Arc<Services>);

type PublishInput = (Session, SetOutcome, Vec<Settled>, Judgement);

#[async_trait]
impl Action for Publish {
    const NAME: &'static str = "backup.publish";
    const EFFECT: EffectKind = EffectKind::Reversible;
    const IDEMPOTENT: bool = true;
    type Params = PublishParams;
    type Input = PublishInput;
    type Output = BTreeMap<CopyId, PointId>;

    async fn run(
        &self,
        cx: &Cx,
        params: &PublishParams,
        input: PublishInput,
    ) -> Result<Done<Self::Output>, Failure> {
        let mut done = Done::new(BTreeMap::new());
        for (copy, judged) in input.3.published() {
            let planned = params.points.get(copy).ok_or_else(|| {
                Failure::new(
                    "plan.copy_unknown",
                    ErrorClass::Internal,
                    format!("the session has copy {copy}, which was not planned"),
                )
            })?;
            let mut point = self.point(cx, params, planned, copy, judged, &input).await?;
            let manifest = manifest_of(planned, &point, &input.1)?;
            point.manifest_digest = Some(Manifest::digest(&manifest));
            self.put(cx, &point, manifest.as_bytes()).await?;
            let _none = done.output.insert(copy.clone(), point.id);
            done = done.with_fact(pump::fact(&PointFact::Published(Box::new(point)))?);
        }
        Ok(done)
    }

    async fn undo(
        &self,
        cx: &Cx,
        params: &PublishParams,
        input: PublishInput,
        _: Known<Self::Output>,
    ) -> Result<Undone, Failure> {
        let mut undone = Undone::clean();
        for planned in params.points.values() {
            let name = manifest_name(planned.id)?;
            for part in &input.2 {
                for snapshot in &part.snapshots {
                    let provider = self.0.provider(&snapshot.volume.provider)?;
                    if provider.caps().documents {
                        provider.delete_doc(cx, &name).await?;
                    }
                }
            }
            let removed = PointFact::Removed { point: planned.id, at: cx.now() };
            undone = undone.with_fact(pump::fact(&removed)?);
        }
        Ok(undone)
    }
}

impl Publish {
    async fn point(
        &self,
        cx: &Cx,
        params: &PublishParams,
        planned: &PlannedPoint,
        copy: &CopyId,
        judged: &CopyJudgement,
        (session, evidence, settled, _): &PublishInput,
    ) -> Result<RestorePoint, Failure> {
        let taken =
            settled.iter().flat_map(|part| &part.members).map(|member| member.taken_at).min();
        let mut proof = PointEvidence::of(evidence, copy);
        proof.held = judged.held.clone();
        let mut point = RestorePoint::new(NewPoint {
            id: planned.id,
            copy: copy.clone(),
            database_name: planned.database.name.clone(),
            kind: params.kind,
            taken_at: evidence.frozen_at.or(taken).unwrap_or_else(|| cx.now()),
            job: params.job,
            run: cx.run(),
            set: params.set.clone(),
            evidence: proof,
        });
        point.database_signature = planned.database.signature;
        point.role = planned.copy.role;
        point.policy = Some(params.policy.clone());
        point.group = params.group;
        point.class = params.class.clone();
        point.trust = Trust::of(&judged.verified, cx.now());
        point.files = self.files(cx, session, copy, settled).await?;
        point.members = members(&point.files, settled);
        point.logs = logs(params.kind, planned, evidence, copy, &point.files);
        if let Some(logs) = &mut point.logs {
            let forks = self.0.catalog.forks(point.database).await;
            logs.branch = branch_after(&forks.map_err(|e| Failure::of(&e))?);
        }
        Ok(point)
    }

    async fn files(
        &self,
        cx: &Cx,
        session: &Session,
        copy: &CopyId,
        settled: &[Settled],
    ) -> Result<Vec<PointFile>, Failure> {
        let seals = seals(settled);
        let mine: Vec<_> = session.files.iter().filter(|file| file.copy == *copy).collect();
        let paths: Vec<HostPath> = mine.iter().map(|file| file.path.clone()).collect();
        let mut files = Vec::with_capacity(mine.len());
        for part in settled {
            let Some(first) = part.snapshots.first() else { continue };
            let provider = self.0.provider(&first.volume.provider)?;
            for placed in provider.resolve(cx, &paths).await? {
                let taken = part.snapshots.iter().find(|shot| shot.volume == placed.volume);
                let required = mine.iter().find(|file| file.path == placed.file);
                let (Some(snapshot), Some(file)) = (taken, required) else { continue };
                let seal = seals.get(&placed.file).map(|seal| (*seal).clone());
                let bytes = seal.as_ref().map(Seal::bytes).or(file.bytes).unwrap_or(0);
                let mut stored =
                    PointFile::new(placed.file.clone(), snapshot.reference(), file.role, bytes);
                stored.generation = file.generation;
                stored.seal = seal;
                files.push(stored);
            }
        }
        if let Some(lost) = mine.iter().find(|file| !files.iter().any(|f| f.path == file.path)) {
            return Err(Failure::new(
                "storage.set_incomplete",
                ErrorClass::Integrity,
                format!("no snapshot of the set holds {}", lost.path),
            )
            .with_subject(Subject::new("copy", copy))
            .with_remedy("Put all files of the database on volumes of a configured provider."));
        }
        Ok(files)
    }

    /// Puts a manifest beside the data: with every provider that holds a part of the point and keeps documents.
    async fn put(&self, cx: &Cx, point: &RestorePoint, manifest: &[u8]) -> Result<(), Failure> {
        let name = manifest_name(point.id)?;
        let mut done = Vec::new();
        for member in &point.members {
            let id = &member.snapshot.volume.provider;
            let provider = self.0.provider(id)?;
            if provider.caps().documents && !done.contains(&id) {
                provider.put_doc(cx, &name, manifest).await?;
                done.push(id);
            }
        }
        Ok(())
    }
}

fn members(files: &[PointFile], settled: &[Settled]) -> Vec<PointMember> {
    let shots = settled.iter().flat_map(|part| part.snapshots.iter().map(move |shot| (part, shot)));
    let of_point = shots.filter_map(|(part, shot)| {
        let snapshot = shot.reference();
        let role = files
            .iter()
            .filter(|file| file.snapshot == snapshot)
            .map(role_of)
            .reduce(MemberRole::and)?;
        let mut member = PointMember::new(snapshot, shot.name.clone(), role);
        let taken = part.members.iter().find(|taken| taken.volume == shot.volume);
        member.taken_at = taken.map(|taken| taken.taken_at);
        Some(member)
    });
    of_point.collect()
}

fn role_of(file: &PointFile) -> MemberRole {
    match file.role {
        stillpoint_model::inventory::FileRole::Database => MemberRole::Data,
        _ => MemberRole::Log,
    }
}

fn logs(
    kind: BackupKind,
    planned: &PlannedPoint,
    evidence: &SetOutcome,
    copy: &CopyId,
    files: &[PointFile],
) -> Option<PointLogs> {
    let seen = evidence.copies.get(copy).and_then(|known| known.log_state.as_ref());
    let state = seen.or(planned.copy.log_state.as_ref())?;
    let generations: Vec<Generation> = files.iter().filter_map(|file| file.generation).collect();
    let range = generations.iter().min().zip(generations.iter().max());
    let range = range.map(|(first, last)| *first..=*last);
    let mut logs = PointLogs::new(state.signature, range, state.required.clone());
    logs.until = state.closed_at.filter(|_| !kind.takes_database());
    Some(logs)
}

fn manifest_of(
    planned: &PlannedPoint,
    point: &RestorePoint,
    evidence: &SetOutcome,
) -> Result<String, Failure> {
    let written_by = concat!("stillpoint ", env!("CARGO_PKG_VERSION"));
    let mut manifest = Manifest::new(written_by, point.clone());
    manifest.database = Some(planned.database.clone());
    manifest.copy = Some(planned.copy.clone());
    manifest.host.clone_from(&planned.host);
    manifest.dag.clone_from(&planned.dag);
    manifest.documents.clone_from(&evidence.documents);
    manifest.to_json().map_err(|error| Failure::of(&error))
}

/// Makes sure that the catalogue has the points, durably, before anything is completed.
#[derive(Debug)]
pub(crate) struct Index(pub(crate) Arc<Services>);

#[async_trait]
impl Action for Index {
    const NAME: &'static str = "backup.index";
    const EFFECT: EffectKind = EffectKind::ReadOnly;
    type Params = ();
    type Input = BTreeMap<CopyId, PointId>;
    type Output = ();

    async fn run(
        &self,
        _: &Cx,
        (): &(),
        points: BTreeMap<CopyId, PointId>,
    ) -> Result<Done<()>, Failure> {
        self.0.pump.run(&*self.0.catalog).await?;
        for point in points.values() {
            if self.0.catalog.point(*point).await.map_err(|e| Failure::of(&e))?.is_none() {
                return Err(Failure::new(
                    "catalog.point_missing",
                    ErrorClass::Internal,
                    format!("the catalogue has not taken restore point {point}"),
                ));
            }
        }
        Ok(Done::new(()))
    }
}

/// The success of a completion: with what it said, the points become available.
pub(crate) fn concluded(
    cx: &Cx,
    kind: BackupKind,
    points: &BTreeMap<CopyId, PointId>,
    judgement: &Judgement,
    completions: BTreeMap<CopyId, Completion>,
) -> Result<Done<BTreeMap<CopyId, Completion>>, Failure> {
    let mut done = Done::new(completions);
    for (copy, point) in points {
        let good = judgement.copies.get(copy).is_some_and(|judged| !judged.completion.is_bad());
        let answer = done.output.get(copy).unwrap_or(&Completion::Lost);
        let (truncation, warning) = conclusion(kind, good, answer);
        if let Some(reason) = warning {
            done = done.with_warning(unconfirmed(copy, &reason));
        }
        let fact = PointFact::Completed { point: *point, at: cx.now(), truncation };
        done = done.with_fact(pump::fact(&fact)?);
    }
    Ok(done)
}

/// What a completion says of truncation, and of what is to be warned.
fn conclusion(
    kind: BackupKind,
    good: bool,
    completion: &Completion,
) -> (Truncation, Option<String>) {
    let asked = kind.truncates() && good;
    match completion {
        Completion::Completed if asked => (Truncation::Requested, None),
        Completion::Completed => (Truncation::NotRequested, None),
        Completion::Unconfirmed { reason } if asked => (Truncation::Unknown, Some(reason.clone())),
        Completion::Unconfirmed { reason } => (Truncation::NotRequested, Some(reason.clone())),
        _ => (Truncation::NotRequested, Some("the session was lost before".to_owned())),
    }
}

/// Rule V44 of the model: the point stays, copy-grade; truncation is not assumed.
fn unconfirmed(copy: &CopyId, reason: &str) -> Failure {
    Failure::new(
        "complete.unconfirmed",
        ErrorClass::Unavailable,
        format!("Exchange did not confirm the backup of {copy}: {reason}"),
    )
    .with_subject(Subject::new("copy", copy))
    .with_remedy("Nothing is lost: the restore point can be used. The next full backup truncates.")
}
