//! The rules of the house, read from `cargo metadata` and the sources: who may depend on whom, what stays light, what
//! every crate carries.

// Tests may panic; their helpers are no test functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

/// What `cargo metadata` says, as far as the rules go.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_members: BTreeSet<String>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    description: Option<String>,
    license: Option<String>,
    rust_version: Option<String>,
    manifest_path: PathBuf,
    readme: Option<PathBuf>,
    /// Where it may be published: anywhere, or nowhere if that is empty.
    publish: Option<Vec<String>>,
    dependencies: Vec<Dependency>,
    features: BTreeMap<String, Vec<String>>,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    /// `dev` or `build`, or none of them.
    kind: Option<String>,
    path: Option<PathBuf>,
    optional: bool,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
    src_path: PathBuf,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Edge>,
    features: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Edge {
    pkg: String,
    dep_kinds: Vec<EdgeKind>,
}

#[derive(Deserialize)]
struct EdgeKind {
    kind: Option<String>,
}

impl Metadata {
    /// The packages of ours.
    fn ours(&self) -> Vec<&Package> {
        self.packages
            .iter()
            .filter(|package| self.workspace_members.contains(&package.id))
            .collect()
    }
}

impl Package {
    fn folder(&self) -> &Path {
        self.manifest_path.parent().unwrap()
    }
}

/// What a crate may depend on of ours: always, and behind a feature. The last row of a family is for its members.
const MAY: &[(&str, &[&str], &[&str])] = &[
    ("context", &[], &[]),
    ("model", &["context"], &[]),
    ("workflow", &["context"], &[]),
    ("ese", &[], &[]),
    ("exchange", &["context", "model"], &[]),
    ("storage", &["context", "model"], &[]),
    ("catalog", &["context", "model"], &[]),
    (
        "stillpoint",
        &["context", "model", "workflow", "exchange", "storage", "catalog"],
        &["store-sqlite", "storage-fs", "storage-btrfs", "exchange-files"],
    ),
    ("store-sqlite", &["context", "workflow", "catalog", "model"], &[]),
    (
        "testkit",
        &["context", "model", "workflow", "exchange", "storage", "catalog", "stillpoint", "ese"],
        &[],
    ),
    // A store over subvolumes is a folder store (decision 0015).
    ("storage-btrfs", &["context", "model", "storage", "storage-fs"], &[]),
    ("storage-*", &["context", "model", "storage"], &[]),
    ("notify-*", &["context", "model", "stillpoint"], &[]),
    ("exchange-*", &["context", "model", "exchange", "ese"], &[]),
];

/// Crates that third parties implement against or build on; they stay light.
const LIGHT: &[&str] = &["context", "model", "ese", "exchange", "storage", "catalog"];

/// What a light crate must not bring with it.
const HEAVY: &[&str] = &[
    "tokio",
    "tokio-util",
    "async-std",
    "smol",
    "petgraph",
    "rusqlite",
    "libsqlite3-sys",
    "redb",
    "http",
    "hyper",
    "lettre",
    "reqwest",
    "ureq",
];

/// Packages of the workspace that are no libraries for others: they lie outside `crates/`, and may use any of ours.
const TOOLS: &[&str] = &["stillpoint-benches", "stillpoint-crash", "stillpoint-examples"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The workspace as this machine builds it, features of every kind included.
fn metadata() -> Metadata {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("-vV").output().expect("rustc runs");
    let version = String::from_utf8(version.stdout).unwrap();
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).expect("a host");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let told = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--locked", "--filter-platform", host])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    serde_json::from_slice(&told.stdout).expect("what cargo metadata says can be read")
}

/// The folder under `crates/` that a package of ours has; the façade's is its own name.
fn folder(package: &str) -> Option<&str> {
    if package == "stillpoint" { Some(package) } else { package.strip_prefix("stillpoint-") }
}

/// The packages under `crates/`, by folder.
fn crates(metadata: &Metadata) -> BTreeMap<String, &Package> {
    let under = root().join("crates");
    let ours = metadata.ours();
    ours.into_iter()
        .filter(|package| package.manifest_path.starts_with(&under))
        .map(|package| {
            let folder = folder(&package.name).expect("our packages are named after us").to_owned();
            let place = package.folder().file_name().unwrap().to_str().unwrap();
            assert_eq!(folder, place, "the package is named after its folder");
            (folder, package)
        })
        .collect()
}

