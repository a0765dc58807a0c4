//! The smallest Exchange plug-in, driven by hand through one session:
//!
//! ```text
//! cargo run -p stillpoint-examples --example minimal_plugin
//! ```
//!
//! The plug-in itself is the one of the documentation of `stillpoint-exchange`. To write one that keeps what it promises,
//! see `docs/write-an-exchange-plugin.md`.

#![allow(clippy::print_stdout, reason = "an example is to be watched")]
#![allow(clippy::wildcard_imports, reason = "the plug-in stands as it does in the documentation")]

include!("../../crates/exchange/doc/minimal.rs");

use stillpoint_model::availability::Availability;
use stillpoint_model::inventory::{
    CopyFile, CopyRole, CopyStatus, Database, DatabaseCopy, FileRole,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let seams = stillpoint::workflow::TokioSeams::current().ok_or("there is no runtime")?;
    let cx = Cx::detached(&seams);

    // One database at rest.
    let host: stillpoint_context::HostId = "lab".parse()?;
    let database = Database::new(DatabaseId::at_rest(b"a signature", "DB01"), "DB01");
    let copy = CopyId::new(database.id, host.clone());
    let posix = stillpoint_context::PathFlavor::Posix;
    let file = stillpoint_context::HostPath::new(host, posix, "/srv/mail/DB01.edb")?;
    let mut known = DatabaseCopy::new(
        copy.clone(),
        CopyRole::Active,
        CopyStatus::AtRest,
        Availability::available(cx.now()),
    );
    known.files = vec![CopyFile::new(file, FileRole::Database)];
    let mut inventory = Inventory::new("seen-once".parse()?, cx.now());
    inventory.add_database(database).add_copy(known);
    let plugin = Minimal { inventory, sessions: Mutex::default() };

    let id = SessionId(cx.seams().ids.uuid());
    let spec = SessionSpec::new(id, BackupKind::Full, vec![copy.clone()], Duration::from_mins(1));
    let session = plugin.begin(&cx, &spec).await?; // the kind is fixed here
    println!("the snapshots must hold {}", session.files[0].path);

    let frozen = plugin.freeze(&cx, id, None).await?; // returns when writes are held …
    println!("held to the level `{}`", frozen.level);
    plugin.thaw(&cx, id).await?; // … and this is right at any time, any number of times
    plugin.thaw(&cx, id).await?;

    let outcome = plugin.evidence(&cx, id).await?; // what the freeze was worth is asked afterwards
    println!("the freeze: {}", outcome.held(&copy));
    let verdicts = BTreeMap::from([(copy, Verdict::Good)]);
    println!("told to Exchange: {:?}", plugin.complete(&cx, id, &verdicts).await?);
    println!("the session: {:?}", plugin.session(&cx, id).await?);
    Ok(())
}
