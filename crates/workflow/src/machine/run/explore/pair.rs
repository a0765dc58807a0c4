//! Several runs, the processes that carry them, and the arbiter's stream between them: exclusivity, progress and takeover.
//!
//! ```text
//!   process 0: arbiter, runs ──┐ appends at the head that it knows, or reads again    stream ◀── process 1: arbiter, runs
//!        ✗ gone ───────────────┴──▶ the other one adopts its runs with new, higher tokens
//! ```

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use stillpoint_context::{FencingToken, Mono, RunId};
use uuid::Uuid;

use super::happen::Event;
use super::world::{At, Budget, World};
use crate::claim::{Claim, ClaimKey};
use crate::machine::run::{Command, Input};
use crate::machine::{ArbiterCommand, ArbiterInput, ArbiterMachine, ArbiterRecord, GrantPolicy};
use crate::plan::{NodeKind, NodeNo, Plan};

/// What a process wants of the arbiter's stream.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Asked {
    Ask(usize),
    Adopt(usize),
    Release(usize, Vec<Claim>),
}

#[derive(Clone)]
struct Process {
    alive: bool,
    /// What it knows of the stream.
    arbiter: ArbiterMachine,
    mails: Vec<Asked>,
    /// Runs that are to be told of their grant.
    expects: BTreeSet<usize>,
}

#[derive(Clone)]
struct Carried {
    world: World,
    /// Who carries it; nobody while its process is gone.
    by: Option<usize>,
    /// Whether its driver is there: not while it is being adopted.
    led: bool,
    /// A grant on its way to it.
    granted: Option<FencingToken>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Happens {
    Run(usize, Event),
    /// The grant reaches its run.
    Grant(usize),
    /// The arbiter of a process takes what was asked.
    Arbiter(usize),
    /// The arbiter of a process reads what others wrote.
    Look(usize),
    Crash(usize),
    TakeOver(usize),
}

#[derive(Clone)]
pub(super) struct Several {
    runs: Vec<Carried>,
    processes: Vec<Process>,
    stream: Vec<ArbiterRecord>,
    /// What the whole stream makes of it.
    whole: ArbiterMachine,
    policy: GrantPolicy,
    crashes: u32,
    trail: Vec<Happens>,
}

impl Several {
    /// Runs by plan, claims and process.
    fn new(
        runs: &[(Plan, Vec<Claim>, usize)],
        each: &[Budget],
        crashes: u32,
        policy: GrantPolicy,
    ) -> Self {
        let processes = runs.iter().map(|(.., by)| by + 1).max().unwrap_or(0).max(2);
        let process = Process {
            alive: true,
            arbiter: ArbiterMachine::new(policy),
            mails: Vec::new(),
            expects: BTreeSet::new(),
        };
        let mut several = Self {
            runs: Vec::new(),
            processes: vec![process; processes],
            stream: Vec::new(),
            whole: ArbiterMachine::new(policy),
            policy,
            crashes,
            trail: Vec::new(),
        };
        for (at, (plan, claims, by)) in runs.iter().enumerate() {
            let world = World::of(id(at), plan, claims.clone(), each[at]);
            several.runs.push(Carried { world, by: Some(*by), led: true, granted: None });
            several.processes[*by].mails.push(Asked::Ask(at));
            several.processes[*by].expects.insert(at);
        }
        several
    }

    fn events(&self) -> Vec<Happens> {
        let mut events = Vec::new();
        for (at, run) in self.runs.iter().enumerate() {
            if !run.led {
                continue;
            }
            events.extend(run.world.events(false).into_iter().map(|event| Happens::Run(at, event)));
            if run.granted.is_some() {
                events.push(Happens::Grant(at));
            }
        }
        let orphans = self.runs.iter().any(|run| run.by.is_none());
        for (at, process) in self.processes.iter().enumerate().filter(|(_, p)| p.alive) {
            if !process.mails.is_empty() {
                events.push(Happens::Arbiter(at));
            }
            if !process.expects.is_empty() && process.arbiter.state().head() < self.head() {
                events.push(Happens::Look(at));
            }
            let others = self.processes.iter().filter(|process| process.alive).count() > 1;
            if self.crashes > 0 && others && self.runs.iter().any(|run| run.by == Some(at)) {
                events.push(Happens::Crash(at));
            }
            if orphans {
                events.push(Happens::TakeOver(at));
            }
        }
        events
    }

