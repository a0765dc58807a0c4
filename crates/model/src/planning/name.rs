//! Names of snapshots: UTC, with the run's id, and therefore never twice the same on a volume.

use chrono::{DateTime, Utc};
use stillpoint_context::RunId;

use super::error::PlanError;

/// What snapshots are called if a group does not say.
pub const DEFAULT: &str = "stillpoint_{host}_{time}_{run}";

/// The longest name. ZFS, ONTAP and ext4 allow about 255 bytes.
pub const LONGEST: usize = 200;

/// The tokens that a template may have.
pub const TOKENS: [&str; 7] = ["group", "policy", "host", "kind", "class", "time", "run"];

/// A template of names: text and tokens in braces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Token(&'static str),
}

/// What the tokens stand for.
#[derive(Clone, Copy, Debug)]
pub struct Tokens<'a> {
    /// `{group}`.
    pub group: &'a str,
    /// `{policy}`.
    pub policy: &'a str,
    /// `{host}`.
    pub host: &'a str,
    /// `{kind}`.
    pub kind: &'a str,
    /// `{class}`.
    pub class: &'a str,
    /// `{time}`, as `20261122T010203Z`.
    pub time: DateTime<Utc>,
    /// `{run}`, 32 hexadecimal digits. Added at the end if the template has none.
    pub run: RunId,
}

impl Template {
    /// Reads a template, or takes [`DEFAULT`].
    ///
    /// # Errors
    /// `naming.template_invalid`: it is empty or too long, a brace has no partner, or a token is
    /// not known.
    pub fn of(template: Option<&str>) -> Result<Self, PlanError> {
        let text = template.unwrap_or(DEFAULT);
        let bad = |why| PlanError::Template { template: text.to_owned(), why };
        if text.is_empty() {
            return Err(bad("it is empty"));
        }
        if text.len() > LONGEST {
            return Err(bad("it is too long"));
        }
        let mut pieces = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let Some(open) = rest.find(['{', '}']) else {
                pieces.push(Piece::Text(rest.to_owned()));
                break;
            };
            if open > 0 {
                pieces.push(Piece::Text(rest[..open].to_owned()));
            }
            rest = &rest[open..];
            let inside = rest.strip_prefix('{').ok_or_else(|| bad("a '}' has no '{'"))?;
            let (name, after) = inside.split_once('}').ok_or_else(|| bad("a '{' has no '}'"))?;
            let token = TOKENS
                .into_iter()
                .find(|token| *token == name)
                .ok_or_else(|| bad("a token is not known"))?;
            pieces.push(Piece::Token(token));
            rest = after;
        }
        Ok(Self(pieces))
    }

    /// The name that these tokens give: of `[A-Za-z0-9._-]`, at most [`LONGEST`] characters, and
    /// always with the whole run id.
    pub fn name(&self, tokens: &Tokens<'_>) -> String {
        let run = tokens.run.0.simple().to_string();
        let mut before = String::new();
        let mut after = String::new();
        let mut seen = false;
        for piece in &self.0 {
            let part = if seen { &mut after } else { &mut before };
            match piece {
                Piece::Text(text) => part.push_str(text),
                Piece::Token("group") => part.push_str(tokens.group),
                Piece::Token("policy") => part.push_str(tokens.policy),
                Piece::Token("host") => part.push_str(tokens.host),
                Piece::Token("kind") => part.push_str(tokens.kind),
                Piece::Token("class") => part.push_str(tokens.class),
                Piece::Token("time") => {
                    part.push_str(&tokens.time.format("%Y%m%dT%H%M%SZ").to_string());
                }
                // The run once; what would repeat it is left out.
                Piece::Token(_) => seen = true,
            }
        }
        if !seen {
            before.push('_');
        }
        let (mut before, mut after) = (plain(&before), plain(&after));
        // The run's id is what makes the name unique: everything else gives way.
        let room = LONGEST - run.len();
        after.truncate(room);
        before.truncate(room - after.len());
        let name = format!("{before}{run}{after}");
        // A leading dot hides, a leading dash is taken for an option.
        name.trim_start_matches(['.', '-']).to_owned()
    }
}

fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' })
        .collect()
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;
    use uuid::Uuid;

    use super::*;

    fn name(template: Option<&str>) -> String {
        Template::of(template).unwrap().name(&Tokens {
            group: "Mail / alle",
            policy: "Täglich",
            host: "ex1.example.org",
            kind: "full",
            class: "daily",
            time: Utc.with_ymd_and_hms(2026, 11, 22, 1, 2, 3).unwrap(),
            run: RunId(Uuid::from_u128(0xabc)),
        })
    }

    #[test]
    fn names_are_utc_and_carry_the_run() {
        let run = "00000000000000000000000000000abc";
        assert_eq!(name(None), format!("stillpoint_ex1.example.org_20261122T010203Z_{run}"));
        assert_eq!(name(Some("{group}+{policy}")), format!("Mail---alle-T-glich_{run}"));
        assert_eq!(name(Some("-{run}-{run}x")), format!("{run}-x"));
        assert_eq!(name(Some("..{kind}.{class}")), format!("full.daily_{run}"));
    }

    #[test]
    fn the_run_survives_any_length() {
        for template in ["g".repeat(200), format!("{}{{run}}", "g".repeat(190)), {
            format!("{{run}}{}", "g".repeat(190))
        }] {
            let name = name(Some(&template));
            assert!(name.len() <= LONGEST, "{name}");
            assert!(name.contains("00000000000000000000000000000abc"), "{name}");
        }
    }

    #[test]
    fn broken_templates_are_refused() {
        for bad in ["", "{", "}", "{nope}", "a{run"] {
            assert!(Template::of(Some(bad)).is_err(), "{bad:?}");
        }
        assert!(Template::of(Some(&"x".repeat(201))).is_err());
    }
}
