//! Carrying out many cases: how they ended, and whether that is as it was.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::carry::{Mutant, carry_out};
use super::cases::Case;

/// Carries out cases and says how they ended. Red when one of them left something that it must not.
pub(crate) fn matrix(what: &str, cases: &[Case]) {
    let only = std::env::var("FAULT_CASE").ok();
    let mut ends: BTreeMap<String, usize> = BTreeMap::new();
    let mut classes: BTreeMap<(String, String), usize> = BTreeMap::new();
    let (mut red, mut count) = (Vec::new(), 0);
    for case in cases {
        if only.as_ref().is_some_and(|only| *only != case.name) {
            continue;
        }
        count += 1;
        let outcome = carry_out(case, Mutant::None);
        let end = outcome.state.map_or_else(|| "stuck".to_owned(), |state| state.to_string());
        // What kind of case it is: without the mode and the step.
        let class = case.name.splitn(3, '/').nth(2).unwrap_or_default();
        *classes.entry((class.to_owned(), end.clone())).or_default() += 1;
        *ends.entry(end).or_default() += 1;
        let touched = outcome.touched;
        if !outcome.violations.is_empty() || !touched {
            let state = outcome.state;
            println!("RED {} ({state:?}, touched: {touched})", case.name);
            outcome.violations.iter().for_each(|found| println!("    {found}"));
            red.push(case.name.clone());
        }
    }
    println!("fault matrix, {what}: {count} cases; {ends:?}");
    assert!(
        red.is_empty(),
        "{} of {count} cases are red; replay one with FAULT_CASE='{}' cargo test -p stillpoint --test fault_matrix -- --nocapture",
        red.len(),
        red[0]
    );
    if only.is_none() {
        golden(what, &classes);
    }
}

/// Holds still how the cases of each kind end. `STILLPOINT_BLESS=1` writes the golden files anew: read the difference.
fn golden(what: &str, classes: &BTreeMap<(String, String), usize>) {
    let mut found = String::new();
    let mut last = "";
    for ((class, end), count) in classes {
        if class != last {
            writeln!(found, "{class}").unwrap();
            last = class;
        }
        writeln!(found, "    {end}: {count}").unwrap();
    }
    let name: String = what.chars().map(|c| if c.is_alphanumeric() { c } else { '_' }).collect();
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(format!("tests/golden/fault_matrix/{name}.txt"));
    if std::env::var_os("STILLPOINT_BLESS").is_some() {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, &found).unwrap();
    }
    let wanted = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(found, wanted, "{what}: cases end in another way; see {}", file.display());
}
