//! What a generated case may come to, worked out from the case alone: no machine, no log, no time but sums of it.
//!
//! It says which ends are allowed, how often each step must have been tried in a run that came to the end of the plan, and which
//! steps must, may and must not have run. Where two things may come first, both are allowed.
use std::collections::{BTreeMap, BTreeSet};

use stillpoint_workflow::End;

use super::cases::{Case, Does, Doubt, GuardSpec, StepSpec};

/// How a step comes out if nothing stops it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Ok,
    /// It failed and had no effect in the end.
    Clean,
    /// It failed and may have had one.
    Dirty,
}

/// What is allowed.
#[derive(Debug)]
pub struct Allowed {
    pub ends: BTreeSet<End>,
    /// Attempts of each step, in a run that was neither stopped nor cancelled; the most of them in any other.
    pub attempts: BTreeMap<String, usize>,
    /// Steps that can never begin, because something that they wait for fails in every case.
    pub never: BTreeSet<String>,
    /// Steps that must have been begun, unless the run was cancelled: all that a lonely failure comes after.
    pub must: BTreeSet<String>,
}

/// A step's outcome and its number of attempts.
fn outcome(spec: &StepSpec) -> (Outcome, usize) {
    let mut dirty = false;
    for attempt in 1.. {
        let does = spec.does[(attempt - 1).min(spec.does.len() - 1)];
        let last = attempt >= spec.attempts as usize;
        match does {
            Does::Work => return (Outcome::Ok, attempt),
            // Nothing was done: it may be tried again.
            Does::FailNone if !last => {}
            Does::FailNone if dirty => return (Outcome::Dirty, attempt),
            Does::FailNone => return (Outcome::Clean, attempt),
            // Its probe tells that nothing was done.
            _ if spec.doubt == Doubt::Asks && !last => {}
            _ if spec.doubt == Doubt::Asks => return (Outcome::Clean, attempt),
            // Nobody knows what was done: only what is harmless to repeat is tried again.
            _ if spec.doubt == Doubt::Repeats && !last => dirty = true,
            _ => return (Outcome::Dirty, attempt),
        }
    }
    unreachable!("a step is tried for ever")
}

/// One call without a second attempt.
fn once(does: Does) -> Outcome {
    match does {
        Does::Work => Outcome::Ok,
        Does::FailNone => Outcome::Clean,
        _ => Outcome::Dirty,
    }
}

/// Its undo fails as often as it is tried.
fn stays(spec: &StepSpec) -> bool {
    spec.undo_fails >= 3
}

/// Whether the section is held; `None` if that is a matter of a few milliseconds.
fn holds(guard: &GuardSpec) -> Option<bool> {
    let enters = guard.enters.iter().all(|does| *does == Does::Work || lenient(guard, *does));
    let exits = guard.exits.iter().all(|does| *does == Does::Work);
    let body = guard.body.iter().all(|s| s.does[0] == Does::Work || lenient(guard, s.does[0]));
    if !(enters && exits && body) {
        return Some(false);
    }
    let mut longest: Vec<u64> = Vec::new();
    for spec in &guard.body {
        let before = spec.after.iter().map(|at| longest[*at]).max().unwrap_or(0);
        longest.push(before + spec.millis);
    }
    // The enters take 5 ms, the cutoff is at 100, and each call looks into a journal that may take its time.
    let until = 5 + longest.into_iter().max().unwrap_or(0);
    match until {
        _ if !guard.limited => Some(true),
        0..=85 => Some(true),
        86..=102 => None,
        _ => Some(false),
    }
}

/// What would hang for ever without a limit is not made to.
fn lenient(guard: &GuardSpec, does: Does) -> bool {
    !guard.limited && does == Does::Hang
}

/// All that a step comes after.
fn ancestors(case: &Case, of: &[usize]) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    let mut open = of.to_vec();
    while let Some(at) = open.pop() {
        if found.insert(at) {
            open.extend(&case.steps[at].after);
        }
    }
    found
}

/// What fails the run: by the steps that it comes after.
struct Failing {
    node: Option<usize>,
    after: Vec<usize>,
}

/// Whatever was at work when a process died is lost, and may be what the run fails for, or can do without.
fn lose(case: &Case, ends: &mut BTreeSet<End>) {
    ends.insert(End::Failed);
    if case.point.is_some() {
        ends.insert(End::NeedsAttention);
    }
    if case.steps.iter().any(|spec| spec.optional) && ends.contains(&End::Succeeded) {
        ends.insert(End::SucceededWithWarnings);
    }
}

