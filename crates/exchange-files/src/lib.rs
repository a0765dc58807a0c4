//! A Stillpoint plug-in for Exchange databases at rest under a folder.

#![forbid(unsafe_code)]