fn row(folder: &str) -> Option<(&'static [&'static str], &'static [&'static str])> {
    let exact = MAY.iter().find(|(name, _, _)| *name == folder);
    let family = || {
        MAY.iter().find(|(name, _, _)| {
            name.strip_suffix('*').is_some_and(|family| folder.starts_with(family))
        })
    };
    exact.or_else(family).map(|(_, always, behind)| (*always, *behind))
}

fn rust_files(below: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

#[test]
fn a_crate_depends_on_ours_only_as_the_table_says() {
    let metadata = metadata();
    let mut seen = 0;
    for (folder_name, package) in crates(&metadata) {
        if folder_name == "cli" {
            continue; // The command composes any of them.
        }
        let (always, behind) =
            row(&folder_name).unwrap_or_else(|| panic!("{folder_name} is not in the table"));
        for dependency in &package.dependencies {
            if dependency.kind.as_deref() == Some("dev") {
                continue; // Conformance suites and the like.
            }
            let Some(other) = folder(&dependency.name).filter(|_| dependency.path.is_some()) else {
                continue;
            };
            let allowed =
                always.contains(&other) || (dependency.optional && behind.contains(&other));
            assert!(allowed, "{folder_name} must not depend on {other}");
            seen += 1;
        }
    }
    assert!(seen > 10, "only {seen} edges were looked at");
}

#[test]
fn what_is_no_library_is_never_published_and_nothing_depends_on_it() {
    let metadata = metadata();
    let under = root().join("crates");
    let is_crate = |package: &&Package| package.manifest_path.starts_with(&under);
    let ours = metadata.ours();
    let tools: BTreeSet<_> = ours
        .iter()
        .copied()
        .filter(|package| !is_crate(package))
        .map(|p| p.name.as_str())
        .collect();
    assert_eq!(tools, TOOLS.iter().copied().collect(), "what lies outside crates/");
    for package in &ours {
        let is_published = package.publish.as_ref().is_none_or(|to| !to.is_empty());
        assert_eq!(is_published, is_crate(package), "publication of {}", package.name);
        for dependency in &package.dependencies {
            let name = dependency.name.as_str();
            assert!(!tools.contains(name), "{} depends on {name}", package.name);
        }
    }
}

#[test]
fn the_facade_has_no_default_features() {
    let metadata = metadata();
    let crates = crates(&metadata);
    let features = &crates["stillpoint"].features;
    assert!(features.get("default").is_none_or(Vec::is_empty), "{features:?}");
}

#[test]
fn what_third_parties_implement_against_is_light() {
    let metadata = metadata();
    let nodes = &metadata.resolve.nodes;
    let names: BTreeMap<_, _> =
        metadata.packages.iter().map(|package| (&package.id, package.name.as_str())).collect();
    let nodes: BTreeMap<_, _> = nodes.iter().map(|node| (&node.id, node)).collect();
    // `heavy` is not vacuous: the engine has a runtime and a graph.
    let closure = |start: &Package| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![&start.id]);
        while let Some(id) = open.pop() {
            if !seen.insert(names[id]) {
                continue;
            }
            let normal = nodes[id]
                .deps
                .iter()
                .filter(|dependency| dependency.dep_kinds.iter().any(|kind| kind.kind.is_none()));
            open.extend(normal.map(|dependency| &dependency.pkg));
        }
        seen
    };
    let crates = crates(&metadata);
    let engine = closure(crates["workflow"]);
    assert!(engine.contains("tokio") && engine.contains("petgraph"), "{engine:?}");
    for light in LIGHT {
        let all = closure(crates[*light]);
        let heavy: Vec<_> = HEAVY.iter().filter(|name| all.contains(**name)).collect();
        assert!(heavy.is_empty(), "{light} brings {heavy:?}");
    }
}

