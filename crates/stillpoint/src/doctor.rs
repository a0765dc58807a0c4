//! What is missing before the first backup, and what to do about it.

use std::fmt;

use serde::{Deserialize, Serialize};
use stillpoint_context::{ErrorCode, ErrorFacts};
use stillpoint_model::planning::PlanError;
use stillpoint_model::planning::freeze::coordination;
use stillpoint_model::quiesce::QuiesceLevel;

use crate::Stillpoint;
use crate::survey::{Discovery, state_volumes};

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gravity {
    /// As it should be.
    Fine,
    /// Something will not be protected, or not as well as it could be.
    Warning,
    /// Nothing can be backed up, or nothing restored, before it is mended.
    Error,
}

impl fmt::Display for Gravity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Fine => "fine",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// Something that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DoctorFinding {
    /// What was looked at, such as `database DB01`.
    pub area: String,
    /// How much it matters.
    pub gravity: Gravity,
    /// The code of what is wrong, if something is.
    pub code: Option<ErrorCode>,
    /// What was found, in one sentence.
    pub message: String,
    /// What to do about it; empty if nothing is wrong.
    pub remedy: String,
}

impl DoctorFinding {
    /// A finding of an embedder's own, to be shown among the others.
    pub fn new(area: impl Into<String>, gravity: Gravity, message: impl Into<String>) -> Self {
        let (area, message) = (area.into(), message.into());
        Self { area, gravity, code: None, message, remedy: String::new() }
    }

    /// The same with a code and what to do.
    pub fn with_remedy(mut self, code: impl Into<ErrorCode>, remedy: impl Into<String>) -> Self {
        self.code = Some(code.into());
        self.remedy = remedy.into();
        self
    }

    fn of(area: &str, error: &impl ErrorFacts, message: impl fmt::Display) -> Self {
        Self::new(area, Gravity::Error, message.to_string())
            .with_remedy(error.code(), error.remedy())
    }
}

impl Stillpoint {
    /// Looks at everything that a backup needs, without changing anything: the sides, what they can do together, the
    /// databases, the volumes, what an earlier crash left open.
    pub async fn doctor(&self) -> Vec<DoctorFinding> {
        let mut findings = self.sides();
        match self.discover().await {
            Ok(discovery) => {
                findings.extend(databases(&discovery));
                findings.extend(self.volumes(&discovery));
                findings.extend(self.state(&discovery).await);
            }
            Err(error) => findings.push(DoctorFinding::of("discovery", &error, &error)),
        }
        findings.extend(self.left_open().await);
        findings
    }

    fn sides(&self) -> Vec<DoctorFinding> {
        let services = self.services();
        let plugin = services.plugin.caps();
        let area = format!("plug-in {}", plugin.name);
        let mut findings = Vec::new();
        if !plugin.verify {
            findings
                .push(DoctorFinding::new(&area, Gravity::Warning, "it cannot verify").with_remedy(
                "exchange.unsupported",
                "Restores check nothing beyond what the storage does; use a plug-in that verifies.",
            ));
        }
        if services.plugin.restore().is_none() {
            let finding = DoctorFinding::new(&area, Gravity::Error, "it cannot restore");
            findings.push(finding.with_remedy("exchange.unsupported", "Use a plug-in that can."));
        }
        for (id, provider) in &services.providers {
            let area = format!("provider {id}");
            let caps = provider.caps();
            if provider.restore().is_none() {
                let finding = DoctorFinding::new(&area, Gravity::Error, "it cannot restore");
                findings
                    .push(finding.with_remedy("storage.unsupported", "Use a provider that can."));
            }
            if !caps.documents {
                findings.push(
                    DoctorFinding::new(&area, Gravity::Warning, "it keeps no documents").with_remedy(
                        "storage.unsupported",
                        "Guard the state file well: the catalogue cannot be rebuilt from this storage.",
                    ),
                );
            }
            if !caps.instant && plugin.quiesce > QuiesceLevel::AtRest {
                findings.push(
                    DoctorFinding::new(&area, Gravity::Error, "its snapshots are not instant")
                        .with_remedy("storage.too_slow", "Use storage with instant snapshots."),
                );
            }
        }
        if findings.is_empty() {
            findings.push(DoctorFinding::new(area, Gravity::Fine, "plug-in and providers fit"));
        }
        findings
    }

    /// Whether a freeze would block what has to be written to end it.
    async fn state(&self, discovery: &Discovery) -> Vec<DoctorFinding> {
        if !self.services().plugin.caps().quiesce.blocks_others() {
            return Vec::new();
        }
        match state_volumes(self, &self.cx()).await {
            Ok(state) => {
                let frozen = state.into_iter().filter(|on| discovery.volumes.contains_key(on));
                let told = frozen.map(|volume| PlanError::StateOnProtectedVolume { volume });
                told.map(|error| DoctorFinding::of("state", &error, &error)).collect()
            }
            Err(error) => vec![DoctorFinding::of("state", &error, &error)],
        }
    }

