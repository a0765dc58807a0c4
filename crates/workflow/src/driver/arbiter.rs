//! The driver of the arbiter: one task for all runs of an engine.
//!
//! Other processes may write to the stream too. What they wrote is met when an append of ours conflicts, and looked for
//! while a run of ours waits: the grant may come from whoever lets go.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use stillpoint_context::{FencingToken, RunId};
use tokio::sync::{mpsc, oneshot};

use super::{Address, Core, Mail};
use crate::claim::Claim;
use crate::engine::{Notice, NoticeKind};
use crate::journal::{Append, Journal, JournalError, Seq, StreamId};
use crate::machine::{
    ArbiterCommand, ArbiterInput, ArbiterMachine, ArbiterRecord, ArbiterState, GrantPolicy,
    HeadStart, Input, PoolMachine, Record, Waiting,
};
use crate::plan::NodeNo;
use crate::pool::PoolName;

const MOST: usize = 512;

/// How long a journal that fails is left alone.
const PAUSE: Duration = Duration::from_millis(500);

/// How often a stream that others write to is looked at while a run waits.
const LOOK: Duration = Duration::from_millis(50);

/// How many records are read at once.
const PAGE: u64 = 1024;

/// A run that asks for its claims.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) run: RunId,
    pub(crate) claims: Vec<Claim>,
    pub(crate) head_start: HeadStart,
    pub(crate) mail: Address,
}

/// What comes to the arbiter.
#[derive(Debug)]
pub(crate) enum ArbiterMail {
    Ask(Request),
    /// Runs that are carried on here; answered with the tokens of those that hold their claims.
    Adopt {
        requests: Vec<Request>,
        reply: oneshot::Sender<HashMap<RunId, FencingToken>>,
    },
    /// Some claims, or everything.
    Release {
        run: RunId,
        claims: Vec<Claim>,
    },
    /// Runs that hold or want something without being open any more.
    Forget {
        runs: Vec<RunId>,
    },
    AskSlots {
        run: RunId,
        node: NodeNo,
        needs: BTreeMap<PoolName, u32>,
        mail: Address,
    },
    ReturnSlots {
        run: RunId,
        node: NodeNo,
    },
    Look {
        reply: oneshot::Sender<Lines>,
    },
}

/// Who holds what and who waits for what.
#[derive(Debug)]
pub(crate) struct Lines {
    pub(crate) waiting: Vec<Waiting>,
    pub(crate) holders: Vec<(RunId, Vec<Claim>)>,
    pub(crate) claimants: Vec<RunId>,
    pub(crate) slots: Vec<(RunId, NodeNo, Vec<PoolName>)>,
}

/// The arbiter's driver.
pub(crate) struct ArbiterTask {
    core: Arc<Core>,
    mailbox: mpsc::UnboundedReceiver<ArbiterMail>,
    machine: ArbiterMachine,
    policy: GrantPolicy,
    /// Who is to be told of a grant. A run that waits for one is told once.
    runs: HashMap<RunId, Address>,
    /// How many of them wait.
    waiting: usize,
    pools: PoolMachine,
    slots: HashMap<RunId, Address>,
}

impl ArbiterTask {
    pub(crate) fn new(
        core: Arc<Core>,
        mailbox: mpsc::UnboundedReceiver<ArbiterMail>,
        policy: GrantPolicy,
        pools: PoolMachine,
    ) -> Self {
        let machine = ArbiterMachine::new(policy);
        let (runs, slots) = (HashMap::new(), HashMap::new());
        Self { core, mailbox, machine, policy, runs, waiting: 0, pools, slots }
    }

