//! How much a policy keeps at most.

use std::collections::BTreeSet;

use chrono::TimeDelta;

use super::pace::Pace;
use super::{Strategy, Unknown};
use crate::id::GroupId;
use crate::planning::budget::Kept;
use crate::policy::{Gfs, LogRetention, Policy};

/// A policy of a database.
#[derive(Clone, Debug)]
pub(super) struct Share<'a> {
    pub(super) policy: &'a Policy,
    /// The groups through which the database has it.
    pub(super) groups: BTreeSet<GroupId>,
    /// When it is run by itself.
    pub(super) pace: Pace,
}

/// Grids with the longest time that a place of them may take.
fn grids(gfs: Gfs) -> [(u32, TimeDelta); 5] {
    [
        (gfs.hourly, TimeDelta::hours(1)),
        (gfs.daily, TimeDelta::hours(25)),
        (gfs.weekly, TimeDelta::days(7)),
        (gfs.monthly, TimeDelta::days(31)),
        (gfs.yearly, TimeDelta::days(366)),
    ]
}

fn days(number: u32) -> TimeDelta {
    TimeDelta::days(i64::from(number))
}

impl Share<'_> {
    /// Whether it keeps the newest ones and none that are older: then what is let go is older than all that is kept.
    fn keeps_in_a_row(&self) -> bool {
        grids(self.policy.retention.gfs.unwrap_or_default()).iter().all(|(places, _)| *places == 0)
    }

    /// How old the newest so many of them get at most.
    fn oldest_of(&self, number: u32) -> Result<TimeDelta, Unknown> {
        // Those of grids lie further apart.
        if number <= self.policy.retention.count.unwrap_or(1) || self.keeps_in_a_row() {
            self.unless_scheduled(self.pace.time_of(number))
        } else {
            self.oldest()
        }
    }

    pub(super) fn keeps_all(&self) -> bool {
        self.policy.retention.keeps_all()
    }

    fn unless_scheduled<T>(&self, known: Option<T>) -> Result<T, Unknown> {
        known.ok_or_else(|| Unknown::no_schedule(self.policy))
    }

    /// How many restore points with the database are kept at most that are the newest ones.
    fn in_a_row(&self) -> Result<u32, Unknown> {
        if self.keeps_all() {
            return Err(Unknown::keeps_all(self.policy));
        }
        let rules = &self.policy.retention;
        // The newest so many and those of the last so many days begin with the same one: the longer list has the other in it.
        let newest = rules.count.unwrap_or(0).max(rules.min_keep.get());
        let Some(number) = rules.within_days else { return Ok(newest) };
        let within = self.unless_scheduled(self.pace.most_within(days(number)))?;
        Ok(newest.max(within))
    }

    /// How many restore points with the database are kept at most.
    pub(super) fn fulls(&self) -> Result<u32, Unknown> {
        // The first place of each grid is that of the newest one.
        let gfs = self.policy.retention.gfs.unwrap_or_default();
        let more = grids(gfs).map(|(places, _)| places.saturating_sub(1));
        Ok(more.into_iter().fold(self.in_a_row()?, u32::saturating_add))
    }

    /// How old the oldest of them gets at most.
    pub(super) fn oldest(&self) -> Result<TimeDelta, Unknown> {
        if self.keeps_all() {
            return Err(Unknown::keeps_all(self.policy));
        }
        let rules = &self.policy.retention;
        let newest = rules.count.unwrap_or(0).max(rules.min_keep.get());
        let mut oldest = self.unless_scheduled(self.pace.time_of(newest))?;
        if let Some(number) = rules.within_days {
            let most = self.unless_scheduled(self.pace.most_within(days(number)))?;
            let lasts = self.unless_scheduled(self.pace.time_of(most))?;
            oldest = oldest.max(days(number)).max(lasts);
        }
        for (places, longest) in grids(rules.gfs.unwrap_or_default()) {
            if let Ok(number) = i32::try_from(places).map(|number| longest * number)
                && places > 0
            {
                // A place is taken only by a point, so that few points make a grid reach far.
                let taken = self.unless_scheduled(self.pace.time_of(places))?;
                oldest = oldest.max(number).max(taken);
            }
        }
        Ok(oldest)
    }
}

impl Strategy<'_> {
    /// How far back the policies of a database keep logs, leaving out what is wanted for the points of `without`, which bring
    /// their own.
    fn logs_kept(shares: &[Share<'_>], without: Option<&Share<'_>>) -> Result<TimeDelta, Unknown> {
        let is_without =
            |share: &Share<'_>| without.is_some_and(|without| without.policy.id == share.policy.id);
        let fulls = || shares.iter().filter(|share| share.policy.kind.takes_database());
        let mut longest = TimeDelta::zero();
        for share in shares {
            let policy = share.policy;
            let kept = match policy.log_retention {
                LogRetention::Days(number) => days(number),
                LogRetention::None => TimeDelta::zero(),
                LogRetention::AsFulls => {
                    let mut oldest = TimeDelta::zero();
                    for full in fulls().filter(|full| !is_without(full)) {
                        oldest = oldest.max(full.oldest()?);
                    }
                    oldest
                }
                LogRetention::FollowFulls(_) if is_without(share) => TimeDelta::zero(),
                LogRetention::FollowFulls(number) if policy.kind.takes_database() => {
                    share.oldest_of(number)?
                }
                LogRetention::FollowFulls(number) => {
                    // The newest of all are no older than those of any policy that keeps so many.
                    let mut oldest = TimeDelta::zero();
                    for full in fulls() {
                        oldest = oldest.max(full.oldest_of(number)?);
                    }
                    oldest
                }
            };
            longest = longest.max(kept);
        }
        Ok(longest)
    }

    /// How far back logs of a database are kept.
    pub(super) fn logs_of(shares: &[Share<'_>]) -> Result<TimeDelta, Unknown> {
        Self::logs_kept(shares, None)
    }

    /// What one policy of a database keeps at most: of a volume with logs, the log backups, and what is left of restore points
    /// whose logs outlive them.
    pub(super) fn kept(share: &Share<'_>, shares: &[Share<'_>]) -> Result<Kept, Unknown> {
        let is_full = share.policy.kind.takes_database();
        // A log backup is nothing but its logs, which a policy that keeps all keeps with it.
        let fulls = if is_full || share.policy.keeps_all_logs() { share.fulls()? } else { 0 };
        let is_bridged = is_full && share.keeps_in_a_row();
        let far = Self::logs_kept(shares, is_bridged.then_some(share))?;
        if far.is_zero() {
            return Ok(Kept { fulls, logs: 0 });
        }
        let logs = share.unless_scheduled(share.pace.most_within(far))?;
        // Those of restore points that are kept anyway: all of them, or only the newest where grids reach further back.
        let anyway = if fulls == 0 || share.oldest().is_ok_and(|oldest| oldest <= far) {
            fulls
        } else {
            share.in_a_row()?
        };
        Ok(Kept { fulls, logs: logs.saturating_sub(anyway) })
    }

    /// The same of a volume that has no logs on it.
    pub(super) fn kept_data(share: &Share<'_>) -> Result<Kept, Unknown> {
        let is_full = share.policy.kind.takes_database();
        let fulls = if is_full { share.fulls()? } else { 0 };
        Ok(Kept { fulls, logs: 0 })
    }
}
