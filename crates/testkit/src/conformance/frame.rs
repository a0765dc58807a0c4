//! What the suites have in common: cases, how they are run, and what is said of them.

use std::any::Any;
use std::fmt::{self, Debug};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use futures_util::FutureExt;
use futures_util::future::join_all;
use stillpoint_catalog::{Catalog, CatalogError};
use stillpoint_context::{BoxFuture, ErrorFacts, Spawner};
use stillpoint_workflow::{Journal, JournalError, Leases};

use super::store::{Place, Store, StoreFactory};

/// How a store breaks a rule, in one sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Flaw(pub(super) String);

impl Flaw {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

impl From<JournalError> for Flaw {
    fn from(error: JournalError) -> Self {
        Self(format!("a call failed: {error} ({})", error.code()))
    }
}

impl From<CatalogError> for Flaw {
    fn from(error: CatalogError) -> Self {
        Self(format!("a call failed: {error} ({})", error.code()))
    }
}

/// What a case cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
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

pub(super) type Run = fn(Subject) -> BoxFuture<'static, Result<(), Flaw>>;

/// One case of a suite.
#[derive(Clone, Copy)]
pub struct Case {
    /// Its name, which reads as a rule.
    pub name: &'static str,
    /// The sentence of the contract that it holds a store to.
    pub rule: &'static str,
    pub(super) needs: &'static [Need],
    pub(super) run: Run,
}

impl Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case")
            .field("name", &self.name)
            .field("rule", &self.rule)
            .finish_non_exhaustive()
    }
}

impl Case {
    /// Tries a new store.
    ///
    /// A store that panics has failed; so has one that cannot be opened.
    pub async fn run(&self, stores: &dyn StoreFactory) -> Verdict {
        let tried = AssertUnwindSafe(self.attempt(stores)).catch_unwind().await;
        let outcome = tried.unwrap_or_else(|panic| Outcome::Failed(panic_text(&*panic)));
        Verdict { name: self.name, rule: self.rule, outcome }
    }

    async fn attempt(&self, stores: &dyn StoreFactory) -> Outcome {
        let subject = match Subject::open(stores).await {
            Ok(subject) => subject,
            Err(flaw) => return Outcome::Failed(flaw.0),
        };
        let missing = self.needs.iter().find_map(|need| need.missing(stores, &subject.store));
        if let Some(missing) = missing {
            return Outcome::Skipped(missing);
        }
        match (self.run)(subject).await {
            Ok(()) => Outcome::Passed,
            Err(flaw) => Outcome::Failed(flaw.0),
        }
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the store panicked: {}", text.unwrap_or("it does not say why"))
}

/// What came of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The store keeps the rule, as far as the case can see.
    Passed,
    /// The store breaks the rule: how, in one sentence.
    Failed(String),
    /// The case does not apply to the store, by this declaration.
    Skipped(&'static str),
}

/// A case and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The name of the case.
    pub name: &'static str,
    /// The sentence of the contract.
    pub rule: &'static str,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a suite, in the order of its cases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The verdicts.
    pub verdicts: Vec<Verdict>,
}

impl Report {
    fn names(&self, of: impl Fn(&Outcome) -> bool) -> Vec<&'static str> {
        let those = self.verdicts.iter().filter(|verdict| of(&verdict.outcome));
        those.map(|verdict| verdict.name).collect()
    }

    /// The names of the cases that passed.
    pub fn passed(&self) -> Vec<&'static str> {
        self.names(|outcome| matches!(outcome, Outcome::Passed))
    }

    /// The names of the cases that failed.
    pub fn failed(&self) -> Vec<&'static str> {
        self.names(|outcome| matches!(outcome, Outcome::Failed(_)))
    }

    /// The names of the cases that were skipped.
    pub fn skipped(&self) -> Vec<&'static str> {
        self.names(|outcome| matches!(outcome, Outcome::Skipped(_)))
    }

    /// Stops the test unless no case failed.
    ///
    /// # Panics
    /// With the whole report, when a case failed or none was passed.
    #[track_caller]
    pub fn assert_passed(&self) {
        assert!(self.failed().is_empty() && !self.passed().is_empty(), "\n{self}");
    }
}

/// A line for each case, those that failed with the rule and the flaw.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Verdict { name, rule, outcome } in &self.verdicts {
            match outcome {
                Outcome::Passed => writeln!(f, "passed   {name}")?,
                Outcome::Skipped(why) => writeln!(f, "skipped  {name}: {why}")?,
                Outcome::Failed(flaw) => {
                    writeln!(
                        f,
                        "FAILED   {name}\n           rule: {rule}\n           flaw: {flaw}"
                    )?;
                }
            }
        }
        let (passed, failed, skipped) =
            (self.passed().len(), self.failed().len(), self.skipped().len());
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

pub(super) async fn run_all(cases: &[Case], stores: &dyn StoreFactory) -> Report {
    let mut verdicts = Vec::new();
    for case in cases {
        verdicts.push(case.run(stores).await);
    }
    Report { verdicts }
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
    async fn open(stores: &dyn StoreFactory) -> Result<Self, Flaw> {
        let unmade = |error| Flaw(format!("there is no place for a store: {error}"));
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
    place.open().await.map_err(|error| Flaw(format!("the store cannot be opened: {error}")))
}

/// Those who are still at work, so that others can tell when they are done, in whatever way.
#[derive(Debug, Clone, Default)]
pub(super) struct Works(Arc<AtomicUsize>);

/// One who is at work until this is dropped.
#[derive(Debug)]
pub(super) struct Working(Arc<AtomicUsize>);

impl Works {
    pub(super) fn begin(&self) -> Working {
        self.0.fetch_add(1, Ordering::SeqCst);
        Working(Arc::clone(&self.0))
    }

    pub(super) fn are_done(&self) -> bool {
        self.0.load(Ordering::SeqCst) == 0
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Lets others go on.
pub(super) async fn pause() {
    let mut paused = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut paused, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Polls a call so many times, unless it ends before, and drops it.
pub(super) async fn poll_and_drop<T>(
    mut call: Pin<Box<dyn Future<Output = T> + Send + '_>>,
    times: u32,
) {
    for _ in 0..times {
        let ended = std::future::poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx).is_ready())).await;
        if ended {
            return;
        }
        pause().await;
    }
}

pub(super) fn same<T: PartialEq + Debug>(what: &str, found: &T, wanted: &T) -> Result<(), Flaw> {
    if found == wanted {
        return Ok(());
    }
    Err(Flaw(format!("{what}: found {found:?}, wanted {wanted:?}")))
}

pub(super) fn ensure(holds: bool, flaw: impl FnOnce() -> String) -> Result<(), Flaw> {
    if holds { Ok(()) } else { Err(Flaw(flaw())) }
}

/// The list of a suite: functions, each with its rule and what it needs.
macro_rules! cases {
    ($($run:ident: $rule:literal $([$($need:ident),+])?;)+) => {
        &[$($crate::conformance::Case {
            name: stringify!($run),
            rule: $rule,
            needs: &[$($($crate::conformance::frame::Need::$need),+)?],
            run: |subject| Box::pin($run(subject)),
        }),+]
    };
}

pub(super) use cases;