/// What the case may come to, in one process or in several that died one after the other.
pub fn allowed(case: &Case, crashed: bool) -> Allowed {
    let outcomes: Vec<_> = case.steps.iter().map(outcome).collect();
    let fails = |at: usize| outcomes[at].0 != Outcome::Ok && !case.steps[at].optional;
    let name = |at: usize| format!("s{at}");
    let mut failing: Vec<_> = (0..case.steps.len())
        .filter(|at| fails(*at))
        .map(|at| Failing { node: Some(at), after: case.steps[at].after.clone() })
        .collect();
    let guard = case.guard.as_ref().map(|guard| (guard, holds(guard)));
    if let Some((guard, held)) = guard
        && held != Some(true)
    {
        failing.push(Failing { node: None, after: guard.after.clone() });
    }
    let maybe = guard.is_some_and(|(_, held)| held.is_none());

    // What comes after a failure never begins.
    let doomed = |after: &[usize]| ancestors(case, after).into_iter().any(fails);
    let mut never: BTreeSet<_> =
        (0..case.steps.len()).filter(|at| doomed(&case.steps[*at].after)).map(name).collect();
    if let Some((guard, _)) = guard
        && doomed(&guard.after)
    {
        never.extend((0..guard.body.len()).map(|at| format!("b{at}")));
    }
    if failing.len() > usize::from(maybe) {
        never.extend(["point".to_owned(), "late".to_owned()]);
    }

    // What may be left: steps that may have acted and whose undo keeps failing.
    let acted = |at: usize| outcomes[at].0 != Outcome::Clean || case.steps[at].does.len() > 1;
    let loose = (0..case.steps.len()).any(|at| stays(&case.steps[at]) && acted(at))
        || guard.is_some_and(|(guard, _)| guard.body.iter().any(stays));
    // An optional step that failed is undone in every case, also in a run that goes on.
    let of_optional = |at: usize| {
        case.steps[at].optional && outcomes[at].0 == Outcome::Dirty && stays(&case.steps[at])
    };
    let optional_left = (0..case.steps.len()).any(of_optional);
    let warned =
        (0..case.steps.len()).any(|at| case.steps[at].optional && outcomes[at].0 != Outcome::Ok);

    let mut ends = BTreeSet::new();
    let mut must = BTreeSet::new();
    if !failing.is_empty() {
        ends.insert(End::Failed);
        if loose {
            ends.insert(End::NeedsAttention);
        }
        if let ([alone], false) = (failing.as_slice(), maybe) {
            let before = ancestors(case, &alone.after);
            let left = |at: &usize| {
                stays(&case.steps[*at]) && (outcomes[*at].0 == Outcome::Ok || of_optional(*at))
            };
            let own = alone
                .node
                .is_some_and(|at| outcomes[at].0 == Outcome::Dirty && stays(&case.steps[at]));
            if own || before.iter().any(left) {
                ends.remove(&End::Failed);
            }
            must.extend(before.into_iter().chain(alone.node).map(name));
        }
    }
    if failing.is_empty() || maybe && failing.len() == 1 {
        let good = if warned { End::SucceededWithWarnings } else { End::Succeeded };
        let (point, late) = case
            .point
            .map_or((Outcome::Ok, Outcome::Ok), |(point, late)| (once(point), once(late)));
        match (point, late) {
            _ if optional_left && !crashed => drop(ends.insert(End::NeedsAttention)),
            // The point has not been passed after all: everything is undone.
            (Outcome::Clean, _) => {
                ends.insert(End::Failed);
                if loose {
                    ends.insert(End::NeedsAttention);
                }
            }
            // Passed, and the run is given up: what is in doubt is left.
            (Outcome::Dirty, _) | (Outcome::Ok, Outcome::Dirty) => {
                ends.insert(End::NeedsAttention);
            }
            (Outcome::Ok, Outcome::Clean) => drop(ends.insert(End::SucceededWithWarnings)),
            (Outcome::Ok, Outcome::Ok) => drop(ends.insert(good)),
        }
    }
    if case.cancel.is_some() {
        ends.insert(End::Cancelled);
        if loose || case.point.is_some() {
            ends.insert(End::NeedsAttention);
        }
        if case.point.is_some() {
            // Past the point of no return it only stops what follows.
            ends.insert(End::SucceededWithWarnings);
        }
        must.clear();
    }
    if crashed {
        lose(case, &mut ends);
        must.clear();
    }
    // What a failure, a cancel or a crash interrupts is in doubt, also where it would have ended clean.
    let stopped = case.cancel.is_some() || crashed || !failing.is_empty();
    let body = case.guard.iter().flat_map(|guard| &guard.body);
    if stopped && case.steps.iter().any(stays) || crashed && body.into_iter().any(stays) {
        ends.insert(End::NeedsAttention);
    }
    // An attempt that is lost counts as one, and may be followed by another.
    let tries = |at: usize| if crashed { case.steps[at].attempts as usize } else { outcomes[at].1 };
    let attempts = (0..case.steps.len()).map(|at| (name(at), tries(at))).collect();
    Allowed { ends, attempts, never, must }
}
