//! What is outside of every process: what the steps do, and a log of it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use stillpoint_context::{Cx, Effect, Failure, FencingToken};
use stillpoint_workflow::*;

use super::cases::Does;
use super::common::hiccup;

/// What happened to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Begins,
    Succeeds,
    /// It says that it did nothing.
    FailsClean,
    /// Its future is gone.
    Ends,
    Probed,
    UndoBegins,
    UndoSucceeds,
    UndoEnds,
}

/// One line of the log.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its place in the log of all runs.
    pub at: usize,
    /// The place of its run among those of the story.
    pub who: usize,
    pub step: String,
    pub what: What,
    pub fence: FencingToken,
}

#[derive(Debug, Default)]
struct Lines {
    events: Vec<Event>,
    /// The number of events by which each process had died that did.
    deaths: Vec<usize>,
    /// What must not have happened.
    wrong: Vec<String>,
}

/// What happened, in order, over all processes.
#[derive(Debug, Clone, Default)]
pub struct Log(Arc<Mutex<Lines>>);

impl Log {
    fn note(&self, call: &Calling, what: What) {
        let mut lines = self.0.lock().unwrap();
        let (at, who, fence) = (lines.events.len(), call.who, call.fence);
        lines.events.push(Event { at, who, step: call.step.clone(), what, fence });
    }

    fn wrong(&self, why: String) {
        self.0.lock().unwrap().wrong.push(why);
    }

    /// A process has died, with everything in it.
    pub fn dies(&self) {
        let mut lines = self.0.lock().unwrap();
        let length = lines.events.len();
        lines.deaths.push(length);
    }

    pub fn events(&self) -> Vec<Event> {
        self.0.lock().unwrap().events.clone()
    }

    pub fn deaths(&self) -> Vec<usize> {
        self.0.lock().unwrap().deaths.clone()
    }

    pub fn mistakes(&self) -> Vec<String> {
        self.0.lock().unwrap().wrong.clone()
    }
}

/// Who calls.
#[derive(Debug, Clone)]
struct Calling {
    who: usize,
    step: String,
    fence: FencingToken,
}

/// Notes when a future is gone, however it goes.
struct Gone(Log, Calling, What);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.note(&self.1, self.2);
    }
}

/// What a step of a plan is to do: the parameters of the actions.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Told {
    /// The place of its run among those of the story.
    pub who: usize,
    /// One for each attempt; the last for all further ones.
    pub does: Vec<Does>,
    pub millis: u64,
    pub undo_fails: u32,
    /// Whether its probe knows.
    pub tells: bool,
}

#[derive(Debug, Clone)]
pub struct World {
    pub log: Log,
    pub store: Arc<MemoryJournal>,
}

impl World {
    pub fn new() -> Self {
        Self { log: Log::default(), store: Arc::new(MemoryJournal::new()) }
    }

    pub fn registry(&self) -> ActionRegistry {
        let mut registry = ActionRegistry::new();
        registry.register(Takes::<true>(self.clone())).unwrap();
        registry.register(Takes::<false>(self.clone())).unwrap();
        registry.register(Plain(self.clone())).unwrap();
        registry.register(Exit(self.clone())).unwrap();
        registry
    }

    /// Whether the journal has a record that announces this call.
    async fn intended(&self, cx: &Cx, announces: impl Fn(&RunRecord, &Plan) -> bool) -> bool {
        let stream = StreamId::Run(cx.run());
        let stored = self.store.read(&stream, Seq(0), usize::MAX).await.unwrap();
        let records: Vec<_> = stored
            .into_iter()
            .filter_map(|stored| match stored.record {
                Record::Run(record) => Some(record),
                _ => None,
            })
            .collect();
        let RunRecord::Submitted(submitted) = &records[0] else { return false };
        records.iter().any(|record| announces(record, &submitted.plan))
    }

    fn calling(cx: &Cx, told: &Told) -> Calling {
        Calling { who: told.who, step: cx.step().to_string(), fence: cx.fence() }
    }