/// The README's one test command has to be enough: what only a feature brings is tested with it.
#[test]
fn every_feature_is_on_when_the_whole_workspace_is_tested() {
    let metadata = metadata();
    let nodes = &metadata.resolve.nodes;
    let mut features = 0;
    for package in metadata.ours() {
        let node = nodes.iter().find(|node| node.id == package.id).expect("a node");
        let off: Vec<_> =
            package.features.keys().filter(|feature| !node.features.contains(*feature)).collect();
        assert!(off.is_empty(), "{} is tested without {off:?}", package.name);
        features += package.features.len();
    }
    assert!(features > 5, "only {features} features were looked at");
}

/// The crates with one module of unsafe code, and that module; their roots deny it everywhere else.
const UNSAFE: &[(&str, &str)] = &[("stillpoint-storage-btrfs", "src/ioctl.rs")];

#[test]
fn unsafe_code_stands_in_the_modules_that_may_have_it_and_nowhere_else() {
    let metadata = metadata();
    for (package, module) in UNSAFE {
        let package = metadata.ours().into_iter().find(|p| p.name == *package);
        let folder = package.unwrap().folder().to_owned();
        let mut files = Vec::new();
        rust_files(&folder, &mut files);
        let allowing = files.iter().filter(|file| {
            let text = fs::read_to_string(file).unwrap();
            text.lines().any(|line| line.contains("allow(unsafe_code)"))
        });
        let allowing: Vec<_> = allowing.map(|file| file.strip_prefix(&folder).unwrap()).collect();
        assert_eq!(allowing, [Path::new(module)]);
        let text = fs::read_to_string(folder.join(module)).unwrap();
        assert_eq!(text.matches("unsafe {").count(), text.matches("// SAFETY:").count());
        assert_eq!(text.matches("unsafe {").count(), 1, "as little as can be");
    }
}

#[test]
fn every_crate_root_forbids_unsafe_code() {
    let metadata = metadata();
    let mut roots = 0;
    for package in metadata.ours() {
        let is_made = |kind: &String| ["lib", "bin", "proc-macro"].contains(&kind.as_str());
        let made = package.targets.iter().filter(|target| target.kind.iter().any(is_made));
        for target in made {
            let source = fs::read_to_string(&target.src_path).unwrap();
            let has_some = UNSAFE.iter().any(|(name, _)| package.name == *name);
            let wanted = if has_some { "#![deny(unsafe_code)]" } else { "#![forbid(unsafe_code)]" };
            assert!(
                source.lines().any(|line| line.trim() == wanted),
                "{} does not forbid unsafe code",
                target.src_path.display()
            );
            roots += 1;
        }
    }
    assert!(roots >= 13, "only {roots} crate roots were looked at");
}

#[test]
fn every_package_inherits_the_lints_and_says_what_it_is() {
    let metadata = metadata();
    let mut descriptions = BTreeSet::new();
    for package in metadata.ours() {
        let name = &package.name;
        let manifest = fs::read_to_string(&package.manifest_path).unwrap();
        let mut lines =
            manifest.lines().map(str::trim).skip_while(|line| *line != "[lints]").skip(1);
        assert_eq!(lines.next(), Some("workspace = true"), "{name} does not inherit the lints");
        assert_eq!(package.license.as_deref(), Some("MIT OR Apache-2.0"), "{name}");
        assert!(package.rust_version.is_some(), "{name} says no rust-version");
        let description = package.description.as_deref().unwrap_or_default();
        assert!(description.len() > 15, "{name} has no description");
        assert!(descriptions.insert(description.to_owned()), "{name} has another's description");
    }
}

#[test]
fn every_published_crate_carries_its_licences_and_a_readme() {
    let metadata = metadata();
    let root = root();
    for (folder, package) in crates(&metadata) {
        let place = package.folder();
        for licence in ["LICENSE-MIT", "LICENSE-APACHE"] {
            let own = fs::read(place.join(licence))
                .unwrap_or_else(|error| panic!("{folder} has no {licence}: {error}"));
            assert!(own == fs::read(root.join(licence)).unwrap(), "{folder} has another {licence}");
        }
        let readme = package.readme.as_ref().unwrap_or_else(|| panic!("{folder} has no readme"));
        let readme = fs::read_to_string(place.join(readme)).unwrap();
        let first = readme.lines().next().unwrap_or_default().to_lowercase();
        assert!(first.starts_with("# stillpoint"), "{folder}'s readme opens with {first:?}");
    }
}

