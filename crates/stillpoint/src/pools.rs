//! How much storages are asked to do at once.
//!
//! Each step that asks a provider to make, change, delete or show something needs a slot of one pool. The commits of a freeze have
//! theirs before it begins. Without a limit the pool is none.

use stillpoint_workflow::{PoolName, StepBuilder};

/// The pool of all storage operations.
pub(crate) fn storage() -> Option<PoolName> {
    PoolName::new("storage").ok()
}

/// A step that asks a provider for something.
pub(crate) trait OnStorage {
    /// It needs a slot for that.
    fn on_storage(self) -> Self;
}

impl<S, I, O, X> OnStorage for StepBuilder<'_, S, I, O, X> {
    fn on_storage(self) -> Self {
        match storage() {
            Some(pool) => self.pool(pool),
            None => self,
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_name_is_one() {
        assert!(super::storage().is_some());
    }
}
