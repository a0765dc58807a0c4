//! Policies, schedules and groups that are saved together.
//!
//! ```text
//!   draft ─ rules ─ hooks ─ what groups refer to ─ budget of snapshots ─▶ policies ─▶ schedules ─▶ groups ─▶ ledgers
//!           └──────────── all of it checked first ───────────────────┘
//! ```

use stillpoint_catalog::{CatalogError, Named};
use stillpoint_model::group::ResourceGroup;
use stillpoint_model::planning::PlanError;
use stillpoint_model::planning::name::Template;
use stillpoint_model::policy::Policy;
use stillpoint_model::schedule::StoredSchedule;

use crate::Stillpoint;
use crate::error::Error;
use crate::hooks::no_runner;
use crate::lint::Wanted;

/// What is saved together. A new policy, schedule or group is as `new` makes it, a changed one as `edit` does: the next version.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Draft {
    /// Policies.
    pub policies: Vec<Policy>,
    /// Schedules.
    pub schedules: Vec<StoredSchedule>,
    /// Groups, which may refer to all that is in the draft or is stored.
    pub groups: Vec<ResourceGroup>,
}

impl Stillpoint {
    /// Whether a draft could be saved as things are. Changes nothing.
    ///
    /// # Errors
    /// For whatever in it breaks a rule of its own or has a hook that could not be run, as
    /// [`save_policy`](Self::save_policy), [`create_schedule`](Self::create_schedule) and [`save_group`](Self::save_group) say;
    /// `policy.name_taken`, `schedule.name_taken`, `group.name_taken`; `catalog.not_found` for a policy or schedule that a group refers
    /// to; `retention.snapshot_budget_exceeded` where all of it together would keep more snapshots of a volume than that can
    /// hold; of the catalogue.
    pub async fn check_draft(&self, draft: &Draft) -> Result<(), Error> {
        for policy in &draft.policies {
            policy.check().map_err(PlanError::Policy)?;
            for hook in &policy.hooks {
                let runner = self.services().hooks.as_ref().ok_or_else(|| no_runner(hook))?;
                runner.check(&self.cx(), hook).await?;
            }
        }
        for stored in &draft.schedules {
            stored.schedule.check()?;
        }
        for group in &draft.groups {
            group.check().map_err(PlanError::Group)?;
            // A backup would refuse it, and by then nobody may be there.
            let _usable = Template::of(group.naming.as_deref())?;
        }
        let before = Wanted::read(self).await?;
        let after = before.with(draft);
        after.check_names(draft)?;
        after.check_references(draft)?;
        self.check_budget(draft, &before, &after).await
    }

    /// Saves a draft, once all of it was [checked](Self::check_draft), and gives it as it was saved: a schedule counts from when that
    /// is, and one that is attached to a group anew, too.
    ///
    /// # Errors
    /// As [`check_draft`](Self::check_draft), and nothing is saved then; `policy.version_conflict`, `schedule.version_conflict` and
    /// `group.version_conflict` if somebody else changed one of them at the same time; of the catalogue.
    ///
    /// # Idempotence
    /// Saving the same again changes nothing.
    ///
    /// # Crash behaviour
    /// Each of them is saved whole or not at all, groups after what they refer to. Saving it again goes on.
    pub async fn save_draft(&self, draft: &Draft) -> Result<Draft, Error> {
        self.check_draft(draft).await?;
        let catalog = &self.services().catalog;
        for policy in &draft.policies {
            catalog.put_policy(policy).await?;
        }
        let mut saved = draft.clone();
        for stored in &mut saved.schedules {
            match self.schedule(stored.id).await? {
                Some(known) if says_the_same(&known, stored) => *stored = known,
                _ => {
                    // The check may have taken its time, in which the version before went on.
                    stored.since = stored.since.max(self.seams().clock.now());
                    catalog.put_schedule(stored).await?;
                }
            }
        }
        for group in &draft.groups {
            let before = self.group(group.id).await?;
            catalog.put_group(group).await?;
            self.keep_ledgers(before.as_ref(), Some(group)).await?;
        }
        Ok(saved)
    }
}

/// Whether a version of a schedule was saved before.
fn says_the_same(known: &StoredSchedule, new: &StoredSchedule) -> bool {
    (known.version, &known.schedule) == (new.version, &new.schedule)
}

/// Whether two things of one kind may not be called so.
fn is_same(one: &str, other: &str) -> bool {
    one.to_lowercase() == other.to_lowercase()
}

fn taken(what: Named, name: &str) -> Error {
    CatalogError::NameTaken { what, name: name.to_owned() }.into()
}

fn missing(kind: &'static str, id: String) -> Error {
    CatalogError::NotFound { kind, id }.into()
}

impl Wanted {
    /// Whether nothing of a draft is called as something else will be.
    fn check_names(&self, draft: &Draft) -> Result<(), Error> {
        for new in &draft.policies {
            let mut others = self.policies.iter().filter(|known| known.id != new.id);
            if others.any(|known| is_same(&known.name, &new.name)) {
                return Err(taken(Named::Policy, &new.name));
            }
        }
        for new in &draft.schedules {
            let mut others = self.schedules.iter().filter(|known| known.id != new.id);
            if others.any(|known| is_same(&known.schedule.name, &new.schedule.name)) {
                return Err(taken(Named::Schedule, &new.schedule.name));
            }
        }
        for new in &draft.groups {
            let mut others = self.groups.iter().filter(|known| known.id != new.id);
            if others.any(|known| is_same(&known.name, &new.name)) {
                return Err(taken(Named::Group, &new.name));
            }
        }
        Ok(())
    }

    /// Whether all that the groups of a draft refer to will be there.
    fn check_references(&self, draft: &Draft) -> Result<(), Error> {
        for group in &draft.groups {
            for id in &group.policies {
                if !self.policies.iter().any(|known| known.id == *id) {
                    return Err(missing("policy", id.to_string()));
                }
            }
            for id in group.attachments.iter().map(|attached| attached.schedule) {
                if !self.schedules.iter().any(|known| known.id == id) {
                    return Err(missing("schedule", id.to_string()));
                }
            }
        }
        Ok(())
    }
}
