//! Holds: what is kept whatever the rules say.

use std::collections::BTreeSet;

use stillpoint_catalog::{CatalogExt as _, PointQuery, may_hold};
use stillpoint_model::hold::{self, Hold};
use stillpoint_model::id::{HoldName, PointId};

use crate::Stillpoint;
use crate::beside;
use crate::error::Error;

impl Stillpoint {
    /// The restore points of a query that a hold can be put on, as they are now: all but those that are being deleted. A hold is a set
    /// of points, so what comes to fit afterwards is not in it; what begins to be deleted between the two has the hold refused.
    ///
    /// # Errors
    /// Of the catalogue.
    pub async fn holdable(&self, query: &PointQuery) -> Result<BTreeSet<PointId>, Error> {
        let points = self.services().catalog.all_points(query).await?.into_iter();
        let stays = points.filter(|point| may_hold(point.id, Some(point)).is_ok());
        Ok(stays.map(|point| point.id).collect())
    }

    /// Puts a hold on restore points, or changes the one of this name: none of them is deleted until it is taken off, or over.
    ///
    /// # Errors
    /// [`Error::Hold`] for one that makes no sense; `hold.too_late` for a point that is being deleted, `catalog.not_found` for
    /// one that is not there. The hold is then as it was. When it could not be written beside the data the hold counts, and is
    /// to be put again, so that a rebuilt catalogue has it.
    ///
    /// # Idempotence
    /// May be repeated.
    pub async fn put_hold(&self, hold: &Hold) -> Result<(), Error> {
        hold.check()?;
        self.services().catalog.put_hold(hold).await?;
        // Second, as a hold on the storage alone keeps nothing.
        Ok(beside::put_hold(self.services(), &self.cx(), hold, |_, _| true).await?)
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
    /// Of the catalogue. When it could not be taken away beside the data the hold still counts, and is to be removed again.
    ///
    /// # Idempotence
    /// For one that is not there it succeeds.
    pub async fn remove_hold(&self, name: &HoldName) -> Result<(), Error> {
        // First: a catalogue that is rebuilt must not have a hold that somebody was told is off.
        let document = beside::name(hold::document_name(name))?;
        for side in beside::keepers(self.services()) {
            side.delete_doc(&self.cx(), &document).await?;
        }
        Ok(self.services().catalog.remove_hold(name).await?)
    }
}
