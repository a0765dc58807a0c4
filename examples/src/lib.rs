//! Examples of Stillpoint; see the files beside this one.

#![forbid(unsafe_code)]

#[cfg(doctest)]
mod guides;