    fn head(&self) -> u64 {
        self.stream.len() as u64
    }

    fn after(&self, what: Happens) -> Self {
        let mut several = self.clone();
        several.trail.push(what);
        let said = SaidAll(several.trail.clone());
        several.happen(what);
        several.check();
        drop(said);
        several
    }

    fn happen(&mut self, what: Happens) {
        match what {
            Happens::Run(at, event) => {
                self.runs[at].world.happen(event);
                self.carry_out(at);
            }
            Happens::Grant(at) => {
                let Some(fence) = self.runs[at].granted.take() else { return };
                let world = &mut self.runs[at].world;
                if world.machine.state().end().is_none() {
                    world.fence = fence;
                    world.tell(Input::Granted { fence });
                    world.close();
                }
                self.carry_out(at);
            }
            Happens::Arbiter(at) => self.round(at),
            Happens::Look(at) => self.catch_up(at),
            Happens::Crash(at) => self.crash(at),
            Happens::TakeOver(at) => self.take_over(at),
        }
    }

    /// What a run wants of the arbiter of its process.
    fn carry_out(&mut self, at: usize) {
        let run = &mut self.runs[at];
        let Some(by) = run.by else { return };
        for command in std::mem::take(&mut run.world.wanted) {
            let mut claims = Vec::new();
            if let Command::ReleaseUntil { node } = command {
                let state = run.world.machine.state();
                let all = state.submitted().claims.iter();
                let until = all.filter(|claim| claim.until.as_ref() == Some(state.name(node)));
                claims.extend(until.cloned());
                if claims.is_empty() {
                    continue;
                }
            } else {
                self.processes[by].expects.remove(&at);
            }
            self.processes[by].mails.push(Asked::Release(at, claims));
        }
    }

    /// Decides, appends at the head that is known, tells; reads again and decides anew if others were first.
    fn round(&mut self, at: usize) {
        if self.processes[at].arbiter.state().head() < self.head() {
            self.catch_up(at);
        }
        let mails = std::mem::take(&mut self.processes[at].mails);
        let (mut records, mut gated) = (Vec::new(), Vec::new());
        for mail in &mails {
            let input = self.input(mail);
            let arbiter = &mut self.processes[at].arbiter;
            arbiter.on(Mono(Duration::from_secs(1)), input, &mut records, &mut gated);
        }
        for record in &records {
            self.whole.apply(record);
        }
        self.stream.extend(records);
        self.tell(at, gated);
        for mail in mails {
            let Asked::Adopt(run) = mail else { continue };
            let token = self.processes[at].arbiter.state().token(id(run));
            let world = &mut self.runs[run].world;
            let before = world.fence;
            if let Some(token) = token {
                assert!(token > before, "E3: adopted with {token:?}, it had {before:?}");
            }
            world.recover(token.unwrap_or_else(|| world.durable.fence()));
            self.runs[run].led = true;
            self.carry_out(run);
        }
    }

    fn input(&self, mail: &Asked) -> ArbiterInput {
        let claims = |run: &usize| self.runs[*run].world.durable.submitted().claims.clone();
        let head_start = Duration::ZERO;
        match mail {
            Asked::Ask(run) => ArbiterInput::Ask { run: id(*run), claims: claims(run), head_start },
            Asked::Adopt(run) => {
                ArbiterInput::Adopt { run: id(*run), claims: claims(run), head_start }
            }
            Asked::Release(run, claims) => {
                ArbiterInput::Release { run: id(*run), claims: claims.clone() }
            }
        }
    }

    fn tell(&mut self, at: usize, commands: Vec<ArbiterCommand>) {
        for command in commands {
            let ArbiterCommand::Granted { run, fence } = command else { continue };
            let run = (0..self.runs.len()).find(|other| id(*other) == run);
            if let Some(run) = run.filter(|run| self.processes[at].expects.remove(run)) {
                self.runs[run].granted = Some(fence);
            }
        }
    }

