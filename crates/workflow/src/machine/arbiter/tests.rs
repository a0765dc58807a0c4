//! The arbiter against a naive model.

use std::time::Duration;

use proptest::prelude::*;
use stillpoint_context::{FencingToken, Mono, RunId, StepName};
use uuid::Uuid;

use super::{ArbiterCommand, ArbiterInput, ArbiterMachine, ArbiterState, GrantPolicy};
use crate::claim::{Claim, ClaimKey};

#[derive(Debug, Clone)]
enum Op {
    Ask {
        claims: Vec<Claim>,
        head_start: u64,
    },
    /// Lets go of everything of one of the runs.
    Release(usize),
    /// Lets go of one claim of one of the runs.
    ReleaseOne(usize, usize),
}

fn claim() -> impl Strategy<Value = Claim> {
    let keys = prop::sample::select(vec!["a", "a/1", "a/1/x", "a/2", "b", "b/1"]);
    (keys, any::<bool>(), any::<bool>()).prop_map(|(key, shared, kept)| {
        let key = ClaimKey::new(key).unwrap();
        let claim = if shared { Claim::shared(key) } else { Claim::exclusive(key) };
        if kept { claim } else { claim.until(StepName::new("early").unwrap()) }
    })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (prop::collection::vec(claim(), 0..4), 0..5_u64).prop_map(|(mut claims, head_start)| {
            claims.sort();
            claims.dedup();
            Op::Ask { claims, head_start }
        }),
        2 => (0..20_usize).prop_map(Op::Release),
        1 => (0..20_usize, 0..4_usize).prop_map(|(run, claim)| Op::ReleaseOne(run, claim)),
    ]
}

/// Everything in one list, looked through from the front each time.
#[derive(Debug, Default)]
struct Naive(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    run: RunId,
    place: (i64, usize),
    claims: Vec<Claim>,
    granted: bool,
}

impl Naive {
    /// From the front to the back: who is granted, and what those who are not stand in line for.
    fn settle(&mut self) {
        self.0.sort_by_key(|entry| entry.place);
        let mut line: Vec<Claim> = Vec::new();
        for at in 0..self.0.len() {
            if self.0[at].granted {
                continue;
            }
            let others = |entry: &&Entry| entry.granted;
            let held = self.0.iter().filter(others).flat_map(|entry| &entry.claims);
            let taken: Vec<_> = held.chain(&line).cloned().collect();
            let free = |claim: &&Claim| !taken.iter().any(|other| other.conflicts_with(claim));
            let (kept, early): (Vec<_>, Vec<_>) =
                self.0[at].claims.iter().partition(|claim| claim.until.is_none());
            let in_front = kept.iter().all(free);
            let granted = in_front && early.iter().all(free);
            if !granted {
                line.extend(kept.into_iter().cloned());
                line.extend(early.into_iter().filter(|_| in_front).cloned());
            }
            self.0[at].granted = granted;
        }
    }

    fn granted(&self) -> Vec<RunId> {
        let mut granted: Vec<_> = self.0.iter().filter(|e| e.granted).map(|e| e.run).collect();
        granted.sort();
        granted
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) })]

    #[test]
    fn grants_are_those_of_the_naive_model(ops in prop::collection::vec(op(), 1..60)) {
        let mut machine = ArbiterMachine::new(GrantPolicy::Strict);
        let mut naive = Naive::default();
        let (mut log, mut granted, mut runs) = (Vec::new(), Vec::new(), Vec::new());
        let mut last = FencingToken(0);
        for (at, op) in ops.into_iter().enumerate() {
            let now = Mono(Duration::from_secs(at as u64));
            let input = match op {
                Op::Ask { claims, head_start } => {
                    let run = RunId(Uuid::from_u128(at as u128 + 1));
                    runs.push((run, claims.clone()));
                    let place = (i64::try_from(at).unwrap() - i64::try_from(head_start).unwrap(), at);
                    naive.0.push(Entry { run, place, claims: claims.clone(), granted: false });
                    ArbiterInput::Ask { run, claims, head_start: Duration::from_secs(head_start) }
                }
                Op::Release(run) => {
                    let Some((run, _)) = runs.get(run) else { continue };
                    naive.0.retain(|entry| entry.run != *run);
                    granted.retain(|other| other != run);
                    ArbiterInput::Release { run: *run, claims: Vec::new() }
                }
                Op::ReleaseOne(run, claim) => {
                    let Some((run, claims)) = runs.get(run) else { continue };
                    let Some(claim) = claims.get(claim) else { continue };
                    // Only a run that has started lets go of single claims.
                    if !granted.contains(run) {
                        continue;
                    }
                    if let Some(entry) = naive.0.iter_mut().find(|entry| entry.run == *run) {
                        entry.claims.retain(|other| other != claim);
                    }
                    ArbiterInput::Release { run: *run, claims: vec![claim.clone()] }
                }
            };
            let (mut records, mut told) = (Vec::new(), Vec::new());
            machine.on(now, input, &mut records, &mut told);
            log.extend(records);
            for command in told {
                if let ArbiterCommand::Granted { run, fence } = command {
                    prop_assert!(fence > last, "tokens rise");
                    last = fence;
                    granted.push(run);
                }
            }
            naive.settle();
            granted.sort();
            prop_assert_eq!(&granted, &naive.granted());
            let waiting = machine.state().waiting();
            prop_assert_eq!(waiting.len() + granted.len(), naive.0.len(), "who waits knows for what");
            let mut shadow = ArbiterMachine::new(GrantPolicy::Strict);
            for record in &log {
                shadow.apply(record);
            }
            prop_assert!(shadow.state() == machine.state(), "the state is what the log amounts to");
            let state = machine.state();
            let again = ArbiterState::restore(state.head(), &state.snapshot(), GrantPolicy::Strict);
            prop_assert_eq!(state.line(), again.line(), "and what a snapshot amounts to");
        }
    }
}

