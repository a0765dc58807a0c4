//! The embedded state store of Stillpoint in one SQLite file.

#![forbid(unsafe_code)]
