//! A durable DAG engine: pure state machines, a tokio driver, guard lanes, claims and a journal.

#![forbid(unsafe_code)]
