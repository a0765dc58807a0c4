//! The side that brings files back, with its faults.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use stillpoint_context::Cx;
use stillpoint_storage::{
    Collateral, Consent, ProviderErrorKind as Kind, ProviderResult, Published, RestoreKey,
    SnapshotRef, SnapshotRestore, StageSpec, Staged, VolumeRef,
};

use super::{Fault, Faulty, refuse};

/// What an opening knows of restores.
#[derive(Debug, Default)]
pub(crate) struct Restores {
    staged: Mutex<BTreeMap<RestoreKey, StageSpec>>,
    publishing: Mutex<BTreeSet<RestoreKey>>,
    published: Mutex<BTreeSet<RestoreKey>>,
}

#[async_trait]
impl SnapshotRestore for Faulty {
    async fn stage(&self, cx: &Cx, spec: &StageSpec) -> ProviderResult<Staged> {
        let mut spec = spec.clone();
        if self.is(Fault::OverwritesUnasked) {
            spec.replace = true;
        }
        self.restores.staged.lock().unwrap().insert(spec.key.clone(), spec.clone());
        let mut staged = match self.inner.stage(cx, &spec).await {
            Err(e) if self.is(Fault::RestoresWhatItHas) && *e.kind() == Kind::NotFound => {
                spec.files.pop();
                self.inner.stage(cx, &spec).await?
            }
            answer => answer?,
        };
        match self.fault {
            Fault::StagesAtTheTarget => {
                for file in &spec.files {
                    if let Some(bytes) = staged
                        .exposure
                        .find(&file.original)
                        .and_then(|p| self.inner.world().read(&p))
                    {
                        self.inner.world().write(&file.target, &bytes);
                    }
                }
            }
            Fault::StagesWhatIsLive => {
                for root in &mut staged.exposure.roots {
                    root.exposed = root.original.clone();
                }
            }
            _ => {}
        }
        Ok(staged)
    }

    async fn unstage(&self, cx: &Cx, key: &RestoreKey) -> ProviderResult<()> {
        let known = self.restores.staged.lock().unwrap().contains_key(key);
        match self.fault {
            Fault::RefusesUndosOfNothing if !known => refuse(Kind::NotFound, "nothing is staged"),
            Fault::UnstagesNothing => Ok(()),
            _ => self.inner.unstage(cx, key).await,
        }
    }

    async fn publish(&self, cx: &Cx, key: &RestoreKey) -> ProviderResult<Published> {
        let known = self.restores.staged.lock().unwrap().get(key).cloned();
        match self.fault {
            Fault::PublishesOnce
                if !self.restores.published.lock().unwrap().insert(key.clone()) =>
            {
                return refuse(Kind::NotFound, "it is published");
            }
            Fault::ForgetsRestores if known.is_none() => {
                return refuse(Kind::NotFound, "nothing is staged");
            }
            Fault::PublishesNothing if known.is_none() => {
                return Ok(Published::new(Vec::new(), Vec::new()));
            }
            _ => {}
        }
        self.restores.publishing.lock().unwrap().insert(key.clone());
        let mut published = match (self.inner.publish(cx, key).await, known) {
            (Err(error), Some(spec))
                if self.is(Fault::PublishesWhatWasTakenBack) && *error.kind() == Kind::NotFound =>
            {
                self.inner.stage(cx, &spec).await?;
                self.inner.publish(cx, key).await?
            }
            (published, _) => published?,
        };
        match self.fault {
            Fault::LosesWhatWasDropped => cx.sleep(Duration::from_millis(1)).await?,
            Fault::NamesNothingKept => published.kept.clear(),
            Fault::DropsWhatWasInTheWay => {
                for (_, kept) in &published.kept {
                    self.inner.world().remove(kept);
                }
            }
            _ => {}
        }
        self.restores.publishing.lock().unwrap().remove(key);
        Ok(published)
    }

    async fn retract(&self, cx: &Cx, key: &RestoreKey) -> ProviderResult<()> {
        let half = self.restores.publishing.lock().unwrap().contains(key);
        match self.fault {
            Fault::LosesWhatWasDropped if half => Ok(()),
            Fault::RetractsNothing => Ok(()),
            _ => self.inner.retract(cx, key).await,
        }
    }

    async fn settle(&self, cx: &Cx, key: &RestoreKey) -> ProviderResult<()> {
        if self.is(Fault::KeepsForEver) {
            return Ok(());
        }
        SnapshotRestore::settle(&self.inner, cx, key).await
    }

    async fn collateral(&self, cx: &Cx, snapshots: &[SnapshotRef]) -> ProviderResult<Collateral> {
        match self.fault {
            Fault::HidesCollateral | Fault::TellsUndeclaredCollateral => Ok(Collateral::default()),
            _ => self.inner.collateral(cx, snapshots).await,
        }
    }

    async fn revert(
        &self,
        cx: &Cx,
        snapshots: &[SnapshotRef],
        consent: &Consent,
    ) -> ProviderResult<Vec<VolumeRef>> {
        if self.is(Fault::RevertsUnasked) {
            let all = Consent(self.inner.collateral(cx, snapshots).await?);
            return self.inner.revert(cx, snapshots, &all).await;
        }
        self.inner.revert(cx, snapshots, consent).await
    }
}
