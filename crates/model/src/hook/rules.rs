//! The rules that a hook keeps by itself.

use stillpoint_context::{Effect, ErrorClass, ErrorCode, ErrorFacts, Subject};

use super::{Hook, HookPhase, LONGEST_HOOK, VARIABLES};

/// The longest program path, argument or variable, in bytes: less than what Linux takes (128 KiB) for one of them.
const LONGEST_TEXT: usize = 32 * 1024;
/// The most arguments, and the most variables.
const MOST_WORDS: usize = 256;

/// A hook breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HookError {
    /// Its program is not below the folder of hooks.
    #[error("the program {program:?} leaves the folder of hooks: {why}")]
    PathEscape {
        /// What it names.
        program: String,
        /// How it leaves.
        why: String,
    },
    /// It would run while writes are held.
    #[error("a hook cannot run in the freeze ({program:?}, {})", phase.word())]
    PhaseForbidden {
        /// Its program.
        program: String,
        /// Its phase.
        phase: HookPhase,
    },
    /// Something else of it makes no sense.
    #[error("the hook {program:?} makes no sense: {why}")]
    Invalid {
        /// Its program.
        program: String,
        /// What.
        why: String,
    },
    /// There are too many.
    #[error("{count} hooks are more than the {most} that a policy may have")]
    TooMany {
        /// How many there are.
        count: usize,
        /// How many there may be.
        most: usize,
    },
}

impl ErrorFacts for HookError {
    fn code(&self) -> ErrorCode {
        ErrorCode::new(match self {
            Self::PathEscape { .. } => "hook.path_escape",
            Self::PhaseForbidden { .. } => "hook.phase_forbidden",
            Self::Invalid { .. } => "hook.invalid",
            Self::TooMany { .. } => "hook.too_many",
        })
    }

    fn class(&self) -> ErrorClass {
        ErrorClass::Invalid
    }

    fn effect(&self) -> Effect {
        Effect::None
    }

    fn subjects(&self) -> Vec<Subject> {
        match self {
            Self::PathEscape { program, .. }
            | Self::PhaseForbidden { program, .. }
            | Self::Invalid { program, .. } => vec![Subject::new("hook", program)],
            Self::TooMany { .. } => Vec::new(),
        }
    }

    fn remedy(&self) -> std::borrow::Cow<'static, str> {
        match self {
            Self::PathEscape { .. } => {
                "Put the program into the folder of hooks, and name it by its path from there."
            }
            Self::PhaseForbidden { .. } => {
                "Choose before_quiesce or after_thaw: what runs in the freeze makes it longer."
            }
            Self::Invalid { .. } => "Correct the hook.",
            Self::TooMany { .. } => "Let one program do what several do.",
        }
        .into()
    }
}

/// Whether a text can be the program of a hook: a path from the folder of hooks on that stays below it, on any system. What is
/// no path elsewhere is none here, since a policy may be used on another system than it was written on.
///
/// # Errors
/// [`HookError::PathEscape`], [`HookError::Invalid`].
///
/// # Complexity
/// O(length).
pub fn check_program(program: &str) -> Result<(), HookError> {
    let escapes =
        |why: &str| HookError::PathEscape { program: program.to_owned(), why: why.into() };
    let invalid = |why: &str| HookError::Invalid { program: program.to_owned(), why: why.into() };
    if program.len() > LONGEST_TEXT {
        return Err(HookError::Invalid {
            program: program.chars().take(64).collect(),
            why: format!("its path is longer than {LONGEST_TEXT} bytes"),
        });
    }
    if program.trim().is_empty() {
        return Err(invalid("it has no program"));
    }
    if program.chars().any(char::is_control) {
        return Err(invalid("its path has control characters"));
    }
    let slash = |c: char| c == '/' || c == '\\';
    if program.starts_with(slash) {
        let is_unc = program.chars().nth(1).is_some_and(slash);
        return Err(escapes(if is_unc { "it is of another machine" } else { "it is absolute" }));
    }
    // A drive (`C:tool`) or a stream of a file (`tool:x`).
    if program.contains(':') {
        return Err(escapes("it has a colon, which names a drive"));
    }
    for part in program.split(slash) {
        // Windows takes no heed of dots and blanks at the end of a name: `.. ` and `...` may be `..`.
        let is_dots = part.len() > 1 && part.chars().all(|c| c == '.' || c == ' ');
        if is_dots && part.starts_with('.') {
            return Err(escapes("it has .."));
        }
        if !is_dots && part.len() > 1 && part.ends_with(['.', ' ']) {
            return Err(invalid("a part of its path ends with a dot or a blank"));
        }
    }
    if program.ends_with(slash) || program.split(slash).next_back() == Some(".") {
        return Err(invalid("its path names a folder"));
    }
    Ok(())
}

