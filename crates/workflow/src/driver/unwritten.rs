//! What was told of work that is over, until the journal has it.
//!
//! ```text
//!   told ─▶ fed to the machine ─▶ new ──append begins──▶ sent ──append durable──▶ forgotten
//!                                  └────── append failed ──┴──▶ told once more to the state that is read again
//! ```
//!
//! A machine that is thrown away takes along what it was told. A call that is over does not say so again, and without its word
//! its step would be in doubt, and a guard that has thawed well as lost as after a crash.

use crate::journal::Seq;
use crate::machine::Input;

/// Ends of calls and of guards that may not be in the journal yet.
#[derive(Debug, Default)]
pub(super) struct Unwritten {
    new: Vec<Input>,
    sent: Vec<Input>,
    /// Where the append that carries what was sent begins.
    at: Seq,
}

impl Unwritten {
    /// Keeps what is about to be fed, if it is the end of something.
    pub(super) fn keep(&mut self, input: &Input) {
        if input.is_end() {
            self.new.push(input.clone());
        }
    }

    /// An append begins, at this number of records; there is one at a time.
    pub(super) fn send(&mut self, at: Seq) {
        std::mem::swap(&mut self.sent, &mut self.new);
        self.at = at;
    }

    /// The append is durable, or there was nothing to append.
    pub(super) fn forget(&mut self) {
        self.sent.clear();
    }

    /// What a journal of so many records does not know, in the order in which it was told.
    pub(super) fn take(&mut self, head: Seq) -> impl Iterator<Item = Input> + use<> {
        let mut sent = std::mem::take(&mut self.sent);
        if head > self.at {
            // An append is whole or not at all: the one that seemed to fail was written.
            sent.clear();
        }
        sent.into_iter().chain(std::mem::take(&mut self.new))
    }
}
