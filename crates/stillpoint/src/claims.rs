//! Claims of the model, as the engine takes them.

use stillpoint_context::{Failure, StepName};
use stillpoint_model::planning;
use stillpoint_workflow::{Claim, ClaimKey, ClaimMode};

use crate::error::plan_defect;

/// The engine's claim; what is held until the thaw is released with the guard or step of this name, if there is one.
///
/// # Errors
/// `plan.internal` when the key is none, which is a defect of ours.
pub(crate) fn of(claim: &planning::Claim, thaw: Option<&str>) -> Result<Claim, Failure> {
    let until = match (claim.until, thaw) {
        (planning::Until::Thaw, Some(thaw)) => Some(StepName::new(thaw).map_err(plan_defect)?),
        _ => None,
    };
    let mode = match claim.mode {
        planning::Mode::Shared => ClaimMode::Shared,
        planning::Mode::Exclusive => ClaimMode::Exclusive,
    };
    Ok(Claim { key: ClaimKey::new(&claim.key).map_err(plan_defect)?, mode, until })
}
