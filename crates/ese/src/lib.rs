//! Reading and verifying Extensible Storage Engine files.

#![forbid(unsafe_code)]
