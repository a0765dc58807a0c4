//! Between freeze and thaw nothing is written but the provider's own set: no journal, no state, no log, no fsync. Seen from
//! outside, with `strace` on the real command over real files.
#![cfg(target_os = "linux")]

use std::fs;
use std::process::Command;

use super::support::{Lab, STILLPOINT, skip};

/// System calls that change something, or make it durable.
const CHANGING: &str = "write,pwrite64,writev,pwritev,pwritev2,ftruncate,truncate,fallocate,copy_file_range,sendfile,splice,\
rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,link,linkat,symlink,symlinkat,openat,open,creat,fsync,fdatasync,\
sync,syncfs,sync_file_range,msync,ioctl,fchmod,chmod,fchmodat,utimensat,flock,close";

/// One traced call that changes something.
#[derive(Debug)]
struct Change<'a> {
    call: &'a str,
    line: &'a str,
}

/// The calls of a trace that change something on a file system, in order.
fn changes(trace: &str) -> Vec<Change<'_>> {
    trace.lines().filter_map(change).collect()
}

fn change(line: &str) -> Option<Change<'_>> {
    // `1234 write(5</path>, "…", 8) = 8`; the second half of an interrupted call is not a call of its own.
    let call = line.split_once(' ')?.1.trim_start();
    let name = call.split('(').next()?;
    let inert = call.starts_with('<')
        || call.starts_with("+++")
        || call.starts_with("---")
        || call.contains("<anon_inode:")
        || call.contains("<pipe:")
        || call.contains("<socket:")
        || call.contains("<UNIX")
        || (name.starts_with("open")
            && !call.contains("O_CREAT")
            && !call.contains("O_WRONLY")
            && !call.contains("O_RDWR"))
        || (name == "ioctl" && !call.contains("FICLONE"));
    (!inert).then_some(Change { call: name, line })
}

#[test]
fn nothing_is_written_inside_a_freeze_but_the_set_itself() {
    nothing_inside(&["--quiet"]);
}

/// Logs are written as well, as many as can be asked for, but not while anything is frozen.
#[test]
fn nothing_is_logged_inside_a_freeze() {
    // Progress is for whoever watches, and may be told late; logs are the programs' own.
    nothing_inside(&["--quiet", "-vvv"]);
}

fn nothing_inside(options: &[&str]) {
    if Command::new("strace").arg("--version").output().is_err() {
        skip("strace", "there is no strace");
        return;
    }
    let lab = Lab::new();
    let mail = lab.mail(&["DB01", "DB02"]);
    let log = lab.path("trace");
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-y", "-s", "16", "-e", &format!("trace={CHANGING}"), "-o"]);
    command.arg(&log).arg(STILLPOINT).args(options).arg("protect").arg(&mail);
    lab.tame(&mut command);
    // A file: what is written to a pipe is no change of a file system.
    let errors = lab.path("errors");
    command.stderr(fs::File::create(&errors).unwrap());
    let done = command.output().expect("strace runs");
    let told = fs::read_to_string(&errors).unwrap();
    if told.contains("PTRACE") {
        skip("strace", "this process may not trace another");
        return;
    }
    assert!(done.status.success(), "{done:?} {told}");

    let trace = fs::read_to_string(&log).unwrap();
    let all = changes(&trace);
    // The freeze of data at rest is a shared lock on its files; the thaw closes them, and with them the locks.
    let source = format!("<{}/", mail.display());
    let frozen = all
        .iter()
        .position(|c| c.call == "flock" && c.line.contains(&source) && c.line.contains("LOCK_SH"))
        .expect("it froze");
    let locked = all[frozen].line.split(['(', ',']).nth(1).expect("a descriptor with its path");
    let closing = format!("close({locked}");
    let thawed =
        frozen + all[frozen..].iter().position(|c| c.line.contains(&closing)).expect("it thawed");
    let inside = &all[frozen..thawed];
    let outside = all[..frozen].iter().chain(&all[thawed..]);

    // What is looked for is there to be seen: before and after, the state is written and made durable.
    let durable = |change: &Change<'_>| change.call.contains("sync");
    assert!(
        outside.filter(|change| durable(change)).count() > 2,
        "the trace shows no fsync at all"
    );

    let logged = |change: &&Change<'_>| change.line.contains(&format!("<{}>", errors.display()));
    let is_loud = options.contains(&"-vvv");
    assert_eq!(all.iter().filter(logged).count() > 0, is_loud, "{told}");
    let inside_logs: Vec<_> = inside.iter().filter(logged).collect();
    assert!(inside_logs.is_empty(), "logged inside the freeze: {inside_logs:#?}");

    let own_set = format!("{}/", lab.path("stillpoint.store/sets").display());
    let mut set_writes = 0;
    for change in inside {
        assert!(!durable(change), "made durable inside the freeze: {}", change.line);
        if matches!(change.call, "flock" | "close") {
            continue;
        }
        assert!(change.line.contains(&own_set), "changed inside the freeze: {}", change.line);
        set_writes += 1;
    }
    assert!(set_writes > 0, "the trace shows no commit");
}
