//! Finding what the operator means: by name, by the beginning of an id, or `latest:NAME`.

use stillpoint::ParkedRun;

use crate::context::ErrorClass;
use crate::error::{CliError, Outcome};
use crate::model::group::ResourceGroup;
use crate::model::id::{DatabaseId, PointId};
use crate::model::inventory::Inventory;
use crate::model::job::Job;
use crate::model::point::PointState;
use crate::model::policy::Policy;
use crate::model::schedule::StoredSchedule;
use crate::model::topology::{PointView, Topology};

/// What things are called in messages and codes.
#[derive(Clone, Copy)]
struct Words {
    thing: &'static str,
    unknown: &'static str,
    ambiguous: &'static str,
    remedy: &'static str,
}

const POINT: Words = Words {
    thing: "restore point",
    unknown: "point.unknown",
    ambiguous: "point.ambiguous",
    remedy: "`stillpoint topology` lists the restore points.",
};
const JOB: Words = Words {
    thing: "job",
    unknown: "job.unknown",
    ambiguous: "job.ambiguous",
    remedy: "`stillpoint jobs` lists the jobs.",
};
const PARKED: Words = Words {
    thing: "parked run",
    unknown: "run.unknown",
    ambiguous: "run.ambiguous",
    remedy: "`stillpoint parked` lists the parked runs.",
};
const POLICY: Words = Words {
    thing: "policy",
    unknown: "policy.unknown",
    ambiguous: "policy.ambiguous",
    remedy: "`stillpoint policy list` lists the policies.",
};
const GROUP: Words = Words {
    thing: "group",
    unknown: "group.unknown",
    ambiguous: "group.ambiguous",
    remedy: "`stillpoint group list` lists the groups.",
};
const SCHEDULE: Words = Words {
    thing: "schedule",
    unknown: "schedule.unknown",
    ambiguous: "schedule.ambiguous",
    remedy: "`stillpoint schedule list` lists the schedules.",
};
const DATABASE: Words = Words {
    thing: "database",
    unknown: "database.unknown",
    ambiguous: "database.ambiguous",
    remedy: "`stillpoint discover` lists the databases.",
};

/// The one of `all` whose name is `text` (case ignored), else the one whose id begins with it.
fn one<T>(
    words: Words,
    text: &str,
    all: impl IntoIterator<Item = (T, String, String)>,
) -> Outcome<T> {
    let wanted = text.trim().to_lowercase();
    let mut named = Vec::new();
    let mut begun = Vec::new();
    for (item, id, name) in all {
        if !name.is_empty() && name.to_lowercase() == wanted {
            named.push((item, id));
        } else if !wanted.is_empty() && id.starts_with(&wanted) {
            begun.push((item, id));
        }
    }
    let mut found = if named.is_empty() { begun } else { named };
    if found.len() > 1 {
        let ids: Vec<&str> = found.iter().take(5).map(|(_, id)| id.as_str()).collect();
        let more = if found.len() > 5 { " and others" } else { "" };
        let message = format!(
            "{text:?} could be any of {} {}s: {}{more}",
            found.len(),
            words.thing,
            ids.join(", ")
        );
        return Err(CliError::invalid(words.ambiguous, message, "Give more of the id."));
    }
    found.pop().map(|(item, _)| item).ok_or_else(|| {
        let message = format!("there is no {} {text:?}", words.thing);
        CliError::of_class(words.unknown, ErrorClass::Invalid, message, words.remedy)
    })
}

/// A restore point. `latest:NAME` is the newest of a database that is not still being made.
pub(crate) fn point(topology: &Topology, text: &str) -> Outcome<PointId> {
    let points =
        || topology.databases.iter().flat_map(|database| &database.points).collect::<Vec<_>>();
    let Some(name) = text.strip_prefix("latest:") else {
        let all = points();
        return one(
            POINT,
            text,
            all.into_iter().map(|point| (point.point, point.point.to_string(), String::new())),
        );
    };
    let with_points = topology.databases.iter().filter(|database| !database.points.is_empty());
    let points: &Vec<PointView> = one(
        Words { thing: "database with a restore point", ..DATABASE },
        name,
        with_points.map(|d| (&d.points, d.database.to_string(), d.name.clone())),
    )?;
    points
        .iter()
        .filter(|point| point.state == PointState::Available && point.missing_since.is_none())
        .filter(|point| point.kind.takes_database())
        .max_by_key(|point| (point.taken_at, point.point))
        .map(|point| point.point)
        .ok_or_else(|| {
            let message = format!("no restore point of {name:?} is available yet");
            CliError::of_class("point.unknown", ErrorClass::Conflict, message, POINT.remedy)
        })
}

