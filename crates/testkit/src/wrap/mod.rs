//! Wrappers around any plug-in or provider. What is wrapped has the same capabilities, sides included, and keeps its
//! contract.
//!
//! | wrapper | what it is for |
//! |---|---|
//! | [`Faulty`] | lets calls fail, hang, come late or lie, by [rules](crate::Faults::on) or by a [seed](crate::RandomFaults) |
//! | [`Recorded`] | keeps every call with its arguments, times and outcome, to be looked at or [replayed](Replay) without the side |
//! | [`Timed`] | how long freezes last, and commits, and every call: [as data](Timings) and in a few lines |
//!
//! ```text
//!   caller ──▶ Timed ──▶ Recorded ──▶ Faulty ──▶ the real one          they may be stacked in any order
//! ```
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//! use stillpoint_context::Cx;
//! use stillpoint_model::handover::MemberRole;
//! use stillpoint_storage::{MemberSpec, PrepareSpec, SetToken, SnapshotProvider};
//! use stillpoint_testkit::wrap::{Faulty, Recorded, Recording, Replay, Timed, Times};
//! use stillpoint_testkit::{Fault, Faults, World};
//! use stillpoint_workflow::testing::Sim;
//!
//! let (world, sim) = (World::one_server(1), Sim::new(1));
//! let (faults, recording, times) = (Faults::default(), Recording::new(), Times::new());
//! faults.on("commit").nth(1).inject(Fault::Slow(Duration::from_secs(2)));
//! // Any provider will do.
//! let provider = Arc::new(Faulty::provider(Arc::new(world.storage()), &faults));
//! let provider = Arc::new(Recorded::provider(provider, &recording));
//! let provider = Timed::provider(provider, &times);
//!
//! let cx = Cx::detached(&sim.seams());
//! let member = MemberSpec::new(world.volumes()[0].clone(), MemberRole::Data, Vec::new());
//! let spec = PrepareSpec::new(SetToken::new("set-1")?, "set-1").with_member(member);
//! let members = sim.run(async {
//!     let prepared = provider.prepare(&cx, &spec).await?;
//!     provider.commit(&cx, &prepared).await
//! })?;
//!
//! // The snapshot itself takes 10 ms.
//! assert_eq!(times.timings().sets[0].took, Duration::from_millis(2010));
//! // What was recorded answers in the place of the provider, to the same questions in the same order.
//! let replay = Replay::read(&recording.to_lines())?;
//! let again = replay.provider("sim").ok_or("it was recorded")?;
//! let same = sim.run(async {
//!     let prepared = again.prepare(&cx, &spec).await?;
//!     again.commit(&cx, &prepared).await
//! })?;
//! assert_eq!(same, members);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! They are made of what the traits' crates have for everybody who stands around a provider or plug-in:
//! [`ForwardProvider`](stillpoint_storage::ForwardProvider) and [`ForwardPlugin`](stillpoint_exchange::ForwardPlugin), by which
//! a wrapper of your own is written in a few lines.
//!
//! Those two live beside the traits, so that a provider may be a wrapper too without depending on anything else. The three
//! here live in the test kit because each is over both traits, which know nothing of each other, and because faults and
//! records of calls are here already. Of the workspace they use only context, model, exchange and storage, and an embedder
//! may well keep [`Timed`] in production: what it keeps is bounded.

mod error;
mod faulty;
mod line;
mod recorded;
mod replay;
mod timed;
mod timings;

pub use error::RecordingError;
pub use faulty::Faulty;
pub use line::SCHEMA;
pub use recorded::{Recorded, Recording};
pub use replay::{Divergence, Replay, Replayed};
pub use timed::{Timed, Times};
pub use timings::{CallTimes, SetTime, Spread, Timings};
