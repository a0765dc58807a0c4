//! Handles of outputs, and what may be bound to what.

use std::fmt;
use std::marker::PhantomData;

use serde::{Deserialize, Serialize};

/// The place of a node in its plan's list: how records and reports refer to it. Stable for a stored plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeNo(pub(crate) u32);

impl NodeNo {
    pub(crate) fn at(index: usize) -> Self {
        // A plan of more than four thousand million nodes does not fit into memory.
        Self(u32::try_from(index).unwrap_or(u32::MAX))
    }

    /// The index into [`Plan::nodes`](super::Plan::nodes).
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for NodeNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Scope of the steps outside guards.
#[derive(Debug, Clone, Copy)]
pub enum Outside {}

/// Scope of the steps in the body of a guard.
#[derive(Debug, Clone, Copy)]
pub enum Inside {}

macro_rules! handle {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        pub struct $name<T> {
            pub(crate) plan: u64,
            pub(crate) node: NodeNo,
            value: PhantomData<fn() -> T>,
        }

        impl<T> $name<T> {
            pub(crate) const fn new(plan: u64, node: NodeNo) -> Self {
                Self { plan, node, value: PhantomData }
            }

            /// The node whose output it is.
            pub const fn node(&self) -> NodeNo {
                self.node
            }
        }

        impl<T> Clone for $name<T> {
            fn clone(&self) -> Self {
                *self
            }
        }

        impl<T> Copy for $name<T> {}

        impl<T> fmt::Debug for $name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.node)
            }
        }
    };
}

handle!(
    /// The output of a step, to be bound by any later one.
    Out
);
handle!(
    /// The output of a step in the body of a guard: of use only in that body. What the body returns comes out as
    /// [`Out`] when the guard is closed, so nothing can depend on a body without depending on its exit.
    In
);

/// Where an input comes from, while a plan is being built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Binding {
    /// Nowhere: the input is `()`.
    Nothing,
    /// The output of a node of the plan with this tag.
    Node(u64, NodeNo),
    /// Several, as a tuple or list.
    Many(Vec<Binding>),
}

/// What may be bound as input in scope `S`: a handle, `()`, or tuples and lists of them.
pub trait Bind<S> {
    /// The input that it makes.
    type Value;

    /// Where it comes from.
    fn binding(&self) -> Binding;
}

/// What a step in scope `S` may be placed after.
pub trait Handle<S> {
    /// The tag of its plan, and its node.
    fn place(&self) -> (u64, NodeNo);
}

impl<T, S> Handle<S> for Out<T> {
    fn place(&self) -> (u64, NodeNo) {
        (self.plan, self.node)
    }
}

impl<T> Handle<Inside> for In<T> {
    fn place(&self) -> (u64, NodeNo) {
        (self.plan, self.node)
    }
}

impl<S, H: Handle<S> + ?Sized> Handle<S> for &H {
    fn place(&self) -> (u64, NodeNo) {
        (**self).place()
    }
}

impl<S> Bind<S> for () {
    type Value = ();

    fn binding(&self) -> Binding {
        Binding::Nothing
    }
}

impl<T, S> Bind<S> for Out<T> {
    type Value = T;

    fn binding(&self) -> Binding {
        Binding::Node(self.plan, self.node)
    }
}

impl<T> Bind<Inside> for In<T> {
    type Value = T;

    fn binding(&self) -> Binding {
        Binding::Node(self.plan, self.node)
    }
}

impl<S, B: Bind<S>> Bind<S> for &B {
    type Value = B::Value;

    fn binding(&self) -> Binding {
        (**self).binding()
    }
}

impl<S, B: Bind<S>> Bind<S> for Vec<B> {
    type Value = Vec<B::Value>;

    fn binding(&self) -> Binding {
        Binding::Many(self.iter().map(Bind::binding).collect())
    }
}

/// What the body of a guard may return: handles that come out when the guard is closed.
pub trait Leave {
    /// The same handles, outside.
    type Outside;

    /// Brings them out.
    fn leave(self) -> Self::Outside;
}

impl<T> Leave for In<T> {
    type Outside = Out<T>;

    fn leave(self) -> Out<T> {
        Out::new(self.plan, self.node)
    }
}

impl<L: Leave> Leave for Vec<L> {
    type Outside = Vec<L::Outside>;

    fn leave(self) -> Vec<L::Outside> {
        self.into_iter().map(Leave::leave).collect()
    }
}

impl Leave for () {
    type Outside = ();

    fn leave(self) {}
}

macro_rules! tuples {
    ($(($($name:ident $at:tt),+))+) => {$(
        impl<S, $($name: Bind<S>),+> Bind<S> for ($($name,)+) {
            type Value = ($($name::Value,)+);

            fn binding(&self) -> Binding {
                Binding::Many(vec![$(self.$at.binding()),+])
            }
        }

        impl<$($name: Leave),+> Leave for ($($name,)+) {
            type Outside = ($($name::Outside,)+);

            fn leave(self) -> Self::Outside {
                ($(self.$at.leave(),)+)
            }
        }
    )+};
}

tuples! {
    (A 0, B 1)
    (A 0, B 1, C 2)
    (A 0, B 1, C 2, D 3)
    (A 0, B 1, C 2, D 3, E 4)
    (A 0, B 1, C 2, D 3, E 4, F 5)
}
