//! Holds: what is kept whatever the rules say.

use stillpoint_model::hold::Hold;
use stillpoint_model::id::HoldName;

use crate::Stillpoint;
use crate::error::Error;

impl Stillpoint {
    /// Puts a hold on restore points, or changes the one of this name: none of them is deleted until it is taken off, or over.
    ///
    /// # Errors
    /// [`Error::Hold`] for one that makes no sense; `hold.too_late` for a point that is being deleted, `catalog.not_found` for
    /// one that is not there. The hold is then as it was.
    ///
    /// # Idempotence
    /// May be repeated.
    pub async fn put_hold(&self, hold: &Hold) -> Result<(), Error> {
        hold.check()?;
        Ok(self.services().catalog.put_hold(hold).await?)
    }

    /// Every hold, also those that are over, by name.
    ///
    /// # Errors
    /// Of the catalogue.
    pub async fn holds(&self) -> Result<Vec<Hold>, Error> {
        Ok(self.services().catalog.holds().await?)
    }

    /// Takes a hold off. What it kept is deleted by the next prune, if nothing else keeps it.
    ///
    /// # Errors
    /// Of the catalogue.
    ///
    /// # Idempotence
    /// For one that is not there it succeeds.
    pub async fn remove_hold(&self, name: &HoldName) -> Result<(), Error> {
        Ok(self.services().catalog.remove_hold(name).await?)
    }
}
