//! The driver of the arbiter: one task for all runs of an engine.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use stillpoint_context::{FencingToken, RunId};
use tokio::sync::{mpsc, oneshot};

use super::{Mail, Shared};
use crate::claim::{Claim, ClaimKey};
use crate::engine::{Notice, NoticeKind};
use crate::journal::{Append, Batch, JournalError, Seq, StreamId};
use crate::machine::{
    ArbiterCommand, ArbiterInput, ArbiterMachine, ArbiterRecord, GrantPolicy, HeadStart, Input,
    Record, Waiting,
};

const MOST: usize = 512;

/// How long a journal that fails is left alone.
const PAUSE: Duration = Duration::from_millis(500);

/// What comes to the arbiter.
#[derive(Debug)]
pub(crate) enum ArbiterMail {
    Ask {
        run: RunId,
        claims: Vec<Claim>,
        head_start: HeadStart,
        mail: mpsc::UnboundedSender<Mail>,
    },
    /// Some keys, or everything.
    Release {
        run: RunId,
        keys: Vec<ClaimKey>,
    },
    Waiting {
        reply: oneshot::Sender<Vec<Waiting>>,
    },
}

/// The arbiter's driver.
pub(crate) struct ArbiterTask {
    shared: Arc<Shared>,
    mailbox: mpsc::UnboundedReceiver<ArbiterMail>,
    machine: ArbiterMachine,
    policy: GrantPolicy,
    /// Who is to be told of a grant.
    runs: HashMap<RunId, mpsc::UnboundedSender<Mail>>,
}

impl ArbiterTask {
    pub(crate) fn new(
        shared: Arc<Shared>,
        mailbox: mpsc::UnboundedReceiver<ArbiterMail>,
        policy: GrantPolicy,
    ) -> Self {
        let machine = ArbiterMachine::new(policy);
        Self { shared, mailbox, machine, policy, runs: HashMap::new() }
    }

    /// Runs until the engine and all its runs are gone.
    pub(crate) async fn run(mut self) {
        // Another engine may have written to the stream before.
        self.read_again().await;
        let mut mails = Vec::new();
        while self.mailbox.recv_many(&mut mails, MOST).await > 0 {
            let mut inputs = Vec::new();
            for mail in mails.drain(..) {
                match mail {
                    ArbiterMail::Ask { run, claims, head_start, mail } => {
                        self.runs.insert(run, mail);
                        inputs.push(Asked::Ask(run, claims, head_start));
                    }
                    ArbiterMail::Release { run, keys } => {
                        if keys.is_empty() {
                            self.runs.remove(&run);
                        }
                        inputs.push(Asked::Release(run, keys));
                    }
                    ArbiterMail::Waiting { reply } => {
                        drop(reply.send(self.machine.state().waiting()));
                    }
                }
            }
            self.take_round(&inputs).await;
        }
    }

    /// Decides, appends, tells. If the append fails the state is thrown away, read again, and all is decided anew.
    async fn take_round(&mut self, inputs: &[Asked]) {
        loop {
            let expected = Seq(self.machine.state().head());
            let (mut records, mut gated) = (Vec::new(), Vec::new());
            let now = self.shared.seams.clock.mono();
            for input in inputs {
                self.machine.on(now, input.to_input(), &mut records, &mut gated);
            }
            match self.append(expected, records).await {
                Ok(()) => return self.tell(gated),
                Err(JournalError::Conflict { .. }) => self.read_again().await,
                Err(error) => {
                    tracing::warn!(%error, "the arbiter cannot append, trying again");
                    let at = self.shared.seams.clock.mono() + PAUSE;
                    self.shared.seams.clock.sleep_until(at).await;
                    self.read_again().await;
                }
            }
        }
    }

    async fn append(&self, expected: Seq, records: Vec<ArbiterRecord>) -> Result<(), JournalError> {
        if records.is_empty() {
            return Ok(());
        }
        let batch = Batch {
            owner: self.shared.owner,
            epoch: self.shared.epoch,
            appends: vec![Append {
                stream: StreamId::Arbiter,
                expected,
                at: self.shared.now(),
                records: records.into_iter().map(Record::Arbiter).collect(),
            }],
            facts: Vec::new(),
        };
        self.shared.journal.commit(batch).await.map(drop)
    }

    /// Makes the machine anew from the journal. Grants that were written but not told are told.
    async fn read_again(&mut self) {
        'again: loop {
            let mut machine = ArbiterMachine::new(self.policy);
            let mut granted = Vec::new();
            loop {
                let from = Seq(machine.state().head());
                let read = self.shared.journal.read(&StreamId::Arbiter, from, 1024).await;
                let stored = match read {
                    Ok(stored) if stored.is_empty() => break,
                    Ok(stored) => stored,
                    Err(error) => {
                        tracing::warn!(%error, "the arbiter cannot read, trying again");
                        let at = self.shared.seams.clock.mono() + PAUSE;
                        self.shared.seams.clock.sleep_until(at).await;
                        continue 'again;
                    }
                };
                for stored in stored {
                    if let Record::Arbiter(record) = stored.record {
                        machine.apply(&record);
                        if let ArbiterRecord::Granted { run } = record {
                            let fence = FencingToken(machine.state().head());
                            granted.push(ArbiterCommand::Granted { run, fence });
                        }
                    }
                }
            }
            self.machine = machine;
            return self.tell(granted);
        }
    }

    fn tell(&self, commands: Vec<ArbiterCommand>) {
        let waiting = || self.machine.state().waiting();
        for command in commands {
            match command {
                ArbiterCommand::Granted { run, fence } => {
                    if let Some(mail) = self.runs.get(&run) {
                        let _ = mail.send(Mail::Input(Input::Granted { fence }));
                    }
                }
                ArbiterCommand::Waits { run } => {
                    if self.shared.notices.receiver_count() > 0
                        && let Some(waiting) = waiting().into_iter().find(|w| w.run == run)
                    {
                        self.shared.notify(Notice { run, kind: NoticeKind::Waiting(waiting) });
                    }
                }
            }
        }
    }
}

/// What was asked, kept until it is written.
enum Asked {
    Ask(RunId, Vec<Claim>, HeadStart),
    Release(RunId, Vec<ClaimKey>),
}

impl Asked {
    fn to_input(&self) -> ArbiterInput {
        match self {
            Self::Ask(run, claims, head_start) => {
                ArbiterInput::Ask { run: *run, claims: claims.clone(), head_start: *head_start }
            }
            Self::Release(run, keys) => ArbiterInput::Release { run: *run, keys: keys.clone() },
        }
    }
}
