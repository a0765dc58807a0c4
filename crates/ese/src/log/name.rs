//! The names of log files. A name says where a log belongs in its stream, never what it is.

use serde::Serialize;

use crate::Generation;

/// What a file of a stream is for, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LogRole {
    /// Closed: carries its generation.
    Closed(Generation),
    /// The log being written (`E00.log`).
    Current,
    /// The next log, being prepared (`E00tmp.log`).
    Preparing,
    /// Disk space put by (`E00res00001.jrs`).
    Reserve,
    /// The checkpoint (`E00.chk`).
    Checkpoint,
}

/// The name of a file of a log stream, taken apart.
///
/// ```
/// use stillpoint_ese::{Generation, LogName, LogRole};
/// let name = LogName::parse("E0000000A1F.log").unwrap();
/// assert_eq!(name.base, "E00");
/// assert_eq!(name.role, LogRole::Closed(Generation::new(0xA1F)));
/// assert_eq!(LogName::parse("mail.log"), None);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[non_exhaustive]
pub struct LogName {
    /// Base name of the stream: three characters, in upper case.
    pub base: String,
    /// What the file is for.
    pub role: LogRole,
}

impl LogName {
    /// Takes a file name apart, whatever its case; `None` when it is no name of a stream.
    pub fn parse(file_name: &str) -> Option<Self> {
        let (stem, extension) = file_name.rsplit_once('.')?;
        if !stem.is_ascii() || stem.len() < 3 {
            return None;
        }
        let (base, rest) = stem.split_at(3);
        if !base.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return None;
        }
        let rest = rest.to_ascii_lowercase();
        let role = match extension.to_ascii_lowercase().as_str() {
            "log" | "jtx" => match rest.as_str() {
                "" => LogRole::Current,
                "tmp" => LogRole::Preparing,
                digits if matches!(digits.len(), 5 | 8) && is_hex(digits) => {
                    let number = u32::from_str_radix(digits, 16).ok()?;
                    LogRole::Closed(Generation::new(number).valid()?)
                }
                _ => return None,
            },
            "jrs" if rest.strip_prefix("res").is_some_and(is_hex) => LogRole::Reserve,
            "chk" | "jcp" if rest.is_empty() => LogRole::Checkpoint,
            _ => return None,
        };
        Some(Self { base: base.to_ascii_uppercase(), role })
    }

    /// The name of a closed log, with the eight digits that Exchange uses.
    pub fn closed(base: &str, generation: Generation) -> String {
        format!("{base}{:08X}.log", generation.number())
    }
}

fn is_hex(digits: &str) -> bool {
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl Generation {
    fn valid(self) -> Option<Self> {
        self.is_valid().then_some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_a_stream() {
        let role = |name| LogName::parse(name).map(|name| name.role);
        let closed = |number| Some(LogRole::Closed(Generation::new(number)));
        assert_eq!(role("E00.log"), Some(LogRole::Current));
        assert_eq!(role("e00tmp.LOG"), Some(LogRole::Preparing));
        assert_eq!(role("E0000003.log"), closed(3));
        assert_eq!(role("E0F000000FF.log"), closed(0xFF));
        assert_eq!(role("edb00001.jtx"), closed(1));
        assert_eq!(role("E00res00001.jrs"), Some(LogRole::Reserve));
        assert_eq!(role("E00.chk"), Some(LogRole::Checkpoint));
        for other in [
            "",
            ".log",
            "E0.log",
            "E00",
            "E000000000G.log",
            "E00000000.log",
            "éé.log",
            "E00FFFFFFFF.log",
            "setup.log",
            "E00.edb",
        ] {
            assert_eq!(role(other), None, "{other}");
        }
        assert_eq!(LogName::closed("E00", Generation::new(0x1A3)), "E00000001A3.log");
    }
}
