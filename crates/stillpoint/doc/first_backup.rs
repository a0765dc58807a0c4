use std::sync::Arc;

use stillpoint::exchange_files::FilesPlugin;
use stillpoint::storage_fs::{FsConfig, FsProvider};
use stillpoint::store_sqlite::SqliteStore;
use stillpoint::{Error, Stillpoint};
