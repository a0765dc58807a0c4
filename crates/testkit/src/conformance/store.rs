//! Stores to try, and where they come from.

use std::error::Error;
use std::fmt::{self, Debug};
use std::sync::Arc;

use async_trait::async_trait;
use stillpoint_catalog::Catalog;
use stillpoint_context::Spawner;
use stillpoint_workflow::{Journal, Leases};

/// Why a store could not be opened.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// A store that is open: what it implements.
#[derive(Clone, Debug, Default)]
pub struct Store {
    pub(super) journal: Option<Arc<dyn Journal>>,
    pub(super) leases: Option<Arc<dyn Leases>>,
    pub(super) catalog: Option<Arc<dyn Catalog>>,
}

impl Store {
    /// A store that implements nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// It is a journal.
    pub fn with_journal(mut self, journal: Arc<dyn Journal>) -> Self {
        self.journal = Some(journal);
        self
    }

    /// It keeps the leases of its journal.
    pub fn with_leases(mut self, leases: Arc<dyn Leases>) -> Self {
        self.leases = Some(leases);
        self
    }

    /// It is a catalogue.
    pub fn with_catalog(mut self, catalog: Arc<dyn Catalog>) -> Self {
        self.catalog = Some(catalog);
        self
    }
}

/// Where one store lies: a folder, say, that goes when the place is dropped.
#[async_trait]
pub trait Place: Send + Sync {
    /// Opens the store that lies here, and makes it if there is none.
    ///
    /// It is called again when every handle of the store that it gave before has been dropped. A store that lets go of
    /// its place a moment later waits for that here.
    async fn open(&self) -> Result<Store, BoxError>;
}

/// Makes the stores that a suite tries, and says what they can.
///
/// What is declared here decides which cases are skipped; a report lists them with the declaration.
#[async_trait]
pub trait StoreFactory: Send + Sync {
    /// A new place with nothing in it.
    async fn place(&self) -> Result<Box<dyn Place>, BoxError>;

    /// Whether what was written is there when a place is opened again.
    fn reopens(&self) -> bool {
        true
    }

    /// Whether a store can tell that a process has died, and lets it be fenced before its lease has ended. The
    /// processes that the suite makes up have never lived.
    fn sees_the_dead(&self) -> bool {
        false
    }

    /// Whether the catalogue looks at the leases of the same store where a call says in whose name it is made
    /// ([`Catalog::put_job_in_epoch`]).
    fn catalog_looks_at_leases(&self) -> bool {
        false
    }

    /// Where the parts of a case run that happen at the same time. Without one they take turns in the task of the
    /// caller, wherever the store lets them.
    fn spawner(&self) -> Option<Arc<dyn Spawner>> {
        None
    }
}

/// Stores that last as long as the process: they cannot be opened again.
pub struct InMemory<F>(F);

impl<F: Fn() -> Store + Send + Sync> InMemory<F> {
    /// Stores as `make` makes them.
    pub fn new(make: F) -> Self {
        Self(make)
    }
}

impl<F> Debug for InMemory<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InMemory")
    }
}

#[async_trait]
impl<F: Fn() -> Store + Send + Sync> StoreFactory for InMemory<F> {
    async fn place(&self) -> Result<Box<dyn Place>, BoxError> {
        Ok(Box::new(Nowhere((self.0)())))
    }

    fn reopens(&self) -> bool {
        false
    }
}

struct Nowhere(Store);

#[async_trait]
impl Place for Nowhere {
    async fn open(&self) -> Result<Store, BoxError> {
        Ok(self.0.clone())
    }
}
