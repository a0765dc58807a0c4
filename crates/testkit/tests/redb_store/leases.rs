//! The leases.

use std::time::Duration;

use async_trait::async_trait;
use redb::{ReadableTable, WriteTransaction};
use stillpoint_context::{Mono, ProcessId};
use stillpoint_workflow::{Fencing, JournalError, Lease, Leases};

use super::{Bodies, RedbStore, Stop, every, get, next, put};

const LEASE: Bodies = Bodies::new("lease");

pub(super) fn make_tables(transaction: &WriteTransaction) -> Result<(), redb::TableError> {
    transaction.open_table(LEASE).map(drop)
}

fn held<E>(
    table: &impl ReadableTable<u128, &'static [u8]>,
    process: ProcessId,
) -> Result<Option<Lease>, Stop<E>> {
    get(table, process.0.as_u128())
}

/// That the owner of a commit may write.
pub(super) fn check(
    transaction: &WriteTransaction,
    owner: ProcessId,
    epoch: u64,
) -> Result<(), Stop<JournalError>> {
    if epoch == 0 || is_held(transaction, owner, epoch)? {
        return Ok(());
    }
    Err(Stop::Answer(JournalError::Fenced { owner, epoch }))
}

/// Whether a process holds this epoch.
pub(super) fn is_held<E>(
    transaction: &WriteTransaction,
    owner: ProcessId,
    epoch: u64,
) -> Result<bool, Stop<E>> {
    let lease = held(&transaction.open_table(LEASE)?, owner)?;
    Ok(lease.is_some_and(|lease: Lease| lease.epoch == epoch))
}

#[async_trait]
impl Leases for RedbStore {
    async fn acquire(
        &self,
        process: ProcessId,
        now: Mono,
        term: Duration,
    ) -> Result<Lease, JournalError> {
        Ok(self.write(|transaction| {
            let lease = Lease::new(process, next(transaction, "epoch")?, now, term);
            put(&mut transaction.open_table(LEASE)?, process.0.as_u128(), &lease)?;
            Ok::<_, Stop<JournalError>>(lease)
        })?)
    }

    async fn renew(
        &self,
        process: ProcessId,
        epoch: u64,
        now: Mono,
        term: Duration,
    ) -> Result<Lease, JournalError> {
        Ok(self.write(|transaction| {
            let mut table = transaction.open_table(LEASE)?;
            let lease = held(&table, process)?.filter(|lease: &Lease| lease.epoch == epoch);
            let lease =
                lease.ok_or(Stop::Answer(JournalError::Fenced { owner: process, epoch }))?;
            let renewed = Lease::new(process, epoch, now, term);
            if renewed.until <= lease.until {
                return Ok(lease);
            }
            put(&mut table, process.0.as_u128(), &renewed)?;
            Ok(renewed)
        })?)
    }

    async fn release(&self, process: ProcessId, epoch: u64) -> Result<(), JournalError> {
        Ok(self.write(|transaction| {
            let mut table = transaction.open_table(LEASE)?;
            if held(&table, process)?.is_some_and(|lease: Lease| lease.epoch == epoch) {
                table.remove(process.0.as_u128())?;
            }
            Ok::<_, Stop<JournalError>>(())
        })?)
    }

    async fn leases(&self) -> Result<Vec<Lease>, JournalError> {
        let mut leases: Vec<Lease> =
            self.read(|transaction| every::<_, JournalError>(&transaction.open_table(LEASE)?))?;
        leases.sort_by_key(|lease| lease.epoch);
        Ok(leases)
    }

    async fn fence(
        &self,
        process: ProcessId,
        now: Mono,
        margin: Duration,
    ) -> Result<Fencing, JournalError> {
        Ok(self.write(|transaction| {
            let mut table = transaction.open_table(LEASE)?;
            if let Some(lease) =
                held(&table, process)?.filter(|lease: &Lease| !lease.is_over(now, margin))
            {
                return Ok(Fencing::Alive { until: lease.until });
            }
            table.remove(process.0.as_u128())?;
            Ok::<_, Stop<JournalError>>(Fencing::Fenced)
        })?)
    }
}
