//! Plans: validated, serialisable graphs of steps and guards.
//!
//! ```
//! use stillpoint_workflow::{Done, PlanBuilder, step_fn};
//!
//! let mut plan = PlanBuilder::new("sum");
//! let one = plan.step("one", step_fn(|_, ()| async { Ok(Done::new(1_u32)) })).add();
//! let two = plan.step("two", step_fn(|_, ()| async { Ok(Done::new(2_u32)) })).add();
//! let sum = step_fn(|_, (a, b): (u32, u32)| async move { Ok(Done::new(a + b)) });
//! plan.step("sum", sum).bind((one, two)).add();
//! let plan = plan.build()?;
//! assert_eq!(plan.nodes().len(), 3);
//! # Ok::<(), stillpoint_workflow::PlanError>(())
//! ```

mod builder;
mod check;
mod guard;
mod handle;
mod problem;
mod stored;
mod topology;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};
use stillpoint_context::{ErrorCode, StepName};

pub use builder::{PlanBuilder, StepBuilder};
pub(crate) use check::longest_path;
pub use guard::{BodyBuilder, GuardBuilder};
pub use handle::{Bind, Binding, Handle, In, Inside, Leave, NodeNo, Out, Outside};
pub use problem::{PlanError, PlanProblem};
pub(crate) use topology::Topology;

use crate::action::{AnyAction, EffectKind};
use crate::claim::Claim;
use crate::payload::Payload;
use crate::pool::PoolName;
use crate::retry::Retry;

/// The format of stored plans that this version writes; older ones are read, newer ones refused.
///
/// Format 2 leaves out what has the usual value; format 1 wrote every field.
pub const PLAN_FORMAT: u32 = 2;

/// How long a step that was told to stop may take until it is dropped, where the plan does not say.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(5);

/// How long one attempt of an undo may take, where the plan does not say: one that hangs must not hold its run for ever.
pub const DEFAULT_UNDO_TIMEOUT: Duration = Duration::from_mins(30);

/// A validated plan. Cheap to clone.
///
/// Serialises to its format: `{format, name, claims, grace, nodes}`, where nodes refer to each other by their place in
/// the list. Reading one validates it again.
#[derive(Clone, Deserialize)]
#[serde(try_from = "PlanData")]
pub struct Plan(Arc<Inner>);

pub(crate) struct Inner {
    data: PlanData,
    topology: Topology,
    /// By node; empty where every action is registered.
    closures: Vec<Option<Arc<dyn AnyAction>>>,
    tag: u64,
}

/// A plan as stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PlanData {
    pub(crate) format: u32,
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) claims: Vec<Claim>,
    pub(crate) grace: Duration,
    pub(crate) nodes: Vec<Node>,
}

/// A node of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Node {
    /// Its name, unique in the plan.
    pub name: StepName,
    /// The nodes that it comes after, bound ones included.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<NodeNo>,
    /// The guard that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<NodeNo>,
    /// What it is.
    pub kind: NodeKind,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NodeKind {
    /// A value given at submission.
    Input,
    /// One call of an action.
    Step(Step),
    /// A guarded section.
    Guard(Guard),
}

/// A step: one call of an action.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Step {
    /// The action's name.
    pub action: Cow<'static, str>,
    /// The action's version.
    pub version: u32,
    /// What it does to the world.
    pub effect: EffectKind,
    /// Whether repeating it with unknown outcome is harmless.
    #[serde(default, skip_serializing_if = "stored::is_false")]
    pub idempotent: bool,
    /// Its parameters.
    #[serde(default, skip_serializing_if = "stored::is_unit")]
    pub params: Payload,
    /// Where its input comes from.
    #[serde(default = "stored::no_feed", skip_serializing_if = "stored::is_no_feed")]
    pub feed: Feed,
    /// How long one attempt may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// How often it is tried.
    #[serde(default = "stored::retry", skip_serializing_if = "stored::is_retry")]
    pub retry: Retry,
    /// How often its undo, or the exit of a guard, is tried.
    #[serde(default = "stored::undo_retry", skip_serializing_if = "stored::is_undo_retry")]
    pub undo_retry: Retry,
    /// How long one attempt of the undo may take.
    #[serde(default = "stored::undo_timeout", skip_serializing_if = "stored::is_undo_timeout")]
    pub undo_timeout: Option<Duration>,
    /// How long it may take to stop when told to; the plan's grace unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace: Option<Duration>,
    /// Its failure undoes only itself.
    #[serde(default, skip_serializing_if = "stored::is_false")]
    pub optional: bool,
    /// From its intent on nothing is undone.
    #[serde(default, skip_serializing_if = "stored::is_false")]
    pub no_return: bool,
    /// How long it may take at worst, inside a guard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worst_case: Option<Duration>,
    /// What it uses for itself; checked to be ordered, and claimed by the run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uses: Vec<Claim>,
    /// The pools of which each attempt needs a slot.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pools: Vec<PoolName>,
    /// What it is to its guard.
    #[serde(default = "stored::plain", skip_serializing_if = "stored::is_plain")]
    pub role: Role,
}

