//! Pools: named limits of how much runs at once, such as per host, per storage system, over all.
//!
//! A step names the pools of which each of its attempts needs a slot ([`StepBuilder::pool`](crate::StepBuilder::pool)); the
//! engine knows their limits ([`EngineBuilder::pool`](crate::EngineBuilder::pool)). A pool whose limit nobody has said is
//! none. All slots of an attempt are given at once, first come, first served, and nothing is waited for while one is held,
//! so there is no deadlock. Undos, probes and the exits of guards never need one.
//!
//! A limit is that of one engine: processes that share a state store have a pool each.

use stillpoint_context::text_id;

text_id!(
    /// The name of a pool, such as `host/ex1` or `storage`: 1 to 200 characters of visible ASCII.
    PoolName,
    "pool name",
    |text| {
        if text.is_empty() || text.len() > 200 {
            Err("it is empty or longer than 200 characters")
        } else if !text.bytes().all(|b| b.is_ascii_graphic()) {
            Err("it has a character that is not visible ASCII")
        } else {
            Ok(())
        }
    }
);
