#![allow(clippy::unwrap_used)]

use uuid::Uuid;

use super::*;

const MILLI: u64 = 1_000_000;

fn process(number: u128) -> ProcessId {
    ProcessId(Uuid::from_u128(number))
}

fn run(number: u128) -> RunId {
    RunId(Uuid::from_u128(number))
}

fn deed(at: u64, number: u128, did: Did) -> Line<Deed> {
    Line { at, what: Deed { process: process(number), did } }
}

fn exclusive(key: &str) -> Claim {
    Claim::exclusive(key.parse().unwrap())
}

/// An effect of a process in the name of a run, under a token, admitted when it begins.
fn begun(at: u64, by: u128, of: u128, fence: u64, claim: &Claim) -> Line<Deed> {
    let did = Did::Begun {
        effect: at,
        run: run(of),
        step: "hold-0".parse().unwrap(),
        undo: false,
        fence: FencingToken(fence),
        claims: vec![claim.clone()],
        admitted: Some(at * 1000),
    };
    deed(at, by, did)
}

fn ended(at: u64, by: u128, effect: u64) -> Line<Deed> {
    deed(at, by, Did::Ended { effect })
}

/// A lease of a process, noted at 0, to an instant in microseconds.
fn leased(by: u128, until: u64) -> Line<Deed> {
    deed(0, by, Did::Leased { epoch: 1, until: until * 1000 })
}

fn taken(at: u64, by: u128, victim: u128) -> Line<Deed> {
    deed(at, by, Did::Fenced { victim: process(victim), asked: at - 1 })
}

fn refused(at: u64, by: u128) -> [Line<Deed>; 2] {
    [deed(at, by, Did::Refused), deed(at + 1, by, Did::RefusedAgain)]
}

fn rules(lines: &[Line<Deed>], blows: &[Line<Blow>]) -> Vec<Rule> {
    Tale::of(lines, blows).broken().iter().map(|broken| broken.rule).collect()
}

#[test]
fn holds_one_after_the_other_are_good_and_shared_ones_side_by_side() {
    let (all, one) = (exclusive("volume"), exclusive("volume/1"));
    let lines = [
        leased(1, MILLI),
        leased(2, MILLI),
        begun(10, 1, 1, 3, &one),
        ended(20, 1, 10),
        begun(20, 2, 2, 5, &all),
        ended(30, 2, 20),
    ];
    assert_eq!(rules(&lines, &[]), []);
    let shared = Claim::shared("volume".parse().unwrap());
    let lines = [
        leased(1, MILLI),
        begun(10, 1, 1, 5, &shared),
        begun(15, 1, 2, 3, &shared),
        ended(20, 1, 10),
        ended(30, 1, 15),
    ];
    assert_eq!(rules(&lines, &[]), []);
}

#[test]
fn an_overlap_is_seen_also_of_a_resource_and_what_is_below_it() {
    for (first, second) in [
        (exclusive("volume/1"), exclusive("volume/1")),
        (exclusive("volume/1/a"), exclusive("volume")),
        (exclusive("volume"), Claim::shared("volume/1/a".parse().unwrap())),
    ] {
        let lines = [
            leased(1, MILLI),
            leased(2, MILLI),
            begun(10, 1, 1, 3, &first),
            begun(19, 2, 2, 5, &second),
            ended(20, 1, 10),
            ended(30, 2, 19),
        ];
        assert_eq!(rules(&lines, &[]), [Rule::Overlap]);
    }
}

#[test]
fn a_run_holds_between_its_effects_too() {
    let key = exclusive("volume/1");
    let lines = [
        leased(1, MILLI),
        begun(10, 1, 1, 3, &key),
        ended(20, 1, 10),
        begun(30, 1, 2, 5, &key),
        ended(40, 1, 30),
        begun(50, 1, 1, 3, &key),
        ended(60, 1, 50),
    ];
    assert_eq!(rules(&lines, &[]), [Rule::Overlap]);
}

#[test]
fn a_hold_that_never_ends_is_in_the_way_of_the_next_unless_its_process_was_killed() {
    let key = exclusive("volume/1");
    let lines = [
        deed(0, 1, Did::Started { pid: 77 }),
        leased(1, MILLI),
        leased(2, MILLI),
        begun(10, 1, 1, 3, &key),
        begun(30, 2, 2, 5, &key),
        ended(40, 2, 30),
    ];
    assert_eq!(rules(&lines, &[]), [Rule::Overlap]);
    let kill = |at| [Line { at, what: Blow::Kill { pid: 77 } }];
    assert_eq!(rules(&lines, &kill(25)), []);
    assert_eq!(rules(&lines, &kill(35)), [Rule::Overlap], "it lived when the other began");
}

