//! What the logs of workers and driver must show.

use std::collections::{BTreeMap, BTreeSet};

use stillpoint_context::{FencingToken, ProcessId, RunId, StepName};
use stillpoint_workflow::{Claim, End};

use super::{Blow, Deed, Did};
use crate::check::{Broken, Rule};
use crate::ledger::Line;

/// An effect as the logs tell of it. Instants are microseconds since the machine was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    /// Which process.
    pub process: ProcessId,
    /// In whose name.
    pub run: RunId,
    /// Its step.
    pub step: StepName,
    /// Whether it takes something back.
    pub undo: bool,
    /// Under which token.
    pub fence: FencingToken,
    /// What its run claims.
    pub claims: Vec<Claim>,
    /// When the lease was looked at for its sake, in nanoseconds.
    pub admitted: Option<u64>,
    /// When it began.
    pub begun: u64,
    /// When it ended; none if its process did before.
    pub ended: Option<u64>,
}

/// What is known of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// Its leases: when each was noted, and until when it lasts, in nanoseconds.
    pub leases: Vec<(u64, u64)>,
    /// When it was killed, if it was.
    pub killed: Option<u64>,
    /// When another process had fenced it off for certain, if one had.
    pub taken_over: Option<u64>,
    /// When it was first refused.
    pub refused: Option<u64>,
    /// Whether it was refused again when it tried.
    pub refused_again: bool,
    /// Whether its driver let it go: it may have been refused in the very moment and owes no further try.
    pub left: bool,
    /// When the commits were asked for that were written.
    pub commits: Vec<u64>,
}

impl Known {
    /// Until when its lease has ever lasted, in nanoseconds.
    fn until(&self) -> u64 {
        self.leases.iter().map(|(_, until)| *until).max().unwrap_or(0)
    }

    /// From when on nothing that it does counts as its runs': it was killed, or its lease was over and was taken. Microseconds.
    fn counts_until(&self) -> u64 {
        let lease = self.taken_over.map_or(u64::MAX, |_| self.until() / 1000);
        lease.min(self.killed.unwrap_or(u64::MAX))
    }
}

/// What all logs tell together.
#[derive(Debug, Clone, Default)]
pub struct Tale {
    /// The effects, by when they began.
    pub effects: Vec<Effect>,
    /// The processes.
    pub processes: BTreeMap<ProcessId, Known>,
}

/// Numbers of a tale that are no rule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// How many effects there were.
    pub effects: usize,
    /// How many processes.
    pub processes: usize,
    /// How many were killed.
    pub killed: usize,
    /// How many lost their lease while they lived.
    pub taken_over: usize,
    /// How many effects began after their process had been taken over, admitted before the end of its lease.
    pub landed: usize,
    /// How many effects had begun before that and ended after it.
    pub ended_late: usize,
    /// How many pairs of runs were compared.
    pub pairs: usize,
}

impl Tale {
    /// Reads the logs.
    pub fn of(deeds: &[Line<Deed>], blows: &[Line<Blow>]) -> Self {
        let mut tale = Self::default();
        let mut pids = BTreeMap::new();
        let mut open: BTreeMap<(ProcessId, u64), usize> = BTreeMap::new();
        for Line { at, what: Deed { process, did } } in deeds {
            let (at, known) = (*at, tale.processes.entry(*process).or_default());
            match did {
                Did::Started { pid } => drop(pids.insert(*pid, *process)),
                Did::Begun { effect, run, step, undo, fence, claims, admitted } => {
                    open.insert((*process, *effect), tale.effects.len());
                    tale.effects.push(Effect {
                        process: *process,
                        run: *run,
                        step: step.clone(),
                        undo: *undo,
                        fence: *fence,
                        claims: claims.clone(),
                        admitted: *admitted,
                        begun: at,
                        ended: None,
                    });
                }
                Did::Ended { effect } => {
                    if let Some(effect) = open.remove(&(*process, *effect)) {
                        tale.effects[effect].ended = Some(at);
                    }
                }
                Did::Leased { until, .. } => known.leases.push((at, *until)),
                Did::Committed { asked } => known.commits.push(*asked),
                Did::Refused => known.refused = known.refused.or(Some(at)),
                Did::RefusedAgain => known.refused_again = true,
                Did::Left => known.left = true,
                Did::Fenced { victim, .. } => {
                    let known = tale.processes.entry(*victim).or_default();
                    known.taken_over = Some(known.taken_over.unwrap_or(at).min(at));
                }
            }
        }
        for Line { at, what } in blows {
            if let Blow::Kill { pid } = what
                && let Some(known) = pids.get(pid).and_then(|id| tale.processes.get_mut(id))
            {
                known.killed = Some(*at);
            }
        }
        tale.effects.sort_by_key(|effect| effect.begun);
        tale
    }