/// What a step is to its guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It is outside guards.
    Plain,
    /// It enters for a member.
    Enter,
    /// It exits for a member.
    Exit,
    /// It is in the body.
    Body,
}

/// A guarded section: members enter, the body runs while all hold, all exit whatever happens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Guard {
    /// How long it may last from the first poll of an enter to the end of the last exit.
    pub limit: Option<Duration>,
    /// How long one attempt of an exit may take; the body stops this long before the limit.
    pub exit_timeout: Duration,
    /// How often an exit is tried before it is left owed.
    pub exit_retry: Retry,
    /// Whether a section that was not held to its end fails the run.
    pub on_broken: OnBroken,
    /// The code of the failure when the limit is missed.
    pub miss_code: ErrorCode,
    /// Its members.
    pub members: Vec<Member>,
    /// The steps of its body.
    pub body: Vec<NodeNo>,
}

/// A member of a guard: the two steps that enter and exit for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Member {
    /// Its name, unique in the guard.
    pub name: StepName,
    /// The step that enters.
    pub enter: NodeNo,
    /// The step that exits.
    pub exit: NodeNo,
}

/// What follows when the body is whole but the section was not held to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnBroken {
    /// The guard fails.
    #[default]
    Fail,
    /// The run goes on; the verdict says so.
    Degrade,
}

/// Where an input comes from, as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Feed {
    /// Nowhere.
    Nothing,
    /// The output of a node.
    Node(NodeNo),
    /// Several, as a list.
    Many(Vec<Feed>),
}

impl Feed {
    pub(crate) fn each(&self, visit: &mut impl FnMut(NodeNo)) {
        match self {
            Self::Nothing => {}
            Self::Node(node) => visit(*node),
            Self::Many(feeds) => feeds.iter().for_each(|feed| feed.each(visit)),
        }
    }

    /// The input that it makes of the values of nodes.
    pub(crate) fn compose(&self, value: &dyn Fn(NodeNo) -> Payload) -> Payload {
        match self {
            Self::Nothing => Payload::UNIT,
            Self::Node(node) => value(*node),
            Self::Many(feeds) => Payload::list(feeds.iter().map(|feed| feed.compose(value))),
        }
    }
}

impl Plan {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.data.name
    }

    /// Its nodes, in the order in which they were added.
    pub fn nodes(&self) -> &[Node] {
        &self.0.data.nodes
    }

    /// A node.
    pub fn node(&self, node: NodeNo) -> &Node {
        &self.0.data.nodes[node.index()]
    }

    /// The node of this name. O(n).
    pub fn find(&self, name: &str) -> Option<NodeNo> {
        self.nodes().iter().position(|node| node.name.as_str() == name).map(NodeNo::at)
    }

    /// The claims of the plan and of its steps.
    pub fn claims(&self) -> &[Claim] {
        &self.0.data.claims
    }

    /// Whether it has steps of closures, which no other process can run.
    pub fn is_ephemeral(&self) -> bool {
        !self.0.closures.is_empty()
    }

    /// How long a step may take to stop when told to.
    pub(crate) fn grace(&self, node: NodeNo) -> Duration {
        self.step(node).and_then(|step| step.grace).unwrap_or(self.0.data.grace)
    }

    pub(crate) fn step(&self, node: NodeNo) -> Option<&Step> {
        match &self.node(node).kind {
            NodeKind::Step(step) => Some(step),
            NodeKind::Input | NodeKind::Guard(_) => None,
        }
    }

    pub(crate) fn guard(&self, node: NodeNo) -> Option<&Guard> {
        match &self.node(node).kind {
            NodeKind::Guard(guard) => Some(guard),
            NodeKind::Input | NodeKind::Step(_) => None,
        }
    }

    pub(crate) fn topology(&self) -> &Topology {
        &self.0.topology
    }

    pub(crate) fn tag(&self) -> u64 {
        self.0.tag
    }

    pub(crate) fn closure(&self, node: NodeNo) -> Option<Arc<dyn AnyAction>> {
        self.0.closures.get(node.index()).cloned().flatten()
    }

    pub(crate) fn check(
        data: PlanData,
        closures: Vec<Option<Arc<dyn AnyAction>>>,
        tag: u64,
        problems: Vec<PlanProblem>,
    ) -> Result<Self, PlanError> {
        let topology = check::check(&data, problems)?;
        Ok(Self(Arc::new(Inner { data, topology, closures, tag })))
    }
}

impl TryFrom<PlanData> for Plan {
    type Error = PlanError;

    fn try_from(mut data: PlanData) -> Result<Self, PlanError> {
        // Once read it is what this version would write; a newer one is refused as it is.
        data.format = data.format.max(PLAN_FORMAT);
        Self::check(data, Vec::new(), 0, Vec::new())
    }
}

impl Serialize for Plan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.data.serialize(serializer)
    }
}

impl PartialEq for Plan {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.data == other.0.data
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan")
            .field("name", &self.name())
            .field("nodes", &self.nodes().len())
            .finish_non_exhaustive()
    }
}
