//! All graphs of a few steps, each once: orders up to renaming, drawn with the edges that matter.
//!
//! An edge that others imply changes nothing about when a step may begin or be undone, so a graph is told by the order that it
//! makes: the number of shapes is that of the unlabelled partial orders (1, 2, 5, 16, 63, 318 of one to six elements).

use std::collections::BTreeSet;

/// Which node comes before which, as a matrix of bits; a lower number never comes after a higher one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Shape {
    pub(super) count: usize,
    before: u64,
}

impl Shape {
    /// The shape with these edges, all from a lower to a higher number.
    pub(super) fn of(count: usize, edges: &[(usize, usize)]) -> Self {
        let mut shape = Self { count, before: 0 };
        for (from, to) in edges {
            assert!(from < to && *to < count);
            shape.before |= shape.bit(*from, *to);
        }
        for via in 0..count {
            for from in 0..via {
                for to in via + 1..count {
                    if shape.is_before(from, via) && shape.is_before(via, to) {
                        shape.before |= shape.bit(from, to);
                    }
                }
            }
        }
        shape
    }

    const fn bit(self, from: usize, to: usize) -> u64 {
        1 << (from * self.count + to)
    }

    pub(super) const fn is_before(self, from: usize, to: usize) -> bool {
        self.before & self.bit(from, to) != 0
    }

    fn is_transitive(self) -> bool {
        (0..self.count).all(|via| {
            (0..via).all(|from| {
                let after = via + 1..self.count;
                !self.is_before(from, via)
                    || after
                        .into_iter()
                        .all(|to| !self.is_before(via, to) || self.is_before(from, to))
            })
        })
    }

    /// The nodes that come directly before one.
    pub(super) fn preds(self, to: usize) -> Vec<usize> {
        let before = |from: &usize| self.is_before(*from, to);
        let direct = |from: &usize| {
            (0..self.count).all(|via| !(self.is_before(*from, via) && self.is_before(via, to)))
        };
        (0..to).filter(before).filter(direct).collect()
    }

    /// The most nodes of which none comes before another.
    pub(super) fn width(self) -> usize {
        let apart = |set: u32| {
            let has = |node: usize| set & (1 << node) != 0;
            (0..self.count)
                .all(|to| !has(to) || (0..to).all(|from| !has(from) || !self.is_before(from, to)))
        };
        let sets = 0..1_u32 << self.count;
        sets.filter(|set| apart(*set)).map(|set| set.count_ones() as usize).max().unwrap_or(0)
    }

    /// Whether a node comes before or after each other one.
    pub(super) fn is_cut(self, node: usize) -> bool {
        let related = |other| self.is_before(node, other) || self.is_before(other, node);
        (0..self.count).all(|other| other == node || related(other))
    }

    /// The least of all ways to number it, and which number its node gets there. An order has few ways to keep its direction.
    fn canonical(self, marked: usize) -> (u64, usize) {
        let mut best = (u64::MAX, usize::MAX);
        self.number(&mut Vec::new(), &mut |order| {
            let mut before = 0;
            for (to, new_to) in order.iter().enumerate().map(|(new, old)| (*old, new)) {
                for (from, new_from) in order.iter().enumerate().map(|(new, old)| (*old, new)) {
                    if self.is_before(from, to) {
                        before |= self.bit(new_from, new_to);
                    }
                }
            }
            let mark = order.iter().position(|old| *old == marked).unwrap_or(usize::MAX);
            best = best.min((before, mark));
        });
        best
    }

    fn number(self, order: &mut Vec<usize>, each: &mut impl FnMut(&[usize])) {
        if order.len() == self.count {
            return each(order);
        }
        for node in 0..self.count {
            let free = |node: usize| {
                (0..node).all(|before| !self.is_before(before, node) || order.contains(&before))
            };
            if !order.contains(&node) && free(node) {
                order.push(node);
                self.number(order, each);
                order.pop();
            }
        }
    }
}

/// All shapes of so many nodes, at most so wide, each with each of its nodes marked that differ from one another; and each
/// without a mark, which is told by a mark on no node.
pub(super) fn all(count: usize, widest: usize) -> Vec<(Shape, Option<usize>)> {
    let pairs: Vec<_> = (0..count).flat_map(|to| (0..to).map(move |from| (from, to))).collect();
    let mut found = BTreeSet::new();
    for mask in 0..1_u32 << pairs.len() {
        let chosen = pairs.iter().enumerate().filter(|(at, _)| mask & (1 << at) != 0);
        let mut shape = Shape { count, before: 0 };
        for (_, (from, to)) in chosen {
            shape.before |= shape.bit(*from, *to);
        }
        if !shape.is_transitive() || shape.width() > widest {
            continue;
        }
        for marked in 0..=count {
            found.insert(shape.canonical(marked));
        }
    }
    let mark = |mark| Some(mark).filter(|mark| *mark < count);
    found.into_iter().map(|(before, at)| (Shape { count, before }, mark(at))).collect()
}

#[test]
fn every_shape_is_there_once() {
    let shapes =
        |count, widest| all(count, widest).iter().filter(|(_, marked)| marked.is_none()).count();
    let counts: Vec<_> = (1..=6).map(|count| shapes(count, count)).collect();
    assert_eq!(counts, [1, 2, 5, 16, 63, 318]);
    let diamond = Shape::of(4, &[(0, 1), (0, 2), (1, 3), (2, 3), (0, 3)]);
    assert_eq!((diamond.width(), diamond.preds(3)), (2, vec![1, 2]));
    assert!(diamond.is_cut(0) && !diamond.is_cut(1));
    assert_eq!((shapes(6, 3), all(6, 3).len()), (245, 1495), "at most three wide; marked or not");
}
