#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod appends;
pub mod campaign;
pub mod chance;
pub mod check;
pub mod client;
pub mod engine;
pub mod exclusive;
pub mod ledger;
pub mod mail;
pub mod process;
pub mod provider;
pub mod server;
pub mod simulated;
pub mod stops;
pub mod wire;
