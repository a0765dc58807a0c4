//! What a step that is settled by hand gives to those after it.

use std::collections::BTreeMap;

use stillpoint_context::{Effect, ErrorClass, Failure, Subject};
use stillpoint_exchange::Completion;
use stillpoint_model::id::CopyId;
use stillpoint_workflow::{Action, NodeKind, ParkReason, Payload, Plan};

use crate::backup::session::Complete;
use crate::parked::ByHand;
use crate::restore::steps::Release;

/// The output of a parked step whose outcome somebody states.
///
/// # Errors
/// `run.resolution_unfit`.
pub(crate) fn output(
    plan: &Plan,
    step: &str,
    reason: ParkReason,
    outcome: ByHand,
) -> Result<Payload, Failure> {
    let unfit = |why: &str, remedy: &'static str| {
        Failure::new("run.resolution_unfit", ErrorClass::Invalid, format!("{step}: {why}"))
            .with_effect(Effect::None)
            .with_subject(Subject::new("step", step))
            .with_remedy(remedy)
    };
    let node = plan.find(step).map(|node| &plan.node(node).kind);
    match (reason, node) {
        (ParkReason::UnknownAction, _) => Err(unfit(
            "nobody here knows what it would have given",
            "Start the version that has its action, or abandon the run.",
        )),
        (ParkReason::ExitOwed, _) => match outcome {
            ByHand::Done => Ok(Payload::UNIT),
            ByHand::Gave(_) => Err(unfit("an exit gives nothing", "Say only that it is done.")),
        },
        (_, Some(NodeKind::Step(known))) => given(&known.action, outcome).map_err(|failure| {
            unfit(
                &format!("it gives something else: {failure}"),
                "Say only that it is done, or give what such a step gives.",
            )
        }),
        _ => Err(unfit(
            "nobody can say by hand what was done under a guard",
            "Resume the run, which does it anew, or abandon it.",
        )),
    }
}

/// What a step of this action gives. Those of ours that may be parked past their point of no return are known.
fn given(action: &str, outcome: ByHand) -> Result<Payload, Failure> {
    match outcome {
        // Nobody knows what Exchange answered: no copy has an answer, and truncation is not assumed.
        ByHand::Done if action == Complete::NAME => {
            Payload::of(&BTreeMap::<CopyId, Completion>::new())
        }
        ByHand::Done => Ok(Payload::UNIT),
        ByHand::Gave(output) if action == Complete::NAME => {
            output.read::<BTreeMap<CopyId, Completion>>().map(|_| output)
        }
        ByHand::Gave(output) if action == Release::NAME => output.read::<()>().map(|()| output),
        ByHand::Gave(output) => Ok(output),
    }
}
