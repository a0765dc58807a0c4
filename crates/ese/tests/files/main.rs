//! What is read from files, genuine ones and those of our own making, and what is said of them.
//!
//! ```text
//!   samples.rs      genuine files                 damage/         files damaged in known ways
//!   independent.rs  what other readers say        lost_flushes.rs writes that never reached the disk
//!   set.rs          whole sets in folders         flush_map.rs    flush maps
//!   lanes.rs        several threads, holes        old_logs.rs     logs of version 7
//!                                                 robust.rs       anything at all
//! ```
//!
//! One program, as each is built, optimised and linked by itself.

// Helpers of tests may panic as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod damage;
mod flush_map;
mod independent;
mod lanes;
mod lost_flushes;
mod old_logs;
mod robust;
mod samples;
mod set;
