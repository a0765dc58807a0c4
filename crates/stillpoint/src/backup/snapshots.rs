//! Steps of a backup that speak to the snapshot providers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use stillpoint_context::{Cx, Effect, ErrorClass, Failure, HostPath, Subject};
use stillpoint_exchange::{RequiredFile, Session};
use stillpoint_model::handover::{Member, MemberRole, NativeSnapshot, Prepared};
use stillpoint_model::id::{ProviderId, SetToken, VolumeRef};
use stillpoint_model::inventory::FileRole;
use stillpoint_storage::{Discarded, MemberSpec, PrepareSpec, Snapshot};
use stillpoint_workflow::{Action, Done, EffectKind, Known, Undone};

use super::session::stale;
use crate::services::Services;

/// Gets a provider ready: everything slow.
#[derive(Debug)]
pub(crate) struct Prepare(pub(crate) Arc<Services>);

/// What one provider has to do with a set.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SetParams {
    pub(crate) provider: ProviderId,
    pub(crate) token: SetToken,
    pub(crate) name: String,
    /// The volumes that were planned; others make the plan stale.
    pub(crate) volumes: BTreeSet<VolumeRef>,
    /// How long the commit may take; none for data at rest.
    pub(crate) limit: Option<Duration>,
    pub(crate) tags: BTreeMap<String, String>,
    /// How long an undo may wait for a snapshot that may still appear.
    pub(crate) late: Duration,
}

impl Prepare {
    async fn spec(
        &self,
        cx: &Cx,
        params: &SetParams,
        session: &Session,
    ) -> Result<PrepareSpec, Failure> {
        let provider = self.0.provider(&params.provider)?;
        let paths: Vec<HostPath> = session.files.iter().map(|file| file.path.clone()).collect();
        let placed: BTreeMap<HostPath, VolumeRef> = provider
            .resolve(cx, &paths)
            .await?
            .into_iter()
            .map(|placement| (placement.file, placement.volume))
            .collect();
        let members = members(&session.files, &placed, &params.volumes)?;
        let mut spec = PrepareSpec::new(params.token.clone(), params.name.clone());
        spec.members = members;
        spec.limit = params.limit;
        spec.tags = params.tags.clone();
        Ok(spec)
    }
}

/// What each volume has to do with the set, and its files, in the order in which they are to be taken (contract S9): pages
/// may never be newer than their logs.
fn members(
    files: &[RequiredFile],
    placed: &BTreeMap<HostPath, VolumeRef>,
    planned: &BTreeSet<VolumeRef>,
) -> Result<Vec<MemberSpec>, Failure> {
    let mut members: BTreeMap<VolumeRef, (MemberRole, Vec<HostPath>)> = BTreeMap::new();
    // Databases may share a log stream, so that a volume holds several of them before their logs: whatever the order of the
    // session, all databases of a volume come first.
    let (databases, rest): (Vec<_>, Vec<_>) =
        files.iter().partition(|file| file.role == FileRole::Database);
    for file in databases.into_iter().chain(rest) {
        let Some(volume) = placed.get(&file.path) else { continue };
        if !planned.contains(volume) {
            let moved = format!("{} lies on volume {volume}", file.path);
            return Err(stale(&moved).with_subject(Subject::new("volume", volume)));
        }
        let role = match file.role {
            FileRole::Database => MemberRole::Data,
            _ => MemberRole::Log,
        };
        match members.get_mut(volume) {
            Some((known, files)) => {
                *known = known.and(role);
                files.push(file.path.clone());
            }
            None => drop(members.insert(volume.clone(), (role, vec![file.path.clone()]))),
        }
    }
    let mut members: Vec<MemberSpec> = members
        .into_iter()
        .map(|(volume, (role, files))| MemberSpec::new(volume, role, files))
        .collect();
    members.sort_by_key(|member| member.role == MemberRole::Log);
    Ok(members)
}

#[async_trait]
impl Action for Prepare {
    const NAME: &'static str = "storage.prepare";
    const EFFECT: EffectKind = EffectKind::Reversible;
    const IDEMPOTENT: bool = true;
    type Params = SetParams;
    type Input = Session;
    type Output = Prepared;

