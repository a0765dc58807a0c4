//! What a third party needs to test a plug-in, a provider, a store or backup logic.

#![forbid(unsafe_code)]
