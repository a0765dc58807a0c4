//! Both suites of the testkit, on a provider and a plug-in of our own.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use async_trait::async_trait;
use stillpoint::context::{HostId, HostPath, Seams};
use stillpoint::exchange::{CopyId, ExchangePlugin};
use stillpoint::storage::SnapshotProvider;
use stillpoint::workflow::TokioSeams;
use stillpoint_outside::{Ledger, Shelf};
use stillpoint_testkit::conformance::BoxError;
use stillpoint_testkit::conformance::plugin::{self, PluginFactory, PluginPlace};
use stillpoint_testkit::conformance::provider::{
    self, Ground, ProviderFactory, ProviderPlace, TestVolume,
};
use tempfile::TempDir;

fn host() -> HostId {
    "shop.example.org".parse().unwrap()
}

/// Shops with a shelf and ledgers, each in a folder of its own.
struct Shops;

struct Shop(TempDir);

impl Shop {
    fn new() -> Result<Self, BoxError> {
        let shop = Self(TempDir::new()?);
        fs::create_dir(shop.0.path().join("ledgers"))?;
        fs::create_dir(shop.0.path().join("restored"))?;
        for (name, id) in [("a.ledger", 1), ("b.ledger", 2)] {
            let text = format!("{}\n1 apple\nend\n", uuid::Uuid::from_u128(id));
            fs::write(shop.0.path().join("ledgers").join(name), text)?;
        }
        Ok(shop)
    }

    fn path(&self, below: &str) -> HostPath {
        HostPath::from_native(host(), &self.0.path().join(below)).unwrap()
    }
}

fn read(path: &HostPath) -> Result<Option<Vec<u8>>, BoxError> {
    Ok(fs::read(path.to_native()?).ok())
}

#[async_trait]
impl ProviderFactory for Shops {
    async fn place(&self) -> Result<Box<dyn ProviderPlace>, BoxError> {
        Ok(Box::new(Shop::new()?))
    }
    fn seams(&self) -> Seams {
        TokioSeams::current().expect("inside a runtime")
    }
    fn can(&self) -> BTreeSet<provider::Can> {
        [provider::Can::Write].into() // A shelf is in memory: it cannot be opened again.
    }
}

#[async_trait]
impl ProviderPlace for Shop {
    async fn open(&self) -> Result<Arc<dyn SnapshotProvider>, BoxError> {
        let folder = self.0.path();
        Ok(Arc::new(Shelf::new(&host(), &folder.join("ledgers"), &folder.join("spool"))))
    }
    fn ground(&self) -> Ground {
        let root = self.path("ledgers");
        let volume = format!("shelf:{}", root.as_str()).parse().unwrap();
        let files = vec![self.path("ledgers/a.ledger"), self.path("ledgers/b.ledger")];
        Ground::new(vec![TestVolume::new(volume, root, files)], host())
            .with_elsewhere(self.path("restored/elsewhere"))
            .with_targets(self.path("restored"))
    }
    async fn read(&self, path: &HostPath) -> Result<Option<Vec<u8>>, BoxError> {
        read(path)
    }
    async fn write(&self, path: &HostPath, bytes: &[u8]) -> Result<(), BoxError> {
        Ok(fs::write(path.to_native()?, bytes)?)
    }
    async fn remove(&self, path: &HostPath) -> Result<(), BoxError> {
        Ok(fs::remove_file(path.to_native()?)?)
    }
    async fn is_read_only(&self, path: &HostPath) -> Result<bool, BoxError> {
        Ok(fs::metadata(path.to_native()?)?.permissions().readonly())
    }
}

#[async_trait]
impl PluginFactory for Shops {
    async fn place(&self) -> Result<Box<dyn PluginPlace>, BoxError> {
        Ok(Box::new(Shop::new()?))
    }
    fn seams(&self) -> Seams {
        TokioSeams::current().expect("inside a runtime")
    }
    fn can(&self) -> BTreeSet<plugin::Can> {
        [plugin::Can::Read, plugin::Can::Disturb, plugin::Can::Complete].into()
    }
}

#[async_trait]
impl PluginPlace for Shop {
    async fn open(&self) -> Result<Arc<dyn ExchangePlugin>, BoxError> {
        Ok(Arc::new(Ledger::new(host(), &self.0.path().join("ledgers"))))
    }
    async fn read(&self, path: &HostPath) -> Result<Option<Vec<u8>>, BoxError> {
        read(path)
    }
    async fn disturb(&self, _: &CopyId) -> Result<(), BoxError> {
        for name in ["a.ledger", "b.ledger"] {
            let path = self.0.path().join("ledgers").join(name);
            let text = fs::read_to_string(&path)?;
            fs::write(path, text.replace("end\n", "2 pears\nend\n"))?;
        }
        Ok(())
    }
}

#[tokio::test]
async fn the_shelf_is_a_provider() {
    provider::run_all(&Shops).await.assert_passed();
}

#[tokio::test]
async fn the_ledger_is_a_plug_in() {
    plugin::run_all(&Shops).await.assert_passed();
}
