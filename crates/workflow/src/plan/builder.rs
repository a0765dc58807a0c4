//! Building a plan, with typed handles.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use stillpoint_context::{Failure, StepName};

use super::guard::GuardBuilder;
use super::handle::{Bind, Binding, Handle, In, Inside, NodeNo, Out, Outside};
use super::{
    DEFAULT_GRACE, DEFAULT_UNDO_TIMEOUT, Feed, Node, NodeKind, PLAN_FORMAT, Plan, PlanData,
    PlanError, PlanProblem, Role, Step,
};
use crate::action::{AnyAction, Call};
use crate::claim::{Claim, ClaimKey};
use crate::payload::Payload;
use crate::pool::PoolName;
use crate::retry::Retry;

/// How often an undo is tried, unless said: a few times, for what it owes is dear.
const UNDO_RETRY: Retry = Retry::times(4);

static NEXT_TAG: AtomicU64 = AtomicU64::new(1);

/// Collects the nodes of a plan. Mistakes are kept and reported together by [`build`](Self::build).
#[derive(Debug)]
pub struct PlanBuilder {
    pub(super) tag: u64,
    name: String,
    grace: Duration,
    claims: Vec<Claim>,
    pub(super) nodes: Vec<Node>,
    closures: Vec<(NodeNo, Arc<dyn AnyAction>)>,
    /// Dependencies by name, resolved at the end.
    later: Vec<(NodeNo, String)>,
    pub(super) problems: Vec<PlanProblem>,
}

impl PlanBuilder {
    /// An empty plan of this name, which is for people.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            tag: NEXT_TAG.fetch_add(1, Ordering::Relaxed),
            name: name.into(),
            grace: DEFAULT_GRACE,
            claims: Vec::new(),
            nodes: Vec::new(),
            closures: Vec::new(),
            later: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// How long steps may take to stop when told to, where they do not say themselves.
    pub fn grace(&mut self, grace: Duration) -> &mut Self {
        self.grace = grace;
        self
    }

    /// Adds a claim of the whole run.
    pub fn claim(&mut self, claim: Claim) -> &mut Self {
        self.claims.push(claim);
        self
    }

    /// A value that the submission gives.
    pub fn input<T: Serialize + DeserializeOwned>(&mut self, name: impl AsRef<str>) -> Out<T> {
        let node = self.push(name.as_ref(), NodeKind::Input);
        Out::new(self.tag, node)
    }

