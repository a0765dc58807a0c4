//! X1, X2 and X8: freeze and thaw.

use std::time::Duration;

use futures_util::FutureExt;
use stillpoint_exchange::{Held, PluginErrorKind as Kind, QuiesceLevel, SessionSpec, SessionState};

use super::super::frame::{Flaw, ensure, pause, poll_and_drop, same};
use super::place::Can;
use super::trial::{NEWEST, Trial, placed, refused};

const SHORT: Duration = Duration::from_millis(100);

fn is_frozen(state: &SessionState) -> bool {
    matches!(state, SessionState::Frozen { .. })
}

pub(super) async fn a_freeze_says_its_level_and_its_end(trial: Trial) -> Result<(), Flaw> {
    for limit in [None, Some(Duration::from_secs(3))] {
        let spec = trial.spec()?;
        trial.begin(&spec).await?;
        let frozen = trial.plugin()?.freeze(trial.cx(), spec.id, limit).await?;
        same("the level of a freeze", &frozen.level, &trial.caps.quiesce)?;
        let own = trial.caps.shortest_limit();
        let most = limit.into_iter().chain(own).min();
        let told = frozen.until.map(|until| (until - frozen.at).to_std().unwrap_or_default());
        match most {
            Some(most) => ensure(told.is_some_and(|told| told <= most), || {
                format!("a freeze of at most {most:?} says that it lasts for {told:?}")
            })?,
            None => ensure(told.is_some() || frozen.level == QuiesceLevel::AtRest, || {
                "a freeze of what is written has no limit".to_owned()
            })?,
        }
        let state = trial.state(spec.id).await?;
        same(
            "the state of a frozen session",
            &state,
            &SessionState::Frozen { until: frozen.until },
        )?;
        trial.end(&spec).await?;
    }
    Ok(())
}

pub(super) async fn writes_are_held_from_freeze_to_thaw(trial: Trial) -> Result<(), Flaw> {
    let spec = trial.spec()?;
    trial.begin(&spec).await?;
    let held = async |wanted: bool, when: &str| -> Result<(), Flaw> {
        for copy in &spec.copies {
            let held = placed("look for a freeze", trial.place.is_frozen(copy).await)?;
            ensure(held == wanted, || format!("{when} the writes of {copy} held: {held}"))?;
        }
        Ok(())
    };
    held(false, "before the freeze,").await?;
    trial.plugin()?.freeze(trial.cx(), spec.id, trial.limit()).await?;
    held(true, "after the freeze,").await?;
    trial.plugin()?.thaw(trial.cx(), spec.id).await?;
    held(false, "after the thaw,").await?;
    trial.end(&spec).await
}

pub(super) async fn a_freeze_ends_at_its_limit_by_itself(trial: Trial) -> Result<(), Flaw> {
    let spec = trial.spec()?;
    trial.begin(&spec).await?;
    trial.plugin()?.freeze(trial.cx(), spec.id, Some(SHORT)).await?;
    trial.ends_by_itself(spec.id, "a freeze with a limit", is_frozen).await?;
    trial.is_not_frozen(&spec, "after its limit").await?;
    let outcome = trial.plugin()?.evidence(trial.cx(), spec.id).await?;
    for copy in &spec.copies {
        let held = outcome.held(copy);
        ensure(held != Held::Yes, || format!("a freeze that reached its limit held for {copy}"))?;
    }
    trial.end(&spec).await
}

pub(super) async fn a_freeze_that_is_repeated_is_the_same_freeze(trial: Trial) -> Result<(), Flaw> {
    let spec = trial.spec()?;
    trial.begin(&spec).await?;
    let plugin = trial.plugin()?;
    let first = plugin.freeze(trial.cx(), spec.id, trial.limit()).await?;
    let again = plugin.freeze(trial.cx(), spec.id, trial.limit()).await?;
    same("a freeze that is repeated", &again, &first)?;
    plugin.thaw(trial.cx(), spec.id).await?;
    trial.is_not_frozen(&spec, "after the thaw").await?;
    trial.end(&spec).await
}

pub(super) async fn a_thaw_is_right_in_any_state(trial: Trial) -> Result<(), Flaw> {
    let plugin = trial.plugin()?;
    plugin.thaw(trial.cx(), trial.id()).await?;
    let spec = trial.spec()?;
    trial.begin(&spec).await?;
    plugin.thaw(trial.cx(), spec.id).await?;
    trial.end(&spec).await?;
    plugin.thaw(trial.cx(), spec.id).await?;
    let spec = trial.spec()?;
    trial.frozen(&spec).await?;
    for _ in 0..3 {
        plugin.thaw(trial.cx(), spec.id).await?;
        trial.is_not_frozen(&spec, "after the thaw").await?;
    }
    same("the state of a thawed session", &trial.state(spec.id).await?, &SessionState::Open)?;
    trial.end(&spec).await
}

