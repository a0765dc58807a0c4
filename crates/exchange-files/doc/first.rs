use stillpoint_context::HostId;
use stillpoint_exchange::{Cx, ExchangePlugin, PluginResult, Scope};
use stillpoint_exchange_files::FilesPlugin;

/// Prints what lies under a folder, and why what cannot be backed up cannot.
async fn list(cx: &Cx, folder: &std::path::Path) -> PluginResult<usize> {
    let plugin = FilesPlugin::new(folder, HostId::new("lab").expect("a legal name"))?;
    let inventory = plugin.inventory(cx, &Scope::Everything).await?;
    for copy in inventory.copies.values() {
        let name = &inventory.databases[&copy.id.database].name;
        match copy.availability.reasons.as_slice() {
            [] => println!("{name}: {} files", copy.files.len()),
            reasons => reasons.iter().for_each(|reason| println!("{name}: {reason}")),
        }
    }
    Ok(inventory.copies.len())
}
# #[allow(dead_code)]
# mod support { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/mod.rs")); }
# let folder = tempfile::tempdir()?;
# stillpoint_ese::write::ExchangeSet::new(1).with_log_segments(8).write_to(folder.path())?;
# let bench = support::Bench::new();
# assert_eq!(support::block_on(list(&bench.cx(), folder.path()))?, 1);
# Ok::<(), Box<dyn std::error::Error>>(())
