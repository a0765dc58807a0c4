//! A journal that fails under a run, and a lease that has run out.
//!
//! ```text
//!   append failed ─▶ nothing more is launched, guards exit, what runs gets token and grace
//!        │                    what it still says is kept, as is what it said and was not written
//!        ▼
//!   journal is back ─▶ state from the log ─▶ what was kept ─▶ the rest as after a crash ─▶ go on
//! ```
//!
//! The machine is ahead of its log then, and is thrown away: the log is the truth, read again once it can be read.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use stillpoint_context::Mono;

use tokio::sync::oneshot;

use super::attempt::Work;
use super::{ArbiterMail, Mail, Request, RunTask};
use crate::engine::RunPhase;
use crate::journal::{Journal, JournalError, Seq, open_stream, read_run};
use crate::machine::{Command, Input, RunMachine, RunState};

/// How long a journal that fails is left alone before it is tried again; twice as long each time, up to the longest.
const PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long it may fail before those who wait are told.
const PATIENCE: Duration = Duration::from_secs(10);

/// A journal that has been failing under a run, until an append succeeds again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fault {
    since: Mono,
    pause: Duration,
}

impl RunTask {
    /// Stands still until the journal is back, then goes on from it; `false` if this process has no say any more.
    pub(super) async fn stand_by(&mut self, error: JournalError) -> bool {
        tracing::warn!(run = %self.link.run, %error, "the journal failed");
        let mut kept = self.come_to_rest().await;
        let mut error = error;
        loop {
            let now = self.shared.seams.clock.mono();
            let fault = self.fault.get_or_insert(Fault { since: now, pause: PAUSE });
            let (since, pause) = (fault.since, fault.pause);
            fault.pause = (pause * 2).min(LONGEST_PAUSE);
            if now.saturating_since(since) >= PATIENCE {
                self.say_broken(error.clone(), false);
            }
            self.wait_for_mail(now + pause, &mut kept).await;
            if matches!(error, JournalError::Fenced { .. }) || !self.shared.lease.may_act() {
                // Nobody may have taken over: then the lease is ours again.
                match self.shared.lease.renew().await {
                    Ok(()) => {}
                    Err(fenced @ JournalError::Fenced { .. }) => {
                        self.say_broken(fenced, true);
                        return false;
                    }
                    Err(failed) => {
                        error = failed;
                        continue;
                    }
                }
            }
            let journal = Arc::clone(&self.shared.journal);
            match self.is_taken_by_another(&*journal).await {
                Ok(false) => {}
                Ok(true) => {
                    // First: once it is told, the handles are let go of.
                    self.link.status.send_modify(|status| {
                        status.elsewhere = true;
                        status.gone = true;
                    });
                    if let Some(tell) = self.taking.take() {
                        let _heard = tell.send(false);
                    }
                    return false;
                }
                Err(failed) => {
                    error = failed;
                    continue;
                }
            }
            match read_run(&*journal, self.link.run).await {
                Ok(Some((state, stored))) => {
                    let head = Seq(stored.len() as u64);
                    self.go_on_from(state, head, kept.drain(..).collect());
                    return true;
                }
                Ok(None) => {
                    // What was never written cannot be carried on.
                    self.say_broken(error, true);
                    return false;
                }
                Err(failed) => error = failed,
            }
        }
    }

    /// Whether another process was faster to carry on with a run that this one was about to.
    async fn is_taken_by_another(&mut self, journal: &dyn Journal) -> Result<bool, JournalError> {
        if self.taking.is_none() {
            return Ok(false);
        }
        let stream = open_stream(journal, self.link.run).await?;
        // A run that has ended, by whoever's append, is read to its end.
        Ok(stream.is_some_and(|now| now.owner != self.shared.owner && now.head != self.found))
    }

    fn say_broken(&self, error: JournalError, gone: bool) {
        self.link.status.send_modify(|status| {
            status.phase = RunPhase::Broken;
            status.broken = Some(error);
            status.gone = gone;
        });
    }

