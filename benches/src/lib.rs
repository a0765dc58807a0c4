//! Benchmarks of Stillpoint; see `README.md` beside this crate.

#![forbid(unsafe_code)]