/// A session of other copies, if there are any, that is open.
async fn beside(trial: &Trial, spec: &SessionSpec) -> Result<Option<SessionSpec>, Flaw> {
    let mut other = trial.spec()?;
    other.copies =
        trial.copies.iter().filter(|c| !spec.copies.contains(c)).take(1).cloned().collect();
    if other.copies.is_empty() {
        return Ok(None);
    }
    trial.begin(&other).await?;
    Ok(Some(other))
}

pub(super) async fn a_thaw_ends_no_other_freeze(trial: Trial) -> Result<(), Flaw> {
    let spec = trial.one()?;
    let other = beside(&trial, &spec).await?;
    trial.frozen(&spec).await?;
    let plugin = trial.plugin()?;
    plugin.thaw(trial.cx(), trial.id()).await?;
    trial.is_frozen(&spec, "after the thaw of a session that never was,").await?;
    if let Some(other) = other {
        plugin.thaw(trial.cx(), other.id).await?;
        trial.is_frozen(&spec, "after the thaw of another session,").await?;
        trial.end(&other).await?;
        trial.is_frozen(&spec, "after another session was aborted,").await?;
    }
    plugin.thaw(trial.cx(), spec.id).await?;
    trial.is_not_frozen(&spec, "after the thaw").await?;
    trial.end(&spec).await
}

pub(super) async fn an_old_token_thaws_nothing(trial: Trial) -> Result<(), Flaw> {
    let spec = trial.spec()?;
    let (new, old) = (trial.under(NEWEST), trial.under(NEWEST - 1));
    let plugin = trial.plugin()?;
    plugin.begin(&new, &spec).await?;
    plugin.freeze(&new, spec.id, trial.limit()).await?;
    refused("a thaw under an old token", plugin.thaw(&old, spec.id).await, "Fenced", |kind| {
        *kind == Kind::Fenced
    })?;
    trial.is_frozen(&spec, "after the thaw under an old token,").await?;
    plugin.thaw(&new, spec.id).await?;
    trial.is_not_frozen(&spec, "after the thaw").await?;
    plugin.abort(&new, spec.id).await?;
    trial.is_over(&spec, "after it was aborted").await
}

pub(super) async fn a_freeze_never_outlasts_the_thaw_of_its_session(
    trial: Trial,
) -> Result<(), Flaw> {
    for polls in 1..6 {
        let spec = trial.spec()?;
        trial.begin(&spec).await?;
        let plugin = trial.plugin()?;
        let mut freeze = plugin.freeze(trial.cx(), spec.id, trial.limit());
        let mut ended = None;
        for _ in 0..polls {
            ended = (&mut freeze).now_or_never();
            if ended.is_some() {
                break;
            }
            pause().await;
        }
        plugin.thaw(trial.cx(), spec.id).await?;
        let answer = match ended {
            Some(answer) => answer,
            None => freeze.await,
        };
        // It came before the thaw, which ended it, or after, and then it has ended itself.
        if let Err(error) = answer {
            refused::<()>(
                "a freeze that was thawed meanwhile",
                Err(error),
                "Superseded",
                |kind| *kind == Kind::Superseded,
            )?;
        }
        trial.is_not_frozen(&spec, "when freeze and thaw have ended,").await?;
        trial.end(&spec).await?;
    }
    Ok(())
}

pub(super) async fn a_freeze_that_was_dropped_is_thawed(trial: Trial) -> Result<(), Flaw> {
    for polls in 0..6 {
        let spec = trial.spec()?;
        trial.begin(&spec).await?;
        let plugin = trial.plugin()?;
        poll_and_drop(plugin.freeze(trial.cx(), spec.id, trial.limit()), polls).await;
        plugin.thaw(trial.cx(), spec.id).await?;
        // What goes on by itself finds that it was thawed.
        trial.cx().in_flight().over().await;
        if trial.can(Can::Virtual) {
            trial.wait(Duration::from_secs(5)).await;
        }
        trial.is_not_frozen(&spec, "when a dropped freeze was thawed,").await?;
        trial.end(&spec).await?;
    }
    Ok(())
}

pub(super) async fn freeze_and_thaw_start_no_task(trial: Trial) -> Result<(), Flaw> {
    let spec = trial.spec()?;
    trial.begin(&spec).await?;
    let (cx, alone) = trial.alone();
    let plugin = trial.plugin()?;
    plugin.freeze(&cx, spec.id, trial.limit()).await?;
    plugin.thaw(&cx, spec.id).await?;
    let tasks = alone.tasks();
    ensure(tasks.is_empty(), || format!("freeze and thaw depend on the tasks {tasks:?}"))?;
    trial.end(&spec).await
}

pub(super) async fn another_process_thaws(trial: Trial) -> Result<(), Flaw> {
    let spec = trial.spec()?;
    trial.frozen(&spec).await?;
    trial.reopen().await?;
    trial.plugin()?.thaw(trial.cx(), spec.id).await?;
    trial.is_not_frozen(&spec, "when another process has thawed it,").await?;
    trial.end(&spec).await
}

/// How often the files are compared within one freeze, at least.
const LOOKS: u32 = 3;
/// The longest freeze that is watched, where the plug-in has no limit of its own.
const LONGEST: Duration = Duration::from_secs(20);

