//! What the suites have in common: cases, how they are run, and what is said of them.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt::{self, Debug};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use futures_util::FutureExt;
use stillpoint_context::BoxFuture;

use super::subject::Stores;

/// How a rule is broken, in one sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Flaw(pub(super) String);

impl Flaw {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

/// What a suite tries: stores, providers or plug-ins.
///
/// Not for others to implement: its methods may change in any version.
pub trait Kit: Sized + 'static {
    /// What makes the things that are tried.
    type Factory<'f>: ?Sized + Sync;
    /// One of them, at a place of its own.
    type Subject: Send + Sync + 'static;
    /// What a case cannot do without.
    type Need: Copy + Debug + Send + Sync + 'static;
    /// What one of them is called.
    const NOUN: &'static str;

    /// Makes one.
    fn open<'f>(factory: &'f Self::Factory<'f>) -> BoxFuture<'f, Result<Self::Subject, Flaw>>;

    /// What was declared that makes a case pointless which needs this.
    fn missing(
        need: Self::Need,
        factory: &Self::Factory<'_>,
        subject: &Self::Subject,
    ) -> Option<&'static str>;

    /// Whether a case that needs this does nothing to what is not its own.
    fn is_harmless(_need: Self::Need) -> bool {
        false
    }

    /// Takes away what a case has left that failed, where that lies at a place that outlasts the case. One that passed has
    /// left nothing: that is part of what it looks for.
    fn tidy(_subject: &Self::Subject) -> BoxFuture<'static, Result<(), Flaw>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

pub(super) type Run<S> = fn(S) -> BoxFuture<'static, Result<(), Flaw>>;

/// One case of a suite.
pub struct Case<K: Kit = Stores> {
    /// Its name, which reads as a rule.
    pub name: &'static str,
    /// The paragraph of the contract that it belongs to, such as `S3`; empty where the contract has none.
    pub contract: &'static str,
    /// The sentence of the contract that it holds an implementation to.
    pub rule: &'static str,
    pub(super) needs: &'static [K::Need],
    pub(super) run: Run<K::Subject>,
}

impl<K: Kit> Clone for Case<K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K: Kit> Copy for Case<K> {}

impl<K: Kit> Debug for Case<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case")
            .field("name", &self.name)
            .field("contract", &self.contract)
            .field("rule", &self.rule)
            .finish_non_exhaustive()
    }
}

impl<K: Kit> Case<K> {
    /// Whether it does nothing to what is not its own, so that it can be tried on a system that is in use: a case for a
    /// provider takes, exposes and removes snapshots under tokens of its own, stores documents under names of its own, and
    /// writes to no file of a volume; one for a plug-in begins sessions, freezes them for a moment, thaws and aborts.
    pub fn is_harmless(&self) -> bool {
        self.needs.iter().all(|need| K::is_harmless(*need))
    }

    /// Tries a new one.
    ///
    /// What panics has failed; so has what cannot be opened.
    pub async fn run<'f>(&self, factory: &'f K::Factory<'f>) -> Verdict {
        let tried = AssertUnwindSafe(self.attempt(factory)).catch_unwind().await;
        let outcome = tried.unwrap_or_else(|panic| Outcome::Failed(panic_text::<K>(&*panic)));
        Verdict { name: self.name, contract: self.contract, rule: self.rule, outcome }
    }

    async fn attempt<'f>(&self, factory: &'f K::Factory<'f>) -> Outcome {
        let subject = match K::open(factory).await {
            Ok(subject) => subject,
            Err(flaw) => return Outcome::Failed(flaw.0),
        };
        let missing = self.needs.iter().find_map(|need| K::missing(*need, factory, &subject));
        if let Some(missing) = missing {
            return Outcome::Skipped(missing);
        }
        let tidy = K::tidy(&subject);
        // Also after a panic: what was left is at a place that may outlast the case.
        let ended = AssertUnwindSafe((self.run)(subject)).catch_unwind().await;
        let ended = ended.unwrap_or_else(|panic| Err(Flaw(panic_text::<K>(&*panic))));
        let Err(flaw) = ended else { return Outcome::Passed };
        let tidied = AssertUnwindSafe(tidy).catch_unwind().await;
        match tidied.unwrap_or_else(|panic| Err(Flaw(panic_text::<K>(&*panic)))) {
            Ok(()) => Outcome::Failed(flaw.0),
            Err(left) => {
                let left = left.0;
                Outcome::Failed(format!("{flaw}; and what the case left stays: {left}"))
            }
        }
    }
}

