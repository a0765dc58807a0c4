//! Rules that the agent's log alone can show.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use stillpoint_context::FencingToken;
use stillpoint_exchange::SessionId;

use super::{Broken, Rule};
use crate::ledger::{EndedBy, Line, What};

/// Every freeze ends, by its limit and `slack` at the latest, before the next one begins, and no session is frozen again.
///
/// `until` is when the log was read: a freeze that is open then must have time left. The slack is for an agent that was not
/// scheduled for a while; it is no part of the promise, and the limit itself is the agent's.
pub fn every_freeze_ends(lines: &[Line], until: u64, slack: Duration) -> Vec<Broken> {
    let slack = u64::try_from(slack.as_micros()).unwrap_or(u64::MAX);
    let mut broken = Vec::new();
    let mut fail = |message: String| broken.push(Broken::new(Rule::FreezeEnds, message));
    let mut open: Option<(SessionId, u64)> = None;
    let mut over = BTreeSet::new();
    for line in lines {
        match &line.what {
            What::Frozen { session, until, .. } => {
                if let Some((before, _)) = open {
                    fail(format!("session {session} was frozen while {before} was"));
                }
                if over.contains(session) {
                    fail(format!("session {session} was frozen again"));
                }
                open = Some((*session, *until));
            }
            What::Thawed { session, .. } => {
                match open.take() {
                    Some((frozen, limit)) if frozen == *session => {
                        let late = line.at.saturating_sub(limit);
                        if late > slack {
                            fail(format!("session {session} thawed {late} µs after its limit"));
                        }
                    }
                    other => fail(format!("session {session} thawed, frozen was {other:?}")),
                }
                over.insert(*session);
            }
            // A new agent has nothing frozen; one that died has taken its writes along.
            What::Started { .. } => open = None,
            _ => {}
        }
    }
    if let Some((session, limit)) = open
        && until > limit.saturating_add(slack)
    {
        fail(format!("session {session} is frozen still, {} µs after its limit", until - limit));
    }
    broken
}

/// Nothing is written or removed between a freeze and its thaw, and the beat is the same at both ends.
pub fn nothing_is_written_while_frozen(lines: &[Line]) -> Vec<Broken> {
    let mut broken = Vec::new();
    let mut fail = |message: String| broken.push(Broken::new(Rule::Quiet, message));
    let mut frozen: Option<(SessionId, u64)> = None;
    // One line for each freeze is enough.
    let mut told = BTreeSet::new();
    for line in lines {
        match &line.what {
            What::Frozen { session, beat, .. } => frozen = Some((*session, *beat)),
            What::Started { .. } => frozen = None,
            What::Thawed { session, beat, .. } => {
                if let Some((_, before)) = frozen.take().filter(|(frozen, _)| frozen == session)
                    && before != *beat
                {
                    fail(format!(
                        "session {session} was frozen at beat {before} and thawed at {beat}"
                    ));
                }
            }
            What::Wrote { beat } => {
                if let Some((session, _)) = frozen
                    && told.insert(session)
                {
                    fail(format!("beat {beat} was written while {session} was frozen"));
                }
            }
            What::Truncated { copy, .. } => {
                if let Some((session, _)) = frozen {
                    fail(format!("logs of {copy} were removed while {session} was frozen"));
                }
            }
            _ => {}
        }
    }
    broken
}

/// No call is let in under a token that is older than one before, for one session.
pub fn tokens_never_go_back(lines: &[Line]) -> Vec<Broken> {
    let mut broken = Vec::new();
    let mut highest: BTreeMap<SessionId, FencingToken> = BTreeMap::new();
    for line in lines {
        let (session, fence) = match &line.what {
            What::Admitted { session, fence, .. }
            | What::Frozen { session, fence, .. }
            | What::Completed { session, fence, .. } => (*session, *fence),
            _ => continue,
        };
        let seen = highest.entry(session).or_default();
        if fence < *seen {
            let message = format!("session {session} saw token {fence} after {seen}");
            broken.push(Broken::new(Rule::Tokens, message));
        }
        *seen = fence.max(*seen);
    }
    broken
}