    /// Every rule that does not hold.
    pub fn broken(&self) -> Vec<Broken> {
        let mut broken = self.holds_overlap().0;
        broken.extend(self.admitted_late());
        broken.extend(self.not_refused());
        broken
    }

    fn counts_until(&self, process: ProcessId) -> u64 {
        self.processes.get(&process).map_or(u64::MAX, Known::counts_until)
    }

    /// The holds of runs, from the first effect to the last that counts, with the tokens that they bore.
    fn holds(&self) -> Vec<Hold<'_>> {
        let mut holds: BTreeMap<RunId, Hold<'_>> = BTreeMap::new();
        for effect in &self.effects {
            let limit = self.counts_until(effect.process);
            if effect.begun >= limit {
                continue;
            }
            let end = effect.ended.unwrap_or(u64::MAX).min(limit);
            let hold = holds.entry(effect.run).or_insert_with(|| Hold {
                run: effect.run,
                claims: &effect.claims,
                from: effect.begun,
                to: end,
                tokens: (effect.fence, effect.fence),
            });
            hold.to = hold.to.max(end);
            let (low, high) = hold.tokens;
            hold.tokens = (low.min(effect.fence), high.max(effect.fence));
        }
        let mut holds: Vec<_> = holds.into_values().collect();
        holds.sort_by_key(|hold| hold.from);
        holds
    }

    /// Holds that conflict and overlap, or whose tokens do not rise; and how many pairs conflict.
    fn holds_overlap(&self) -> (Vec<Broken>, usize) {
        let holds = self.holds();
        let (mut broken, mut pairs) = (Vec::new(), 0);
        for (at, first) in holds.iter().enumerate() {
            for second in &holds[at + 1..] {
                if !first.conflicts_with(second) {
                    continue;
                }
                pairs += 1;
                if second.from < first.to {
                    let message = format!(
                        "run {} began at {} what run {} held until {}",
                        second.run, second.from, first.run, first.to
                    );
                    broken.push(Broken::new(Rule::Overlap, message));
                }
                if second.tokens.0 <= first.tokens.1 {
                    let message = format!(
                        "run {} held under token {} what run {} holds later under {}",
                        first.run, first.tokens.1, second.run, second.tokens.0
                    );
                    broken.push(Broken::new(Rule::Order, message));
                }
            }
        }
        (broken, pairs)
    }

    /// Effects for which no lease was looked at, or one that was over.
    fn admitted_late(&self) -> Vec<Broken> {
        let mut broken = Vec::new();
        for effect in &self.effects {
            let known = self.processes.get(&effect.process);
            // The lease that the process had when it looked. One may have been given and not noted yet.
            let begun = effect.begun;
            let leases = known.map(|known| known.leases.as_slice()).unwrap_or_default();
            let until = leases.iter().filter(|(at, _)| *at <= begun).map(|(_, until)| *until).max();
            let trouble = match (effect.admitted, until) {
                (None, _) => "nobody had looked at a lease".to_owned(),
                (Some(admitted), Some(until)) if admitted < until => continue,
                (Some(admitted), until) => {
                    format!("it was admitted at {admitted}, its lease ended at {until:?}")
                }
            };
            let message =
                format!("{} of run {}, begun at {begun}: {trouble}", effect.step, effect.run);
            broken.push(Broken::new(Rule::Late, message));
        }
        broken
    }

    /// Processes that were taken over and could still write, or act after they had been told.
    fn not_refused(&self) -> Vec<Broken> {
        let mut broken = Vec::new();
        for (process, known) in &self.processes {
            let Some(taken_over) = known.taken_over else { continue };
            let written = known.commits.iter().filter(|asked| **asked > taken_over).count();
            if written > 0 {
                let message = format!("{process} wrote {written} commits after it was taken over");
                broken.push(Broken::new(Rule::Refusal, message));
            }
            let Some(refused) = known.refused else { continue };
            // What was let in before is on its way; what is let in afterwards is not to be.
            let after = self.effects.iter().filter(|effect| {
                effect.process == *process
                    && effect.admitted.is_none_or(|admitted| admitted / 1000 > refused)
            });
            let after = after.count();
            if after > 0 {
                let message = format!("{process} began {after} effects after it was refused");
                broken.push(Broken::new(Rule::Refusal, message));
            }
            if known.killed.is_none() && !known.left && !known.refused_again {
                let message = format!("{process} was taken over and never refused a submission");
                broken.push(Broken::new(Rule::Refusal, message));
            }
        }
        broken
    }

    /// Numbers for people.
    pub fn figures(&self) -> Figures {
        let lost = |known: &&Known| known.taken_over.is_some() && known.refused.is_some();
        let taken_over = |effect: &Effect| {
            self.processes.get(&effect.process).and_then(|known| known.taken_over)
        };
        let late = |effect: &&Effect| taken_over(effect).is_some_and(|at| effect.begun > at);
        let over = |effect: &&Effect| {
            taken_over(effect).is_some_and(|at| {
                effect.begun <= at && effect.ended.is_some_and(|ended| ended > at)
            })
        };
        Figures {
            effects: self.effects.len(),
            processes: self.processes.len(),
            killed: self.processes.values().filter(|known| known.killed.is_some()).count(),
            taken_over: self.processes.values().filter(lost).count(),
            landed: self.effects.iter().filter(late).count(),
            ended_late: self.effects.iter().filter(over).count(),
            pairs: self.holds_overlap().1,
        }
    }
}

