//! A store under test.

use std::fmt::{self, Debug};
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::join_all;
use stillpoint_catalog::{Catalog, CatalogError};
use stillpoint_context::{BoxFuture, ErrorFacts, Spawner};
use stillpoint_workflow::{Journal, JournalError, Leases};

use super::frame::{Flaw, Kit};
use super::store::{Place, Store, StoreFactory};

impl From<JournalError> for Flaw {
    fn from(error: JournalError) -> Self {
        Self::new(format!("a call failed: {error} ({})", error.code()))
    }
}

impl From<CatalogError> for Flaw {
    fn from(error: CatalogError) -> Self {
        Self::new(format!("a call failed: {error} ({})", error.code()))
    }
}

/// The kit of the suites for stores.
#[derive(Debug)]
pub enum Stores {}

impl Kit for Stores {
    type Factory<'f> = dyn StoreFactory + 'f;
    type Subject = Subject;
    type Need = Need;
    const NOUN: &'static str = "store";

    fn open<'f>(factory: &'f Self::Factory<'f>) -> BoxFuture<'f, Result<Subject, Flaw>> {
        Box::pin(Subject::make(factory))
    }

    fn missing(need: Need, factory: &Self::Factory<'_>, subject: &Subject) -> Option<&'static str> {
        need.missing(factory, &subject.store)
    }
}

/// What a case cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// A store that can be opened again.
    Reopen,
    /// A store that goes by leases alone, whether or not a process has died.
    Blind,
    /// Leases beside the journal.
    Leases,
    /// A catalogue that looks at the leases.
    Looks,
    /// A journal beside the leases.
    Journal,
    /// A journal that other processes may write to.
    Shared,
    /// One that no other process writes to.
    Private,
}

impl Need {
    /// What the store says that makes the case pointless.
    fn missing(self, stores: &dyn StoreFactory, store: &Store) -> Option<&'static str> {
        let shared = store.journal.as_ref().map(Journal::is_shared);
        match self {
            Self::Reopen => (!stores.reopens()).then_some("the store cannot be opened again"),
            Self::Blind => {
                stores.sees_the_dead().then_some("the store can tell that a process has died")
            }
            Self::Looks => (!stores.catalog_looks_at_leases())
                .then_some("the catalogue does not look at leases"),
            Self::Leases => store.leases.is_none().then_some("the store keeps no leases"),
            Self::Journal => store.journal.is_none().then_some("the store has no journal"),
            Self::Shared => (shared != Some(true)).then_some("the journal is not shared"),
            Self::Private => (shared != Some(false)).then_some("the journal is shared"),
        }
    }
}

/// A store under test, and the place that it lies at.
pub struct Subject {
    store: Store,
    spawner: Option<Arc<dyn Spawner>>,
    blind: bool,
    // Dropped after the store.
    place: Box<dyn Place>,
}

impl Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Subject").field(&self.store).finish()
    }
}

impl Subject {
    async fn make(stores: &dyn StoreFactory) -> Result<Self, Flaw> {
        let unmade = |error| Flaw::new(format!("there is no place for a store: {error}"));
        let place = stores.place().await.map_err(unmade)?;
        let store = open(&*place).await?;
        Ok(Self { store, spawner: stores.spawner(), blind: !stores.sees_the_dead(), place })
    }

    pub(super) fn journal(&self) -> Result<Arc<dyn Journal>, Flaw> {
        self.store.journal.clone().ok_or_else(|| Flaw::new("the store has no journal"))
    }

    pub(super) fn leases(&self) -> Result<Arc<dyn Leases>, Flaw> {
        self.store.leases.clone().ok_or_else(|| Flaw::new("the store keeps no leases"))
    }

    pub(super) fn has_leases(&self) -> bool {
        self.store.leases.is_some()
    }

    /// Whether it goes by leases alone.
    pub(super) fn is_blind(&self) -> bool {
        self.blind
    }

    pub(super) fn catalog(&self) -> Result<Arc<dyn Catalog>, Flaw> {
        self.store.catalog.clone().ok_or_else(|| Flaw::new("the store has no catalogue"))
    }

    /// Closes the store and opens it again. The case has dropped its own handles before.
    pub(super) async fn reopen(&mut self) -> Result<(), Flaw> {
        self.store = Store::new();
        self.store = open(&*self.place).await?;
        Ok(())
    }

    /// What these give, all at the same time.
    pub(super) async fn together<T: Send + 'static>(
        &self,
        parts: Vec<BoxFuture<'static, Result<T, Flaw>>>,
    ) -> Result<Vec<T>, Flaw> {
        let parts = parts.into_iter().map(|part| {
            let Some(spawner) = &self.spawner else { return part };
            let (task, result) = part.remote_handle();
            spawner.spawn("conformance", Box::pin(task));
            Box::pin(result)
        });
        join_all(parts).await.into_iter().collect()
    }
}

async fn open(place: &dyn Place) -> Result<Store, Flaw> {
    place.open().await.map_err(|error| Flaw::new(format!("the store cannot be opened: {error}")))
}
