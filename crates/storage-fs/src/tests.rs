//! Tests over temporary folders. Those that need root say so and are skipped without it, unless `STILLPOINT_REQUIRE`
//! contains `root`.

mod contract;
mod crash;
mod faults;
mod format;
mod hold;
mod late;
mod moves;
mod names;
mod races;
mod restore;
mod root;
mod snapped;
mod support;