    async fn act(&self, cx: &Cx, told: &Told) -> Result<Done<()>, Failure> {
        let call = Self::calling(cx, told);
        let attempt = cx.attempt().0;
        let intended = self
            .intended(cx, |record, plan| match record {
                RunRecord::Intended { node, attempt: n } => {
                    plan.node(*node).name == *cx.step() && *n == attempt
                }
                RunRecord::Armed { guard } => {
                    plan.nodes().iter().any(|n| n.name == *cx.step() && n.within == Some(*guard))
                }
                _ => false,
            })
            .await;
        if !intended {
            self.log.wrong(format!("{call:?} acts before its intent is durable"));
        }
        self.log.note(&call, What::Begins);
        let _gone = Gone(self.log.clone(), call.clone(), What::Ends);
        match told.does[(attempt as usize - 1).min(told.does.len() - 1)] {
            Does::Work => {
                let slept = cx.sleep(Duration::from_millis(told.millis)).await;
                slept.map_err(|error| Failure::of(&error))?;
                self.log.note(&call, What::Succeeds);
                Ok(Done::new(()))
            }
            Does::FailNone => {
                self.log.note(&call, What::FailsClean);
                Err(hiccup(Effect::None))
            }
            Does::FailUnknown => Err(hiccup(Effect::Unknown)),
            // Without a word to the log of the tests.
            Does::Panic => std::panic::resume_unwind(Box::new("as told")),
            Does::Hang => std::future::pending().await,
        }
    }

    async fn undo(&self, cx: &Cx, told: &Told) -> Result<Undone, Failure> {
        let call = Self::calling(cx, told);
        let attempt = cx.attempt().0;
        let intended = self
            .intended(cx, |record, plan| {
                matches!(record, RunRecord::UndoIntended { node, attempt: n }
                    if plan.node(*node).name == *cx.step() && *n == attempt)
            })
            .await;
        if !intended {
            self.log.wrong(format!("{call:?} is undone before that is durable"));
        }
        self.log.note(&call, What::UndoBegins);
        let _gone = Gone(self.log.clone(), call.clone(), What::UndoEnds);
        let slept = cx.sleep(Duration::from_millis(1)).await;
        slept.map_err(|error| Failure::of(&error))?;
        if attempt <= told.undo_fails {
            return Err(hiccup(Effect::Unknown));
        }
        self.log.note(&call, What::UndoSucceeds);
        Ok(Undone::clean())
    }

    /// Whether it has succeeded, in whichever process, and whether its word of that was heard or not.
    fn probe(&self, cx: &Cx, told: &Told) -> Probe<()> {
        let call = Self::calling(cx, told);
        self.log.note(&call, What::Probed);
        if !told.tells {
            return Probe::Unknown;
        }
        let done = |e: &Event| e.who == call.who && e.step == call.step && e.what == What::Succeeds;
        if self.log.events().iter().any(done) { Probe::Done(()) } else { Probe::NotDone }
    }
}

/// A step that can be undone, and repeated or not.
#[derive(Debug)]
pub struct Takes<const IDEMPOTENT: bool>(World);

#[async_trait]
impl<const IDEMPOTENT: bool> Action for Takes<IDEMPOTENT> {
    const NAME: &'static str = if IDEMPOTENT { "takes again" } else { "takes" };
    const EFFECT: EffectKind = EffectKind::Reversible;
    const IDEMPOTENT: bool = IDEMPOTENT;
    type Params = Told;
    type Input = ();
    type Output = ();

    async fn run(&self, cx: &Cx, told: &Told, (): ()) -> Result<Done<()>, Failure> {
        self.0.act(cx, told).await
    }

    async fn undo(&self, cx: &Cx, told: &Told, (): (), _: Known<()>) -> Result<Undone, Failure> {
        self.0.undo(cx, told).await
    }

    async fn probe(&self, cx: &Cx, told: &Told, (): ()) -> Result<Probe<()>, Failure> {
        Ok(self.0.probe(cx, told))
    }
}

/// What cannot be undone: points of no return, what comes after them, and enters of guards.
#[derive(Debug)]
pub struct Plain(World);

#[async_trait]
impl Action for Plain {
    const NAME: &'static str = "plain";
    const EFFECT: EffectKind = EffectKind::Irreversible;
    type Params = Told;
    type Input = ();
    type Output = ();

    async fn run(&self, cx: &Cx, told: &Told, (): ()) -> Result<Done<()>, Failure> {
        self.0.act(cx, told).await
    }
}

/// The exit of a guard.
#[derive(Debug)]
pub struct Exit(World);

#[async_trait]
impl Action for Exit {
    const NAME: &'static str = "exit";
    const EFFECT: EffectKind = EffectKind::Irreversible;
    type Params = Told;
    type Input = (Known<()>, ());
    type Output = ();

    async fn run(&self, cx: &Cx, told: &Told, _: Self::Input) -> Result<Done<()>, Failure> {
        self.0.act(cx, told).await
    }
}
