//! A state store over redb: the third implementation of `Journal`, `Leases` and `Catalog`, by nobody who knows the others.
//!
//! ```text
//!   record   stream, seq          → position, instant, record as `encode_records` writes it
//!   open     run                  → who wrote to it last
//!   fact     topic, position, nth → run, key, body
//!   lease    process              → lease
//!   point, job, policy, group, debris → as JSON, with removed, key beside them
//!   schedules  all of them, with ledgers and lapses, as one document
//!   counter  position, epoch, cursor
//! ```
//!
//! A call is one transaction, durable when it returns. It blocks its thread for as long as the disk takes. redb keeps
//! other processes out of the file, so that the journal is not shared.

mod catalog;
mod journal;
mod leases;
mod schedules;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use redb::{
    Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use stillpoint_testkit::conformance::{BoxError, Place, Store};

type Bodies = TableDefinition<'static, u128, &'static [u8]>;

const COUNTER: TableDefinition<'_, &str, u64> = TableDefinition::new("counter");

/// A state file that is open.
#[derive(Debug)]
pub(crate) struct RedbStore(Database);

/// Why a transaction was given up.
#[derive(Debug)]
enum Stop<E> {
    /// The store's own answer.
    Answer(E),
    /// The file failed.
    File(redb::Error),
    /// An entry cannot be read or written.
    Entry(serde_json::Error),
}

impl<E> From<serde_json::Error> for Stop<E> {
    fn from(error: serde_json::Error) -> Self {
        Self::Entry(error)
    }
}

macro_rules! from_redb {
    ($($error:ident),+) => {
        $(impl<E> From<redb::$error> for Stop<E> {
            fn from(error: redb::$error) -> Self {
                Self::File(error.into())
            }
        })+
    };
}

from_redb!(StorageError, TableError, TransactionError, CommitError);

impl RedbStore {
    pub(crate) fn open(path: &Path) -> Result<Self, redb::Error> {
        let store = Self(Database::create(path)?);
        // A reader finds every table.
        let transaction = store.0.begin_write()?;
        transaction.open_table(COUNTER)?;
        journal::make_tables(&transaction)?;
        leases::make_tables(&transaction)?;
        catalog::make_tables(&transaction)?;
        schedules::make_tables(&transaction)?;
        transaction.commit()?;
        Ok(store)
    }

    fn read<T, E>(
        &self,
        call: impl FnOnce(&ReadTransaction) -> Result<T, Stop<E>>,
    ) -> Result<T, Stop<E>> {
        call(&self.0.begin_read()?)
    }

    /// All that the call changes, or nothing.
    fn write<T, E>(
        &self,
        call: impl FnOnce(&WriteTransaction) -> Result<T, Stop<E>>,
    ) -> Result<T, Stop<E>> {
        let transaction = self.0.begin_write()?;
        let answer = call(&transaction)?;
        transaction.commit()?;
        Ok(answer)
    }
}

fn counter<E>(
    table: &impl ReadableTable<&'static str, u64>,
    name: &str,
) -> Result<Option<u64>, Stop<E>> {
    Ok(table.get(name)?.map(|number| number.value()))
}

/// The next number of a counter.
fn next<E>(transaction: &WriteTransaction, name: &str) -> Result<u64, Stop<E>> {
    let mut counters = transaction.open_table(COUNTER)?;
    let number = counter(&counters, name)?.unwrap_or(0) + 1;
    counters.insert(name, number)?;
    Ok(number)
}

fn get<T: DeserializeOwned, E>(
    table: &impl ReadableTable<u128, &'static [u8]>,
    key: u128,
) -> Result<Option<T>, Stop<E>> {
    let body = table.get(key)?;
    Ok(body.map(|body| serde_json::from_slice(body.value())).transpose()?)
}

/// Every entry, in the order of keys.
fn every<T: DeserializeOwned, E>(
    table: &impl ReadableTable<u128, &'static [u8]>,
) -> Result<Vec<T>, Stop<E>> {
    let mut entries = Vec::new();
    for entry in table.iter()? {
        entries.push(serde_json::from_slice(entry?.1.value())?);
    }
    Ok(entries)
}

fn put<T: Serialize, E>(
    table: &mut redb::Table<'_, u128, &'static [u8]>,
    key: u128,
    value: &T,
) -> Result<(), Stop<E>> {
    table.insert(key, &*serde_json::to_vec(value)?)?;
    Ok(())
}

/// A folder with a state file in it.
#[derive(Debug)]
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Result<Self, BoxError> {
        Ok(Self(tempfile::tempdir()?))
    }
}

#[async_trait]
impl Place for Folder {
    async fn open(&self) -> Result<Store, BoxError> {
        let store = Arc::new(RedbStore::open(&self.0.path().join("state.redb"))?);
        Ok(Store::new()
            .with_journal(Arc::clone(&store) as _)
            .with_leases(Arc::clone(&store) as _)
            .with_catalog(store))
    }
}
