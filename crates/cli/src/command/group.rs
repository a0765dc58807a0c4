//! `group`.

use stillpoint::model::group::{ResourceGroup, Selector};
use stillpoint::model::id::GroupId;

use super::policy::host;
use super::tell;
use crate::args::{GroupCommand, GroupEdit};
use crate::context::ErrorClass;
use crate::error::{CliError, Outcome};
use crate::exit::Exit;
use crate::out::Out;
use crate::pick;
use crate::place::Places;
use crate::site::{Absent, Site};
use crate::text;
use crate::view::GroupsView;

/// Shows, makes or edits groups.
pub(super) async fn run(command: GroupCommand, places: &Places, out: Out) -> Outcome<Exit> {
    let absent = match command {
        GroupCommand::Create { .. } => Absent::Make,
        _ => Absent::Refuse,
    };
    let site = Site::open(places, absent).await?;
    let groups = site.stillpoint.groups().await?;
    let policies = site.stillpoint.policies().await?;
    let view = match command {
        GroupCommand::Remove { name } => {
            let id = pick::group(&groups, &name)?.id;
            if site.default_group().await?.id == id {
                let message = "the group that came with the state file says what is protected";
                let remedy = "Keep it; it may be renamed, and backs nothing up by itself.";
                return Err(CliError::of_class(
                    "group.of_state",
                    ErrorClass::Conflict,
                    message,
                    remedy,
                ));
            }
            site.stillpoint.remove_group(id).await?;
            GroupsView::of(groups.iter().filter(|group| group.id != id), &policies)
        }
        GroupCommand::List => GroupsView::of(&groups, &policies),
        GroupCommand::Show { name } => GroupsView::of([pick::group(&groups, &name)?], &policies),
        GroupCommand::Create { name, edit } => {
            let id = GroupId(site.stillpoint.seams().ids.uuid());
            let mut group = ResourceGroup::new(id, name, Vec::new());
            change(&site, &mut group, &edit).await?;
            site.stillpoint.save_group(&group).await?;
            GroupsView::of([&group], &policies)
        }
        GroupCommand::Edit { name, edit, rename } => {
            let before = pick::group(&groups, &name)?;
            let mut group = before.clone();
            change(&site, &mut group, &edit).await?;
            if let Some(name) = rename {
                group.name = name;
            }
            if group != *before {
                group = before.edit(group)?;
            }
            site.stillpoint.save_group(&group).await?;
            let detached = before.attachments.len() - group.attachments.len();
            if detached > 0 {
                out.note(&format!(
                    "{} of policies that it has no more: detached",
                    text::count(detached, "schedule")
                ));
            }
            GroupsView::of([&group], &policies)
        }
    };
    tell(out, &view, Exit::Done, None)
}

/// Puts the settings of the command line into a group.
async fn change(site: &Site, group: &mut ResourceGroup, edit: &GroupEdit) -> Outcome<()> {
    let mut members = Vec::new();
    if edit.everything {
        members.push(Selector::Everything);
    }
    if !edit.database.is_empty() {
        let inventory = site.stillpoint.discover().await?.inventory;
        for name in &edit.database {
            members.push(Selector::Database(pick::database(&inventory, name)?));
        }
    }
    for name in &edit.host {
        members.push(Selector::Host(host(name)?));
    }
    if !members.is_empty() {
        group.members = members;
    }
    if !edit.policy.is_empty() {
        let policies = site.stillpoint.policies().await?;
        let picked = edit.policy.iter().map(|name| pick::policy(&policies, name).map(|p| p.id));
        group.policies = picked.collect::<Result<_, _>>()?;
        // What hung on a policy that the group has no more hangs on nothing.
        let policies = group.policies.clone();
        group.attachments.retain(|attached| policies.contains(&attached.policy));
    }
    if let Some(most) = edit.max_databases {
        group.batching.max_databases = most;
    }
    if let Some(most) = edit.max_volumes {
        group.batching.max_volumes = most;
    }
    if let Some(template) = &edit.naming {
        group.naming = Some(template.clone());
    }
    Ok(())
}