/// A session is completed once, after its freeze, and as good only if a thaw has ended that freeze.
pub fn completions_are_of_freezes_that_held(lines: &[Line]) -> Vec<Broken> {
    let mut broken = Vec::new();
    let mut fail = |message: String| broken.push(Broken::new(Rule::Completion, message));
    let mut thawed: BTreeMap<SessionId, EndedBy> = BTreeMap::new();
    let mut over = BTreeSet::new();
    for line in lines {
        match &line.what {
            What::Thawed { session, by, .. } => {
                thawed.insert(*session, *by);
            }
            What::Ended { session, .. } if !over.insert(*session) => {
                fail(format!("session {session} was given up after its end"));
            }
            What::Completed { session, good, .. } => {
                if !over.insert(*session) {
                    fail(format!("session {session} was completed after its end"));
                }
                let is_good = good.values().any(|good| *good);
                let by = thawed.get(session);
                if is_good && by != Some(&EndedBy::Thaw) {
                    fail(format!(
                        "session {session} was completed as good, its freeze ended by {by:?}"
                    ));
                }
            }
            _ => {}
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use stillpoint_context::RunId;
    use stillpoint_exchange::CopyId;
    use uuid::Uuid;

    use super::*;

    const SLACK: Duration = Duration::from_millis(10);

    fn session(number: u128) -> SessionId {
        SessionId(Uuid::from_u128(number))
    }

    fn run() -> RunId {
        RunId(Uuid::from_u128(9))
    }

    fn frozen(number: u128, until: u64, beat: u64) -> What {
        let fence = FencingToken(1);
        What::Frozen { session: session(number), run: run(), fence, until, beat }
    }

    fn thawed(number: u128, by: EndedBy, beat: u64) -> What {
        What::Thawed { session: session(number), by, run: None, beat }
    }

    fn admitted(number: u128, fence: u64) -> What {
        What::Admitted { session: session(number), run: run(), fence: FencingToken(fence) }
    }

    fn completed(number: u128, good: bool) -> What {
        let copy: CopyId = "00000000-0000-0000-0000-000000000007@ex1".parse().unwrap();
        let good = BTreeMap::from([(copy, good)]);
        What::Completed { session: session(number), run: run(), fence: FencingToken(1), good }
    }

    fn log(events: impl IntoIterator<Item = (u64, What)>) -> Vec<Line> {
        events.into_iter().map(|(at, what)| Line { at, what }).collect()
    }

    #[test]
    fn a_freeze_that_ends_in_time_is_good_whoever_ends_it() {
        for by in [EndedBy::Thaw, EndedBy::Limit, EndedBy::Abort, EndedBy::Lease] {
            let lines = log([
                (1, What::Wrote { beat: 3 }),
                (10, frozen(1, 1000, 3)),
                (900, thawed(1, by, 3)),
                (901, What::Wrote { beat: 4 }),
                (950, frozen(2, 2000, 4)),
                (1000, thawed(2, by, 4)),
            ]);
            assert_eq!(every_freeze_ends(&lines, 5000, SLACK), []);
            assert_eq!(nothing_is_written_while_frozen(&lines), []);
        }
    }

    #[test]
    fn a_freeze_that_does_not_end_is_seen_once_its_time_is_over() {
        let lines = log([(10, frozen(1, 1000, 3))]);
        assert_eq!(every_freeze_ends(&lines, 1000, SLACK), []);
        assert_eq!(every_freeze_ends(&lines, 11_001, SLACK).len(), 1);
        // A new agent has nothing frozen.
        let lines = log([(10, frozen(1, 1000, 3)), (20, What::Started { pid: 1 })]);
        assert_eq!(every_freeze_ends(&lines, 50_000, SLACK), []);
    }

    #[test]
    fn a_freeze_that_ends_late_is_seen() {
        let lines = log([(10, frozen(1, 1000, 3)), (11_001, thawed(1, EndedBy::Limit, 3))]);
        assert_eq!(every_freeze_ends(&lines, 20_000, SLACK).len(), 1);
        assert_eq!(every_freeze_ends(&lines, 20_000, Duration::from_secs(1)), []);
    }

    #[test]
    fn two_freezes_at_once_a_second_freeze_and_a_thaw_of_another_are_seen() {
        let both = log([
            (10, frozen(1, 1000, 3)),
            (20, frozen(2, 1000, 3)),
            (30, thawed(2, EndedBy::Thaw, 3)),
        ]);
        assert_eq!(every_freeze_ends(&both, 40, SLACK).len(), 1);
        let again = log([
            (10, frozen(1, 1000, 3)),
            (20, thawed(1, EndedBy::Thaw, 3)),
            (30, frozen(1, 1000, 3)),
            (40, thawed(1, EndedBy::Thaw, 3)),
        ]);
        assert_eq!(every_freeze_ends(&again, 50, SLACK).len(), 1);
        let other = log([(10, frozen(1, 1000, 3)), (20, thawed(2, EndedBy::Thaw, 3))]);
        assert_eq!(every_freeze_ends(&other, 30, SLACK).len(), 1);
    }

    #[test]
    fn a_write_a_truncation_and_a_beat_that_moved_while_frozen_are_seen() {
        let copy: CopyId = "00000000-0000-0000-0000-000000000007@ex1".parse().unwrap();
        for inside in [What::Wrote { beat: 4 }, What::Truncated { copy, files: 2 }] {
            let lines =
                log([(10, frozen(1, 1000, 3)), (20, inside), (30, thawed(1, EndedBy::Thaw, 3))]);
            let broken = nothing_is_written_while_frozen(&lines);
            assert_eq!(broken.len(), 1, "{broken:?}");
        }
        let moved = log([(10, frozen(1, 1000, 3)), (30, thawed(1, EndedBy::Thaw, 4))]);
        assert_eq!(nothing_is_written_while_frozen(&moved).len(), 1);
    }

    #[test]
    fn a_token_that_goes_back_is_seen_and_only_within_a_session() {
        let rises = log([(1, admitted(1, 3)), (2, admitted(1, 3)), (3, admitted(1, 5))]);
        assert_eq!(tokens_never_go_back(&rises), []);
        let two = log([(1, admitted(1, 5)), (2, admitted(2, 3))]);
        assert_eq!(tokens_never_go_back(&two), []);
        let back = log([(1, admitted(1, 5)), (2, admitted(1, 3)), (3, admitted(1, 5))]);
        assert_eq!(tokens_never_go_back(&back).len(), 1);
        // What was done counts as well as what was let in.
        let back = log([(1, admitted(1, 5)), (2, frozen(1, 1000, 3))]);
        assert_eq!(tokens_never_go_back(&back).len(), 1);
    }

    #[test]
    fn a_good_completion_needs_a_freeze_that_a_thaw_has_ended() {
        let begin = (10, frozen(1, 1000, 3));
        for (by, good, broken) in [
            (EndedBy::Thaw, true, 0),
            (EndedBy::Thaw, false, 0),
            (EndedBy::Limit, false, 0),
            (EndedBy::Limit, true, 1),
            (EndedBy::Abort, true, 1),
        ] {
            let lines = log([begin.clone(), (20, thawed(1, by, 3)), (30, completed(1, good))]);
            let found = completions_are_of_freezes_that_held(&lines);
            assert_eq!(found.len(), broken, "{by:?} {good}: {found:?}");
        }
        let never = log([(30, completed(1, true))]);
        assert_eq!(completions_are_of_freezes_that_held(&never).len(), 1);
        let early =
            log([begin.clone(), (20, completed(1, true)), (30, thawed(1, EndedBy::Thaw, 3))]);
        assert_eq!(completions_are_of_freezes_that_held(&early).len(), 1);
    }

    #[test]
    fn a_second_end_of_a_session_is_seen() {
        let begin = [(10, frozen(1, 1000, 3)), (20, thawed(1, EndedBy::Thaw, 3))];
        let ended = What::Ended { session: session(1), by: EndedBy::Abort };
        for second in [completed(1, true), ended] {
            let more = [(30, completed(1, true)), (40, second)];
            let lines = log(begin.clone().into_iter().chain(more));
            assert_eq!(completions_are_of_freezes_that_held(&lines).len(), 1);
        }
    }
}
