//! The pools: who has slots, who is in line for some.
//!
//! All slots of one asker are given at once, or none. First come, first served among those that want slots of the same
//! pool; who wants none of what is short does not wait. Not journalled: slots belong to attempts of one process.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use stillpoint_context::RunId;

use crate::plan::NodeNo;
use crate::pool::PoolName;

/// A node of a run.
pub(crate) type Asker = (RunId, NodeNo);

type Needs = BTreeMap<PoolName, u32>;

/// The pools of an engine.
#[derive(Debug, Clone, Default)]
pub(crate) struct PoolMachine {
    limits: BTreeMap<PoolName, u32>,
    used: BTreeMap<PoolName, u32>,
    held: HashMap<Asker, Needs>,
    line: VecDeque<(Asker, Needs)>,
}

impl PoolMachine {
    pub(crate) fn new(limits: BTreeMap<PoolName, u32>) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Takes what can never be given down to what there is, and leaves out pools without a limit.
    fn fit(&self, needs: Needs) -> Needs {
        needs
            .into_iter()
            .filter_map(|(pool, count)| {
                let limit = *self.limits.get(&pool)?;
                Some((pool, count.min(limit)))
            })
            .collect()
    }

    /// Stands in line; gives all whose turn has come.
    pub(crate) fn ask(&mut self, asker: Asker, needs: Needs) -> Vec<Asker> {
        let known = self.held.contains_key(&asker) || self.line.iter().any(|(a, _)| *a == asker);
        if known {
            return Vec::new();
        }
        let needs = self.fit(needs);
        if needs.is_empty() {
            self.held.insert(asker, needs);
            return vec![asker];
        }
        self.line.push_back((asker, needs));
        self.serve()
    }

    /// Gives back slots, or leaves the line; gives all whose turn has come by it.
    pub(crate) fn give_back(&mut self, asker: Asker) -> Vec<Asker> {
        match self.held.remove(&asker) {
            Some(needs) => {
                for (pool, count) in needs {
                    if let Some(used) = self.used.get_mut(&pool) {
                        *used -= count;
                    }
                }
            }
            None => self.line.retain(|(other, _)| *other != asker),
        }
        self.serve()
    }

    /// Everything of a run that has ended.
    pub(crate) fn leave(&mut self, run: RunId) -> Vec<Asker> {
        let held: Vec<_> = self.held.keys().filter(|(other, _)| *other == run).copied().collect();
        let mut served: Vec<Asker> =
            held.into_iter().flat_map(|asker| self.give_back(asker)).collect();
        self.line.retain(|((other, _), _)| *other != run);
        served.extend(self.serve());
        served.retain(|(other, _)| *other != run);
        served
    }

    fn serve(&mut self) -> Vec<Asker> {
        let mut served = Vec::new();
        // Pools for which somebody earlier in the line waits.
        let mut short: BTreeSet<PoolName> = BTreeSet::new();
        let mut left = VecDeque::new();
        while let Some((asker, needs)) = self.line.pop_front() {
            let is_free = |(pool, count): (&PoolName, &u32)| {
                let limit = self.limits.get(pool).copied().unwrap_or(u32::MAX);
                let used = self.used.get(pool).copied().unwrap_or(0);
                !short.contains(pool) && used + count <= limit
            };
            if needs.iter().all(is_free) {
                for (pool, count) in &needs {
                    *self.used.entry(pool.clone()).or_default() += count;
                }
                self.held.insert(asker, needs);
                served.push(asker);
            } else {
                short.extend(needs.keys().cloned());
                left.push_back((asker, needs));
            }
            if short.len() == self.limits.len() {
                // Everybody else wants something that is short.
                left.append(&mut self.line);
            }
        }
        self.line = left;
        served
    }

    /// Who is in line, and for which pools.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = (Asker, Vec<PoolName>)> {
        self.line.iter().map(|(asker, needs)| (*asker, needs.keys().cloned().collect()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn pool(name: &str) -> PoolName {
        PoolName::new(name).unwrap()
    }

    fn asker(n: u32) -> Asker {
        (RunId(Uuid::from_u128(u128::from(n / 8) + 1)), NodeNo(n % 8))
    }

    fn limits() -> BTreeMap<PoolName, u32> {
        [(pool("host"), 1), (pool("storage"), 3)].into()
    }

    fn needs(of: &[(&str, u32)]) -> Needs {
        of.iter().map(|(name, count)| (pool(name), *count)).collect()
    }

    #[test]
    fn who_wants_nothing_that_is_short_does_not_wait() {
        let mut pools = PoolMachine::new(limits());
        assert_eq!(pools.ask(asker(1), needs(&[("storage", 3)])), [asker(1)]);
        assert_eq!(pools.ask(asker(2), needs(&[("storage", 1), ("host", 1)])), []);
        assert_eq!(pools.ask(asker(3), needs(&[("host", 1)])), [], "behind one that wants it too");
        assert_eq!(pools.ask(asker(4), needs(&[("unknown", 9)])), [asker(4)]);
        assert_eq!(pools.waiting().count(), 2);
        assert_eq!(pools.give_back(asker(1)), [asker(2)]);
        assert_eq!(pools.give_back(asker(2)), [asker(3)]);
    }

    #[test]
    fn what_is_more_than_the_pool_has_is_given_the_whole_pool() {
        let mut pools = PoolMachine::new(limits());
        assert_eq!(pools.ask(asker(1), needs(&[("storage", 64)])), [asker(1)]);
        assert_eq!(pools.ask(asker(2), needs(&[("storage", 1)])), []);
        assert_eq!(pools.ask(asker(9), needs(&[("storage", 1)])), []);
        assert_eq!(pools.leave(asker(1).0), [asker(9)], "its other places in line are gone too");
    }

    #[derive(Debug, Clone)]
    enum Op {
        Ask(u32, Vec<(usize, u32)>),
        Back(u32),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            (0..40_u32, prop::collection::vec((0..2_usize, 1..4_u32), 0..3))
                .prop_map(|(n, needs)| Op::Ask(n, needs)),
            (0..40_u32).prop_map(Op::Back),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

        /// Limits hold, everybody is served in the end, and nobody overtakes one who wants the same.
        #[test]
        fn limits_hold_and_everybody_is_served(ops in prop::collection::vec(op(), 1..80)) {
            let mut pools = PoolMachine::new(limits());
            let mut held = BTreeSet::new();
            let names = ["host", "storage"];
            for op in ops {
                let served = match op {
                    Op::Ask(n, wants) => {
                        let wants: Vec<_> = wants.iter().map(|(at, c)| (names[*at], *c)).collect();
                        pools.ask(asker(n), needs(&wants))
                    }
                    Op::Back(n) => {
                        held.remove(&asker(n));
                        pools.give_back(asker(n))
                    }
                };
                for one in served {
                    prop_assert!(held.insert(one), "served twice");
                }
                for (pool, used) in &pools.used {
                    prop_assert!(*used <= pools.limits[pool]);
                }
            }
            while let Some(one) = held.pop_first() {
                held.extend(pools.give_back(one));
            }
            prop_assert_eq!(pools.waiting().count(), 0);
            prop_assert!(pools.used.values().all(|used| *used == 0));
        }
    }
}