    fn catch_up(&mut self, at: usize) {
        let mut granted = Vec::new();
        let from = usize::try_from(self.processes[at].arbiter.state().head()).unwrap();
        for record in &self.stream[from..] {
            let arbiter = &mut self.processes[at].arbiter;
            arbiter.apply(record);
            if let ArbiterRecord::Granted { run } | ArbiterRecord::Regranted { run } = record {
                let fence = FencingToken(arbiter.state().head());
                granted.push(ArbiterCommand::Granted { run: *run, fence });
            }
        }
        self.tell(at, granted);
    }

    fn crash(&mut self, at: usize) {
        self.crashes -= 1;
        let process = &mut self.processes[at];
        process.alive = false;
        process.mails.clear();
        process.expects.clear();
        for run in self.runs.iter_mut().filter(|run| run.by == Some(at)) {
            run.by = None;
            run.led = false;
            run.granted = None;
            run.world.perish(false);
        }
    }

    /// What is open is adopted, what has ended and still holds something lets go.
    fn take_over(&mut self, at: usize) {
        let known: BTreeSet<_> = self.whole.state().all_runs().collect();
        for (run, carried) in self.runs.iter_mut().enumerate().filter(|(_, run)| run.by.is_none()) {
            carried.by = Some(at);
            if carried.world.durable.end().is_none() {
                self.processes[at].mails.push(Asked::Adopt(run));
                self.processes[at].expects.insert(run);
            } else if known.contains(&id(run)) {
                self.processes[at].mails.push(Asked::Release(run, Vec::new()));
            }
        }
    }

    /// E3: what conflicts is never at work at once, and whoever begins later has the higher token.
    fn check(&mut self) {
        for (at, run) in self.runs.iter().enumerate() {
            for other in &self.runs[..at] {
                let theirs = other.world.at_work();
                for mine in run.world.at_work() {
                    let rival = theirs.iter().find(|theirs| theirs.conflicts_with(mine));
                    assert!(rival.is_none(), "E3: {mine:?} of run {at} overlaps with {rival:?}");
                }
            }
        }
    }

    /// E4: where nothing more can happen all runs have ended, and nothing is held or wanted.
    fn check_rest(&self) {
        for (at, run) in self.runs.iter().enumerate() {
            assert!(run.world.durable.end().is_some(), "E4: run {at} hangs");
        }
        let left: Vec<_> = self.whole.state().all_runs().collect();
        assert!(left.is_empty(), "E4: claims are left for {left:?}, which have ended");
    }

    /// What every process knows is what the stream makes of it, and every run is what its log makes of it.
    fn check_states(&self) {
        for run in self.runs.iter().filter(|run| run.led) {
            run.world.check_state();
        }
        for process in self.processes.iter().filter(|process| process.alive) {
            let head = usize::try_from(process.arbiter.state().head()).unwrap();
            let mut machine = ArbiterMachine::new(self.policy);
            for record in &self.stream[..head] {
                machine.apply(record);
            }
            assert!(machine.state() == process.arbiter.state(), "the stream leads elsewhere");
        }
    }

    /// Whether two runs are at work that claim something.
    fn overlaps(&self) -> bool {
        self.runs.iter().filter(|run| !run.world.at_work().is_empty()).count() > 1
    }

    fn print(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for run in &self.runs {
            run.world.print_into(&mut hasher);
            (run.by, run.led, run.granted.is_some()).hash(&mut hasher);
        }
        for process in &self.processes {
            (process.alive, &process.mails, &process.expects).hash(&mut hasher);
            print_arbiter(&process.arbiter, &mut hasher);
        }
        print_arbiter(&self.whole, &mut hasher);
        hasher.finish()
    }

    /// What may still go wrong.
    fn budget(&self) -> Vec<u32> {
        let of = |run: &Carried| {
            let Budget { faults, cancels, .. } = run.world.budget;
            [faults, cancels]
        };
        self.runs.iter().flat_map(of).chain([self.crashes]).collect()
    }
}

impl World {
    /// The claims under which something is at work or frozen, whoever should be looking after it.
    fn at_work(&self) -> Vec<&Claim> {
        let works = |at: &At| {
            !matches!(at, At::Stuck(..) | At::StuckUndo(_) | At::Probe(..) | At::Prepare(_))
        };
        let frozen = self.truth.iter().any(|truth| truth.frozen);
        let ended = self.durable.end().is_some();
        if ended || !(frozen || self.at.iter().any(works)) {
            return Vec::new();
        }
        let needed = |claim: &&Claim| {
            let until = claim.until.as_ref().and_then(|until| self.plan().find(until.as_str()));
            until.is_none_or(|until| !self.is_behind(until))
        };
        self.durable.submitted().claims.iter().filter(needed).collect()
    }

