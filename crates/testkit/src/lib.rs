//! What a third party needs to test a plug-in, a provider, a store or backup logic.
//!
//! A [`World`] is a small Exchange organisation and the storage it lies on, in memory: databases that are written all the
//! time, active and passive copies, volumes whose snapshots take their time, freezes that end by themselves. [`SimExchange`]
//! and [`SimStorage`] are its two sides, in both coordination modes. Everything waits by the clock of the caller's
//! [`Cx`](stillpoint_context::Cx), so that a test under virtual time is exact and takes no time.
//!
//! ```
//! use std::time::Duration;
//! use stillpoint_context::Cx;
//! use stillpoint_exchange::{BackupKind, Cause, ExchangePlugin, Held, SessionId, SessionSpec};
//! use stillpoint_testkit::{Ended, Fault, Trouble, World};
//! use stillpoint_workflow::testing::Sim;
//! use uuid::Uuid;
//!
//! let world = World::one_server(1);
//! // The thaw fails before it has done anything, the first time and ever after.
//! world.faults().on("thaw").inject(Fault::Fail(Trouble::unreachable()));
//!
//! let sim = Sim::new(7);
//! let cx = Cx::detached(&sim.seams());
//! let held = sim.run(async {
//!     let (plugin, copy) = (world.exchange(), world.active("DB01"));
//!     let id = SessionId(Uuid::from_u128(1));
//!     let lease = Duration::from_secs(3600);
//!     plugin.begin(&cx, &SessionSpec::new(id, BackupKind::Full, vec![copy.clone()], lease)).await?;
//!     plugin.freeze(&cx, id, Some(Duration::from_secs(10))).await?;
//!     plugin.thaw(&cx, id).await.unwrap_err();
//!     assert!(world.is_frozen(&copy.host));
//!     cx.sleep(Duration::from_secs(11)).await?;
//!     Ok::<_, stillpoint_exchange::PluginError>(plugin.evidence(&cx, id).await?.held(&copy))
//! })?;
//!
//! // The freeze has ended by itself, and the evidence says so: nothing of it may be called consistent.
//! assert_eq!(held, Held::Broken(Cause::LimitPassed));
//! let (end, how) = world.freeze_windows()[0].ended.ok_or("it is still frozen")?;
//! assert_eq!((end.since(world.freeze_windows()[0].from).as_secs(), how), (10, Ended::Limit));
//! world.assert_thawed_in_time(); // it was asked for in time
//! assert_eq!(world.calls().names(), ["begin", "freeze", "thaw", "evidence"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! ```text
//!    faults: slow, hang, fail, panic, late, lie, die           calls: who called what, when, with what outcome
//!        │                                                         ▲
//!        ▼                                                         │
//!   ┌─ SimExchange ────────────────┐                   ┌─ SimStorage ──────────────────┐
//!   │ sessions · freeze · evidence │                   │ sets · snapshots · exposures  │
//!   └──────────────┬───────────────┘                   └───────────────┬───────────────┘
//!                  └───────────────▶    World    ◀────────────────────┘
//!                        hosts · databases · copies · volumes · files
//!                   what is due happens in its order, whoever looks or does not
//!                                       │
//!                                       ▼
//!                freeze windows · completes · orphans · shapes · violations
//! ```
//!
//! - [`World`]: [`one_server`](World::one_server), [`dag`](World::dag), [`volumes_of`](World::volumes_of), or with a
//!   [`builder`](World::builder); its questions and checks.
//! - [`Faults`]: what is to go wrong with which call; [`RandomFaults`] from a seed.
//! - [`Calls`]: the record of every call.
//! - [`Change`]: what happens by itself, such as a failover.
//! - [`Damage`]: bad bits and missing logs.
//! - [`ese`]: damage to files of the Extensible Storage Engine, with a word on what was done.
//! - [`conformance`]: suites that every journal, every keeper of leases and every catalogue has to pass, every provider and
//!   every plug-in.
//! - [`Shape`]: how a database was really taken, by its bytes, whatever anybody claims.

#![forbid(unsafe_code)]

mod call;
mod change;
pub mod conformance;
mod damage;
pub mod ese;
mod exchange;
mod fault;
mod moment;
mod storage;
mod world;
mod writer;

pub use call::{
    CallRecord, Calls, Outcome, PLUGIN_CALLS, PLUGIN_RESTORE_CALLS, PROVIDER_CALLS,
    PROVIDER_LOCK_CALLS, PROVIDER_RESTORE_CALLS, Side,
};
pub use change::Change;
pub use damage::Damage;
pub use exchange::SimExchange;
pub use fault::{Fault, FaultRule, Faults, Lie, RandomFaults, Trouble};
pub use moment::Moment;
pub use storage::SimStorage;
pub use world::World;
pub use world::array::Behaviour;
pub use world::builder::{CopySpec, DatabaseSpec, VolumeSpec, WorldBuilder};
pub use world::record::{Breach, CompleteRecord, Ended, FreezeWindow, Violation};
pub use writer::Shape;