#[test]
fn tokens_that_do_not_rise_are_seen() {
    let key = exclusive("volume/1");
    for (token, rule) in [(4, None), (3, Some(Rule::Order)), (2, Some(Rule::Order))] {
        let lines = [
            leased(1, MILLI),
            begun(10, 1, 1, 3, &key),
            ended(20, 1, 10),
            begun(30, 1, 2, token, &key),
            ended(40, 1, 30),
        ];
        assert_eq!(rules(&lines, &[]), rule.into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn what_was_admitted_in_time_may_land_after_the_takeover_and_is_counted() {
    let key = exclusive("volume/1");
    let mut late = begun(300, 1, 1, 3, &key);
    if let Did::Begun { admitted, .. } = &mut late.what.did {
        *admitted = Some(99_000);
    }
    let mut lines = vec![
        leased(1, 100),
        leased(2, MILLI),
        // One that is under way when its process is stopped.
        begun(90, 1, 1, 3, &key),
        taken(200, 2, 1),
        begun(210, 2, 1, 5, &key),
        ended(220, 2, 210),
        begun(290, 2, 2, 7, &key),
        late,
        ended(301, 1, 300),
        ended(302, 1, 90),
        ended(310, 2, 290),
    ];
    lines.extend(refused(305, 1));
    assert_eq!(rules(&lines, &[]), []);
    let figures = Tale::of(&lines, &[]).figures();
    assert_eq!((figures.landed, figures.ended_late, figures.taken_over), (1, 1, 1));
}

#[test]
fn an_effect_that_was_admitted_without_a_lease_is_seen() {
    let key = exclusive("volume/1");
    let lines = |lease: u64, by| {
        let mut lines = vec![leased(1, lease), begun(100, 1, 1, 3, &key), ended(110, 1, 100)];
        if let Did::Begun { admitted, .. } = &mut lines[1].what.did {
            *admitted = by;
        }
        lines
    };
    assert_eq!(rules(&lines(100, Some(99_999)), &[]), []);
    assert_eq!(rules(&lines(100, Some(100_000)), &[]), [Rule::Late]);
    assert_eq!(rules(&lines(100, Some(150_000)), &[]), [Rule::Late]);
    assert_eq!(rules(&lines(100, None), &[]), [Rule::Late], "nobody has looked");
    assert_eq!(rules(&lines(100, Some(1))[1..], &[]), [Rule::Late], "there never was a lease");
}

#[test]
fn a_commit_after_the_takeover_and_an_effect_after_a_refusal_are_seen() {
    let key = exclusive("volume/1");
    let base = |more: Line<Deed>| {
        let mut lines = vec![leased(1, MILLI), taken(200, 2, 1)];
        lines.extend(refused(300, 1));
        lines.push(more);
        lines
    };
    let written = |asked| deed(310, 1, Did::Committed { asked });
    assert_eq!(rules(&base(written(199)), &[]), []);
    assert_eq!(rules(&base(written(201)), &[]), [Rule::Refusal]);
    assert_eq!(rules(&base(begun(400, 1, 1, 3, &key)), &[]), [Rule::Refusal]);
    // One that lived on and was never told.
    let mut lines = vec![leased(1, MILLI), taken(200, 2, 1), deed(300, 1, Did::Refused)];
    assert_eq!(rules(&lines, &[]), [Rule::Refusal]);
    // One that was let go at that moment has had no time to try again; what it had written before would be seen all the same.
    lines.push(deed(310, 1, Did::Left));
    assert_eq!(rules(&lines, &[]), []);
    lines.push(deed(310, 1, Did::Committed { asked: 201 }));
    assert_eq!(rules(&lines, &[]), [Rule::Refusal]);
}

#[test]
fn a_run_that_is_not_known_open_parked_or_never_done_is_seen() {
    let key = exclusive("volume/1");
    let tale = Tale::of(&[leased(1, MILLI), begun(10, 1, 1, 3, &key), ended(20, 1, 10)], &[]);
    let asked = |number, end, steps: &[&str]| Asked {
        key: "worker-1-1".to_owned(),
        run: Some(run(number)),
        end,
        steps: steps.iter().map(|step| step.parse().unwrap()).collect(),
    };
    let good = [asked(1, Some(End::Succeeded), &["hold-0"]), asked(2, Some(End::Failed), &[])];
    assert_eq!(nothing_is_lost(&good, &tale), []);
    for bad in [
        Asked { run: None, ..asked(1, None, &[]) },
        asked(1, None, &["hold-0"]),
        asked(1, Some(End::NeedsAttention), &["hold-0"]),
        asked(2, Some(End::Succeeded), &["hold-0"]),
        asked(1, Some(End::Succeeded), &["hold-0", "hold-1"]),
    ] {
        assert_eq!(nothing_is_lost(std::slice::from_ref(&bad), &tale).len(), 1, "{bad:?}");
    }
}
