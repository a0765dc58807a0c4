//! For tests: a deterministic executor with virtual time, and journals that misbehave.
//!
//! ```
//! use std::time::Duration;
//! use stillpoint_workflow::testing::Sim;
//!
//! let sim = Sim::new(7);
//! let seams = sim.seams();
//! let waited = sim.run(async move {
//!     let before = seams.clock.mono();
//!     seams.clock.sleep_until(before + Duration::from_secs(3600)).await;
//!     seams.clock.mono().saturating_since(before)
//! });
//! assert_eq!(waited, Duration::from_secs(3600)); // in no time at all
//! ```

mod journal;
mod sim;
pub mod trials;

pub use crate::action::interpose::{Conduct, Interpose, Part};
pub use journal::{HookJournal, Stall};
pub use sim::{Outstanding, Sim, SimLanes, Stuck};
pub use trials::{Scenario, TrialError};
