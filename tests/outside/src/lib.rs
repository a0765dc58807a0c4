//! What somebody builds on Stillpoint without being part of it: a snapshot provider ([`Shelf`]), an Exchange plug-in
//! ([`Ledger`]) and some backup logic ([`obstacles`]) of their own.

#![forbid(unsafe_code)]

pub mod ledger;
pub mod preflight;
pub mod shelf;

pub use ledger::Ledger;
pub use preflight::{Obstacle, obstacles};
pub use shelf::Shelf;