    /// Whether what a claim lasts until is over.
    fn is_behind(&self, node: NodeNo) -> bool {
        match self.plan().node(node).kind {
            NodeKind::Guard(_) => {
                !self.truth[node.index()].frozen && self.durable.verdict(node).is_some()
            }
            _ => self.durable.output(node).is_some(),
        }
    }
}

fn id(at: usize) -> RunId {
    RunId(Uuid::from_u128(at as u128 + 1))
}

fn print_arbiter(arbiter: &ArbiterMachine, hasher: &mut DefaultHasher) {
    let state = arbiter.state();
    for (run, claims) in state.holders() {
        (run, claims).hash(hasher);
    }
    for waiting in state.waiting() {
        (waiting.run, waiting.key.as_str(), waiting.holder).hash(hasher);
    }
}

struct SaidAll(Vec<Happens>);

impl Drop for SaidAll {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("it happened so:");
            for what in &self.0 {
                println!("  {what:?}");
            }
        }
    }
}

/// Visits every state; their number, and whether two runs were at work at once.
fn explore(first: Several) -> (usize, bool) {
    let mut seen: HashMap<u64, Vec<Vec<u32>>> = HashMap::new();
    let sum = |several: &Several| several.budget().iter().sum::<u32>() as usize;
    let mut open: Vec<Vec<Several>> = Vec::new();
    open.resize_with(sum(&first) + 1, Vec::new);
    open[sum(&first)].push(first);
    let mut overlaps = false;
    while let Some(level) = open.iter_mut().rev().find(|level| !level.is_empty()) {
        let Some(several) = level.pop() else { continue };
        let events = several.events();
        if events.is_empty() {
            several.check_rest();
        }
        for event in events {
            let next = several.after(event);
            let budget = next.budget();
            let known = seen.entry(next.print()).or_default();
            let covers = |known: &Vec<u32>| known.iter().zip(&budget).all(|(a, b)| a >= b);
            if known.iter().any(covers) {
                continue;
            }
            if known.is_empty() {
                next.check_states();
                overlaps |= next.overlaps();
            }
            known.push(budget);
            open[sum(&next)].push(next);
        }
    }
    (seen.len(), overlaps)
}

fn key(text: &str) -> ClaimKey {
    ClaimKey::new(text).unwrap()
}

fn exclusive(text: &str) -> Claim {
    Claim::exclusive(key(text))
}

fn shared(text: &str) -> Claim {
    Claim::shared(key(text))
}

fn until_guard(claim: Claim) -> Claim {
    claim.until(stillpoint_context::StepName::new("guard").unwrap())
}

#[cfg(test)]
mod tests {
    use super::super::shape::Shape;
    use super::super::{is_long, plan_of};
    use super::*;

    /// So many cancels of the first run; in the long form one of each.
    fn each(cancels: u32) -> [Budget; 2] {
        let long = u32::from(is_long());
        [cancels.max(long), long].map(|cancels| Budget {
            faults: 0,
            cancels,
            crashes: 0,
            slow: None,
        })
    }

    /// A step, then a guard, then a step; or three steps, of which two are side by side.
    fn plan(guard: bool) -> Plan {
        if guard {
            plan_of(Shape::of(3, &[(0, 1), (1, 2)]), Some(1))
        } else {
            plan_of(Shape::of(3, &[(0, 1), (0, 2)]), None)
        }
    }

    /// Explores two runs in one process and in two, with one crash; whether both were ever at work at once.
    fn two(first: &[Claim], second: &[Claim], cancels: u32) -> bool {
        let mut overlap = false;
        for by in [0, 1] {
            let runs = [(plan(true), first.to_vec(), 0), (plan(false), second.to_vec(), by)];
            let (states, both) =
                explore(Several::new(&runs, &each(cancels), 1, GrantPolicy::Strict));
            println!("{first:?} and {second:?}, process {by}: {states} states");
            assert!(states > 1000, "{states} states");
            overlap |= both;
        }
        overlap
    }

