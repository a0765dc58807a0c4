//! What a case leaves that failed half way: taken away, so that a system that is in use is as it was.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::{Either, select};
use stillpoint_context::{Cx, ErrorClass, ErrorFacts};
use stillpoint_model::id::{ExposureKey, SetToken, VolumeRef};
use stillpoint_storage::{
    Discarded, DocName, ProviderError, ProviderResult, RestoreKey, SnapshotProvider,
};

use super::super::frame::{Flaw, ensure};
use super::place::ProviderPlace;
use super::trial::{Known, PATIENCE, lock, name, opened};

/// How long to wait before a call is made again.
const AGAIN: Duration = Duration::from_millis(20);

/// What a case may have left: everything that bears one of its names.
pub(super) struct Left {
    pub(super) place: Arc<dyn ProviderPlace>,
    pub(super) known: Arc<Mutex<Known>>,
    pub(super) volumes: Vec<VolumeRef>,
    pub(super) serial: String,
    pub(super) cx: Cx,
}

impl Left {
    /// Takes it away. The case has ended, and with it every handle on its provider.
    pub(super) async fn clear(self) -> Result<(), Flaw> {
        let count = lock(&self.known).count;
        if count == 0 {
            return Ok(());
        }
        let late = std::pin::pin!(self.cx.sleep(PATIENCE));
        let cleared = std::pin::pin!(self.clear_all(count));
        match select(cleared, late).await {
            Either::Left((cleared, _)) => cleared,
            Either::Right(_) => Err(Flaw::new(format!("it takes longer than {PATIENCE:?}"))),
        }
    }

    async fn clear_all(&self, count: u32) -> Result<(), Flaw> {
        // Calls that were dropped with the case may still be on their threads.
        self.cx.in_flight().over().await;
        let provider = opened(&*self.place).await?;
        let (provider, cx, caps) = (&*provider, &self.cx, provider.caps());
        let mut first = Ok(());
        let mut note = |done: Result<(), Flaw>| {
            if first.is_ok() {
                first = done;
            }
        };
        for number in 1..=count {
            let name = name(&self.serial, number);
            if let (true, Ok(key)) = (caps.expose, ExposureKey::new(&name)) {
                note(done(provider.unexpose(cx, &key).await));
            }
            if let (true, Ok(name)) = (caps.documents, DocName::new(&name)) {
                note(done(provider.delete_doc(cx, &name).await));
            }
            if let (Some(restore), Ok(key)) = (provider.restore(), RestoreKey::new(&name))
                && caps.clone
            {
                note(done(restore.retract(cx, &key).await));
                note(done(restore.unstage(cx, &key).await));
            }
            if let Ok(token) = SetToken::new(&name) {
                note(self.discard(provider, &token).await);
            }
        }
        // And what bears a name that was made out of one of these.
        for token in self.tokens(provider).await? {
            note(self.discard(provider, &token).await);
        }
        first
    }

    async fn discard(&self, provider: &dyn SnapshotProvider, token: &SetToken) -> Result<(), Flaw> {
        let began = self.cx.mono();
        loop {
            let wait = match provider.discard(&self.cx, token).await {
                Ok(Discarded::Gone) => return Ok(()),
                Ok(Discarded::WatchUntil(until)) => (until - self.cx.now()).to_std().ok(),
                Err(error) if error.class() == ErrorClass::Busy => error.retry_after(),
                Err(error) => return Err(error.into()),
                Ok(_) => None,
            };
            let wait = wait.unwrap_or(AGAIN).max(Duration::from_millis(1));
            let waited = self.cx.mono().saturating_since(began);
            ensure(waited + wait <= PATIENCE, || format!("the set {token} is still under way"))?;
            let _slept = self.cx.sleep(wait).await;
        }
    }

    /// The tokens of the case that are still listed.
    async fn tokens(&self, provider: &dyn SnapshotProvider) -> Result<Vec<SetToken>, Flaw> {
        let ours = name(&self.serial, 0);
        let ours = ours.trim_end_matches('0');
        let mut tokens = Vec::new();
        for volume in &self.volumes {
            let mut page = None;
            for _ in 0..100_000 {
                let listing = provider.list(&self.cx, volume, page).await?;
                let found = listing.snapshots.into_iter().filter_map(|snapshot| snapshot.token);
                tokens.extend(found.filter(|token| token.as_str().starts_with(ours)));
                page = listing.next;
                if page.is_none() {
                    break;
                }
            }
        }
        tokens.sort();
        tokens.dedup();
        Ok(tokens)
    }
}

fn done<T: Debug>(result: ProviderResult<T>) -> Result<(), Flaw> {
    result.map(drop).map_err(|error: ProviderError| error.into())
}
