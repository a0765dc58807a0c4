//! Faults to inject into calls.
//!
//! ```
//! use std::time::Duration;
//! use stillpoint_storage::ProviderErrorKind;
//! use stillpoint_testkit::{Fault, World};
//!
//! let world = World::one_server(1);
//! let faults = world.faults();
//! faults.on("commit").nth(1).inject(Fault::Slow(Duration::from_secs(25)));
//! faults.on("settle").after_effect().inject(Fault::fail(ProviderErrorKind::Io));
//! faults.on("thaw").step("undo").inject(Fault::Hang);
//! ```

use std::future::pending;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use stillpoint_context::{Cx, ErrorFacts, Interrupted};
use stillpoint_exchange::{PluginError, PluginErrorKind};
use stillpoint_storage::{ProviderError, ProviderErrorKind};

use crate::call::known;
use crate::change::Change;

/// An error to fail with, as either side says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    exchange: PluginErrorKind,
    storage: ProviderErrorKind,
    without_effect: bool,
}

impl Trouble {
    fn both(exchange: PluginErrorKind, storage: ProviderErrorKind) -> Self {
        Self { exchange, storage, without_effect: false }
    }

    /// The side did not answer in time.
    pub fn timed_out() -> Self {
        Self::both(PluginErrorKind::TimedOut, ProviderErrorKind::TimedOut)
    }

    /// The side cannot be reached.
    pub fn unreachable() -> Self {
        Self::both(PluginErrorKind::Unreachable, ProviderErrorKind::Unreachable)
    }

    /// Something else is wrong in the environment.
    pub fn io() -> Self {
        Self::both(PluginErrorKind::Io, ProviderErrorKind::Io)
    }

    /// The caller's token is old.
    pub fn fenced() -> Self {
        Self::both(PluginErrorKind::Fenced, ProviderErrorKind::Fenced)
    }

    /// The same, claiming that nothing was changed. Beside `after_effect` that is a lie.
    pub fn without_effect(mut self) -> Self {
        self.without_effect = true;
        self
    }
}

impl From<PluginErrorKind> for Trouble {
    fn from(kind: PluginErrorKind) -> Self {
        Self::both(kind, ProviderErrorKind::Internal)
    }
}

impl From<ProviderErrorKind> for Trouble {
    fn from(kind: ProviderErrorKind) -> Self {
        Self::both(PluginErrorKind::Internal, kind)
    }
}

/// An answer that is not true.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lie {
    /// Any call: answers as if it had done its work, and has done nothing.
    Done,
    /// `evidence`: every freeze held.
    Held,
    /// `evidence`: nobody can say.
    Unsure,
    /// `verify`: everything is good.
    Good,
    /// `verify`: everything is bad.
    Bad,
}

/// What goes wrong with a call.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// It takes this much longer, by the clock of the call. For `commit` and `snap` the snapshots themselves come later,
    /// whether or not anybody waits.
    Slow(Duration),
    /// It does not end until it is cancelled or dropped.
    Hang,
    /// It does not end until it is dropped: it does not hear a cancel.
    Deaf,
    /// It fails with this.
    Fail(Trouble),
    /// It panics.
    Panic,
    /// It fails at once with a time-out, and its effect happens this much later. A `commit` or `snap` is in flight until then
    /// and can be found; of others nothing can be seen before.
    LateArrival(Duration),
    /// It answers what is not true.
    Lie(Lie),
    /// The side dies, and with it the call. Freezes still end by themselves.
    Die,
    /// It blocks its thread this long, in real time.
    BlockThread(Duration),
    /// Something else happens meanwhile.
    Change(Change),
}

impl Fault {
    /// It fails with this.
    pub fn fail(trouble: impl Into<Trouble>) -> Self {
        Self::Fail(trouble.into())
    }