pub(super) fn check(hook: &Hook) -> Result<(), HookError> {
    let Hook { phase, program, args, env, timeout, .. } = hook;
    check_program(program)?;
    if *phase == HookPhase::InFreeze {
        return Err(HookError::PhaseForbidden { program: program.clone(), phase: *phase });
    }
    let invalid = |why: String| Err(HookError::Invalid { program: program.clone(), why });
    if timeout.is_zero() || *timeout > LONGEST_HOOK {
        let most = LONGEST_HOOK.as_secs() / 3600;
        return invalid(format!("its time-out must be more than 0 and at most {most} h"));
    }
    if args.len() > MOST_WORDS || env.len() > MOST_WORDS {
        return invalid(format!("it has more than {MOST_WORDS} arguments or variables"));
    }
    if args.iter().any(|arg| arg.contains('\0') || arg.len() > LONGEST_TEXT) {
        return invalid(format!("an argument has a NUL or more than {LONGEST_TEXT} bytes"));
    }
    for (name, value) in env {
        let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        let goes_on = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !begins || !goes_on || name.len() > 256 {
            return invalid(format!("{name:?} is no name of a variable"));
        }
        let name = name.to_ascii_uppercase();
        if name.starts_with(VARIABLES) {
            return invalid(format!("variables that begin with {VARIABLES} are ours"));
        }
        // They make the loader run what is elsewhere.
        if name.starts_with("LD_") || name.starts_with("DYLD_") {
            return invalid(format!("{name} would run what is not in the folder of hooks"));
        }
        if value.contains('\0') || value.len() > LONGEST_TEXT {
            return invalid(format!("{name} has a NUL or more than {LONGEST_TEXT} bytes"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn code(hook: &Hook) -> ErrorCode {
        hook.check().unwrap_err().code()
    }

    #[test]
    fn a_program_stays_below_the_folder_of_hooks_on_any_system() {
        for good in ["a", "a.sh", "a/b c/d-1.2", "./a", ".hidden", "a\\b.exe", "..a", "a..b", "…"]
        {
            assert_eq!(check_program(good), Ok(()), "{good:?}");
        }
        for escapes in [
            "/bin/sh",
            "\\bin",
            "\\\\server\\share\\a",
            "//server/a",
            "C:\\a",
            "c:a",
            "a:stream",
            "..",
            "../a",
            "a/../b",
            "a\\..\\..\\b",
            "a/..",
            ".. /a",
            "a/.../b",
            ". ./a",
            "\\\\?\\C:\\a",
        ] {
            let error = check_program(escapes).unwrap_err();
            assert_eq!(error.code(), "hook.path_escape", "{escapes:?}: {error}");
        }
        let long = "x".repeat(LONGEST_TEXT + 1);
        for invalid in ["", "  ", "a\0b", "a\nb", "a/", "a/.", ".", "a./b", "a ", long.as_str()] {
            let error = check_program(invalid).unwrap_err();
            assert_eq!(error.code(), "hook.invalid", "{invalid:?}: {error}");
            assert!(error.to_string().len() < 300, "{error}");
        }
    }

    #[test]
    fn nothing_runs_in_the_freeze_whatever_it_is_called() {
        for name in [
            "in_freeze",
            "after_freeze",
            "while_frozen",
            "before_snapshot",
            "after_snapshot",
            "before_thaw",
        ] {
            let hook = format!(r#"{{"phase": "{name}", "program": "a"}}"#);
            let hook: Hook = serde_json::from_str(&hook).unwrap();
            assert_eq!(code(&hook), "hook.phase_forbidden", "{name}");
        }
        for phase in HookPhase::ALLOWED {
            assert_eq!(Hook::new(phase, "a").check(), Ok(()), "{phase}");
        }
    }

    #[test]
    fn each_rule_has_its_code() {
        let hook = || Hook::new(HookPhase::Always, "a");
        let long = "x".repeat(LONGEST_TEXT + 1);
        for (what, broken) in [
            ("no time", hook().with_timeout(Duration::ZERO)),
            ("too much time", hook().with_timeout(LONGEST_HOOK + Duration::from_secs(1))),
            ("a NUL", hook().with_args(["a\0b"])),
            ("a long word", hook().with_args([long.clone()])),
            ("many words", hook().with_args(vec!["a"; MOST_WORDS + 1])),
            ("no name", hook().with_variable("", "a")),
            ("a bad name", hook().with_variable("A=B", "a")),
            ("a name that begins with a digit", hook().with_variable("1A", "a")),
            ("a name of ours", hook().with_variable("stillpoint_job", "a")),
            ("a name of the loader's", hook().with_variable("LD_PRELOAD", "/tmp/a.so")),
            ("a NUL in a value", hook().with_variable("A", "a\0")),
        ] {
            assert_eq!(code(&broken), "hook.invalid", "{what}");
        }
        let fine = hook().with_args(["", "$(rm -rf /)", "a b"]).with_variable("A_1", "a=b\nc");
        assert_eq!(fine.check(), Ok(()));
    }

    #[test]
    fn a_stored_hook_leaves_out_what_is_usual_and_hides_its_secrets() {
        let short: Hook = serde_json::from_str(r#"{"phase": "always", "program": "a"}"#).unwrap();
        assert_eq!(short, Hook::new(HookPhase::Always, "a"));
        let hook = short.with_args(["x"]).with_variable("TOKEN", "hunter2");
        let again: Hook = serde_json::from_str(&serde_json::to_string(&hook).unwrap()).unwrap();
        assert_eq!(again, hook);
        let shown = format!("{hook:?} {hook}");
        assert!(shown.contains("TOKEN") && !shown.contains("hunter2"), "{shown}");
    }
}