    /// Runs until the engine and all its runs are gone.
    pub(crate) async fn run(mut self) {
        // Another engine may have written to the stream before.
        self.read_again().await;
        let mut mails = Vec::new();
        loop {
            let clock = Arc::clone(&self.core.seams.clock);
            // Sleeping is for those who wait for what other processes hold.
            let look = self.waiting > 0 && self.core.journal.is_shared();
            let timer = async {
                if look {
                    clock.sleep_until(clock.mono() + LOOK).await;
                } else {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                biased;
                count = self.mailbox.recv_many(&mut mails, MOST) => {
                    if count == 0 {
                        return;
                    }
                }
                () = timer => {
                    self.look().await;
                    continue;
                }
            }
            let mut inputs = Vec::new();
            let mut replies = Vec::new();
            let mut looks = Vec::new();
            for mail in mails.drain(..) {
                self.open(mail, &mut inputs, &mut replies, &mut looks);
            }
            self.take_round(&inputs).await;
            for (runs, reply) in replies {
                let state = self.machine.state();
                let tokens = runs.into_iter().filter_map(|run| Some((run, state.token(run)?)));
                drop(reply.send(tokens.collect()));
            }
            for reply in looks {
                drop(reply.send(self.lines()));
            }
        }
    }

    #[allow(clippy::type_complexity, reason = "what is answered after the round, and to whom")]
    fn open(
        &mut self,
        mail: ArbiterMail,
        inputs: &mut Vec<Asked>,
        replies: &mut Vec<(Vec<RunId>, oneshot::Sender<HashMap<RunId, FencingToken>>)>,
        looks: &mut Vec<oneshot::Sender<Lines>>,
    ) {
        match mail {
            ArbiterMail::Ask(Request { run, claims, head_start, mail }) => {
                self.expect(run, mail);
                inputs.push(Asked::Ask(run, claims, head_start));
            }
            ArbiterMail::Adopt { requests, reply } => {
                let runs = requests.iter().map(|request| request.run).collect();
                for Request { run, claims, head_start, mail } in requests {
                    self.expect(run, mail);
                    inputs.push(Asked::Adopt(run, claims, head_start));
                }
                replies.push((runs, reply));
            }
            ArbiterMail::Release { run, claims } => {
                if claims.is_empty() {
                    self.forget(run);
                }
                inputs.push(Asked::Release(run, claims));
            }
            ArbiterMail::Forget { runs } => {
                inputs.extend(runs.into_iter().map(|run| Asked::Release(run, Vec::new())));
            }
            ArbiterMail::AskSlots { run, node, needs, mail } => {
                self.slots.insert(run, mail);
                let served = self.pools.ask((run, node), needs);
                self.serve(served);
            }
            ArbiterMail::ReturnSlots { run, node } => {
                let served = self.pools.give_back((run, node));
                self.serve(served);
            }
            ArbiterMail::Look { reply } => looks.push(reply),
        }
    }

    fn expect(&mut self, run: RunId, mail: Address) {
        if self.runs.insert(run, mail).is_none() {
            self.waiting += 1;
        }
    }

    fn forget(&mut self, run: RunId) {
        if self.runs.remove(&run).is_some() {
            self.waiting -= 1;
        }
        if self.slots.remove(&run).is_some() {
            let served = self.pools.leave(run);
            self.serve(served);
        }
    }

    fn serve(&self, served: Vec<(RunId, NodeNo)>) {
        for (run, node) in served {
            if let Some(mail) = self.slots.get(&run) {
                let _ = mail.send(Mail::Input(Input::Slots { node }));
            }
        }
    }

    fn lines(&self) -> Lines {
        let state = self.machine.state();
        Lines {
            waiting: state.waiting(),
            holders: state.holders().map(|(run, claims)| (run, claims.to_vec())).collect(),
            claimants: state.all_runs().collect(),
            slots: self.pools.waiting().map(|((run, node), pools)| (run, node, pools)).collect(),
        }
    }

    /// Decides, appends, tells. If the append fails the state is thrown away, read again, and all is decided anew.
    async fn take_round(&mut self, inputs: &[Asked]) {
        while !inputs.is_empty() {
            let expected = Seq(self.machine.state().head());
            let (mut records, mut gated) = (Vec::new(), Vec::new());
            let now = self.core.seams.clock.boot();
            for input in inputs {
                self.machine.on(now, input.to_input(), &mut records, &mut gated);
            }
            self.machine.snapshot_if_due(&mut records);
            match self.append(expected, records).await {
                Ok(()) => return self.tell(gated),
                Err(JournalError::Conflict { .. }) => self.read_again().await,
                Err(error @ JournalError::Fenced { .. }) => {
                    // Another process decides for these runs now, and their drivers learn the same.
                    tracing::warn!(%error, "the arbiter stands still");
                    return self.read_again().await;
                }
                Err(error) => {
                    tracing::warn!(%error, "the arbiter cannot append, trying again");
                    self.pause().await;
                    self.read_again().await;
                }
            }
        }
    }

    async fn append(&self, expected: Seq, records: Vec<ArbiterRecord>) -> Result<(), JournalError> {
        if records.is_empty() {
            return Ok(());
        }
        let append = Append {
            stream: StreamId::Arbiter,
            expected,
            at: self.core.now(),
            records: records.into_iter().map(Record::Arbiter).collect(),
        };
        self.core.commit(vec![append]).await.map(drop)
    }

    async fn pause(&self) {
        let at = self.core.seams.clock.mono() + PAUSE;
        self.core.seams.clock.sleep_until(at).await;
    }

    /// Takes note of what others have written since.
    async fn look(&mut self) {
        if let Err(error) = self.catch_up().await {
            tracing::warn!(%error, "the arbiter cannot read");
            self.pause().await;
        }
    }

    /// Applies what the stream has beyond the state, and tells of grants that were not told.
    async fn catch_up(&mut self) -> Result<(), JournalError> {
        let mut granted = Vec::new();
        loop {
            let from = Seq(self.machine.state().head());
            let page = usize::try_from(PAGE).unwrap_or(usize::MAX);
            let stored = self.core.journal.read(&StreamId::Arbiter, from, page).await?;
            let Some(first) = stored.first() else { break };
            if first.seq != from {
                // What came in between is forgotten: a snapshot that came later has it.
                self.tell(granted);
                return Box::pin(self.read_all()).await;
            }
            for stored in stored {
                let Record::Arbiter(record) = stored.record else { continue };
                self.machine.apply(&record);
                if let ArbiterRecord::Granted { run } | ArbiterRecord::Regranted { run } = record {
                    let fence = FencingToken(self.machine.state().head());
                    granted.push(ArbiterCommand::Granted { run, fence });
                }
            }
        }
        self.tell(granted);
        Ok(())
    }

    /// Makes the machine anew from the journal. Grants that were written but not told are told.
    async fn read_again(&mut self) {
        loop {
            match self.read_all().await {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(%error, "the arbiter cannot read, trying again");
                    self.pause().await;
                }
            }
        }
    }

