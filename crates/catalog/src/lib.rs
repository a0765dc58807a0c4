//! The catalogue of restore points: trait, types, errors and an in-memory implementation.

#![forbid(unsafe_code)]
