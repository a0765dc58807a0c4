//! The runs: a few steps each, over a few resources, from a seed.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use stillpoint_context::{Cx, Effect, ErrorClass, Failure, IdError, IdempotencyKey, ProcessId};
use stillpoint_workflow::{
    Action, Claim, ClaimKey, Done, EffectKind, Known, Plan, PlanBuilder, PlanError, Retry,
    Submission, Undone,
};

use super::worker::admitted;
use super::{Deed, Did};
use crate::chance::Dice;
use crate::ledger::Ledger;

/// How many volumes there are, each with two folders.
const VOLUMES: u64 = 3;

/// Attempts of a step: each crash and each takeover costs one.
const ATTEMPTS: u32 = 1000;

/// What a step is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Params {
    /// What its run claims.
    claims: Vec<Claim>,
    /// How long its effect lasts.
    micros: u64,
    /// Whether it fails after that, so that all is undone.
    fails: bool,
}

/// An effect that says when it begins and ends.
pub struct Hold {
    process: ProcessId,
    ledger: Arc<Ledger<Deed>>,
    number: AtomicU64,
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hold({})", self.process)
    }
}

/// An effect under way. However it ends, it says so; unless its process ends.
struct UnderWay<'h>(&'h Hold, u64);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.note(Did::Ended { effect: self.1 });
    }
}

impl Hold {
    /// The effects of a process.
    pub fn new(process: ProcessId, ledger: Arc<Ledger<Deed>>) -> Self {
        Self { process, ledger, number: AtomicU64::new(0) }
    }

    fn note(&self, did: Did) {
        self.ledger.note(Deed { process: self.process, did });
    }

    async fn take_effect(&self, cx: &Cx, params: &Params, undo: bool) {
        let effect = self.number.fetch_add(1, Ordering::Relaxed);
        self.note(Did::Begun {
            effect,
            run: cx.run(),
            step: cx.step().clone(),
            undo,
            fence: cx.fence(),
            claims: params.claims.clone(),
            admitted: admitted(),
        });
        let _under_way = UnderWay(self, effect);
        let clock = &cx.seams().clock;
        clock.sleep_until(clock.mono() + Duration::from_micros(params.micros)).await;
    }
}

#[async_trait]
impl Action for Hold {
    const NAME: &'static str = "hold";
    const EFFECT: EffectKind = EffectKind::Reversible;
    const IDEMPOTENT: bool = true;

    type Params = Params;
    type Input = ();
    type Output = ();

    async fn run(&self, cx: &Cx, params: &Params, (): ()) -> Result<Done<()>, Failure> {
        self.take_effect(cx, params, false).await;
        if params.fails {
            let failure = Failure::new("hold.fails", ErrorClass::Invalid, "it was told to fail");
            return Err(failure.with_effect(Effect::None));
        }
        Ok(Done::new(()))
    }

    async fn undo(
        &self,
        cx: &Cx,
        params: &Params,
        (): (),
        _: Known<()>,
    ) -> Result<Undone, Failure> {
        self.take_effect(cx, params, true).await;
        Ok(Undone::clean())
    }
}

/// The key of the n-th run of a worker.
///
/// # Errors
/// Never.
pub fn key(worker: u64, number: u64) -> Result<IdempotencyKey, IdError> {
    IdempotencyKey::new(format!("worker-{worker}-{number}"))
}

/// A resource: all volumes, one, or a folder of one. The larger, the rarer.
fn resource(dice: &mut Dice) -> Result<ClaimKey, IdError> {
    let volume = dice.below(VOLUMES);
    ClaimKey::new(match dice.below(20) {
        0 => "volume".to_owned(),
        1..5 => format!("volume/{volume}"),
        _ => format!("volume/{volume}/{}", ["a", "b"][usize::from(dice.one_in(2))]),
    })
}

/// Why a run could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BadRun {
    /// A key that is none.
    #[error(transparent)]
    Id(#[from] IdError),
    /// A plan that is none.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

/// The n-th run of a worker: always the same for one seed, as it is asked for again by a worker that has died.
///
/// # Errors
/// Never.
pub fn submission(seed: u64, worker: u64, number: u64) -> Result<Submission, BadRun> {
    let mut dice = Dice::part(seed, worker << 32 | number);
    let mut claims = Vec::new();
    for _ in 0..=dice.below(2) {
        let key = resource(&mut dice)?;
        claims.push(if dice.one_in(3) { Claim::shared(key) } else { Claim::exclusive(key) });
    }
    let plan = plan(&mut dice, &claims)?;
    let mut submission = Submission::new(plan).key(key(worker, number)?);
    for claim in claims {
        submission = submission.claim(claim);
    }
    Ok(submission)
}

/// A chain of one to three steps; the last of every eighth fails.
fn plan(dice: &mut Dice, claims: &[Claim]) -> Result<Plan, PlanError> {
    let mut plan = PlanBuilder::new("exclusive");
    let steps = 1 + dice.below(3);
    let fails = dice.one_in(8);
    let mut before = None;
    for step in 0..steps {
        let params = Params {
            claims: claims.to_vec(),
            // Some long enough that their process is stopped in the middle.
            micros: if dice.one_in(3) { dice.below(40_000) } else { dice.below(4000) },
            fails: fails && step + 1 == steps,
        };
        let hold = plan.step(format!("hold-{step}"), Hold::with(params));
        let retry =
            Retry::times(ATTEMPTS).backoff(Duration::from_millis(5), Duration::from_millis(50));
        let hold = hold.retry(retry).undo_retry(retry);
        before = Some(match before {
            Some(before) => hold.after(before).add(),
            None => hold.add(),
        });
    }
    plan.build()
}
