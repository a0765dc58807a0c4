//! What must hold of runs that share an engine: claims exclude, tokens rise, pools limit.

use std::collections::BTreeMap;

use stillpoint_context::FencingToken;
use stillpoint_workflow::*;

use super::cases::{Part, Until};
use super::common::exclusive::overlaps;
use super::play::{Played, SLOTS};
use super::world::{Event, What};

/// From the first to the last event of a run that surely lies in the time in which it holds a claim.
struct Hold {
    claim: Claim,
    who: usize,
    first: usize,
    last: usize,
    /// The lowest and the highest token with which something began in that time.
    fences: (FencingToken, FencingToken),
}

impl Hold {
    fn of(who: usize, part: &Part, events: &[&Event]) -> Vec<Self> {
        let holds = part.claims.iter().filter_map(|spec| {
            // It is let go at the earliest when the last exit, or the step, has ended: what comes later is of no account.
            let until = |event: &&&Event| match spec.until {
                Until::End => true,
                Until::Guard => event.step.starts_with("guard/") && event.step.ends_with("/exit"),
                Until::Step(at) => {
                    let forward = matches!(event.what, What::Begins | What::Succeeds | What::Ends);
                    event.step == format!("s{at}") && forward
                }
            };
            let first = events.first()?;
            let last = events.iter().rfind(until);
            let last = match spec.until {
                // A guard that was closed before anybody had entered has no exit.
                Until::Guard => last.unwrap_or(first),
                Until::End | Until::Step(_) => last.or(events.last())?,
            };
            let within = events.iter().filter(|e| e.at <= last.at).map(|e| e.fence);
            Some(Self {
                claim: spec.claim(),
                who,
                first: first.at,
                last: last.at,
                fences: (within.clone().min()?, within.max()?),
            })
        });
        holds.collect()
    }
}

impl Played<'_> {
    /// The conflicts between holds, in words.
    pub fn conflicts(&self) -> Vec<String> {
        let events = self.world.log.events();
        let holds: Vec<_> = self
            .story
            .parts
            .iter()
            .enumerate()
            .flat_map(|(who, part)| {
                let theirs: Vec<_> = events.iter().filter(|event| event.who == who).collect();
                Hold::of(who, part, &theirs)
            })
            .collect();
        let mut found = Vec::new();
        for one in &holds {
            for other in holds.iter().filter(|other| one.who != other.who) {
                if !one.claim.conflicts_with(&other.claim) || one.first > other.first {
                    continue;
                }
                let key = &other.claim.key;
                if other.first < one.last {
                    found.push(format!("runs {} and {} both held {key}", one.who, other.who));
                } else if one.fences.1 >= other.fences.0 {
                    found.push(format!(
                        "run {} held {key} after {}, with {:?} after {:?}",
                        other.who, one.who, other.fences, one.fences
                    ));
                }
            }
        }
        found
    }

    /// E3 and E4: what was held, by which token, and what was waited for.
    pub fn check_exclusion(&self) {
        assert_eq!(self.conflicts(), Vec::<String>::new());
        overlaps(&self.arbiter);
        self.check_tokens();
        self.check_pool();
        self.check_cancelled();
    }

    /// Every token is that of a grant of its run, and a process that takes over has a higher one.
    fn check_tokens(&self) {
        let events = self.world.log.events();
        let deaths = self.world.log.deaths();
        for who in 0..self.story.parts.len() {
            let run = self.run(who);
            let grants: Vec<_> = self
                .arbiter
                .iter()
                .filter(|stored| match &stored.record {
                    Record::Arbiter(
                        ArbiterRecord::Granted { run: of } | ArbiterRecord::Regranted { run: of },
                    ) => *of == run,
                    _ => false,
                })
                .map(|stored| FencingToken(stored.seq.0 + 1))
                .collect();
            let mut last: Option<(usize, FencingToken)> = None;
            for event in events.iter().filter(|event| event.who == who) {
                assert!(grants.contains(&event.fence), "{event:?} has none of {grants:?}");
                // What was begun earlier ends with the token that it had.
                if !matches!(event.what, What::Begins | What::UndoBegins | What::Probed) {
                    continue;
                }
                let life = deaths.iter().filter(|death| **death <= event.at).count();
                if let Some((before, fence)) = last {
                    let rises = event.fence > fence || (event.fence == fence && life == before);
                    assert!(rises, "{event:?} of process {life} comes after {fence:?}");
                }
                last = Some((life, event.fence));
            }
        }
    }

    /// At no time more attempts are at work than there are slots.
    fn check_pool(&self) {
        let deaths = self.world.log.deaths();
        let mut busy: BTreeMap<(usize, &str), usize> = BTreeMap::new();
        let mut life = 0;
        let events = self.world.log.events();
        for event in &events {
            let now = deaths.iter().filter(|death| **death <= event.at).count();
            if now != life {
                busy.clear();
                life = now;
            }
            let steps = &self.story.parts[event.who].case.steps;
            let at = event.step.strip_prefix('s').and_then(|at| at.parse::<usize>().ok());
            if event.step != "point" && !at.is_some_and(|at| steps[at].pooled) {
                continue;
            }
            let count = busy.entry((event.who, &event.step)).or_default();
            match event.what {
                What::Begins => *count += 1,
                What::Ends => *count -= 1,
                _ => continue,
            }
            let all: usize = busy.values().sum();
            assert!(all <= SLOTS as usize, "{all} attempts at once: {event:?}");
        }
    }

    /// A run that was cancelled before it had its claims has done nothing.
    fn check_cancelled(&self) {
        let granted = |who: usize| {
            let run = self.run(who);
            self.arbiter.iter().any(|stored| {
                matches!(&stored.record, Record::Arbiter(ArbiterRecord::Granted { run: of }) if *of == run)
            })
        };
        let events = self.world.log.events();
        for who in (0..self.story.parts.len()).filter(|who| !granted(*who)) {
            assert_eq!(self.reports[who].end(), End::Cancelled, "it was never granted its claims");
            assert!(events.iter().all(|event| event.who != who), "{who} acted without its claims");
        }
    }
}
