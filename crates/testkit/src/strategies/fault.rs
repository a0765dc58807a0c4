//! Faults that are drawn.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use stillpoint_exchange::PluginErrorKind;
use stillpoint_storage::ProviderErrorKind;

use crate::fault::{Fault, Faults, Trouble};

/// One fault, of one call.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlannedFault {
    /// The call, by its name.
    pub call: &'static str,
    /// Which of them, from 1.
    pub nth: u32,
    /// Whether the call does its work first.
    pub after: bool,
    /// What goes wrong.
    pub fault: Fault,
}

/// Faults at calls that are known beforehand: shrinking leaves out what has nothing to do with a failure.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct FaultSchedule {
    /// The faults; where two are of one call, the first is taken.
    pub faults: Vec<PlannedFault>,
}

impl FaultSchedule {
    /// Makes rules of them.
    pub fn inject(&self, faults: &Faults) {
        for planned in &self.faults {
            let rule = faults.on(planned.call).nth(planned.nth);
            let rule = if planned.after { rule.after_effect() } else { rule };
            rule.inject(planned.fault.clone());
        }
    }
}

fn troubles() -> impl Strategy<Value = Trouble> {
    prop_oneof![
        Just(Trouble::io()),
        Just(Trouble::timed_out()),
        Just(Trouble::unreachable()),
        Just(Trouble::from(PluginErrorKind::FreezeTimeout)),
        Just(Trouble::from(ProviderErrorKind::NoSpace)),
    ]
}

fn faults() -> impl Strategy<Value = Fault> {
    let slow = prop_oneof![1..2000_u64, 20_000..100_000_u64].prop_map(Duration::from_millis);
    let late = prop_oneof![1..20_u64, 60..200_u64].prop_map(Duration::from_secs);
    prop_oneof![
        4 => troubles().prop_map(Fault::Fail),
        2 => slow.prop_map(Fault::Slow),
        2 => late.prop_map(Fault::LateArrival),
        1 => Just(Fault::Hang),
        1 => Just(Fault::Deaf),
        1 => Just(Fault::Panic),
    ]
}

/// Up to so many faults at these calls, each at one of the first three of its name: failing, slow, late, hanging or panicking,
/// before the effect or after it. None of them needs a world.
///
/// # Panics
/// When there are no calls.
pub fn fault_schedules(
    calls: &[&'static str],
    most: usize,
) -> impl Strategy<Value = FaultSchedule> + use<> {
    assert!(!calls.is_empty(), "faults are of calls");
    let fault = (select(calls.to_vec()), 1..=3_u32, any::<bool>(), faults()).prop_map(
        |(call, nth, after, fault)| {
            // What is late is about the effect itself.
            let after = after && !matches!(fault, Fault::LateArrival(_));
            PlannedFault { call, nth, after, fault }
        },
    );
    vec(fault, 0..=most).prop_map(|faults| FaultSchedule { faults })
}