    /// Lets a call suffer what is about the call alone; `None` for what is about its effect, its side or the world.
    pub(crate) async fn befall<E: SideError>(&self, cx: &Cx, call: &str) -> Option<Result<(), E>> {
        Some(match self {
            Self::Slow(time) => cx.sleep(*time).await.map_err(E::from),
            Self::Hang => {
                cx.cancel().cancelled().await;
                Err(E::from(Interrupted::Cancelled))
            }
            Self::Deaf => pending().await,
            Self::Fail(trouble) => Err(E::of_trouble(trouble, call)),
            Self::Panic => resume_unwind(Box::new(format!("{call} panicked (injected)"))),
            Self::BlockThread(time) => {
                block_thread(*time);
                Ok(())
            }
            Self::LateArrival(_) | Self::Lie(_) | Self::Die | Self::Change(_) => return None,
        })
    }
}

/// What these calls start goes on by itself, also when nobody waits for it any more.
pub(crate) fn flies(call: &str) -> bool {
    matches!(call, "commit" | "snap")
}

#[allow(clippy::disallowed_methods, reason = "to block the thread is the fault that was asked for")]
fn block_thread(time: Duration) {
    std::thread::sleep(time);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    Every,
    Nth(u32),
    From(u32),
}

#[derive(Debug, Clone)]
struct Rule {
    call: &'static str,
    step: Option<String>,
    about: Option<String>,
    which: Which,
    after: bool,
    fault: Fault,
    seen: u32,
}

/// Faults at random, the same for the same seed whatever the interleaving: whether the n-th call of a name fails, and how,
/// depends on the seed, the name and n alone.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RandomFaults {
    /// The seed; print it when a test fails.
    pub seed: u64,
    /// On average one call in so many; 0 is never.
    pub one_in: u64,
    /// The calls that may be hit; all if it is empty.
    pub calls: Vec<&'static str>,
    /// The faults to choose from.
    pub menu: Vec<Fault>,
    /// At most so many in all.
    pub most: u32,
}

impl RandomFaults {
    /// One call in ten, any call, slow, hanging, failing, panicking or late; without end.
    pub fn new(seed: u64) -> Self {
        let menu = vec![
            Fault::Slow(Duration::from_millis(700)),
            Fault::Slow(Duration::from_secs(30)),
            Fault::Hang,
            Fault::Deaf,
            Fault::Fail(Trouble::io()),
            Fault::Fail(Trouble::timed_out()),
            Fault::Panic,
            Fault::LateArrival(Duration::from_secs(5)),
            Fault::LateArrival(Duration::from_secs(90)),
        ];
        Self { seed, one_in: 10, calls: Vec::new(), menu, most: u32::MAX }
    }

    /// On average one call in so many.
    pub fn one_in(mut self, calls: u64) -> Self {
        self.one_in = calls;
        self
    }

    /// Only these calls.
    ///
    /// # Panics
    /// When there is no call of one of these names.
    pub fn only(mut self, calls: &[&str]) -> Self {
        let found: Vec<_> = calls.iter().filter_map(|call| known(call)).collect();
        assert!(found.len() == calls.len(), "no trait has all the calls {calls:?}");
        self.calls = found;
        self
    }

    /// These faults to choose from.
    pub fn menu(mut self, menu: Vec<Fault>) -> Self {
        self.menu = menu;
        self
    }

    /// At most so many in all.
    pub fn at_most(mut self, faults: u32) -> Self {
        self.most = faults;
        self
    }
}

#[derive(Debug, Default)]
struct Rules {
    scripted: Vec<Rule>,
    random: Option<RandomFaults>,
    counts: std::collections::BTreeMap<&'static str, u64>,
    fired: u32,
}

#[derive(Debug, Clone)]
pub(crate) struct Injected {
    pub(crate) fault: Fault,
    pub(crate) after: bool,
}

impl Injected {
    /// As a record tells it.
    pub(crate) fn told(&self) -> String {
        format!("{:?} {} the effect", self.fault, if self.after { "after" } else { "before" })
    }
}

/// The faults of a [`World`](crate::World) or of a [`Faulty`](crate::wrap::Faulty) side. Cheap to clone; all clones are one set of rules.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<Mutex<Rules>>);

