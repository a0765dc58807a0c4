//! Tests over temporary folders.

mod contract;
mod crash;
mod restore;
mod support;
