//! Policies, groups and schedules as one document: what they are called and what they say, without ids and versions, so that it
//! can be kept beside other configuration and brought into another state file.
//!
//! ```toml
//! format = 1
//!
//! [[schedules]]
//! name = "nightly"
//! zone = "Europe/Berlin"
//! rule.daily.at = "02:30:00"
//! ```
//!
//! What is left out is the default. What is written and not understood is refused: a misspelt setting would otherwise be none.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::error::{CliError, Outcome};
use crate::model::group::{Attachment, ResourceGroup};
use crate::model::id::{GroupId, PolicyId};
use crate::model::policy::Policy;
use crate::model::schedule::{Schedule, StoredSchedule};

/// The form of the document.
const FORMAT: u64 = 1;

/// Tags of groups that say where this state file's things are: they mean nothing elsewhere.
const OURS: &str = "stillpoint.";

/// What is in a document: names that refer to each other, nothing else.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Document {
    pub(crate) policies: Vec<Policy>,
    pub(crate) schedules: Vec<Schedule>,
    pub(crate) groups: Vec<GroupEntry>,
}

/// A group whose policies and schedules are known by their names.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct GroupEntry {
    /// Without policies and attachments.
    pub(crate) group: ResourceGroup,
    pub(crate) policies: Vec<String>,
    /// The names of a policy and of a schedule.
    pub(crate) attachments: Vec<(String, String)>,
}

fn wrong(what: impl std::fmt::Display) -> CliError {
    CliError::invalid(
        "import.invalid",
        format!("the document cannot be understood: {what}"),
        "`stillpoint export` shows how it is written.",
    )
}

fn internal(error: impl std::fmt::Display) -> CliError {
    CliError::invalid("cli.internal", error.to_string(), "")
}

fn fields(value: &impl serde::Serialize) -> Outcome<Map<String, Value>> {
    match serde_json::to_value(value).map_err(internal)? {
        Value::Object(fields) => Ok(fields),
        other => Err(internal(format!("{other} is no object"))),
    }
}

/// Without what TOML cannot say: what is unknown or not wanted is left out.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(name, value)| (name, without_nulls(value))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

/// Puts what is given over the defaults. Only the fields named here are objects whose own fields have defaults; anything else is
/// replaced as a whole.
fn over(defaults: &mut Map<String, Value>, given: Map<String, Value>, deep: &[&str]) {
    for (name, value) in given {
        let known = defaults.get_mut(&name).and_then(Value::as_object_mut);
        match (known.filter(|_| deep.contains(&name.as_str())), value) {
            (Some(known), Value::Object(value)) => over(known, value, &[]),
            (_, value) => {
                defaults.insert(name, value);
            }
        }
    }
}

/// Refuses what was given and is not in what was understood.
fn all_understood(place: &str, given: &Value, understood: &Value) -> Outcome<()> {
    match (given, understood) {
        (Value::Object(given), Value::Object(understood)) => {
            for (name, value) in given {
                let place = format!("{place}.{name}");
                let known =
                    understood.get(name).ok_or_else(|| wrong(format!("{place} is not known")))?;
                all_understood(&place, value, known)?;
            }
            Ok(())
        }
        (Value::Array(given), Value::Array(understood)) => {
            let pairs = given.iter().zip(understood).enumerate();
            pairs.into_iter().try_for_each(|(n, (given, understood))| {
                all_understood(&format!("{place}[{n}]"), given, understood)
            })
        }
        _ => Ok(()),
    }
}

fn name_of(kind: &str, given: &Map<String, Value>) -> Outcome<String> {
    let name = given.get("name").and_then(Value::as_str).filter(|name| !name.is_empty());
    name.map(str::to_owned).ok_or_else(|| wrong(format!("a {kind} has no name")))
}

fn read<T: serde::de::DeserializeOwned + serde::Serialize>(
    place: &str,
    fields: Map<String, Value>,
    given: &Value,
) -> Outcome<T> {
    let read: T = serde_json::from_value(Value::Object(fields))
        .map_err(|e| wrong(format!("{place}: {e}")))?;
    all_understood(place, given, &serde_json::to_value(&read).map_err(internal)?)?;
    Ok(read)
}