    /// Begins a step; [`StepBuilder::add`] ends it.
    pub fn step<I, O, X>(
        &mut self,
        name: impl AsRef<str>,
        call: Call<I, O, X>,
    ) -> StepBuilder<'_, Outside, I, O, X> {
        StepBuilder::new(self, name.as_ref(), call, Role::Plain, None)
    }

    /// Begins a guard; [`GuardBuilder::body`] and `close` end it.
    pub fn guard(&mut self, name: impl AsRef<str>) -> GuardBuilder<'_> {
        GuardBuilder::new(self, name.as_ref())
    }

    /// The plan.
    ///
    /// # Errors
    /// [`PlanError`] with everything that is wrong.
    ///
    /// # Complexity
    /// O(nodes + edges), and once more that for each step that uses something exclusively.
    pub fn build(mut self) -> Result<Plan, PlanError> {
        let names: BTreeMap<&str, NodeNo> = self
            .nodes
            .iter()
            .enumerate()
            .map(|(at, n)| (n.name.as_str(), NodeNo::at(at)))
            .collect();
        let mut edges = Vec::new();
        for (node, name) in &self.later {
            match names.get(name.as_str()) {
                Some(before) => edges.push((*node, *before)),
                None => self.problems.push(PlanProblem::UnknownDependency {
                    step: self.nodes[node.index()].name.to_string(),
                    name: name.clone(),
                }),
            }
        }
        for (node, before) in edges {
            self.nodes[node.index()].after.push(before);
        }
        let mut claims = self.claims;
        for node in &mut self.nodes {
            node.after.sort_unstable();
            node.after.dedup();
            if let NodeKind::Step(step) = &node.kind {
                claims.extend(step.uses.iter().cloned());
            }
        }
        claims.sort();
        claims.dedup();
        let mut closures = Vec::new();
        if !self.closures.is_empty() {
            closures.resize(self.nodes.len(), None);
            for (node, action) in self.closures {
                closures[node.index()] = Some(action);
            }
        }
        let data = PlanData {
            format: PLAN_FORMAT,
            name: self.name,
            claims,
            grace: self.grace,
            nodes: self.nodes,
        };
        Plan::check(data, closures, self.tag, self.problems)
    }

    pub(super) fn push(&mut self, name: &str, kind: NodeKind) -> NodeNo {
        let name = match StepName::new(name) {
            Ok(name) => name,
            Err(error) => {
                self.problems.push(PlanProblem::BadName {
                    name: name.to_owned(),
                    why: error.why.to_owned(),
                });
                // Some legal name in its place, so that the other problems can be found too.
                let stand_in = format!("#{}", self.nodes.len());
                let Ok(name) = StepName::new(stand_in) else { unreachable!("a number is legal") };
                name
            }
        };
        self.nodes.push(Node { name, after: Vec::new(), within: None, kind });
        NodeNo::at(self.nodes.len() - 1)
    }

    /// Adds a step of this call; its binding becomes its feed.
    pub(super) fn push_step<I, O, X>(
        &mut self,
        name: &str,
        call: Call<I, O, X>,
        role: Role,
        within: Option<NodeNo>,
    ) -> NodeNo {
        let Call { what, binding, .. } = call;
        let params = what.params.unwrap_or_else(|failure| {
            let why = failure.to_string();
            self.problems.push(PlanProblem::BadParams { step: name.to_owned(), why });
            Payload::UNIT
        });
        let step = Step {
            action: what.action,
            version: what.version,
            effect: what.effect,
            idempotent: what.idempotent,
            params,
            feed: Feed::Nothing,
            timeout: what.timeout,
            retry: Retry::NEVER,
            undo_retry: UNDO_RETRY,
            undo_timeout: Some(DEFAULT_UNDO_TIMEOUT),
            grace: None,
            optional: false,
            no_return: false,
            worst_case: what.worst_case,
            uses: Vec::new(),
            pools: Vec::new(),
            role,
        };
        let node = self.push(name, NodeKind::Step(step));
        self.nodes[node.index()].within = within;
        if let Some(closure) = what.closure {
            self.closures.push((node, closure));
        }
        self.feed(node, &binding);
        node
    }

    pub(super) fn feed(&mut self, node: NodeNo, binding: &Binding) {
        let feed = self.resolve(node, binding);
        let mut after = Vec::new();
        feed.each(&mut |before| after.push(before));
        let node = &mut self.nodes[node.index()];
        node.after.extend(after);
        if let NodeKind::Step(step) = &mut node.kind {
            step.feed = feed;
        }
    }

    fn resolve(&mut self, node: NodeNo, binding: &Binding) -> Feed {
        match binding {
            Binding::Nothing => Feed::Nothing,
            Binding::Node(tag, from) => {
                self.check_handle(node, *tag, *from).map_or(Feed::Nothing, Feed::Node)
            }
            Binding::Many(all) => Feed::Many(all.iter().map(|b| self.resolve(node, b)).collect()),
        }
    }

    fn check_handle(&mut self, node: NodeNo, tag: u64, from: NodeNo) -> Option<NodeNo> {
        if tag == self.tag {
            return Some(from);
        }
        let step = self.nodes[node.index()].name.to_string();
        self.problems.push(PlanProblem::ForeignHandle { step });
        None
    }

    pub(super) fn place_after(&mut self, node: NodeNo, (tag, before): (u64, NodeNo)) {
        if let Some(before) = self.check_handle(node, tag, before) {
            self.nodes[node.index()].after.push(before);
        }
    }

    fn step_mut(&mut self, node: NodeNo) -> Option<&mut Step> {
        match &mut self.nodes[node.index()].kind {
            NodeKind::Step(step) => Some(step),
            NodeKind::Input | NodeKind::Guard(_) => None,
        }
    }
}

/// A step being built: `S` is its scope, `I` the input that its action wants, `O` the output that later steps see, `X`
/// what has been bound so far. [`add`](Self::add) exists once `X` is `I`.
#[must_use = "a step is in the plan once it is added"]
pub struct StepBuilder<'p, S, I, O, X> {
    plan: &'p mut PlanBuilder,
    node: NodeNo,
    types: PhantomData<fn(S, I, X) -> O>,
}

impl<S, I, O, X> fmt::Debug for StepBuilder<'_, S, I, O, X> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StepBuilder({})", self.plan.nodes[self.node.index()].name)
    }
}

