//! Completion of sessions, and what it leads to.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use stillpoint_exchange::{Completion, PluginCaps, PluginErrorKind, PluginResult, Truncation};
use stillpoint_model::id::{CopyId, DatabaseId, SessionId};
use stillpoint_model::inventory::Generation;
use stillpoint_model::kind::BackupKind;
use stillpoint_model::verdict::Verdict;

use super::record::{Breach, CompleteRecord};
use super::session::{gone, refuse};
use super::state::{Entry, Event, Phase, SimTruncation, State};
use crate::moment::Moment;

impl State {
    pub(crate) fn complete(
        &mut self,
        entry: &Entry,
        id: SessionId,
        verdicts: &BTreeMap<CopyId, Verdict>,
        caps: &PluginCaps,
    ) -> PluginResult<BTreeMap<CopyId, Completion>> {
        let session = self.sessions.get(&id).ok_or_else(|| gone(id))?.clone();
        let copies = &session.session.copies;
        let all = |answer: Completion| -> BTreeMap<CopyId, Completion> {
            copies.iter().map(|copy| (copy.clone(), answer.clone())).collect()
        };
        match &session.phase {
            Phase::Completed(answers) => return Ok(answers.clone()),
            Phase::Lost | Phase::Aborted => return Ok(all(Completion::Lost)),
            Phase::Open if session.window.is_some() => {}
            Phase::Snapped => {}
            Phase::Open | Phase::Frozen | Phase::Snapping => {
                self.violate(entry.at, Breach::CompleteOutOfOrder, id.to_string());
                let message = "a session is completed after its freeze has ended";
                return Err(refuse(PluginErrorKind::Invalid, message));
            }
        }
        self.check_fence(entry, caps, copies)?;
        if let Some(stranger) = verdicts.keys().find(|copy| !copies.contains(copy)) {
            let message = format!("{stranger} is not in session {id}");
            return Err(refuse(PluginErrorKind::Invalid, message));
        }
        let answers = all(match &self.unclear {
            Some(reason) => Completion::Unconfirmed { reason: reason.clone() },
            None => Completion::Completed,
        });
        let kind = session.session.kind;
        if self.unclear.is_none() {
            for copy in copies {
                let good =
                    matches!(verdicts.get(copy), Some(Verdict::Good | Verdict::Unverified { .. }));
                // A dismount during the backup leaves a mere copy: nothing is truncated.
                if good && !session.breaks.contains_key(copy) {
                    let frozen = session.log_states.get(copy);
                    let has = frozen.and_then(|state| Some(state.required.as_ref()?.start().0));
                    self.note_backup(entry.at, copy.database, kind, has);
                }
            }
        }
        let window = session.window.and_then(|window| self.windows.get(window));
        let broken = copies.iter().find(|copy| {
            matches!(verdicts.get(copy), Some(Verdict::Good | Verdict::Unverified { .. }))
                && !self.held(&session, window, copy).is_yes()
        });
        if let Some(copy) = broken.filter(|_| kind.truncates()) {
            self.violate(entry.at, Breach::TruncatesThoughBroken, copy.to_string());
        }
        self.completes.push(CompleteRecord {
            session: id,
            run: entry.run,
            kind,
            at: entry.at,
            verdicts: verdicts.clone(),
            answers: answers.clone(),
        });
        self.set_phase(id, Phase::Completed(answers.clone()));
        Ok(answers)
    }

    /// A backup that has what is below a generation, or all below the checkpoint, is completed.
    pub(crate) fn note_backup(
        &mut self,
        at: Moment,
        database: DatabaseId,
        kind: BackupKind,
        has: Option<u32>,
    ) {
        let due = at.plus(self.truncation_delay);
        let of_database = self.copies.iter().filter(|(copy, _)| copy.database == database);
        let checkpoint = of_database.map(|(_, copy)| copy.writer.checkpoint(at)).min();
        let below = has.or(checkpoint).unwrap_or(0);
        let Some(known) = self.databases.get_mut(&database) else { return };
        if kind.truncates() {
            known.info.last_backups.full = Some(at.at);
            known.truncation = Some(SimTruncation { asked_at: at.at, below, result: None });
            self.at(due, Event::Truncate(database));
        } else {
            known.info.last_backups.copy = Some(at.at);
        }
    }

    /// Deletes what the backup made needless: below the checkpoint, on every copy, unless a suspended copy holds it back.
    pub(crate) fn truncate(&mut self, database: DatabaseId, at: Moment) {
        let copies: Vec<CopyId> =
            self.copies.keys().filter(|copy| copy.database == database).cloned().collect();
        let of_copy = |copy: &CopyId| self.copies.get(copy);
        let below = self.databases.get(&database).and_then(|known| known.truncation.as_ref());
        let below = below.map_or(0, |asked| asked.below);
        let blocked = copies.iter().filter_map(of_copy).any(|copy| copy.status.blocks_truncation());
        let result = if blocked {
            Err("a copy is suspended".to_owned())
        } else {
            let mut deleted = false;
            let mut oldest = u32::MAX;
            for copy in &copies {
                self.render(copy, at);
                let Some(known) = self.copies.get(copy) else { continue };
                let before = known.writer.oldest;
                let to = known.writer.checkpoint(at).min(below).max(before);
                deleted |= before < to;
                oldest = oldest.min(to);
                self.delete_logs(copy, to);
            }
            if deleted { Ok(oldest) } else { Err("no log is below the checkpoint".to_owned()) }
        };
        if let Some(truncation) =
            self.databases.get_mut(&database).and_then(|database| database.truncation.as_mut())
        {
            truncation.result = Some(result);
        }
    }

    pub(crate) fn truncation(
        &self,
        copy: &CopyId,
        since: DateTime<Utc>,
    ) -> PluginResult<Truncation> {
        let database = self.databases.get(&copy.database).ok_or_else(|| {
            refuse(PluginErrorKind::NotFound, format!("there is no database {}", copy.database))
        })?;
        let asked = database.truncation.as_ref().filter(|asked| asked.asked_at >= since);
        Ok(match asked {
            None => Truncation::NothingEligible {
                why: "no truncating backup was completed since".to_owned(),
            },
            Some(SimTruncation { result: None, .. }) => Truncation::Pending,
            Some(SimTruncation { result: Some(Ok(oldest)), .. }) => {
                Truncation::Confirmed { oldest_present: Generation(*oldest) }
            }
            Some(SimTruncation { result: Some(Err(why)), .. }) => {
                Truncation::NothingEligible { why: why.clone() }
            }
        })
    }
}
