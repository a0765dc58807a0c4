//! How long a log volume lasts.

use std::collections::BTreeMap;

use chrono::TimeDelta;

use super::Seen;
use super::finding::{Finding, Severity};
use super::kept::Share;
use super::pace::Pace;
use crate::id::DatabaseId;
use crate::inventory::Database;
use crate::point::RestorePoint;

/// The size of a log file.
pub const LOG_BYTES: u64 = 1 << 20;
/// Two backups that are closer than that say little about how fast logs come.
const APART: TimeDelta = TimeDelta::hours(1);

/// What nobody but the operator can say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Assumptions {
    /// How many bytes of logs a database writes in an hour, if not as many as its restore points tell.
    pub log_bytes_per_hour: Option<u64>,
    /// How many bytes of logs a log volume has room for. Without it nothing is said of its filling up.
    pub log_room: Option<u64>,
}

/// How many bytes of logs a database writes in an hour, as its restore points tell: the most between two of them that are an hour
/// apart or more. `None` if no two are.
pub fn log_rate(database: DatabaseId, points: &[RestorePoint]) -> Option<u64> {
    let mut known: Vec<_> = points
        .iter()
        .filter(|point| point.database == database)
        .filter_map(|point| {
            let logs = point.logs.as_ref()?;
            Some((point.taken_at, logs.signature, *logs.range.as_ref()?.end()))
        })
        .collect();
    known.sort_unstable();
    let mut known = known.into_iter();
    let (mut at, mut stream, mut last) = known.next()?;
    let mut most = None;
    for (next_at, next_stream, next_last) in known {
        if next_stream == stream {
            if next_at - at < APART {
                continue;
            }
            let bytes = u64::from(next_last.0.saturating_sub(last.0)).saturating_mul(LOG_BYTES);
            let seconds = u64::try_from((next_at - at).num_seconds()).ok().filter(|s| *s > 0)?;
            most = most.max(Some(bytes.saturating_mul(3600) / seconds));
        }
        (at, stream, last) = (next_at, next_stream, next_last);
    }
    most
}

/// A log volume, or a database of which nobody knows where its logs are.
#[derive(Debug, Default)]
struct Load<'a> {
    databases: Vec<&'a Database>,
    bytes_per_hour: u64,
    /// The longest time to the next truncation; `None` if one of them is never truncated.
    truncated: Option<TimeDelta>,
}

/// Log volumes and what is known of them, one database after the other.
#[derive(Debug)]
pub(super) struct Runway<'a> {
    assumed: Assumptions,
    loads: BTreeMap<String, Load<'a>>,
}

impl<'a> Runway<'a> {
    pub(super) const fn new(assumed: Assumptions) -> Self {
        Self { assumed, loads: BTreeMap::new() }
    }

    /// Takes in a database, whose logs come as fast as assumed, or as measured.
    pub(super) fn add(
        &mut self,
        database: &'a Database,
        seen: &Seen<'_>,
        shares: &[Share<'_>],
        points: &[RestorePoint],
    ) {
        let rate = || log_rate(database.id, points);
        let Some(bytes_per_hour) = self.assumed.log_bytes_per_hour.or_else(rate) else { return };
        let copy = seen.inventory.active_copy(database.id);
        let volumes = copy.and_then(|copy| seen.placement.of(&copy.id)).map(|placed| &placed.logs);
        let place =
            volumes.and_then(|volumes| volumes.first()).map(|volume| format!("volume {volume}"));
        let place = place.unwrap_or_else(|| format!("database {}", database.id));
        let truncating = shares.iter().filter(|share| share.policy.kind.truncates());
        let paces: Vec<&Pace> = truncating.map(|share| &share.pace).collect();
        let longest = paces
            .split_first()
            .and_then(|(first, others)| first.together_with(others).intervals())
            .map(|(_, longest)| longest);
        let load = self
            .loads
            .entry(place)
            .or_insert_with(|| Load { truncated: Some(TimeDelta::zero()), ..Load::default() });
        load.databases.push(database);
        load.bytes_per_hour = load.bytes_per_hour.saturating_add(bytes_per_hour);
        load.truncated = load.truncated.zip(longest).map(|(one, other)| one.max(other));
    }

    /// The log volumes that fill up before logs are truncated.
    pub(super) fn findings(&self) -> Vec<Finding> {
        let Some(room) = self.assumed.log_room else { return Vec::new() };
        let mut findings = Vec::new();
        for (place, load) in &self.loads {
            if load.bytes_per_hour == 0 {
                continue;
            }
            let hours = room / load.bytes_per_hour;
            let lasts = i64::try_from(hours).ok().and_then(TimeDelta::try_hours);
            let until = load.truncated;
            if until.is_some_and(|until| lasts.is_none_or(|lasts| lasts >= until)) {
                continue;
            }
            let days = hours / 24;
            let next = until.map_or_else(
                || "no backup truncates them".to_owned(),
                |until| {
                    format!(
                        "the next backup that truncates them may be {} hours off",
                        until.num_hours()
                    )
                },
            );
            let names: Vec<&str> = load.databases.iter().map(|known| known.name.as_str()).collect();
            let message = format!(
                "the logs of {} fill {place} in {days} days and {} hours, and {next}",
                names.join(", "),
                hours % 24
            );
            let remedy = "Have a full backup of them made more often, or give the logs more room.";
            let code = "strategy.log_disk_will_fill";
            let mut finding =
                Finding::new(code, Severity::Warning, message, remedy).about("days", days);
            for database in &load.databases {
                finding = finding.about("database", database.id);
            }
            findings.push(finding);
        }
        findings
    }
}
