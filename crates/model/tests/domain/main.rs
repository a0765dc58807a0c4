//! What the domain decides, in one program, as each program is built and linked by itself.
//!
//! ```text
//!   planning.rs  what a backup takes          windows.rs   up to when a database can be brought back
//!   strategy.rs  what logs add to that        prune.rs     what is let go of, and in which order
//!   points.rs    restore points, manifests    beside.rs    what is stored beside the data
//!   jobs.rs      the stored form of jobs
//! ```

// A test may stop where it stands.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod beside;
mod jobs;
mod planning;
mod points;
mod prune;
mod strategy;
mod windows;
#[path = "../world/mod.rs"]
mod world;
