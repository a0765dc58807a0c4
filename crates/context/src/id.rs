//! Newtypes of the ids that travel with every call.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Text that is not a legal id of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a legal {kind}: {why}")]
#[non_exhaustive]
pub struct IdError {
    /// The kind of id that was wanted, such as `run id`.
    pub kind: &'static str,
    /// The text that was given, cut at 80 characters.
    pub text: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl IdError {
    /// An error about `text`, which was to be a `kind`.
    pub fn new(kind: &'static str, text: &str, why: &'static str) -> Self {
        Self { kind, text: text.chars().take(80).collect(), why }
    }
}

/// Makes a newtype over a UUID: `Copy`, ordered, transparent in serde, `Display` and `FromStr` that round-trip.
#[macro_export]
macro_rules! uuid_id {
    ($(#[$meta:meta])* $name:ident, $kind:literal) => {
        $(#[$meta])*
        #[derive(
            Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ::serde::Serialize, ::serde::Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub ::uuid::Uuid);

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                ::std::fmt::Display::fmt(&self.0, f)
            }
        }

        impl ::std::fmt::Debug for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl ::std::str::FromStr for $name {
            type Err = $crate::IdError;

            fn from_str(text: &str) -> ::std::result::Result<Self, Self::Err> {
                ::uuid::Uuid::parse_str(text)
                    .map(Self)
                    .map_err(|_| $crate::IdError::new($kind, text, "it is not a UUID"))
            }
        }
    };
}

/// Makes a newtype over checked text: cheap to clone, ordered, `Display`, `FromStr`, checked on deserialisation.
///
/// The third argument is a `fn(&str) -> Result<(), &'static str>` that says what is wrong with a text.
#[macro_export]
macro_rules! text_id {
    ($(#[$meta:meta])* $name:ident, $kind:literal, $check:expr) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(::std::sync::Arc<str>);

        impl $name {
            #[doc = concat!("A ", $kind, " of this text.")]
            ///
            /// # Errors
            /// `IdError` when the text breaks a rule of its kind.
            pub fn new(text: impl AsRef<str>) -> ::std::result::Result<Self, $crate::IdError> {
                let text = text.as_ref();
                let check: fn(&str) -> ::std::result::Result<(), &'static str> = $check;
                match check(text) {
                    Ok(()) => Ok(Self(::std::sync::Arc::from(text))),
                    Err(why) => Err($crate::IdError::new($kind, text, why)),
                }
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.pad(&self.0)
            }
        }

        impl ::std::fmt::Debug for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                write!(f, concat!(stringify!($name), "({:?})"), &*self.0)
            }
        }

        impl ::std::str::FromStr for $name {
            type Err = $crate::IdError;

            fn from_str(text: &str) -> ::std::result::Result<Self, Self::Err> {
                Self::new(text)
            }
        }

        impl ::serde::Serialize for $name {
            fn serialize<S: ::serde::Serializer>(&self, s: S) -> ::std::result::Result<S::Ok, S::Error> {
                s.serialize_str(&self.0)
            }
        }

        impl<'de> ::serde::Deserialize<'de> for $name {
            fn deserialize<D: ::serde::Deserializer<'de>>(d: D) -> ::std::result::Result<Self, D::Error> {
                let text = <::std::string::String as ::serde::Deserialize>::deserialize(d)?;
                Self::new(text).map_err(::serde::de::Error::custom)
            }
        }
    };
}

uuid_id!(
    /// One plan carried out by the engine.
    RunId,
    "run id"
);
uuid_id!(
    /// What somebody asked for; owns one or more runs.
    JobId,
    "job id"
);
uuid_id!(
    /// A process that holds a lease on the state store.
    ProcessId,
    "process id"
);

text_id!(
    /// The name of a step, unique in its plan: 1 to 120 characters of `A-Z a-z 0-9 . _ : / # @ -`.
    StepName,
    "step name",
    |text| {
        if text.is_empty() {
            Err("it is empty")
        } else if text.len() > 120 {
            Err("it is longer than 120 characters")
        } else if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:/#@-".contains(&b)) {
            Err("it has a character other than A-Z a-z 0-9 . _ : / # @ -")
        } else {
            Ok(())
        }
    }
);

text_id!(
    /// The key under which repeated requests or attempts are one and the same: 1 to 200 visible ASCII characters.
    IdempotencyKey,
    "idempotency key",
    |text| {
        if text.is_empty() {
            Err("it is empty")
        } else if text.len() > 200 {
            Err("it is longer than 200 characters")
        } else if !text.bytes().all(|b| b.is_ascii_graphic()) {
            Err("it has a character that is not visible ASCII")
        } else {
            Ok(())
        }
    }
);

/// A host, by its lower-case name (a fully qualified one where the network has them): 1 to 255 characters without
/// white space or control characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(Arc<str>);

impl HostId {
    /// A host of this name; upper case becomes lower case, as DNS names compare.
    ///
    /// # Errors
    /// [`IdError`] when the name is empty, longer than 255 characters, or has white space or control characters.
    pub fn new(name: impl AsRef<str>) -> Result<Self, IdError> {
        let name = name.as_ref();
        let why = if name.is_empty() {
            "it is empty"
        } else if name.len() > 255 {
            "it is longer than 255 characters"
        } else if name.chars().any(|c| c.is_whitespace() || c.is_control() || c == '/') {
            "it has white space, a slash or a control character"
        } else {
            return Ok(Self(Arc::from(name.to_lowercase())));
        };
        Err(IdError::new("host name", name, why))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostId({:?})", &*self.0)
    }
}

impl FromStr for HostId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

impl Serialize for HostId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for HostId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

/// Which try of a step this is; the first is 1. A crash counts as an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Attempt(pub u32);

impl Attempt {
    /// The first attempt.
    pub const FIRST: Self = Self(1);

    /// The one after this; stays at the maximum.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The sequence number of the grant under which a run acts; strictly increasing, so that whoever can compare refuses
/// an older one.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
#[serde(transparent)]
pub struct FencingToken(pub u64);

impl fmt::Display for FencingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl RunId {
    /// The first eight hex digits: what a person reads in a list or in a snapshot's name.
    pub fn short(&self) -> String {
        short(self.0)
    }
}

impl JobId {
    /// The first eight hex digits: what a person reads in a list.
    pub fn short(&self) -> String {
        short(self.0)
    }
}

fn short(id: Uuid) -> String {
    let mut text = id.simple().to_string();
    text.truncate(8);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_name_is_checked_at_every_door() {
        assert!(StepName::new("commit:0").is_ok());
        for bad in ["", "two words", "ä", &"x".repeat(121)] {
            assert!(StepName::new(bad).is_err(), "{bad:?}");
            assert!(bad.parse::<StepName>().is_err());
        }
    }

    #[test]
    fn ids_round_trip_through_text() {
        let run = RunId(Uuid::from_u128(7));
        assert_eq!(run.to_string().parse::<RunId>().unwrap(), run);
        assert_eq!(run.short(), "00000000");
        let error = "seven".parse::<RunId>().unwrap_err();
        assert_eq!(error.to_string(), "\"seven\" is not a legal run id: it is not a UUID");
    }

    #[test]
    fn hosts_compare_as_dns_names_do() {
        assert_eq!(
            HostId::new("EX1.Example.com").unwrap(),
            HostId::new("ex1.example.com").unwrap()
        );
        assert!(HostId::new("a b").is_err());
    }
}
