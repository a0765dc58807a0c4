//! What every call of Stillpoint carries: ids, deadline, cancellation, seams and error facts.

#![forbid(unsafe_code)]