fn panic_text<K: Kit>(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the {} panicked: {}", K::NOUN, text.unwrap_or("it does not say why"))
}

/// What came of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The rule is kept, as far as the case can see.
    Passed,
    /// The rule is broken: how, in one sentence.
    Failed(String),
    /// The case does not apply, by this declaration.
    Skipped(&'static str),
}

/// A case and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The name of the case.
    pub name: &'static str,
    /// The paragraph of the contract, such as `S3`; empty where the contract has none.
    pub contract: &'static str,
    /// The sentence of the contract.
    pub rule: &'static str,
    /// What came of it.
    pub outcome: Outcome,
}

/// How many cases of one paragraph of a contract came to what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Those that passed.
    pub passed: usize,
    /// Those that failed.
    pub failed: usize,
    /// Those that were skipped.
    pub skipped: usize,
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

    /// What came of each paragraph of the contract, by its name, such as `S3`.
    pub fn by_contract(&self) -> BTreeMap<&'static str, Tally> {
        let mut tallies = BTreeMap::<_, Tally>::new();
        for verdict in self.verdicts.iter().filter(|verdict| !verdict.contract.is_empty()) {
            let tally = tallies.entry(verdict.contract).or_default();
            match verdict.outcome {
                Outcome::Passed => tally.passed += 1,
                Outcome::Failed(_) => tally.failed += 1,
                Outcome::Skipped(_) => tally.skipped += 1,
            }
        }
        tallies
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

/// A line for each case, those that failed with the rule and the flaw; then one for each paragraph of the contract.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Verdict { name, contract, rule, outcome } in &self.verdicts {
            let space = if contract.is_empty() { "" } else { " " };
            match outcome {
                Outcome::Passed => writeln!(f, "passed   {contract}{space}{name}")?,
                Outcome::Skipped(why) => writeln!(f, "skipped  {contract}{space}{name}: {why}")?,
                Outcome::Failed(flaw) => {
                    writeln!(
                        f,
                        "FAILED   {contract}{space}{name}\n           rule: {rule}\n           flaw: {flaw}"
                    )?;
                }
            }
        }
        for (contract, Tally { passed, failed, skipped }) in self.by_contract() {
            writeln!(f, "{contract}: {passed} passed, {failed} failed, {skipped} skipped")?;
        }
        let (passed, failed, skipped) =
            (self.passed().len(), self.failed().len(), self.skipped().len());
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

pub(super) async fn run_all<'f, K: Kit>(cases: &[Case<K>], factory: &'f K::Factory<'f>) -> Report {
    let mut verdicts = Vec::new();
    for case in cases {
        verdicts.push(case.run(factory).await);
    }
    Report { verdicts }
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

/// The list of a suite: functions, each with its rule and what it needs, and with the paragraph of its contract where there
/// are such; then the needs are those of the module's own `Need`.
macro_rules! cases {
    ($($run:ident: $rule:literal $([$($need:ident),+])?;)+) => {
        &[$($crate::conformance::Case {
            name: stringify!($run),
            contract: "",
            rule: $rule,
            needs: &[$($($crate::conformance::subject::Need::$need),+)?],
            run: |subject| Box::pin($run(subject)),
        }),+]
    };
    ($($contract:ident $run:ident: $rule:literal $([$($need:ident),+])?;)+) => {
        &[$($crate::conformance::Case {
            name: stringify!($run),
            contract: stringify!($contract),
            rule: $rule,
            needs: &[$($(Need::$need),+)?],
            run: |subject| Box::pin($run(subject)),
        }),+]
    };
}

pub(super) use cases;
