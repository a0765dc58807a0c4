//! Tells people by mail what became of a job.
//!
//! ```
//! use std::sync::Arc;
//!
//! use stillpoint::{Builder, NotifyOn};
//! use stillpoint_notify_smtp::{Smtp, SmtpConfig};
//!
//! fn told(builder: Builder, password: String) -> Result<Builder, Box<dyn std::error::Error>> {
//!     let config = SmtpConfig::new("mail.example.com", "Stillpoint <backup@example.com>")
//!         .with_recipient("ops@example.com")
//!         .with_login("backup", password);
//!     Ok(builder.notifier(NotifyOn::default(), Arc::new(Smtp::new(config)?)))
//! }
//! ```
//!
//! # What is sent
//!
//! ```text
//!   From, To, Date          as configured; when the job was over
//!   Subject                 backup mail: succeeded with warnings, 4 of 5 databases
//!   Message-ID              <notify.JOB@…>: the same whenever one job is told of again
//!   Auto-Submitted          auto-generated: nobody's absence answers it
//!
//!   text/plain              the same at length
//!   application/json        job-report.json: the JobReport, a versioned document
//! ```
//!
//! # How it is sent
//!
//! | [`Security`] | port | |
//! |---|---|---|
//! | `StartTls` | 587 | begins in the clear; nothing of the mail and no password is sent before TLS, and a server without TLS gets nothing |
//! | `Tls` | 465 | TLS from the first byte |
//! | `Plain` | 25 | everybody on the way can read and change it; a password is sent so to this machine only |
//!
//! Whether the server is who it says it is, the certificates decide that the system trusts, and those of
//! [`SmtpConfig::with_roots`]. What a server says in the clear after it has agreed to STARTTLS ends the connection: it would otherwise
//! be taken for something said under TLS.
//!
//! # When it is tried again
//! Where no connection came about, where one broke before the mail was complete, and where the server says that it did not take it in
//! for now (4xx): up to three times in all, as far as there is time, and only for the recipients that nobody has taken it in for. Once the
//! last byte has been sent and no answer has come it may have arrived, and is not sent again.

#![forbid(unsafe_code)]

mod config;
mod dialogue;
mod line;
mod mail;
mod smtp;

pub use config::{Security, SmtpConfig};
pub use smtp::Smtp;
