//! What cases for providers need, and what their subjects are.

use stillpoint_context::BoxFuture;

use super::super::frame::{Flaw, Kit};
use super::place::{Can, ProviderFactory};
use super::trial::Trial;

/// The kit of the suite for providers.
#[derive(Debug)]
pub enum Providers {}

/// What a case for a provider cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Snapshots can be had: by commit, or by adopting what the place snaps.
    Takes,
    /// It commits.
    Commits,
    /// It adopts, and the place snaps.
    Adopts,
    /// It exposes.
    Exposes,
    /// It keeps documents.
    Documents,
    /// It restores by clone.
    Clones,
    /// It reverts.
    Reverts,
    /// There are two volumes.
    TwoVolumes,
    /// It takes at most so many volumes, and there are more.
    MostVolumes,
    /// The first volume has a snapshot limit that may be used up.
    Exhaust,
    /// The place opens a provider again.
    Reopen,
    /// The place may be written to.
    Write,
    /// The place makes foreign snapshots.
    Foreign,
    /// The place can be filled.
    Fill,
    /// The place can hold snapshots.
    Hold,
    /// The place can lock snapshots.
    Lock,
    /// The place can cut the power.
    CutPower,
    /// Time is virtual.
    Virtual,
}

impl Need {
    fn can(self) -> Option<(Can, &'static str)> {
        Some(match self {
            Self::Reopen => (Can::Reopen, "the provider cannot be opened again"),
            Self::Write => (Can::Write, "the place is not to be written to"),
            Self::Foreign => (Can::Foreign, "the place makes no foreign snapshots"),
            Self::Fill => (Can::Fill, "the place cannot be filled"),
            Self::Hold => (Can::Hold, "the place cannot hold snapshots"),
            Self::Lock => (Can::Lock, "the place cannot lock snapshots"),
            Self::CutPower => (Can::CutPower, "the place cannot cut the power"),
            Self::Virtual => (Can::Virtual, "the clock is a real one"),
            Self::Exhaust => (Can::Exhaust, "the snapshot limit is not to be used up"),
            _ => return None,
        })
    }

    /// Whether a case that needs this may do something to what is not its own.
    fn is_harmless(self) -> bool {
        !matches!(
            self,
            Self::Write
                | Self::Foreign
                | Self::Fill
                | Self::Hold
                | Self::Lock
                | Self::CutPower
                | Self::Exhaust
                | Self::Reverts
        )
    }

    fn missing(self, trial: &Trial) -> Option<&'static str> {
        if let Some((can, why)) = self.can() {
            return (!trial.can(can)).then_some(why);
        }
        let caps = &trial.caps;
        let volumes = trial.ground.volumes.len();
        let lacking = |lacks: bool, why| lacks.then_some(why);
        match self {
            Self::Takes => lacking(
                !(trial.commits() || trial.adopts() && trial.can(Can::Snap)),
                "nobody snaps what the provider would adopt",
            ),
            Self::Commits => lacking(!trial.commits(), "the provider does not commit"),
            Self::Adopts if trial.adopts() => {
                lacking(!trial.can(Can::Snap), "nobody snaps what the provider would adopt")
            }
            Self::Adopts => Some("the provider does not adopt"),
            Self::Exposes => lacking(!caps.expose, "the provider does not expose"),
            Self::Documents => lacking(!caps.documents, "the provider keeps no documents"),
            Self::Clones => lacking(
                !caps.clone || trial.ground.targets.is_none(),
                "the provider does not restore by clone, or there is no folder to restore to",
            ),
            Self::Reverts => lacking(!caps.revert, "the provider does not revert"),
            Self::TwoVolumes => lacking(
                volumes < 2 || caps.max_volumes.is_some_and(|most| most.get() < 2),
                "a set has one volume",
            ),
            Self::MostVolumes => lacking(
                caps.max_volumes.is_none_or(|most| most.get() as usize >= volumes),
                "there are no more volumes than a set may have",
            ),
            _ => None,
        }
    }
}

impl Kit for Providers {
    type Factory<'f> = dyn ProviderFactory + 'f;
    type Subject = Trial;
    type Need = Need;
    const NOUN: &'static str = "provider";

    fn open<'f>(factory: &'f Self::Factory<'f>) -> BoxFuture<'f, Result<Trial, Flaw>> {
        Box::pin(Trial::open(factory))
    }

    fn is_harmless(need: Need) -> bool {
        need.is_harmless()
    }

    fn missing(need: Need, _: &Self::Factory<'_>, trial: &Trial) -> Option<&'static str> {
        need.missing(trial)
    }

    fn tidy(trial: &Trial) -> BoxFuture<'static, Result<(), Flaw>> {
        Box::pin(trial.left().clear())
    }
}
