//! A Stillpoint snapshot provider for any directory: reflink clones or full copies.

#![forbid(unsafe_code)]

mod commit;
mod config;
mod copy;
mod disk;
mod expose;
mod find;
mod format;
mod prepare;
mod provider;
mod remove;
mod restore;
mod settle;
mod store;
mod volume;

pub use config::{CloneMode, FsConfig};
pub use provider::FsProvider;