/// A database that has restore points, also one that is not there any more.
pub(crate) fn known_database(topology: &Topology, text: &str) -> Outcome<DatabaseId> {
    let all = topology.databases.iter();
    one(
        Words { remedy: "`stillpoint topology` lists the databases.", ..DATABASE },
        text,
        all.map(|known| (known.database, known.database.to_string(), known.name.clone())),
    )
}

/// A job by the beginning of its id.
pub(crate) fn job<'a>(jobs: &'a [Job], text: &str) -> Outcome<&'a Job> {
    one(JOB, text, jobs.iter().map(|job| (job, job.id.to_string(), String::new())))
}

/// A parked run, by the beginning of its id or of that of its job.
pub(crate) fn parked<'a>(
    parked: &'a [ParkedRun],
    jobs: &[Job],
    text: &str,
) -> Outcome<&'a ParkedRun> {
    let wanted = text.trim().to_lowercase();
    let begins = |id: &str| !wanted.is_empty() && id.starts_with(&wanted);
    let id = |known: &ParkedRun| {
        let job = known.job.map(|job| job.to_string());
        job.filter(|job| begins(job)).unwrap_or_else(|| known.run.to_string())
    };
    let is_parked = |known: &ParkedRun| begins(&id(known));
    let known = |job: &&Job| {
        begins(&job.id.to_string()) || job.runs.iter().any(|run| begins(&run.run.to_string()))
    };
    if let Some(job) = jobs.iter().find(known)
        && !parked.iter().any(is_parked)
    {
        return Err(CliError::of_class(
            "run.not_parked",
            ErrorClass::Conflict,
            format!("nothing of job {} is parked", job.id),
            "`stillpoint jobs` with the beginning of its id tells where it stands.",
        )
        .about("job", job.id));
    }
    one(PARKED, text, parked.iter().map(|known| (known, id(known), String::new())))
}

/// A policy.
pub(crate) fn policy<'a>(policies: &'a [Policy], text: &str) -> Outcome<&'a Policy> {
    one(POLICY, text, policies.iter().map(|p| (p, p.id.to_string(), p.name.clone())))
}

/// A group.
pub(crate) fn group<'a>(groups: &'a [ResourceGroup], text: &str) -> Outcome<&'a ResourceGroup> {
    one(GROUP, text, groups.iter().map(|g| (g, g.id.to_string(), g.name.clone())))
}

/// A schedule.
pub(crate) fn schedule<'a>(
    schedules: &'a [StoredSchedule],
    text: &str,
) -> Outcome<&'a StoredSchedule> {
    one(SCHEDULE, text, schedules.iter().map(|s| (s, s.id.to_string(), s.schedule.name.clone())))
}

/// A database that exists.
pub(crate) fn database(inventory: &Inventory, text: &str) -> Outcome<DatabaseId> {
    let all = inventory.databases.values();
    one(DATABASE, text, all.map(|d| (d.id, d.id.to_string(), d.name.clone())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pick(text: &str) -> Result<u32, String> {
        let all = [
            (1, "00aa-1".to_owned(), "Daily".to_owned()),
            (2, "00ab-2".to_owned(), "00aa".to_owned()),
            (3, "10ab-3".to_owned(), String::new()),
        ];
        one(POLICY, text, all).map_err(|error| error.failure.code.to_string())
    }

    #[test]
    fn a_name_goes_before_an_id_and_ids_must_be_told_apart() {
        assert_eq!(pick("daily"), Ok(1));
        assert_eq!(pick("00aa"), Ok(2), "a name that looks like an id");
        assert_eq!(pick("00AA-"), Ok(1));
        assert_eq!(pick("1"), Ok(3));
        assert_eq!(pick("00a").unwrap_err(), "policy.ambiguous");
        assert_eq!(pick("").unwrap_err(), "policy.unknown", "nothing means nothing");
        assert_eq!(pick("zz").unwrap_err(), "policy.unknown");
    }
}
