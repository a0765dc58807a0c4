//! Makes a corpus at run time: `cargo run --bin corpus -- SAMPLES CORPUS` cuts the files in the
//! folder SAMPLES to what a fuzzer can chew and adds files of the writer, for each target below
//! CORPUS. Samples are never kept in the project.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use stillpoint_ese::{
    FileKind, Generation, PageSize, read_database_header,
    write::{CheckpointSpec, DatabaseSpec, FlushMapSpec, LogStreamSpec},
};

fn keep(corpus: &Path, target: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
    let folder = corpus.join(target);
    fs::create_dir_all(&folder)?;
    // All targets but that of databases begin with a byte of orders.
    let mut file = if target == "database" { Vec::new() } else { vec![1] };
    file.extend(bytes);
    fs::write(folder.join(name), file)
}

fn samples(folder: &Path, corpus: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            samples(&path, corpus)?;
            continue;
        }
        let bytes = fs::read(&path)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let kind = FileKind::sniff(&bytes).map_err(io::Error::other)?.kind;
        let (target, most) = match kind {
            FileKind::Database => ("database", 6 * 32_768),
            FileKind::Log => ("log", 64 << 10),
            FileKind::Checkpoint => ("checkpoint", 8192),
            FileKind::FlushMap => ("flush_map", 5 * 8192),
            _ => continue,
        };
        keep(corpus, target, &name, &bytes[..bytes.len().min(most)])?;
    }
    Ok(())
}

fn written(corpus: &Path) -> io::Result<()> {
    for size in PageSize::ALL {
        for old in [false, true] {
            let mut bytes = Vec::new();
            let spec = DatabaseSpec::new(1).with_page_size(size).with_pages(4);
            spec.with_old_format(old).with_trailer(true).write_to(&mut bytes)?;
            keep(corpus, "database", &format!("written-{}-{old}", size.bytes()), &bytes)?;
        }
    }
    let generation = Generation::new;
    for old in [false, true] {
        let stream = LogStreamSpec::new(1, generation(3), generation(4)).with_segments(8);
        let stream = stream.with_old_format(old);
        for log in stream.logs() {
            keep(corpus, "log", &format!("written-{old}-{}", log.name), &log.bytes)?;
        }
        let checkpoint = CheckpointSpec::new(stream.signature(), Default::default());
        keep(corpus, "checkpoint", "written", &checkpoint.bytes())?;
    }
    // As in the target, which holds maps against it.
    let mut bytes = Vec::new();
    let spec = DatabaseSpec::new(1).with_page_size(PageSize::KIB_2).with_pages(12);
    spec.with_flush_map(true).write_to(&mut bytes)?;
    let header = read_database_header(&bytes).map_err(io::Error::other)?.header;
    let map = FlushMapSpec::new(&header).with_pages(2, 1);
    keep(corpus, "flush_map", "written", &map.bytes())?;
    keep(corpus, "flush_map", "written-full", &map.with_writes_of(&bytes)?.bytes())
}

fn main() -> io::Result<()> {
    let paths: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    let [folder, corpus] = paths.as_slice() else {
        return Err(io::Error::other("usage: corpus SAMPLES CORPUS"));
    };
    written(corpus)?;
    if folder.is_dir() { samples(folder, corpus) } else { Ok(()) }
}