    fn volumes(&self, discovery: &Discovery) -> Vec<DoctorFinding> {
        let services = self.services();
        let plugin = services.plugin.caps();
        let caps =
            services.providers.iter().map(|(id, provider)| (id.clone(), provider.caps())).collect();
        let mut findings = Vec::new();
        for (volume, facts) in &discovery.volumes {
            let area = format!("volume {volume}");
            if coordination(&plugin, &caps, [volume]).is_none() {
                let message = "plug-in and provider have no way to coordinate in common";
                findings.push(DoctorFinding::new(&area, Gravity::Error, message).with_remedy(
                    "plan.no_common_coordination",
                    "Use a provider that works the way the plug-in does.",
                ));
            }
            if facts.needs > plugin.quiesce {
                let message = format!(
                    "it needs writes held to `{}`, and the plug-in holds them to `{}`",
                    facts.needs, plugin.quiesce
                );
                findings.push(DoctorFinding::new(&area, Gravity::Error, message).with_remedy(
                    "quiesce.level_too_low",
                    "Use a plug-in that holds writes further, or other storage.",
                ));
            }
            match facts.snapshots_left() {
                Some(0) => findings.push(
                    DoctorFinding::new(&area, Gravity::Error, "it has no room for a snapshot")
                        .with_remedy("storage.snapshot_limit", "Delete snapshots, or keep fewer."),
                ),
                Some(left) if left < 10 => findings.push(
                    DoctorFinding::new(
                        &area,
                        Gravity::Warning,
                        format!("{left} snapshots are left"),
                    )
                    .with_remedy("storage.snapshot_limit", "Delete snapshots, or keep fewer."),
                ),
                _ => {}
            }
        }
        findings
    }

    /// Exposures and debris of earlier runs.
    async fn left_open(&self) -> Vec<DoctorFinding> {
        let (cx, services) = (self.cx(), self.services());
        let mut findings = Vec::new();
        for (id, provider) in &services.providers {
            let area = format!("provider {id}");
            match provider.exposures(&cx).await {
                Ok(open) => findings.extend(open.into_iter().map(|exposure| {
                    let message = format!("the exposure {} is open", exposure.key);
                    DoctorFinding::new(&area, Gravity::Warning, message).with_remedy(
                        "storage.exposed",
                        "End it, unless a job of yours reads from it.",
                    )
                })),
                Err(error) => findings.push(DoctorFinding::of(&area, &error, &error)),
            }
        }
        match services.catalog.debris().await {
            Ok(debris) => findings.extend(debris.into_iter().map(|left| {
                DoctorFinding::new(left.kind.to_string(), Gravity::Warning, left.message)
                    .with_remedy("debris", "Look at it, and remove it by hand if it is there.")
            })),
            Err(error) => findings.push(DoctorFinding::of("catalogue", &error, &error)),
        }
        findings
    }
}

fn databases(discovery: &Discovery) -> Vec<DoctorFinding> {
    let inventory = &discovery.inventory;
    if inventory.databases.is_empty() {
        let finding = DoctorFinding::new("databases", Gravity::Error, "there is no database");
        let remedy = "Point the plug-in to where the databases are.";
        return vec![finding.with_remedy("discovery.empty", remedy)];
    }
    let mut findings = Vec::new();
    for database in inventory.databases.values() {
        let area = format!("database {}", database.name);
        let fit = |copy: &&stillpoint_model::inventory::DatabaseCopy| {
            copy.availability.reasons.is_empty()
                && discovery.placement.of(&copy.id).is_some_and(|lies| lies.unresolved.is_empty())
        };
        if inventory.copies_of(database.id).any(|copy| fit(&copy)) {
            findings.push(DoctorFinding::new(&area, Gravity::Fine, "it can be backed up"));
            continue;
        }
        for copy in inventory.copies_of(database.id) {
            let area = format!("{area} on {}", copy.id.host);
            findings.extend(copy.availability.reasons.iter().map(|reason| {
                DoctorFinding::new(&area, Gravity::Warning, reason.to_string())
                    .with_remedy(reason.code(), reason.remedy())
            }));
            if let Some(file) =
                discovery.placement.of(&copy.id).and_then(|lies| lies.unresolved.first())
            {
                let message = format!("no provider can snapshot {file}");
                findings.push(DoctorFinding::new(&area, Gravity::Warning, message).with_remedy(
                    "copy.unsupported_storage",
                    "Put its files on a volume of a configured provider.",
                ));
            }
        }
    }
    findings
}