/// Waking n waiters in turn looks at each a bounded number of times: the work is counted, not timed.
#[test]
fn a_long_line_at_one_key_is_woken_one_by_one() {
    let mut machine = ArbiterMachine::new(GrantPolicy::Strict);
    let claim = Claim::exclusive(ClaimKey::new("db/1/live").unwrap());
    let run = |n: u128| RunId(Uuid::from_u128(n));
    let (mut records, mut told) = (Vec::new(), Vec::new());
    for n in 0..2000 {
        let input = ArbiterInput::Ask {
            run: run(n),
            claims: vec![claim.clone()],
            head_start: Duration::ZERO,
        };
        machine.on(Mono::ZERO, input, &mut records, &mut told);
    }
    told.clear();
    for n in 0..2000 {
        machine.on(
            Mono::ZERO,
            ArbiterInput::Release { run: run(n), claims: Vec::new() },
            &mut records,
            &mut told,
        );
    }
    // One grant for each release; nobody else was looked at in vain.
    assert_eq!(told.len(), 1999);
}

fn machine_with(asks: &[(u128, &[Claim])]) -> (ArbiterMachine, Vec<ArbiterCommand>) {
    let mut machine = ArbiterMachine::new(GrantPolicy::Strict);
    let (mut records, mut told) = (Vec::new(), Vec::new());
    for (run, claims) in asks {
        let input = ArbiterInput::Ask {
            run: RunId(Uuid::from_u128(*run)),
            claims: claims.to_vec(),
            head_start: Duration::ZERO,
        };
        machine.on(Mono::ZERO, input, &mut records, &mut told);
    }
    (machine, told)
}

fn granted(told: &[ArbiterCommand]) -> Vec<u128> {
    told.iter()
        .filter_map(|command| match command {
            ArbiterCommand::Granted { run, .. } => Some(run.0.as_u128()),
            ArbiterCommand::Waits { .. } => None,
        })
        .collect()
}

/// A backup behind a restore does not keep the freeze of its server from other databases, and has its turn afterwards.
#[test]
fn who_cannot_begin_yet_is_not_in_line_for_what_is_let_go_of_early() {
    let live = |n: u32| Claim::exclusive(ClaimKey::new(format!("db/{n}/live")).unwrap());
    let freeze = Claim::exclusive(ClaimKey::new("host/a/freeze").unwrap())
        .until(StepName::new("freeze").unwrap());
    let (mut machine, told) = machine_with(&[
        (1, &[live(1)]),
        (2, &[live(1), freeze.clone()]),
        (3, &[live(2), freeze.clone()]),
        (4, &[live(3), freeze.clone()]),
    ]);
    assert_eq!(granted(&told), [1, 3], "3 passes by; 4 waits for its freeze");
    let mut release = |run: u128| {
        let (mut records, mut told) = (Vec::new(), Vec::new());
        let run = RunId(Uuid::from_u128(run));
        machine.on(
            Mono::ZERO,
            ArbiterInput::Release { run, claims: vec![] },
            &mut records,
            &mut told,
        );
        granted(&told)
    };
    // As soon as the restore is over, 2 is in line again, before all that came later.
    assert_eq!(release(1), [] as [u128; 0]);
    assert_eq!(release(3), [2]);
    assert_eq!(release(2), [4]);
}

/// One who is overtaken by a run with a head start stands back, and lets those pass that it held up.
#[test]
fn who_is_overtaken_leaves_the_line_for_what_is_let_go_of_early() {
    let key = |key: &str| Claim::exclusive(ClaimKey::new(key).unwrap());
    let freeze = key("host/a/freeze").until(StepName::new("freeze").unwrap());
    let slot = Claim::shared(ClaimKey::new("host/a").unwrap());
    // 1 has the server in a way that 2 cannot freeze; 3 waits behind 2 for the freeze alone.
    let (mut machine, told) = machine_with(&[
        (1, &[slot]),
        (2, &[key("db/1/live"), freeze]),
        (3, &[Claim::shared(ClaimKey::new("host/a/freeze").unwrap())]),
    ]);
    assert_eq!(granted(&told), [1]);
    let (mut records, mut told) = (Vec::new(), Vec::new());
    let restore = ArbiterInput::Ask {
        run: RunId(Uuid::from_u128(4)),
        claims: vec![key("db/1/live")],
        head_start: Duration::from_hours(1),
    };
    machine.on(Mono(Duration::from_secs(1)), restore, &mut records, &mut told);
    assert_eq!(granted(&told), [4, 3]);
}
