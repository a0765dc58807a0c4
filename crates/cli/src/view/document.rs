//! What `export` and `import` show.

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

use super::Report;

/// What `export` shows.
#[derive(Debug, Serialize)]
pub(crate) struct ExportView {
    file: Option<String>,
    document: String,
}

impl ExportView {
    pub(crate) fn of(document: String, file: Option<&Path>) -> Self {
        Self { file: file.map(|file| file.display().to_string()), document }
    }
}

impl Report for ExportView {
    const SCHEMA: &'static str = "stillpoint.export/1";

    fn text(&self, text: &mut String) {
        if self.file.is_none() {
            text.push_str(&self.document);
        }
    }
}

/// What became of one thing in a document.
#[derive(Debug, Serialize)]
pub(crate) struct Became {
    name: String,
    /// `created`, `changed` or `unchanged`.
    became: &'static str,
}

impl Became {
    pub(crate) fn created(name: &str) -> Self {
        Self { name: name.to_owned(), became: "created" }
    }

    pub(crate) fn changed(name: &str) -> Self {
        Self { name: name.to_owned(), became: "changed" }
    }

    pub(crate) fn unchanged(name: &str) -> Self {
        Self { name: name.to_owned(), became: "unchanged" }
    }
}

/// What `import` shows.
#[derive(Debug, Serialize)]
pub(crate) struct ImportView {
    dry_run: bool,
    pub(crate) policies: Vec<Became>,
    pub(crate) schedules: Vec<Became>,
    pub(crate) groups: Vec<Became>,
}

impl ImportView {
    pub(crate) const fn new(dry_run: bool) -> Self {
        Self { dry_run, policies: Vec::new(), schedules: Vec::new(), groups: Vec::new() }
    }
}

impl Report for ImportView {
    const SCHEMA: &'static str = "stillpoint.import/1";

    fn text(&self, text: &mut String) {
        if self.dry_run {
            text.push_str("nothing is changed\n");
        }
        let parts =
            [("policy", &self.policies), ("schedule", &self.schedules), ("group", &self.groups)];
        for (what, all) in parts {
            for one in all {
                let _ = writeln!(text, "{what} {}: {}", one.name, one.became);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;
    use super::*;

    #[test]
    fn documents() {
        let text = "format = 1\npolicies = []\n".to_owned();
        check("export", &ExportView::of(text, None));
        let mut view = ImportView::new(true);
        view.policies.push(Became::created("daily"));
        view.schedules.push(Became::changed("nightly"));
        view.groups.push(Became::unchanged("mail"));
        check("import", &view);
    }
}