pub(super) async fn nothing_changes_while_it_is_frozen(trial: Trial) -> Result<(), Flaw> {
    let most = trial.caps.shortest_limit().unwrap_or(LONGEST);
    let mut limit = SHORT.min(most);
    // A freeze that is over before its files were read a few times shows nothing: then a longer one does.
    while watch_freeze(&trial, limit).await? < LOOKS {
        ensure(limit < most, || {
            format!("the files cannot be read {LOOKS} times within a freeze of {limit:?}")
        })?;
        limit = (limit * 4).min(most);
    }
    Ok(())
}

/// Reads the files of a session over and over for as long as its freeze lasts, which ends by itself. A reading counts that lies
/// between the freeze and a look that finds it still on, so that time decides nothing: how many those were.
async fn watch_freeze(trial: &Trial, limit: Duration) -> Result<u32, Flaw> {
    let spec = trial.spec()?;
    let session = trial.begin(&spec).await?;
    let plugin = trial.plugin()?;
    let began = trial.cx().mono();
    plugin.freeze(trial.cx(), spec.id, Some(limit)).await?;
    let (mut before, mut looks) = (None, 0);
    while trial.cx().mono().saturating_since(began) <= limit {
        let mut now = Vec::new();
        for file in &session.files {
            now.push(placed("read", trial.place.read(&file.path).await)?);
        }
        if !is_frozen(&trial.state(spec.id).await?) {
            // That it is on at all, and until its limit, is other rules' affair.
            let elapsed = trial.cx().mono().saturating_since(began);
            looks = if looks == 0 && elapsed < limit / 2 { LOOKS } else { looks };
            break;
        }
        // May be called meanwhile, too.
        plugin.renew(trial.cx(), spec.id, super::trial::LEASE).await?;
        let before = before.get_or_insert_with(|| now.clone());
        for ((file, before), now) in session.files.iter().zip(before).zip(&now) {
            ensure(before == now, || format!("{} changed while it was frozen", file.path))?;
        }
        looks += 1;
        trial.wait(Duration::from_millis(1)).await;
    }
    plugin.thaw(trial.cx(), spec.id).await?;
    trial.end(&spec).await?;
    Ok(looks)
}

pub(super) async fn what_it_cannot_coordinate_is_refused_by_name(trial: Trial) -> Result<(), Flaw> {
    ensure(trial.freezes() || trial.snaps(), || "it can neither freeze nor snap".to_owned())?;
    let spec = trial.spec()?;
    trial.begin(&spec).await?;
    let plugin = trial.plugin()?;
    if !trial.freezes() {
        let frozen = plugin.freeze(trial.cx(), spec.id, None).await;
        refused("a freeze", frozen, "Unsupported(\"freeze\")", |kind| {
            *kind == Kind::Unsupported("freeze")
        })?;
    }
    if !trial.snaps() {
        let snapped = plugin.snap(trial.cx(), spec.id, &[]).await;
        refused("snapping", snapped, "Unsupported(\"snap\")", |kind| {
            *kind == Kind::Unsupported("snap")
        })?;
    }
    let has_side = plugin.restore().is_some();
    same("whether it has a side that restores", &has_side, &trial.caps.restore)?;
    same("the capabilities, asked again", &plugin.caps(), &trial.caps)?;
    trial.end(&spec).await
}

pub(super) async fn snapping_freezes_and_thaws_inside(trial: Trial) -> Result<(), Flaw> {
    let spec = trial.spec()?;
    let session = trial.begin(&spec).await?;
    let prepared = placed("prepare", trial.place.prepare(&session.files).await)?;
    let plugin = trial.plugin()?;
    let natives = plugin.snap(trial.cx(), spec.id, &prepared).await?;
    trial.is_not_frozen(&spec, "after it was snapped").await?;
    let mut made: Vec<_> = natives.iter().map(|n| (n.token.clone(), n.volume.clone())).collect();
    let mut wanted = Vec::new();
    for set in &prepared {
        wanted.extend(set.members.iter().map(|m| (set.token.clone(), m.volume.clone())));
    }
    made.sort();
    wanted.sort();
    same("the snapshots that were made, and for which set", &made, &wanted)?;
    let state = trial.state(spec.id).await?;
    same("the state of what was snapped", &state, &SessionState::Snapped(natives.clone()))?;
    let again = plugin.snap(trial.cx(), spec.id, &prepared).await?;
    same("snapping again", &again, &natives)?;
    trial.end(&spec).await
}

pub(super) async fn what_fails_to_snap_is_not_frozen(trial: Trial) -> Result<(), Flaw> {
    let spec = trial.spec()?;
    trial.begin(&spec).await?;
    if let Ok(natives) = trial.plugin()?.snap(trial.cx(), spec.id, &[]).await {
        ensure(natives.is_empty(), || format!("nothing was prepared, and snapped: {natives:?}"))?;
    }
    trial.is_not_frozen(&spec, "when snapping has failed,").await?;
    trial.end(&spec).await
}