/// What a run held, and when.
#[derive(Debug)]
struct Hold<'t> {
    run: RunId,
    claims: &'t [Claim],
    from: u64,
    to: u64,
    /// The lowest and the highest.
    tokens: (FencingToken, FencingToken),
}

impl Hold<'_> {
    fn conflicts_with(&self, other: &Self) -> bool {
        self.claims.iter().any(|ours| other.claims.iter().any(|theirs| ours.conflicts_with(theirs)))
    }
}

/// A run that was asked for, as the state file has it in the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Its key.
    pub key: String,
    /// The run, if the key is known.
    pub run: Option<RunId>,
    /// How it ended, if it has.
    pub end: Option<End>,
    /// The steps that have succeeded.
    pub steps: BTreeSet<StepName>,
}

/// Every run that was asked for has ended, well or having undone what it did, and has done what it says.
pub fn nothing_is_lost(asked: &[Asked], tale: &Tale) -> Vec<Broken> {
    let ended: BTreeSet<(RunId, &StepName)> = tale
        .effects
        .iter()
        .filter(|effect| !effect.undo && effect.ended.is_some())
        .map(|effect| (effect.run, &effect.step))
        .collect();
    let mut broken = Vec::new();
    let mut lost = |message| broken.push(Broken::new(Rule::Lost, message));
    for Asked { key, run, end, steps } in asked {
        let Some(run) = run else {
            lost(format!("nobody knows of {key}"));
            continue;
        };
        if !matches!(end, Some(End::Succeeded | End::Failed)) {
            lost(format!("{key} is {end:?}"));
        }
        for step in steps {
            if !ended.contains(&(*run, step)) {
                lost(format!("{step} of {key} succeeded, and nobody has done it"));
            }
        }
    }
    broken
}

#[cfg(test)]
mod tests;
