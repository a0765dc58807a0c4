//! Application-consistent snapshot backup of Microsoft Exchange databases on any storage.

#![forbid(unsafe_code)]