fn policy(given: Map<String, Value>) -> Outcome<Policy> {
    let name = name_of("policy", &given)?;
    let place = format!("policy {name:?}");
    let all = Value::Object(given.clone());
    for ours in ["id", "version"] {
        if given.contains_key(ours) {
            return Err(wrong(format!("{place}.{ours} is not known")));
        }
    }
    let mut fields = fields(&Policy::new(PolicyId(uuid()), name))?;
    over(&mut fields, given, &["quiesce", "retention"]);
    // A cap that is left out is none.
    if let Some(Value::Object(before)) = fields
        .get_mut("verification")
        .and_then(|verification| verification.get_mut("before_completion"))
    {
        before.entry("cap_ms").or_insert(Value::Null);
        before.entry("required").or_insert(Value::Bool(true));
    }
    read(&place, fields, &all)
}

fn schedule(given: Map<String, Value>) -> Outcome<Schedule> {
    let name = name_of("schedule", &given)?;
    let place = format!("schedule {name:?}");
    let all = Value::Object(given.clone());
    let part = |name: &str, default: Value| given.get(name).cloned().unwrap_or(default);
    let rule = serde_json::from_value(part("rule", Value::Null))
        .map_err(|error| wrong(format!("{place}.rule: {error}")))?;
    let zone = serde_json::from_value(part("zone", json!("UTC")))
        .map_err(|error| wrong(format!("{place}.zone: {error}")))?;
    let mut fields = fields(&Schedule::new(name, rule, zone))?;
    over(&mut fields, given, &[]);
    read(&place, fields, &all)
}

fn group(mut given: Map<String, Value>) -> Outcome<GroupEntry> {
    let name = name_of("group", &given)?;
    let place = format!("group {name:?}");
    let names = |value: Option<Value>| -> Outcome<Vec<String>> {
        serde_json::from_value(value.unwrap_or_else(|| json!([])))
            .map_err(|error| wrong(format!("{place}.policies: {error}")))
    };
    let policies = names(given.remove("policies"))?;
    let hung = given.remove("attachments").unwrap_or_else(|| json!([]));
    let hung: Vec<Hung> = serde_json::from_value(hung)
        .map_err(|error| wrong(format!("{place}.attachments: {error}")))?;
    let attachments: Vec<_> = hung.into_iter().map(|hung| (hung.policy, hung.schedule)).collect();
    for (at, (policy, schedule)) in attachments.iter().enumerate() {
        if !policies.iter().any(|known| same(known, policy)) {
            let what = format!("{place}.attachments: policy {policy:?} is none of the group");
            return Err(wrong(what));
        }
        let before = &attachments[..at];
        if before.iter().any(|(on, by)| same(on, policy) && same(by, schedule)) {
            let twice = format!("schedule {schedule:?} hangs on policy {policy:?} twice");
            return Err(wrong(format!("{place}.attachments: {twice}")));
        }
    }
    for ours in ["id", "version"] {
        if given.contains_key(ours) {
            return Err(wrong(format!("{place}.{ours} is not known")));
        }
    }
    let all = Value::Object(given.clone());
    let mut fields = fields(&ResourceGroup::new(GroupId(uuid()), name, Vec::new()))?;
    over(&mut fields, given, &["batching"]);
    Ok(GroupEntry { group: read(&place, fields, &all)?, policies, attachments })
}

/// Whether two names are of one thing.
pub(crate) fn same(one: &str, other: &str) -> bool {
    one.to_lowercase() == other.to_lowercase()
}

/// Refuses what is there twice: which of the two is meant nobody can say.
fn each_once<'a>(kind: &str, names: impl Iterator<Item = &'a str>) -> Outcome<()> {
    let mut known = BTreeSet::new();
    for name in names {
        if !known.insert(name.to_lowercase()) {
            return Err(wrong(format!("{kind} {name:?} is there twice")));
        }
    }
    Ok(())
}

/// What is known by name until it is brought in.
const fn uuid() -> uuid::Uuid {
    uuid::Uuid::nil()
}

/// A schedule on a policy, by their names.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Hung {
    policy: String,
    schedule: String,
}