/// The head of every item that the source makes public, up to its body: `pub fn f(a: A) -> B`, `pub field: C`, and the
/// heads of `impl`s.
fn public_heads(source: &str) -> Vec<String> {
    let mut heads = Vec::new();
    let mut lines = source.lines().map(str::trim).take_while(|line| *line != "mod tests {");
    while let Some(line) = lines.next() {
        if !(line.starts_with("pub ") || line.starts_with("impl")) {
            continue;
        }
        let mut head = line.to_owned();
        let is_field = |text: &str| {
            text.strip_prefix("pub ").is_some_and(|rest| {
                rest.split_once(':').is_some_and(|(name, _)| {
                    name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
                })
            })
        };
        while !(head.contains(['{', ';']) || is_field(&head) && head.ends_with(',')) {
            let Some(more) = lines.next() else { break };
            head.push(' ');
            head.push_str(more);
        }
        // A body on the same line is no part of it.
        heads.push(head.split(['{', ';']).next().unwrap_or_default().to_owned());
    }
    heads
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty())
}

/// The names that a source brings in from petgraph, petgraph's own among them.
fn graph_names(source: &str) -> BTreeSet<&str> {
    let mut names = BTreeSet::from(["petgraph"]);
    for used in source.split("use petgraph").skip(1) {
        let used = used.split(';').next().unwrap_or_default();
        names.extend(words(used).filter(|word| word.starts_with(char::is_uppercase)));
    }
    names
}

#[test]
fn the_graph_library_stays_out_of_the_public_api_of_the_engine() {
    let source = "use petgraph::graph::{DiGraph, NodeIndex};\npub struct P {\n    pub graph: DiGraph<(),\n    ()>,\n    at: NodeIndex,\n}\nimpl P {\n    pub fn at(\n        &self,\n    ) -> NodeIndex { self.at }\n}\n";
    let leaks = |source: &str| {
        let names = graph_names(source);
        let leaking = |head: &String| words(head).any(|word| names.contains(word));
        public_heads(source).into_iter().filter(leaking).collect::<Vec<_>>()
    };
    assert_eq!(
        leaks(source).len(),
        2,
        "the check sees a field and a function: {:?}",
        leaks(source)
    );

    let mut files = Vec::new();
    rust_files(&root().join("crates/workflow/src"), &mut files);
    assert!(!files.is_empty());
    for file in files {
        let leaks = leaks(&fs::read_to_string(&file).unwrap());
        assert!(leaks.is_empty(), "{}: {leaks:?}", file.display());
    }
}

/// The pages for people: the readmes and everything in `docs/`.
fn pages() -> Vec<PathBuf> {
    let root = root();
    let (mut open, mut pages) = (vec![root.join("docs")], vec![root.join("CHANGELOG.md")]);
    pages.extend(Some(root.join("README.md")).filter(|readme| readme.exists()));
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    pages
}

#[test]
fn links_between_pages_lead_somewhere() {
    let mut links = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") || link.starts_with('#') {
                continue;
            }
            let file = link.split('#').next().unwrap_or_default();
            let target = page.parent().unwrap().join(file);
            assert!(target.exists(), "{} links to {link}", page.display());
            links += 1;
        }
    }
    assert!(links > 3, "only {links} links were looked at");
}

#[test]
fn code_on_a_page_is_a_doc_test() {
    let guides = fs::read_to_string(root().join("examples/src/guides.rs")).unwrap();
    let mut tested = 0;
    for page in pages().iter().filter(|page| page.starts_with(root().join("docs"))) {
        let text = fs::read_to_string(page).unwrap();
        if text.lines().any(|line| line.starts_with("```rust")) {
            let name = page.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/");
            assert!(guides.contains(&format!("../../{name}\"")), "{name} is not in guides.rs");
            tested += 1;
        }
    }
    assert!(tested >= 2, "only {tested} pages have code");
}