    /// Ends what is at work: guards exit, steps get token and grace. What they say meanwhile is kept.
    async fn come_to_rest(&mut self) -> VecDeque<Mail> {
        // Slots are not in the log: what was to be given back is, and what was to be asked for has not been.
        let unwritten = std::mem::take(&mut self.round).gated;
        for command in std::mem::take(&mut self.gated).into_iter().chain(unwritten) {
            match command {
                Command::ReturnSlots { .. } => self.carry_out(command),
                Command::AskSlots { node } => self.machine.leave_line(node),
                _ => {}
            }
        }
        self.timer = None;
        self.prepared.clear();
        for attempt in self.attempts.values() {
            attempt.cancel.cancel();
        }
        for lane in self.lanes.values() {
            lane.close(false);
        }
        let (mut kept, mut new) = (VecDeque::new(), VecDeque::new());
        let grace = self.shared.seams.clock.mono() + crate::plan::DEFAULT_GRACE;
        let mut timer = self.shared.seams.clock.sleep_until(grace);
        let mut waiting = true;
        let mut running: BTreeSet<u64> =
            self.attempts.values().map(|attempt| attempt.serial).collect();
        let mut open = self.lanes.len();
        while (waiting && !running.is_empty()) || open > 0 {
            tokio::select! {
                biased;
                () = self.mailbox.take(&mut new) => {
                    for mail in &new {
                        match mail {
                            Mail::Over { serial, .. } => {
                                running.remove(serial);
                            }
                            Mail::Input(Input::Closed { .. }) => open -= 1,
                            _ => {}
                        }
                    }
                    kept.append(&mut new);
                }
                () = &mut timer, if waiting => {
                    waiting = false;
                    for attempt in self.attempts.values() {
                        if running.contains(&attempt.serial) {
                            attempt.abort.abort();
                        }
                    }
                }
            }
        }
        kept
    }

    /// Asks for the claims once more: the grant may have been in a round that was never written.
    fn ask_again(&self) {
        let submitted = self.machine.state().submitted();
        let request = Request {
            run: submitted.run,
            claims: submitted.claims.clone(),
            head_start: submitted.head_start,
            mail: self.mail.clone(),
        };
        let (reply, _) = oneshot::channel();
        let _ = self.shared.arbiter.send(ArbiterMail::Adopt { requests: vec![request], reply });
    }

    /// Keeps what comes until then.
    async fn wait_for_mail(&mut self, until: Mono, kept: &mut VecDeque<Mail>) {
        let mut timer = self.shared.seams.clock.sleep_until(until);
        let mut new = VecDeque::new();
        loop {
            tokio::select! {
                biased;
                () = &mut timer => return,
                () = self.mailbox.take(&mut new) => kept.append(&mut new),
            }
        }
    }

    /// Goes on from what the log says, with what was kept.
    fn go_on_from(&mut self, state: RunState, head: Seq, kept: Vec<Mail>) {
        let now = self.shared.seams.clock.mono();
        let elapsed = now.saturating_since(state.seen());
        let fence = state.fence();
        let ended = state.end().is_some();
        let unwritten = self.unwritten.take(head);
        self.head = head;
        self.unfit = false;
        self.shadow = self.shadow.is_some().then(|| Box::new(state.clone()));
        self.machine = RunMachine::in_place_of(state, &self.machine);
        if ended {
            // The append that seemed to fail was the last one.
            self.over = true;
            return;
        }
        let from = self.round.records.len();
        // What was asked in rounds that were never written is asked again, and first what was asked before.
        let again: Vec<_> =
            self.tickets.iter().map(|(ticket, (ask, _))| ask.clone().into_input(*ticket)).collect();
        // A guard that was being prepared is prepared anew.
        let kept = kept.into_iter().filter(|mail| !matches!(mail, Mail::Lane { .. }));
        let (asked, told): (Vec<_>, Vec<_>) =
            kept.partition(|mail| matches!(mail, Mail::Ask { .. }));
        for input in unwritten {
            self.feed(now, input);
        }
        for mail in told {
            if let Some(input) = self.open(mail) {
                self.feed(now, input);
            }
        }
        if !self.machine.state().has_started() {
            self.ask_again();
        }
        // What was dropped and has not come off its thread may still act.
        let mut lingering = BTreeSet::new();
        for (node, attempt) in std::mem::take(&mut self.attempts) {
            if attempt.work == Work::Run {
                lingering.insert(node);
            }
            self.dropped.insert(attempt.serial, (node, attempt.work));
        }
        self.feed(now, Input::Recover { fence, elapsed, lingering });
        // A wish is about what is taken up by then: an exit that it resumes is begun once.
        for input in again {
            self.feed(now, input);
        }
        for mail in asked {
            if let Some(input) = self.open(mail) {
                self.feed(now, input);
            }
        }
        self.go_on(now, from);
    }
}
