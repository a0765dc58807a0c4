//! The trait that a snapshot provider implements, with its types, errors and mock.

#![forbid(unsafe_code)]
