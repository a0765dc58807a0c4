//! What the benches share: the shapes of plans, and their tables. See `README.md` beside this crate.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::missing_panics_doc,
    reason = "a bench fails by panicking and prints its table"
)]
#![allow(clippy::disallowed_methods, reason = "a bench reads the real clock")]

pub mod floor;
pub mod shapes;
pub mod table;
