//! The restore side: it looks, and tells what is left to do.

use std::fs::{self, File};

use stillpoint_context::{HostId, HostPath};
use stillpoint_exchange::{ExchangePlugin, ExchangeRestore, RestoreSpec};
use stillpoint_model::inventory::FileRole;

use super::lab::{Lab, code, copy_named, host, session_id};
use super::support::block_on;

#[test]
fn the_restore_side_looks_and_tells() {
    let lab = Lab::with_set();
    let inventory = lab.inventory();
    let copy = copy_named(&inventory, "DB01");
    let files: Vec<_> = copy.files.iter().map(|file| (file.path.clone(), file.role)).collect();
    let mut spec =
        RestoreSpec::new(session_id(3), copy.id.database, host(), files.clone()).in_place();
    spec.mount = true;
    let restore: &dyn ExchangeRestore = lab.plugin.restore().unwrap();
    block_on(restore.open(&lab.cx(), &spec)).unwrap();
    block_on(restore.open(&lab.cx(), &spec)).unwrap();
    let recovered = block_on(restore.finish(&lab.cx(), &spec)).unwrap();
    assert!(!recovered.mounted);
    assert_eq!(recovered.replayed_to, None);
    assert!(recovered.notes[0].contains("6-7") && recovered.notes[0].contains("/r E00"));
    assert_eq!(recovered.notes.len(), 2);
    block_on(restore.cancel(&lab.cx(), &spec)).unwrap();

    let theirs = File::open(lab.path("E00.log")).unwrap();
    theirs.lock_shared().unwrap();
    let busy = block_on(restore.open(&lab.cx(), &spec)).unwrap_err();
    assert_eq!(code(&busy), "restore.target_in_use");
    drop(theirs);
    fs::remove_file(lab.path("DB01.edb")).unwrap();
    // What is not there can be restored to, but not finished.
    block_on(restore.open(&lab.cx(), &spec)).unwrap();
    assert!(block_on(restore.finish(&lab.cx(), &spec)).is_err());
    let elsewhere = HostPath::new(
        HostId::new("elsewhere").unwrap(),
        stillpoint_context::PathFlavor::Posix,
        "/x/DB01.edb",
    )
    .unwrap();
    spec.files = vec![(elsewhere, FileRole::Database)];
    assert_eq!(code(&block_on(restore.open(&lab.cx(), &spec)).unwrap_err()), "exchange.invalid");
}
