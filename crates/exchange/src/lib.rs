//! The trait that an Exchange plug-in implements, with its types, errors and mock.

#![forbid(unsafe_code)]