impl Document {
    /// What there is.
    pub(crate) fn of(
        policies: &[Policy],
        schedules: &[StoredSchedule],
        groups: &[ResourceGroup],
    ) -> Self {
        let policy_name = |id: PolicyId| {
            policies.iter().find(|policy| policy.id == id).map(|policy| policy.name.clone())
        };
        let schedule_name = |attached: &Attachment| {
            let known = schedules.iter().find(|known| known.id == attached.schedule);
            known.map(|known| known.schedule.name.clone())
        };
        let entry = |group: &ResourceGroup| {
            let hung = group.attachments.iter();
            let mut alone = group.clone();
            alone.tags.retain(|tag, _| !tag.starts_with(OURS));
            (alone.id, alone.version) = (GroupId(uuid()), std::num::NonZeroU32::MIN);
            (alone.policies, alone.attachments) = (vec![], vec![]);
            GroupEntry {
                group: alone,
                policies: group.policies.iter().filter_map(|id| policy_name(*id)).collect(),
                attachments: hung
                    .filter_map(|one| Some((policy_name(one.policy)?, schedule_name(one)?)))
                    .collect(),
            }
        };
        let without_id = |policy: &Policy| {
            let mut alone = policy.clone();
            (alone.id, alone.version) = (PolicyId(uuid()), std::num::NonZeroU32::MIN);
            alone
        };
        Self {
            policies: policies.iter().map(without_id).collect(),
            schedules: schedules.iter().map(|known| known.schedule.clone()).collect(),
            groups: groups.iter().map(entry).collect(),
        }
    }

    /// As text.
    pub(crate) fn to_toml(&self) -> Outcome<String> {
        let mut policies = Vec::new();
        for policy in &self.policies {
            let mut fields = fields(policy)?;
            fields.retain(|name, _| name != "id" && name != "version");
            policies.push(Value::Object(fields));
        }
        let mut groups = Vec::new();
        for entry in &self.groups {
            let mut fields = fields(&entry.group)?;
            fields.retain(|name, _| name != "id" && name != "version");
            fields.insert("policies".to_owned(), json!(entry.policies));
            let hung = entry.attachments.iter().cloned();
            let hung: Vec<Hung> =
                hung.map(|(policy, schedule)| Hung { policy, schedule }).collect();
            fields.insert("attachments".to_owned(), json!(hung));
            groups.push(Value::Object(fields));
        }
        let all = json!({
            "format": FORMAT,
            "policies": policies,
            "schedules": self.schedules,
            "groups": groups,
        });
        toml::to_string_pretty(&without_nulls(all)).map_err(internal)
    }

    /// From text.
    ///
    /// # Errors
    /// `import.invalid` with the place, `import.format` for a newer form.
    pub(crate) fn of_toml(text: &str) -> Outcome<Self> {
        let mut all: Map<String, Value> = toml::from_str(text).map_err(wrong)?;
        match all.remove("format").as_ref().and_then(Value::as_u64) {
            Some(FORMAT) => {}
            Some(found) => {
                let message = format!("the document has format {found}, and {FORMAT} is known");
                let remedy = "Use the version that wrote it.";
                return Err(CliError::invalid("import.format", message, remedy));
            }
            None => return Err(wrong("it does not say its format")),
        }
        let mut part = |name: &str| -> Outcome<Vec<Map<String, Value>>> {
            let part = all.remove(name).unwrap_or_else(|| json!([]));
            serde_json::from_value(part).map_err(|error| wrong(format!("{name}: {error}")))
        };
        let (policies, schedules, groups) =
            (part("policies")?, part("schedules")?, part("groups")?);
        if let Some(name) = all.keys().next() {
            return Err(wrong(format!("{name} is not known")));
        }
        let read = Self {
            policies: policies.into_iter().map(policy).collect::<Result<_, _>>()?,
            schedules: schedules.into_iter().map(schedule).collect::<Result<_, _>>()?,
            groups: groups.into_iter().map(group).collect::<Result<_, _>>()?,
        };
        each_once("policy", read.policies.iter().map(|known| known.name.as_str()))?;
        each_once("schedule", read.schedules.iter().map(|known| known.name.as_str()))?;
        each_once("group", read.groups.iter().map(|known| known.group.name.as_str()))?;
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
