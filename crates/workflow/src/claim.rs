//! Claims: what a run needs for itself while it lasts.

use std::fmt;

use serde::{Deserialize, Serialize};
use stillpoint_context::{StepName, text_id};

text_id!(
    /// A resource, as a path of names: `db/5f…/live`. A claim on a key covers everything below it.
    ///
    /// One or more segments of visible ASCII, parted by single slashes; at most 400 characters and 16 segments.
    ClaimKey,
    "claim key",
    |text| {
        if text.len() > 400 {
            Err("it is longer than 400 characters")
        } else if text.split('/').any(str::is_empty) {
            Err("it has an empty segment")
        } else if text.split('/').count() > 16 {
            Err("it has more than 16 segments")
        } else if !text.bytes().all(|b| b.is_ascii_graphic()) {
            Err("it has a character that is not visible ASCII")
        } else {
            Ok(())
        }
    }
);

impl ClaimKey {
    /// The keys above this one, outermost first: `db`, then `db/5f…`, for `db/5f…/live`.
    pub fn ancestors(&self) -> impl Iterator<Item = &str> {
        let text = self.as_str();
        text.match_indices('/').map(|(at, _)| &text[..at])
    }

    /// Whether one of the two covers the other.
    pub fn overlaps(&self, other: &Self) -> bool {
        let (short, long) = if self.as_str().len() <= other.as_str().len() {
            (self.as_str(), other.as_str())
        } else {
            (other.as_str(), self.as_str())
        };
        long.strip_prefix(short).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// How a claim shares its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClaimMode {
    /// With other shared claims.
    Shared,
    /// With nobody.
    Exclusive,
}

impl fmt::Display for ClaimMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Shared => "shared",
            Self::Exclusive => "exclusive",
        })
    }
}

/// One claim of a run: granted with all the others at admission, held to the end of the run or of a guard.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Claim {
    /// The resource.
    pub key: ClaimKey,
    /// How it is shared.
    pub mode: ClaimMode,
    /// The guard after whose exit, or the step after whose success, it is released; without one it is held until the run
    /// ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<StepName>,
}

impl Claim {
    /// Shared, to the end of the run.
    pub const fn shared(key: ClaimKey) -> Self {
        Self { key, mode: ClaimMode::Shared, until: None }
    }

    /// Exclusive, to the end of the run.
    pub const fn exclusive(key: ClaimKey) -> Self {
        Self { key, mode: ClaimMode::Exclusive, until: None }
    }

    /// The same, released as soon as this guard's exits have ended, or this step has succeeded.
    pub fn until(mut self, node: StepName) -> Self {
        self.until = Some(node);
        self
    }

    /// Whether two runs cannot hold both at once.
    pub fn conflicts_with(&self, other: &Self) -> bool {
        (self.mode == ClaimMode::Exclusive || other.mode == ClaimMode::Exclusive)
            && self.key.overlaps(&other.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_cover_what_is_below_them() {
        let key = |text: &str| ClaimKey::new(text).unwrap();
        assert!(key("db/1").overlaps(&key("db/1/live")));
        assert!(!key("db/1").overlaps(&key("db/10")));
        assert_eq!(key("a/b/c").ancestors().collect::<Vec<_>>(), ["a", "a/b"]);
        assert!(ClaimKey::new("a//b").is_err());
        let shared = Claim::shared(key("db"));
        assert!(!shared.conflicts_with(&shared));
        assert!(shared.conflicts_with(&Claim::exclusive(key("db/1"))));
    }
}
