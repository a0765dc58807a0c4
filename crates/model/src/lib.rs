//! The domain of Exchange snapshot backup in types and pure functions.

#![forbid(unsafe_code)]
