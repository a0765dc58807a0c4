//! A Stillpoint snapshot provider for any directory: reflink clones or full copies.

#![forbid(unsafe_code)]
