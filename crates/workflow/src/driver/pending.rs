//! Commands that wait for their append, and what an urgent command means to them.
//!
//! ```text
//!   round ─▶ records ─▶ append ──────────▶ gated commands: launch, probe, undo, open a lane
//!     └────▶ urgent: signal, drop, close ────▲ finds nothing at work yet: it is here that it has to act
//! ```
//!
//! An intent is durable before its side effect begins, so there is a time between the two in which a run may be cancelled
//! or a step may overrun. What is told to stop then must not begin.

use crate::machine::Command;
use crate::plan::NodeNo;

/// Takes back what waits to begin on a node; whether there was something.
///
/// A step is skipped, so that it ends without an effect; a probe or an undo is simply not made, as the machine has gone on.
pub(crate) fn withdraw(commands: &mut Vec<Command>, node: NodeNo) -> bool {
    let mut found = false;
    commands.retain_mut(|command| match *command {
        Command::Launch { node: other, attempt } if other == node => {
            found = true;
            *command = Command::Skip { node, attempt };
            true
        }
        Command::Probe { node: other, .. } | Command::Undo { node: other, .. } if other == node => {
            found = true;
            false
        }
        _ => true,
    });
    found
}

/// Takes back the opening of a guard's lane: it is opened only to be closed, with nothing entered.
pub(crate) fn close(commands: &mut [Command], guard: NodeNo, suspended: bool) -> bool {
    let opening = commands.iter_mut().find(|command| **command == Command::Open { guard });
    let Some(opening) = opening else { return false };
    *opening = Command::OpenClosed { guard, suspended };
    true
}
