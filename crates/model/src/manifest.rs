//! Manifests: a restore point described where its data lies, so that the catalogue can be rebuilt
//! from the storage alone.

use serde::{Deserialize, Serialize};
use stillpoint_context::{Effect, ErrorClass, ErrorCode, ErrorFacts};

use crate::evidence::Document;
use crate::inventory::{Dag, Database, DatabaseCopy, Host};
use crate::point::RestorePoint;

/// The format that this version writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// The name of a manifest among the documents beside the data.
pub fn document_name(point: crate::id::PointId) -> String {
    format!("point-{point}.json")
}

/// A restore point with everything that is needed to restore it without a catalogue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Manifest {
    /// The version of this format.
    pub format: u32,
    /// What wrote it, e.g. `stillpoint 0.1.0`.
    pub written_by: String,
    /// The point as it was published.
    pub point: RestorePoint,
    /// The database as it was.
    pub database: Option<Database>,
    /// The copy as it was.
    pub copy: Option<DatabaseCopy>,
    /// Its server as it was.
    pub host: Option<Host>,
    /// Its DAG as it was.
    pub dag: Option<Dag>,
    /// Documents that a restore needs.
    pub documents: Vec<Document>,
}

/// A manifest cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// It is no manifest, or damaged.
    #[error("the manifest cannot be read")]
    Malformed(#[source] serde_json::Error),
    /// A later version wrote it.
    #[error("the manifest has format {found}; this version reads up to {newest}")]
    Newer {
        /// Its format.
        found: u32,
        /// The newest that this version reads.
        newest: u32,
    },
}

impl ErrorFacts for ManifestError {
    fn code(&self) -> ErrorCode {
        ErrorCode::new(match self {
            Self::Malformed(_) => "manifest.malformed",
            Self::Newer { .. } => "manifest.newer_format",
        })
    }

    fn class(&self) -> ErrorClass {
        match self {
            Self::Malformed(_) => ErrorClass::Integrity,
            Self::Newer { .. } => ErrorClass::Invalid,
        }
    }

    fn effect(&self) -> Effect {
        Effect::None
    }

    fn remedy(&self) -> std::borrow::Cow<'static, str> {
        match self {
            Self::Malformed(_) => "Use another copy of the manifest, or the catalogue.",
            Self::Newer { .. } => "Use the version that wrote it, or a later one.",
        }
        .into()
    }
}

impl Manifest {
    /// A manifest of the point alone.
    pub fn new(written_by: impl Into<String>, point: RestorePoint) -> Self {
        Self {
            format: FORMAT,
            written_by: written_by.into(),
            point,
            database: None,
            copy: None,
            host: None,
            dag: None,
            documents: Vec::new(),
        }
    }

    /// Its text: JSON, indented, ending in a line feed.
    ///
    /// # Errors
    /// Never in practice; a map with a key that is no text would be one.
    pub fn to_json(&self) -> Result<String, ManifestError> {
        write(self)
    }

    /// Reads what [`Manifest::to_json`] wrote, in this version or an earlier one. What is not
    /// known is ignored.
    pub fn from_json(text: &str) -> Result<Self, ManifestError> {
        read(text, FORMAT)
    }

    /// BLAKE3 of a manifest's text, as hexadecimal text.
    pub fn digest(text: &str) -> String {
        blake3::hash(text.as_bytes()).to_hex().to_string()
    }
}

/// A document beside the data as text: JSON, indented, ending in a line feed.
pub(crate) fn write(document: &impl Serialize) -> Result<String, ManifestError> {
    let mut text = serde_json::to_string_pretty(document).map_err(ManifestError::Malformed)?;
    text.push('\n');
    Ok(text)
}

/// Reads such a document, if it is of no newer format than this.
pub(crate) fn read<T: serde::de::DeserializeOwned>(
    text: &str,
    newest: u32,
) -> Result<T, ManifestError> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    // The format first: a newer one need not fit the rest.
    let Format { format: found } = serde_json::from_str(text).map_err(ManifestError::Malformed)?;
    if found > newest {
        return Err(ManifestError::Newer { found, newest });
    }
    serde_json::from_str(text).map_err(ManifestError::Malformed)
}

/// The point whose manifest has this name; none for another document.
pub fn point_of(document: &str) -> Option<crate::id::PointId> {
    document.strip_prefix("point-")?.strip_suffix(".json")?.parse().ok()
}