impl Faults {
    fn lock(&self) -> MutexGuard<'_, Rules> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a rule for the calls of this name: every one of them, until more is said. Nothing happens before
    /// [`inject`](FaultRule::inject).
    ///
    /// # Panics
    /// When there is no call of this name: such a rule would never do anything.
    pub fn on(&self, call: &str) -> FaultRule {
        let found = known(call);
        assert!(found.is_some(), "no trait has a call named {call:?}");
        FaultRule {
            faults: self.clone(),
            rule: Rule {
                call: found.unwrap_or_default(),
                step: None,
                about: None,
                which: Which::Every,
                after: false,
                fault: Fault::Hang,
                seen: 0,
            },
        }
    }

    /// Injects faults at random, besides the rules.
    pub fn random(&self, faults: RandomFaults) {
        let mut rules = self.lock();
        rules.random = Some(faults);
        rules.counts.clear();
    }

    /// Takes all rules away.
    pub fn clear(&self) {
        let mut rules = self.lock();
        rules.scripted.clear();
        rules.random = None;
    }

    /// How many faults have been injected so far. A test that wants one looks here whether it came.
    pub fn fired(&self) -> u32 {
        self.lock().fired
    }

    pub(crate) fn pick(&self, call: &'static str, step: &str, about: &str) -> Option<Injected> {
        let mut rules = self.lock();
        let mut hit = None;
        for rule in &mut rules.scripted {
            let concerns = rule.call == call
                && rule.step.as_deref().is_none_or(|wanted| wanted == step)
                && rule.about.as_deref().is_none_or(|wanted| about.contains(wanted));
            if !concerns {
                continue;
            }
            // Every rule counts every call that it concerns, also when another one is hit.
            rule.seen += 1;
            let now = match rule.which {
                Which::Every => true,
                Which::Nth(n) => rule.seen == n,
                Which::From(n) => rule.seen >= n,
            };
            if now && hit.is_none() {
                hit = Some(Injected { fault: rule.fault.clone(), after: rule.after });
            }
        }
        let nth = rules.counts.entry(call).or_default();
        *nth += 1;
        let nth = *nth;
        let fired = rules.fired;
        let hit = hit.or_else(|| rules.random.as_ref()?.pick(call, nth, fired));
        rules.fired += u32::from(hit.is_some());
        hit
    }
}

impl RandomFaults {
    fn pick(&self, call: &'static str, nth: u64, fired: u32) -> Option<Injected> {
        if self.one_in == 0 || self.menu.is_empty() || fired >= self.most {
            return None;
        }
        if !self.calls.is_empty() && !self.calls.contains(&call) {
            return None;
        }
        let mut seed = self.seed ^ nth.rotate_left(40);
        for byte in call.bytes() {
            seed = mix(seed ^ u64::from(byte));
        }
        let (whether, what, when) = (mix(seed), mix(seed ^ 1), mix(seed ^ 2));
        if !whether.is_multiple_of(self.one_in) {
            return None;
        }
        let index = usize::try_from(what % self.menu.len() as u64).unwrap_or(0);
        let fault = self.menu.get(index)?.clone();
        Some(Injected { fault, after: when.is_multiple_of(2) })
    }
}

/// SplitMix64: every bit of the input reaches every bit of the output.
pub(crate) fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A rule that is being made. Made by [`Faults::on`].
#[derive(Debug)]
#[must_use = "a rule does nothing before a fault is injected"]
pub struct FaultRule {
    faults: Faults,
    rule: Rule,
}

impl FaultRule {
    /// Only the n-th of them, from 1, counted from now on.
    pub fn nth(mut self, n: u32) -> Self {
        self.rule.which = Which::Nth(n);
        self
    }

    /// The n-th of them, from 1, and all that follow.
    pub fn from_nth(mut self, n: u32) -> Self {
        self.rule.which = Which::From(n);
        self
    }

    /// Only those of the step of this name.
    pub fn step(mut self, step: impl Into<String>) -> Self {
        self.rule.step = Some(step.into());
        self
    }

