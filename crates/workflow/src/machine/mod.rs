//! The machines: pure functions of what has happened and what happens now.
//!
//! ```text
//!              on(now, input)                       carried out by the driver
//!   input ──▶ ┌─────────┐ ──▶ records ─────────────▶ appended ──┐
//!             │ machine │ ──▶ urgent commands ──────▶ at once   │
//!             └─────────┘ ──▶ gated commands ───────▶ after ◀───┘
//!                  ▲ apply(record): the only mutation
//! ```
//!
//! Nothing in this module knows a runtime, a clock or any input and output: time is an argument. The state after
//! [`on`](RunMachine::on) is what applying the records of the log gives, so recovery is to read and apply.

mod arbiter;
mod guard;
mod pool;
mod record;
mod run;

pub(crate) use arbiter::ArbiterState;
pub(crate) use arbiter::{ArbiterCommand, ArbiterInput, ArbiterMachine, HeadStart};
pub use arbiter::{ArbiterRecord, Claimant, GrantPolicy, Snapshot, Waiting};
pub(crate) use guard::{Enter, GUARD_SUSPENDED, GuardCommand, GuardInput, GuardMachine, Phase};
pub use guard::{GuardEntry, GuardRecord, GuardVerdict, Hold, PartOutcome};
pub(crate) use pool::PoolMachine;
pub(crate) use record::Ticket;
pub use record::{
    CancelAnswer, Cause, Debris, End, KeyRecord, Next, ParkReason, Parked, Record, Resolution,
    RunRecord, Submitted, Warning,
};
pub(crate) use run::{Answer, Command, Held, Input, Outcome, Round, RunMachine, UndoOutcome};
pub use run::{NodeProgress, RunState};

#[cfg(test)]
mod tests {
    /// The line between machines and drivers, as a test: no file here names a runtime, a clock, a thread or I/O.
    #[test]
    fn the_machines_are_free_of_runtime_clock_and_io() {
        let forbidden = [
            "tokio",
            "async ",
            ".await",
            "Clock",
            "Spawner",
            "Seams",
            "std::time::Instant",
            "SystemTime",
            "std::thread",
            "std::fs",
            "std::io",
            "std::net",
            "SystemIds",
            "Mutex",
            "Atomic",
            "Utc::now",
            "random(",
        ];
        let mut folders =
            vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/machine")];
        let mut files = 0;
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                if path.ends_with("tests.rs")
                    || path.components().any(|part| part.as_os_str() == "explore")
                    || path.ends_with("explore.rs")
                {
                    continue;
                }
                files += 1;
                let source = std::fs::read_to_string(&path).unwrap();
                // Cut at the tests that stand at the end of a file, not at a module of tests that is named.
                let code = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
                for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
                    for word in forbidden {
                        assert!(!line.contains(word), "{} names {word}: {line}", path.display());
                    }
                }
            }
        }
        assert!(files > 5, "the scan found only {files} files");
    }
}
