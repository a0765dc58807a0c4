//! `export` and `import`: policies, groups and schedules as one document.

use std::io::Read as _;
use std::path::Path;

use stillpoint::Draft;
use stillpoint::context::Seams;
use stillpoint::model::group::{Attachment, ResourceGroup};
use stillpoint::model::id::{GroupId, PolicyId, ScheduleId};
use stillpoint::model::policy::Policy;
use stillpoint::model::schedule::{Schedule, StoredSchedule};

use super::tell;
use crate::args::rules::{ExportArgs, ImportArgs};
use crate::document::{Document, GroupEntry, same};
use crate::error::{CliError, Outcome};
use crate::exit::Exit;
use crate::out::Out;
use crate::pick;
use crate::place::Places;
use crate::site::{Absent, Site};
use crate::view::{Became, ExportView, ImportView};

/// Shows the document, or writes it to a file.
pub(super) async fn export(args: &ExportArgs, places: &Places, out: Out) -> Outcome<Exit> {
    let site = Site::open(places, Absent::Refuse).await?;
    let this = &site.stillpoint;
    let (policies, schedules) = (this.policies().await?, this.schedules().await?);
    let text = Document::of(&policies, &schedules, &this.groups().await?).to_toml()?;
    if let Some(file) = &args.file {
        std::fs::write(file, &text).map_err(|error| {
            let remedy = "Name a file that can be written.";
            CliError::io("export.failed", "cannot write", file, &error, remedy)
        })?;
    }
    let view = ExportView::of(text, args.file.as_deref());
    tell(out, &view, Exit::Done, None)
}

fn read(file: &Path) -> Outcome<String> {
    let text = if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(file)
    };
    text.map_err(|error| {
        let remedy = "Name a file that can be read, or - for standard input.";
        CliError::io("import.failed", "cannot read", file, &error, remedy)
    })
}

/// Makes and changes what the document says; what it does not name stays as it is.
///
/// Everything is checked before anything is changed. Repeated after it was interrupted it goes on.
pub(super) async fn import(args: &ImportArgs, places: &Places, out: Out) -> Outcome<Exit> {
    let document = Document::of_toml(&read(&args.file)?)?;
    check(&document)?;
    let absent = if args.dry_run { Absent::Refuse } else { Absent::Make };
    let site = Site::open(places, absent).await?;
    let mut view = ImportView::new(args.dry_run);
    names_are_there(&site, &document).await?;
    let known = Known::read(&site).await?;
    let mut draft = Draft::default();
    for policy in &document.policies {
        view.policies.push(known.import_policy(&mut draft, policy)?);
    }
    for schedule in &document.schedules {
        view.schedules.push(known.import_schedule(&mut draft, schedule)?);
    }
    for entry in &document.groups {
        view.groups.push(known.import_group(&mut draft, entry)?);
    }
    if args.dry_run {
        site.stillpoint.check_draft(&draft).await?;
    } else {
        site.stillpoint.save_draft(&draft).await?;
    }
    tell(out, &view, Exit::Done, None)
}

fn check(document: &Document) -> Outcome<()> {
    for policy in &document.policies {
        policy.check()?;
    }
    for schedule in &document.schedules {
        schedule.check()?;
    }
    for entry in &document.groups {
        entry.group.check()?;
    }
    Ok(())
}

/// Whether every name that a group refers to is in the document or in the state file.
async fn names_are_there(site: &Site, document: &Document) -> Outcome<()> {
    let policies = site.stillpoint.policies().await?;
    let schedules = site.stillpoint.schedules().await?;
    for entry in &document.groups {
        let hung = entry.attachments.iter();
        for name in entry.policies.iter().chain(hung.clone().map(|(policy, _)| policy)) {
            if !document.policies.iter().any(|policy| same(&policy.name, name)) {
                pick::policy(&policies, name)?;
            }
        }
        for (_, name) in hung {
            if !document.schedules.iter().any(|schedule| same(&schedule.name, name)) {
                pick::schedule(&schedules, name)?;
            }
        }
    }
    Ok(())
}

/// What there is already.
struct Known<'s> {
    seams: &'s Seams,
    policies: Vec<Policy>,
    schedules: Vec<StoredSchedule>,
    groups: Vec<ResourceGroup>,
}

impl<'s> Known<'s> {
    async fn read(site: &'s Site) -> Outcome<Self> {
        let this = &site.stillpoint;
        let (policies, schedules) = (this.policies().await?, this.schedules().await?);
        Ok(Self { seams: this.seams(), policies, schedules, groups: this.groups().await? })
    }

    fn import_policy(&self, draft: &mut Draft, wanted: &Policy) -> Outcome<Became> {
        let mut next = wanted.clone();
        let known = self.policies.iter().find(|known| same(&known.name, &wanted.name));
        let became = if let Some(known) = known {
            (next.id, next.version) = (known.id, known.version);
            if next == *known {
                return Ok(Became::unchanged(&next.name));
            }
            next = known.edit(next)?;
            Became::changed(&next.name)
        } else {
            next.id = PolicyId(self.seams.ids.uuid());
            Became::created(&next.name)
        };
        draft.policies.push(next);
        Ok(became)
    }

    fn import_schedule(&self, draft: &mut Draft, wanted: &Schedule) -> Outcome<Became> {
        let now = self.seams.clock.now();
        let known = self.schedules.iter().find(|known| same(&known.schedule.name, &wanted.name));
        let (next, became) = match known {
            Some(known) if known.schedule == *wanted => {
                return Ok(Became::unchanged(&wanted.name));
            }
            Some(known) => (known.edit(wanted.clone(), now)?, Became::changed(&wanted.name)),
            None => {
                let id = ScheduleId(self.seams.ids.uuid());
                (StoredSchedule::new(id, now, wanted.clone()), Became::created(&wanted.name))
            }
        };
        draft.schedules.push(next);
        Ok(became)
    }

    fn import_group(&self, draft: &mut Draft, entry: &GroupEntry) -> Outcome<Became> {
        // That every name is known was looked at before.
        let policy = |name: &String| {
            let mut all = draft.policies.iter().chain(&self.policies);
            all.find(|policy| same(&policy.name, name)).map(|policy| policy.id)
        };
        let schedule = |name: &String| {
            let mut all = draft.schedules.iter().chain(&self.schedules);
            all.find(|known| same(&known.schedule.name, name)).map(|known| known.id)
        };
        let attachment = |(on, by): &(String, String)| {
            Some(Attachment { policy: policy(on)?, schedule: schedule(by)? })
        };
        let mut next: ResourceGroup = entry.group.clone();
        next.policies = entry.policies.iter().filter_map(policy).collect();
        next.attachments = entry.attachments.iter().filter_map(attachment).collect();
        let known = self.groups.iter().find(|known| same(&known.name, &next.name));
        let became = if let Some(known) = known {
            (next.id, next.version) = (known.id, known.version);
            // Where this state file's things are is not the document's to say.
            next.tags.retain(|tag, _| !tag.starts_with("stillpoint."));
            let ours = known.tags.iter().filter(|(tag, _)| tag.starts_with("stillpoint."));
            next.tags.extend(ours.map(|(tag, value)| (tag.clone(), value.clone())));
            if next == *known {
                return Ok(Became::unchanged(&next.name));
            }
            next = known.edit(next)?;
            Became::changed(&next.name)
        } else {
            next.id = GroupId(self.seams.ids.uuid());
            Became::created(&next.name)
        };
        draft.groups.push(next);
        Ok(became)
    }
}
