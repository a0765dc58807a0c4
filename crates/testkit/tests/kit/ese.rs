//! What a checker finds in damaged files is what was done to them, no less and no more.

use stillpoint_ese::{
    Finding, Generation, LogMember, PageSize, ScanOptions, StreamFinding, check_stream,
    scan_database, scan_log,
    write::{DatabaseSpec, LogStreamSpec, NamedLog},
};
use stillpoint_testkit::ese::{DatabaseDamager, Done, StreamDamager};

fn database(spec: &DatabaseSpec) -> Vec<u8> {
    let mut file = Vec::new();
    spec.write_to(&mut file).unwrap();
    file
}

fn findings(file: &[u8]) -> Vec<Finding> {
    let report = scan_database(file, &ScanOptions::default(), &mut ()).unwrap();
    assert_eq!(report.findings.omitted, 0);
    report.findings.list
}

/// Every finding has one cause among what was done, and everything that was done was found.
fn compare(done: &[Done], found: &[Finding], context: &str) {
    for finding in found {
        let causes = done.iter().filter(|done| done.explains(finding)).count();
        assert_eq!(causes, 1, "{context}: {finding}\n{done:#?}");
    }
    for done in done {
        let found = found.iter().filter(|finding| done.explains(finding)).count();
        assert!(found >= 1, "{context}: not found: {done:?}");
    }
}

#[test]
fn any_damage_to_a_database_is_found_as_what_it_is() {
    for size in PageSize::ALL {
        for old_format in [false, true] {
            let spec = DatabaseSpec::new(3)
                .with_page_size(size)
                .with_pages(80)
                .with_uninitialised(20)
                .with_old_format(old_format);
            let whole = database(&spec);
            assert_eq!(findings(&whole), []);
            for seed in 0..35 {
                let mut file = whole.clone();
                let mut damager = DatabaseDamager::new(seed, &mut file).unwrap();
                let mut done: Vec<Done> =
                    (0..seed % 9).map(|_| damager.any().expect("a fresh page")).collect();
                if seed % 5 == 0 {
                    done.extend(damager.swap_pages().expect("two fresh pages"));
                }
                if seed % 7 == 0 {
                    done.push(damager.cut());
                }
                compare(&done, &findings(&file), &format!("{size} seed {seed}"));
            }
        }
    }
}

#[test]
fn the_same_seed_does_the_same() {
    let whole = database(&DatabaseSpec::new(3).with_page_size(PageSize::KIB_2).with_pages(30));
    let spoil = |seed| {
        let mut file = whole.clone();
        let mut damager = DatabaseDamager::new(seed, &mut file).unwrap();
        let done: Vec<_> = (0..6).map(|_| damager.any()).collect();
        (file, done)
    };
    assert_eq!(spoil(5), spoil(5));
    assert_ne!(spoil(5).1, spoil(6).1);
    assert!(DatabaseDamager::new(1, &mut vec![0; 9000]).is_none());
    // It ends when every page has been touched.
    let mut file = whole;
    let mut damager = DatabaseDamager::new(1, &mut file).unwrap();
    let bits = std::iter::from_fn(|| damager.turn_bit()).count();
    assert_eq!(bits, 30 - 30 / 4);
}

fn stream() -> LogStreamSpec {
    LogStreamSpec::new(5, Generation::new(3), Generation::new(9)).with_segments(12)
}

/// What is found in each log, and between them.
fn look(logs: &[NamedLog]) -> (Vec<(Generation, Finding)>, Vec<StreamFinding>) {
    let mut within = Vec::new();
    let mut members = Vec::new();
    for log in logs {
        let report = scan_log(&log.bytes, &ScanOptions::default(), &mut ()).unwrap();
        members.push(LogMember::from_report(&log.name, &report).unwrap());
        within.extend(report.findings.list.into_iter().map(|finding| (log.generation, finding)));
    }
    (within, check_stream(&stream().signature(), &members))
}

#[test]
fn any_damage_to_a_stream_is_found_as_what_it_is() {
    let act = |number: usize, damager: &mut StreamDamager<'_>, log: Generation| match number {
        0 => damager.turn_bit(log),
        1 => damager.tear_end(log),
        2 => damager.make_stale(log),
        3 => damager.rewrite(log),
        4 => damager.remove(log),
        5 => damager.change_signature(log),
        _ => damager.fork_history(log),
    };
    let whole: Vec<NamedLog> = stream().logs().collect();
    let (within, between) = look(&whole);
    assert_eq!((within.len(), between.len()), (0, 0));
    for number in 0..7 {
        for seed in 0..20 {
            let mut logs = whole.clone();
            let done =
                act(number, &mut StreamDamager::new(seed, &mut logs), Generation::new(6)).unwrap();
            let context = format!("act {number} seed {seed} {done:?}");
            let (within, between) = look(&logs);
            assert!(within.len() + between.len() > 0, "{context}: not found");
            for (generation, finding) in within {
                assert_eq!(Some(generation), done.generation(), "{context}: {finding}");
                assert!(done.explains(&finding), "{context}: {finding}");
            }
            for finding in between {
                assert!(done.explains_between(&finding), "{context}: {finding}");
            }
        }
    }
}
