//! The provider over a real btrfs. Without root, or without btrfs-progs, these tests say that they are skipped;
//! `STILLPOINT_REQUIRE` with `btrfs` in it makes that a failure.

// Tests may panic; their helpers are no test functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]
#![forbid(unsafe_code)]

mod conformance;
mod faults;
mod identity;
#[path = "../inside/mod.rs"]
mod inside;
mod revert;
mod sets;
mod support;
mod trouble;

/// Makes each of these functions a test that runs on a file system of its own.
#[macro_export]
macro_rules! on_btrfs {
    ($module:literal: $($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                $crate::support::on_btrfs(concat!($module, "::", stringify!($name)), super::cases::$name);
            }
        )*
    };
}
