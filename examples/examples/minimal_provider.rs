//! The smallest storage provider, driven by hand through the life of one set of snapshots:
//!
//! ```text
//! cargo run -p stillpoint-examples --example minimal_provider
//! ```
//!
//! The provider itself is the one of the documentation of `stillpoint-storage`. To write one that keeps what it promises,
//! see `docs/write-a-storage-provider.md`.

#![allow(clippy::print_stdout, reason = "an example is to be watched")]
#![allow(
    clippy::expect_used,
    clippy::wildcard_imports,
    reason = "the provider stands as it does in the documentation"
)]

include!("../../crates/storage/doc/minimal.rs");

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let host = HostId::new("lab")?;
    let root = HostPath::new(host, stillpoint_context::PathFlavor::Posix, "/srv/mail")?;
    let provider = Minimal {
        caps: ProviderCaps::new("minimal".parse()?),
        volume: "minimal:mail".parse()?,
        root: root.clone(),
        sets: Mutex::default(),
        exposed: Mutex::default(),
        docs: Mutex::default(),
    };
    // What the engine hands to every call: ids, deadline, cancellation, and the seams to sleep and block through.
    let seams = stillpoint::workflow::TokioSeams::current().ok_or("there is no runtime")?;
    let cx = Cx::detached(&seams);

    let file = root.join("DB01.edb")?;
    let placed = provider.resolve(&cx, std::slice::from_ref(&file)).await?;
    println!("{file} lies on {} at {}", placed[0].volume, placed[0].inside);

    let token: SetToken = "my-first-set".parse()?;
    let member = MemberSpec::new(placed[0].volume.clone(), MemberRole::DataAndLog, vec![file]);
    let spec = PrepareSpec::new(token.clone(), "my first set").with_member(member);
    let prepared = provider.prepare(&cx, &spec).await?; // before the freeze: everything that is slow
    let members = provider.commit(&cx, &prepared).await?; // inside it: the instant
    let again = provider.commit(&cx, &prepared).await?; // S2: repeated, it is the same snapshots
    assert_eq!(members, again);
    let snapshots = provider.settle(&cx, &prepared).await?; // after the thaw: durable and tagged
    println!("snapshot {} of {}", snapshots[0].reference(), snapshots[0].created_at);

    println!("found by its token: {:?}", provider.find(&cx, &token).await?);
    println!("the one undo: {:?}", provider.discard(&cx, &token).await?);
    println!("afterwards: {:?}", provider.find(&cx, &token).await?);
    Ok(())
}
