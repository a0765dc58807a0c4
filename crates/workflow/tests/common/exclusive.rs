//! What the arbiter wrote, read by somebody who knows nothing but what a claim is.

use std::collections::BTreeMap;

use stillpoint_workflow::*;

/// Checks in the arbiter's stream that conflicting grants never overlap, and that nothing is held at its end.
pub fn overlaps(stored: &[Stored]) {
    let mut wants = BTreeMap::new();
    let mut holds: BTreeMap<_, Vec<Claim>> = BTreeMap::new();
    for stored in stored {
        match &stored.record {
            Record::Arbiter(ArbiterRecord::Queued { run, claims, .. }) => {
                wants.insert(*run, claims.clone());
            }
            Record::Arbiter(ArbiterRecord::Granted { run }) => {
                let claims = wants[run].clone();
                for (other, held) in &holds {
                    let conflict = claims.iter().any(|c| held.iter().any(|h| c.conflicts_with(h)));
                    assert!(!conflict, "{run} was granted what {other} holds");
                }
                holds.insert(*run, claims);
            }
            Record::Arbiter(ArbiterRecord::Released { run, claims }) if claims.is_empty() => {
                holds.remove(run);
            }
            Record::Arbiter(ArbiterRecord::Released { run, claims }) => {
                if let Some(held) = holds.get_mut(run) {
                    held.retain(|claim| !claims.contains(claim));
                }
            }
            _ => {}
        }
    }
    assert!(holds.is_empty(), "still held: {holds:?}");
}
