//! The pages of `docs/` that have code in them, so that it is compiled and run as doc tests.

#[doc = include_str!("../../docs/write-a-storage-provider.md")]
mod write_a_storage_provider {}

#[doc = include_str!("../../docs/write-an-exchange-plugin.md")]
mod write_an_exchange_plugin {}

#[doc = include_str!("../../docs/test-your-backup-logic.md")]
mod test_your_backup_logic {}

#[doc = include_str!("../../docs/write-a-store.md")]
mod write_a_store {}