impl<'p, S, I, O, X> StepBuilder<'p, S, I, O, X> {
    pub(super) fn new(
        plan: &'p mut PlanBuilder,
        name: &str,
        call: Call<I, O, X>,
        role: Role,
        within: Option<NodeNo>,
    ) -> Self {
        let node = plan.push_step(name, call, role, within);
        Self { plan, node, types: PhantomData }
    }

    fn set(self, change: impl FnOnce(&mut Step)) -> Self {
        if let Some(step) = self.plan.step_mut(self.node) {
            change(step);
        }
        self
    }

    /// Feeds the outputs of earlier steps: a handle, or a tuple or list of handles.
    pub fn bind<B: Bind<S>>(self, source: B) -> StepBuilder<'p, S, I, O, B::Value> {
        let Self { plan, node, .. } = self;
        plan.feed(node, &source.binding());
        StepBuilder { plan, node, types: PhantomData }
    }

    /// Places it after an earlier step, without its output.
    pub fn after<H: Handle<S>>(self, earlier: H) -> Self {
        self.plan.place_after(self.node, earlier.place());
        self
    }

    /// How long one attempt may take.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.set(|step| step.timeout = Some(timeout))
    }

    /// How long it may take to stop when told to.
    pub fn grace(self, grace: Duration) -> Self {
        self.set(|step| step.grace = Some(grace))
    }

    /// How often its undo is tried before what it owes becomes debris.
    pub fn undo_retry(self, retry: Retry) -> Self {
        self.set(|step| step.undo_retry = retry)
    }

    /// How long one attempt of its undo may take; [`DEFAULT_UNDO_TIMEOUT`](crate::DEFAULT_UNDO_TIMEOUT) unless said.
    pub fn undo_timeout(self, timeout: Duration) -> Self {
        self.set(|step| step.undo_timeout = Some(timeout))
    }

    /// Needs a slot of this pool for each attempt; inside a guard, from before the guard is armed until it is over.
    pub fn pool(self, pool: PoolName) -> Self {
        self.set(|step| {
            if !step.pools.contains(&pool) {
                step.pools.push(pool);
            }
        })
    }

    /// Uses a resource for itself: the run claims it, and two such steps must be ordered.
    pub fn exclusive(self, key: ClaimKey) -> Self {
        self.set(|step| step.uses.push(Claim::exclusive(key)))
    }

    /// Uses a resource together with others that share it.
    pub fn shared(self, key: ClaimKey) -> Self {
        self.set(|step| step.uses.push(Claim::shared(key)))
    }
}

impl<I, O, X> StepBuilder<'_, Outside, I, O, X> {
    /// Places it after the step of this name, which may be added later.
    pub fn after_named(self, name: impl Into<String>) -> Self {
        self.plan.later.push((self.node, name.into()));
        self
    }

    /// How often it is tried.
    pub fn retry(self, retry: Retry) -> Self {
        self.set(|step| step.retry = retry)
    }

    /// Makes it the point of no return: from its intent on nothing is undone.
    pub fn no_return(self) -> Self {
        self.set(|step| step.no_return = true)
    }
}

impl<'p, I, O, X> StepBuilder<'p, Outside, I, O, X> {
    /// Lets the run go on without it: its failure undoes only itself, later steps get the failure in its place, and the
    /// run ends with warnings.
    pub fn optional(self) -> StepBuilder<'p, Outside, I, Result<O, Failure>, X> {
        let Self { plan, node, .. } = self.set(|step| step.optional = true);
        StepBuilder { plan, node, types: PhantomData }
    }
}

#[allow(clippy::mismatching_type_param_order, reason = "what is bound must be what is wanted")]
impl<I, O> StepBuilder<'_, Outside, I, O, I> {
    /// Adds it to the plan.
    pub fn add(self) -> Out<O> {
        Out::new(self.plan.tag, self.node)
    }
}

impl<I, O, X> StepBuilder<'_, Inside, I, O, X> {
    /// Enters it in the guard's list.
    pub(super) fn in_body_of(self, guard: NodeNo) -> Self {
        if let NodeKind::Guard(guard) = &mut self.plan.nodes[guard.index()].kind {
            guard.body.push(self.node);
        }
        self
    }

    /// How long it may take at worst; counted when the guard is armed.
    pub fn worst_case(self, worst: Duration) -> Self {
        self.set(|step| step.worst_case = Some(worst))
    }
}

#[allow(clippy::mismatching_type_param_order, reason = "what is bound must be what is wanted")]
impl<I, O> StepBuilder<'_, Inside, I, O, I> {
    /// Adds it to the body.
    pub fn add(self) -> In<O> {
        In::new(self.plan.tag, self.node)
    }
}
