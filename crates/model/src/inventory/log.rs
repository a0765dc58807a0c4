//! Log streams: signature, generations, and which of them a database needs.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use stillpoint_context::IdError;

/// The number of a log file in its stream, from 1. In file names it is 8 hexadecimal digits.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Generation(pub u32);

impl Generation {
    /// The one after it.
    pub const fn next(self) -> Option<Self> {
        match self.0.checked_add(1) {
            Some(next) => Some(Self(next)),
            None => None,
        }
    }

    /// The one before it. There is none before generation 1 (and 0 is no generation).
    pub const fn previous(self) -> Option<Self> {
        if self.0 > 1 { Some(Self(self.0 - 1)) } else { None }
    }
}

impl fmt::Display for Generation {
    /// As in a log file's name: `000001A3`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}", self.0)
    }
}

impl FromStr for Generation {
    type Err = IdError;

    /// Hexadecimal, as in a log file's name.
    fn from_str(text: &str) -> Result<Self, IdError> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
        u32::from_str_radix(text, 16).ok().filter(|_| digits).map(Self).ok_or_else(|| {
            IdError::new("log generation", text, "it is not 1 to 8 hexadecimal digits")
        })
    }
}

/// Every generation of a range, in order.
pub fn generations(range: &RangeInclusive<Generation>) -> impl Iterator<Item = Generation> + use<> {
    (range.start().0..=range.end().0).map(Generation)
}

macro_rules! signature {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 28]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let bad = || IdError::new($kind, text, "it is not 56 hexadecimal digits");
                let mut bytes = [0; 28];
                crate::hex::decode(text, &mut bytes).ok_or_else(bad)?;
                Ok(Self(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

signature! {
    /// What tells one log stream from another: the 28 bytes of an ESE signature (random number,
    /// creation time, computer name) as they lie in the file. Stored as hexadecimal text.
    LogSignature, "log signature"
}
signature! {
    /// What tells one database file from another, in the same form. It survives renames and moves;
    /// clones share it.
    DatabaseSignature, "database signature"
}

/// The log stream of a copy at one time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LogState {
    /// Which stream.
    pub signature: LogSignature,
    /// The lowest generation whose file is there, if any is.
    pub oldest_present: Option<Generation>,
    /// What recovery needs of it (ESE: "log required"); none for a database shut down cleanly.
    pub required: Option<RangeInclusive<Generation>>,
    /// The highest generation that may hold changes of the database (ESE: "log committed").
    pub committed: Option<Generation>,
    /// The highest generation that is closed and will not be written again.
    pub last_closed: Option<Generation>,
    /// When that one was closed: what the closed logs reach to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed_at: Option<DateTime<Utc>>,
    /// The generation being written, if one is open.
    pub open: Option<Generation>,
}

impl LogState {
    /// The state of a stream without a single log.
    pub fn new(signature: LogSignature) -> Self {
        Self {
            signature,
            oldest_present: None,
            required: None,
            committed: None,
            last_closed: None,
            closed_at: None,
            open: None,
        }
    }

    /// The highest generation that exists, open or closed.
    pub fn newest(&self) -> Option<Generation> {
        self.open.max(self.last_closed)
    }

    /// Whether the database was shut down cleanly and needs no log.
    pub fn is_clean(&self) -> bool {
        self.required.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_reads_as_in_a_file_name() {
        assert_eq!(Generation(0x1a3).to_string(), "000001A3");
        assert_eq!("000001a3".parse(), Ok(Generation(0x1a3)));
        for bad in ["", "+1", "123456789", "xyz"] {
            assert!(bad.parse::<Generation>().is_err(), "{bad:?}");
        }
        assert_eq!(Generation(u32::MAX).next(), None);
        assert_eq!(Generation(1).previous(), None);
        let range = Generation(9)..=Generation(11);
        assert_eq!(
            generations(&range).collect::<Vec<_>>(),
            [Generation(9), Generation(10), Generation(11)]
        );
    }

    #[test]
    fn a_log_state_is_stored_readably() {
        let mut state = LogState::new(LogSignature([0xab; 28]));
        state.required = Some(Generation(3)..=Generation(5));
        state.open = Some(Generation(6));
        state.last_closed = Some(Generation(5));
        let json = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<LogState>(&json).unwrap(), state);
        assert!(json.contains(r#""required":{"start":3,"end":5}"#), "{json}");
        assert_eq!(state.newest(), Some(Generation(6)));
        assert!(serde_json::from_str::<LogSignature>("\"abc\"").is_err());
        assert!("é".repeat(28).parse::<LogSignature>().is_err());
    }
}