    /// Only those whose [`about`](crate::CallRecord::about) contains this text, such as a volume's or a copy's id.
    pub fn about(mut self, text: impl Into<String>) -> Self {
        self.rule.about = Some(text.into());
        self
    }

    /// The call does its work first; then comes the fault.
    pub fn after_effect(mut self) -> Self {
        self.rule.after = true;
        self
    }

    /// Injects this from now on. Where several rules concern a call, the one made first is taken.
    ///
    /// # Panics
    /// For `after_effect` with a lie or a late arrival, which are about the effect itself.
    pub fn inject(mut self, fault: Fault) {
        assert!(
            !(self.rule.after && matches!(fault, Fault::Lie(_) | Fault::LateArrival(_))),
            "{fault:?} cannot come after the effect"
        );
        self.rule.fault = fault;
        let Self { faults, rule } = self;
        faults.lock().scripted.push(rule);
    }
}

/// What the errors of both sides have in common.
pub(crate) trait SideError: ErrorFacts + From<Interrupted> + Send + 'static {
    fn of_trouble(trouble: &Trouble, call: &str) -> Self;

    /// What is asked of the test kit cannot be done.
    fn defect(message: String) -> Self;
}

impl SideError for PluginError {
    fn of_trouble(trouble: &Trouble, call: &str) -> Self {
        let error = Self::new(trouble.exchange.clone(), format!("{call} failed (injected)"));
        if trouble.without_effect { error.without_effect() } else { error }
    }

    fn defect(message: String) -> Self {
        Self::new(PluginErrorKind::Internal, message).without_effect()
    }
}

impl SideError for ProviderError {
    fn of_trouble(trouble: &Trouble, call: &str) -> Self {
        let error = Self::new(trouble.storage.clone(), format!("{call} failed (injected)"));
        if trouble.without_effect { error.without_effect() } else { error }
    }

    fn defect(message: String) -> Self {
        Self::new(ProviderErrorKind::Internal, message).without_effect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picks(faults: &Faults, times: u32) -> Vec<bool> {
        (0..times).map(|_| faults.pick("commit", "step", "vol1").is_some()).collect()
    }

    #[test]
    fn a_rule_hits_the_calls_it_names() {
        let faults = Faults::default();
        faults.on("commit").nth(2).inject(Fault::Hang);
        assert_eq!(picks(&faults, 3), [false, true, false]);
        faults.clear();
        faults.on("commit").from_nth(2).inject(Fault::Hang);
        assert_eq!(picks(&faults, 3), [false, true, true]);
        faults.clear();
        faults.on("commit").about("vol2").inject(Fault::Hang);
        faults.on("commit").step("other").inject(Fault::Hang);
        faults.on("settle").inject(Fault::Hang);
        assert_eq!(picks(&faults, 1), [false]);
        faults.on("commit").about("vol1").step("step").inject(Fault::Hang);
        assert_eq!(picks(&faults, 2), [true, true]);
        assert_eq!(faults.fired(), 5);
    }

    #[test]
    #[should_panic(expected = "no trait has a call named")]
    fn a_misspelt_call_is_refused() {
        drop(Faults::default().on("comit"));
    }

    #[test]
    fn random_faults_depend_on_seed_name_and_number_alone() {
        let fired = |seed, calls: &[&'static str]| -> Vec<String> {
            let faults = Faults::default();
            faults.random(RandomFaults::new(seed).one_in(3));
            let mut all: Vec<String> = calls
                .iter()
                .cycle()
                .take(60)
                .filter_map(|call| faults.pick(call, "s", "").map(|hit| format!("{call} {hit:?}")))
                .collect();
            all.sort();
            all
        };
        let first = fired(7, &["commit", "settle"]);
        assert!((5..40).contains(&first.len()), "{}", first.len());
        assert_eq!(first, fired(7, &["settle", "commit"]), "order does not matter");
        assert_ne!(first, fired(8, &["commit", "settle"]));
    }
}