    #[test]
    fn two_runs_with_the_same_resource_take_turns() {
        assert!(!two(&[exclusive("db/1")], &[exclusive("db/1")], 1));
    }

    #[test]
    fn a_claim_covers_what_is_below_it() {
        assert!(!two(&[shared("db"), exclusive("disk")], &[exclusive("db/1/live")], 1));
    }

    /// The first lets go of the resource once its guard is exited; its last step and the second run are then at work at once.
    #[test]
    fn a_claim_until_a_guard_is_free_once_it_is_left() {
        let first = [until_guard(exclusive("db/1")), shared("disk")];
        assert!(two(&first, &[exclusive("db/1"), shared("disk")], 0));
    }

    #[test]
    fn runs_that_share_are_at_work_at_once() {
        assert!(two(&[shared("db/1")], &[shared("db")], 0));
    }

    /// The same exploration finds an overlap where every claim is granted at once: it can fail.
    #[test]
    #[should_panic(expected = "E3")]
    fn without_an_arbiter_they_overlap() {
        let claims = vec![exclusive("db/1")];
        let runs = [(plan(true), claims.clone(), 0), (plan(false), claims, 0)];
        explore(Several::new(&runs, &each(0), 1, GrantPolicy::Always));
    }

    /// Wider than can be visited: three or four runs over three processes, two crashes, faults; a walk at random for each seed.
    #[test]
    fn more_runs_at_random() {
        let only = std::env::var("EXPLORE_SEED").ok().and_then(|seed| seed.parse().ok());
        let count = if is_long() { 200_000 } else { 400 };
        let seeds = only.map_or(0..count, |seed: u64| seed..seed + 1);
        for seed in seeds {
            let said = SaidSeed(seed);
            walk(seed);
            drop(said);
        }
    }

    struct SaidSeed(u64);

    impl Drop for SaidSeed {
        fn drop(&mut self) {
            if std::thread::panicking() {
                println!(
                    "seed {0}; replay it alone with EXPLORE_SEED={0} cargo test -p stillpoint-workflow --lib more_runs",
                    self.0
                );
            }
        }
    }

    fn walk(seed: u64) {
        let mut state = crate::retry::mix(seed);
        let mut pick = move |below: usize| {
            state = crate::retry::mix(state.wrapping_add(0x9e37_79b9_7f4a_7c15));
            usize::try_from(state % below as u64).unwrap()
        };
        let runs: Vec<_> = (0..3 + pick(2))
            .map(|_| {
                let (count, mut edges) = (3 + pick(4), Vec::new());
                for to in 1..count {
                    for from in 0..to {
                        if pick(3) == 0 {
                            edges.push((from, to));
                        }
                    }
                }
                let guard = Some(pick(2 * count)).filter(|node| *node < count);
                let mut claims: Vec<_> = (0..=pick(3))
                    .map(|_| {
                        let key = ["a", "a/1", "a/1/x", "a/2", "b"][pick(5)];
                        let claim = if pick(2) == 0 { exclusive(key) } else { shared(key) };
                        if guard.is_some() && pick(3) == 0 { until_guard(claim) } else { claim }
                    })
                    .collect();
                claims.sort();
                claims.dedup();
                (plan_of(Shape::of(count, &edges), guard), claims, pick(3))
            })
            .collect();
        let each = Budget { faults: 2, cancels: 1, crashes: 0, slow: Some(3) };
        let mut several = Several::new(&runs, &[each; 4], 2, GrantPolicy::Strict);
        loop {
            let mut events = several.events();
            if events.is_empty() {
                return several.check_rest();
            }
            // What ends a run early is not to be the most likely.
            if pick(8) != 0 {
                let rare = |what: &Happens| {
                    matches!(what, Happens::Crash(_) | Happens::Run(_, Event::Cancel))
                };
                let likely: Vec<_> = events.iter().copied().filter(|what| !rare(what)).collect();
                if !likely.is_empty() {
                    events = likely;
                }
            }
            several = several.after(events[pick(events.len())]);
            several.check_states();
        }
    }
}