    /// From the last snapshot on, which is looked for from the end.
    async fn read_all(&mut self) -> Result<(), JournalError> {
        let (state, _) = read_snapshot(&*self.core.journal, self.policy).await?;
        // Who holds a grant that the snapshot holds was told when it came, by this process or by its recovery.
        let told: Vec<_> = state
            .claimants_with_token()
            .map(|(run, fence)| ArbiterCommand::Granted { run, fence })
            .collect();
        self.machine = ArbiterMachine::of(state, self.policy);
        self.tell(told);
        self.catch_up().await
    }

    fn tell(&mut self, commands: Vec<ArbiterCommand>) {
        for command in commands {
            match command {
                ArbiterCommand::Granted { run, fence } => {
                    if let Some(mail) = self.runs.remove(&run) {
                        self.waiting -= 1;
                        let _ = mail.send(Mail::Input(Input::Granted { fence }));
                    }
                }
                ArbiterCommand::Waits { run } => {
                    if self.core.notices.receiver_count() > 0
                        && let Some(waiting) = self.machine.state().waits_for(run)
                    {
                        self.core.notify(Notice { run, kind: NoticeKind::Waiting(waiting) });
                    }
                }
            }
        }
    }
}

/// What was asked, kept until it is written.
enum Asked {
    Ask(RunId, Vec<Claim>, HeadStart),
    Adopt(RunId, Vec<Claim>, HeadStart),
    Release(RunId, Vec<Claim>),
}

impl Asked {
    fn to_input(&self) -> ArbiterInput {
        match self {
            Self::Ask(run, claims, head_start) => {
                ArbiterInput::Ask { run: *run, claims: claims.clone(), head_start: *head_start }
            }
            Self::Adopt(run, claims, head_start) => {
                ArbiterInput::Adopt { run: *run, claims: claims.clone(), head_start: *head_start }
            }
            Self::Release(run, claims) => {
                ArbiterInput::Release { run: *run, claims: claims.clone() }
            }
        }
    }
}

/// The arbiter's state as its last snapshot has it, which is looked for from the end, and the place of that; what came after it is
/// still to be applied.
pub(crate) async fn read_snapshot(
    journal: &dyn Journal,
    policy: GrantPolicy,
) -> Result<(ArbiterState, Seq), JournalError> {
    let mut end = journal.head(&StreamId::Arbiter).await?.0;
    while end > 0 {
        let from = end.saturating_sub(PAGE);
        let count = usize::try_from(end - from).unwrap_or(usize::MAX);
        let stored = journal.read(&StreamId::Arbiter, Seq(from), count).await?;
        // What was forgotten is left out at the beginning.
        for stored in stored.into_iter().rev() {
            if let Record::Arbiter(ArbiterRecord::Snapshot(snapshot)) = stored.record {
                let state = ArbiterState::restore(stored.seq.0 + 1, &snapshot, policy);
                return Ok((state, stored.seq));
            }
        }
        end = from;
    }
    Ok((ArbiterState::default(), Seq(0)))
}