    async fn run(
        &self,
        cx: &Cx,
        params: &SetParams,
        session: Session,
    ) -> Result<Done<Prepared>, Failure> {
        let spec = self.spec(cx, params, &session).await?;
        let prepared = self.0.provider(&params.provider)?.prepare(cx, &spec).await?;
        // The engine adds up the worst cases when it arms the guard; one that is unknown cannot be added.
        match (params.limit, prepared.worst_case) {
            (Some(limit), None) => Err(too_slow(params, limit)),
            _ => Ok(Done::new(prepared)),
        }
    }

    /// The one undo of everything that this provider does for the set.
    async fn undo(
        &self,
        cx: &Cx,
        params: &SetParams,
        _: Session,
        _: Known<Prepared>,
    ) -> Result<Undone, Failure> {
        let provider = self.0.provider(&params.provider)?;
        let give_up = cx.mono() + params.late;
        loop {
            let until = match provider.discard(cx, &params.token).await? {
                Discarded::Gone => return Ok(Undone::clean()),
                Discarded::WatchUntil(until) => until,
                other => {
                    return Err(Failure::new(
                        "storage.discard_unclear",
                        ErrorClass::Internal,
                        format!("the provider answered {other:?}"),
                    ));
                }
            };
            // A snapshot may still appear. It is waited for, so that it does not stay behind unseen; if that takes too
            // long, it becomes debris, in plain sight.
            let wait = (until - cx.now()).to_std().unwrap_or_default();
            if cx.mono() + wait > give_up {
                let object = Subject::new(
                    "snapshot set",
                    format!("{}/{} (may appear until {until})", params.provider, params.token),
                );
                return Ok(Undone::clean().with_debris(object));
            }
            cx.sleep(wait.max(Duration::from_millis(50))).await.map_err(|e| Failure::of(&e))?;
        }
    }
}

fn too_slow(params: &SetParams, limit: Duration) -> Failure {
    Failure::new(
        "storage.too_slow",
        ErrorClass::Conflict,
        format!(
            "provider {} does not know how long a commit takes, and the freeze has {limit:?}",
            params.provider
        ),
    )
    .with_subject(Subject::new("provider", &params.provider))
    .with_remedy("Use storage with instant snapshots, or data at rest without a limit.")
}

/// Takes the snapshots, inside the freeze.
#[derive(Debug)]
pub(crate) struct Commit(pub(crate) Arc<Services>);

#[async_trait]
impl Action for Commit {
    const NAME: &'static str = "storage.commit";
    const EFFECT: EffectKind = EffectKind::Reversible;
    type Params = ProviderId;
    type Input = Prepared;
    type Output = Vec<Member>;

    async fn run(
        &self,
        cx: &Cx,
        provider: &ProviderId,
        prepared: Prepared,
    ) -> Result<Done<Vec<Member>>, Failure> {
        Ok(Done::new(self.0.provider(provider)?.commit(cx, &prepared).await?))
    }

    /// Taken away by the undo of `prepare`, which discards the whole set.
    async fn undo(
        &self,
        _: &Cx,
        _: &ProviderId,
        _: Prepared,
        _: Known<Vec<Member>>,
    ) -> Result<Undone, Failure> {
        Ok(Undone::clean())
    }

    fn worst_case(&self, _: &ProviderId, prepared: &Prepared) -> Option<Duration> {
        prepared.worst_case
    }
}

/// Takes over what a hardware provider made inside VSS.
#[derive(Debug)]
pub(crate) struct Adopt(pub(crate) Arc<Services>);

#[async_trait]
impl Action for Adopt {
    const NAME: &'static str = "storage.adopt";
    const EFFECT: EffectKind = EffectKind::Reversible;
    const IDEMPOTENT: bool = true;
    type Params = ProviderId;
    type Input = (Prepared, Vec<NativeSnapshot>);
    type Output = Vec<Member>;

    async fn run(
        &self,
        cx: &Cx,
        provider: &ProviderId,
        (prepared, natives): (Prepared, Vec<NativeSnapshot>),
    ) -> Result<Done<Vec<Member>>, Failure> {
        let ours: Vec<NativeSnapshot> =
            natives.into_iter().filter(|native| native.volume.provider == *provider).collect();
        Ok(Done::new(self.0.provider(provider)?.adopt(cx, &prepared, &ours).await?))
    }

