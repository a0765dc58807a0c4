//! `export` and `import`: policies, groups and schedules as one document.

use std::io::Read as _;
use std::path::Path;

use stillpoint::model::group::{Attachment, ResourceGroup};
use stillpoint::model::id::{GroupId, PolicyId, ScheduleId};
use stillpoint::model::policy::Policy;

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
    for policy in &document.policies {
        if let (Some(next), _) = next_policy(&site, policy).await? {
            site.stillpoint.check_policy(&next).await?;
        }
    }
    for policy in &document.policies {
        view.policies.push(import_policy(&site, policy, args.dry_run).await?);
    }
    for schedule in &document.schedules {
        view.schedules.push(import_schedule(&site, schedule, args.dry_run).await?);
    }
    for entry in &document.groups {
        view.groups.push(import_group(&site, entry, args.dry_run).await?);
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

/// A policy as it is to be, if it is not so yet, and what becomes of it by that.
async fn next_policy(site: &Site, wanted: &Policy) -> Outcome<(Option<Policy>, Became)> {
    let this = &site.stillpoint;
    let known = this.policies().await?.into_iter().find(|known| same(&known.name, &wanted.name));
    let (mut next, name) = (wanted.clone(), &wanted.name);
    let Some(known) = known else {
        next.id = PolicyId(this.seams().ids.uuid());
        return Ok((Some(next), Became::created(name)));
    };
    (next.id, next.version) = (known.id, known.version);
    if next == known {
        return Ok((None, Became::unchanged(name)));
    }
    Ok((Some(known.edit(next)?), Became::changed(name)))
}

async fn import_policy(site: &Site, wanted: &Policy, dry: bool) -> Outcome<Became> {
    let (next, became) = next_policy(site, wanted).await?;
    if let Some(next) = next.filter(|_| !dry) {
        site.stillpoint.save_policy(&next).await?;
    }
    Ok(became)
}

async fn import_schedule(
    site: &Site,
    wanted: &stillpoint::model::schedule::Schedule,
    dry: bool,
) -> Outcome<Became> {
    let this = &site.stillpoint;
    let all = this.schedules().await?;
    let known = all.into_iter().find(|known| same(&known.schedule.name, &wanted.name));
    match known {
        Some(known) if known.schedule == *wanted => Ok(Became::unchanged(&wanted.name)),
        Some(known) => {
            if !dry {
                this.change_schedule(known.id, wanted.clone()).await?;
            }
            Ok(Became::changed(&wanted.name))
        }
        None => {
            if !dry {
                this.create_schedule(wanted.clone()).await?;
            }
            Ok(Became::created(&wanted.name))
        }
    }
}

async fn import_group(site: &Site, entry: &GroupEntry, dry: bool) -> Outcome<Became> {
    let this = &site.stillpoint;
    let (policies, schedules) = (this.policies().await?, this.schedules().await?);
    // What a dry run has not made has no id yet, and is none that a known group has.
    let policy = |name: &String| {
        let known = policies.iter().find(|policy| same(&policy.name, name));
        known.map_or(PolicyId(uuid::Uuid::nil()), |policy| policy.id)
    };
    let schedule = |name: &String| {
        let known = schedules.iter().find(|known| same(&known.schedule.name, name));
        known.map_or(ScheduleId(uuid::Uuid::nil()), |known| known.id)
    };
    let mut next: ResourceGroup = entry.group.clone();
    next.policies = entry.policies.iter().map(policy).collect();
    let hung = entry.attachments.iter();
    next.attachments =
        hung.map(|(on, by)| Attachment { policy: policy(on), schedule: schedule(by) }).collect();
    let known = this.groups().await?.into_iter().find(|known| same(&known.name, &next.name));
    let became = if let Some(known) = known {
        next.id = known.id;
        // Where this state file's things are is not the document's to say.
        next.tags.retain(|tag, _| !tag.starts_with("stillpoint."));
        let ours = known.tags.iter().filter(|(tag, _)| tag.starts_with("stillpoint."));
        next.tags.extend(ours.map(|(tag, value)| (tag.clone(), value.clone())));
        if next == known {
            return Ok(Became::unchanged(&next.name));
        }
        Became::changed(&next.name)
    } else {
        next.id = GroupId(this.seams().ids.uuid());
        Became::created(&next.name)
    };
    if !dry {
        this.save_group(&next).await?;
    }
    Ok(became)
}