    /// Taken away by the undo of `prepare`, which discards the whole set.
    async fn undo(
        &self,
        _: &Cx,
        _: &ProviderId,
        _: (Prepared, Vec<NativeSnapshot>),
        _: Known<Vec<Member>>,
    ) -> Result<Undone, Failure> {
        Ok(Undone::clean())
    }
}

/// What a settled set of one provider came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Settled {
    pub(crate) members: Vec<Member>,
    pub(crate) snapshots: Vec<Snapshot>,
}

/// Makes the snapshots durable.
#[derive(Debug)]
pub(crate) struct Settle(pub(crate) Arc<Services>);

#[async_trait]
impl Action for Settle {
    const NAME: &'static str = "storage.settle";
    const EFFECT: EffectKind = EffectKind::Reversible;
    const IDEMPOTENT: bool = true;
    type Params = ProviderId;
    type Input = (Prepared, Vec<Member>);
    type Output = Settled;

    async fn run(
        &self,
        cx: &Cx,
        provider: &ProviderId,
        (prepared, members): (Prepared, Vec<Member>),
    ) -> Result<Done<Settled>, Failure> {
        let snapshots = self.0.provider(provider)?.settle(cx, &prepared).await?;
        for member in &prepared.members {
            // What a provider says to have made is looked at: a set with a volume missing is no set.
            if !snapshots.iter().any(|snapshot| snapshot.volume == member.volume) {
                return Err(Failure::new(
                    "storage.set_incomplete",
                    ErrorClass::Integrity,
                    format!("the set has no snapshot of volume {}", member.volume),
                )
                .with_effect(Effect::Unknown)
                .with_subject(Subject::new("volume", &member.volume))
                .with_remedy("Find out why the storage left a volume out, then back up again."));
            }
        }
        Ok(Done::new(Settled { members, snapshots }))
    }

    /// Taken away by the undo of `prepare`, which discards the whole set.
    async fn undo(
        &self,
        _: &Cx,
        _: &ProviderId,
        _: (Prepared, Vec<Member>),
        _: Known<Settled>,
    ) -> Result<Undone, Failure> {
        Ok(Undone::clean())
    }
}

#[cfg(test)]
mod tests {
    use stillpoint_context::{HostId, PathFlavor};
    use stillpoint_model::id::{CopyId, DatabaseId};

    use super::*;

    #[test]
    fn on_each_volume_all_databases_come_before_all_logs() {
        let host: HostId = "lab".parse().unwrap();
        let path = |text: &str| HostPath::new(host.clone(), PathFlavor::Posix, text).unwrap();
        let (mail, logs): (VolumeRef, VolumeRef) =
            ("fs:mail".parse().unwrap(), "fs:logs".parse().unwrap());
        // Database by database, as a plug-in may well name them; the two share a stream, and the second has logs elsewhere.
        let named = [
            ("/mail/E00.log", FileRole::Log, &mail),
            ("/mail/DB01.edb", FileRole::Database, &mail),
            ("/mail/E00.chk", FileRole::Checkpoint, &mail),
            ("/logs/E01.log", FileRole::Log, &logs),
            ("/mail/DB02.edb", FileRole::Database, &mail),
        ];
        let copy = CopyId::new(DatabaseId(uuid::Uuid::nil()), host.clone());
        let files = named.map(|(at, role, _)| RequiredFile::new(copy.clone(), path(at), role));
        let placed = named.map(|(at, _, volume)| (path(at), volume.clone())).into();
        let members = members(&files, &placed, &BTreeSet::from([mail.clone(), logs.clone()]));
        let expected = [
            MemberSpec::new(
                mail,
                MemberRole::DataAndLog,
                ["/mail/DB01.edb", "/mail/DB02.edb", "/mail/E00.log", "/mail/E00.chk"]
                    .map(path)
                    .into(),
            ),
            MemberSpec::new(logs, MemberRole::Log, vec![path("/logs/E01.log")]),
        ];
        assert_eq!(members.unwrap(), expected);
    }
}
