//! Gives each database its log stream and checkpoint, and judges whether it can be recovered from them.
//!
//! What belongs together is grouped by signature once, and for each stream and checkpoint the nearest that it could belong
//! to is found once: a folder with thousands of databases of one signature costs their number times that of their streams.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use stillpoint_context::Cx;
use stillpoint_ese::{DatabaseHeader, LogMember, LogRole, SetVerdict, judge_set};
use stillpoint_exchange::PluginResult;
use stillpoint_model::{
    availability::Reason,
    id::CopyId,
    inventory::{FileRole, Generation, LogSignature, LogState},
};

use super::{
    Checkpoint, Finds, Found, FoundFile, Log, Problem, Spoiled, folder_of, log_name,
    near::{Nearness, Places, nearness},
    ranges,
};
use crate::{plugin::Place, walk::interrupted};

/// The logs of one signature, folder and base name.
struct Stream<'a> {
    folder: &'a Path,
    base: &'a str,
    /// Lowest generation first.
    logs: Vec<&'a Log>,
}

/// Everything of one log signature.
#[derive(Default)]
struct Family<'a> {
    streams: Vec<Stream<'a>>,
    /// Each with how near the nearest stream lies.
    checkpoints: Vec<(&'a Checkpoint, Option<Nearness>)>,
}

type SignatureBytes = [u8; 28];

/// What was found, by signature.
struct Index<'a> {
    finds: &'a Finds,
    families: BTreeMap<SignatureBytes, Family<'a>>,
    /// Databases by their own signature: more than one are clones.
    clones: BTreeMap<SignatureBytes, Vec<&'a Path>>,
    /// Where they lie.
    homes: BTreeMap<SignatureBytes, Places<'a>>,
    /// Checkpoints that cannot be read.
    damaged_checkpoints: BTreeMap<(&'a Path, String), &'a Spoiled>,
}

/// Every database with what belongs to it.
pub(super) fn pair_all(cx: &Cx, place: &Place, finds: &Finds) -> PluginResult<Vec<Found>> {
    let index = Index::new(cx, finds)?;
    // Those of one signature have the same rivals for their streams.
    let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (number, database) in finds.databases.iter().enumerate() {
        let (_, _, header) = database;
        let signatures = (header.signature.as_bytes(), header.log_signature.as_bytes());
        groups.entry(signatures).or_default().push((number, database));
    }
    let mut found = Vec::with_capacity(finds.databases.len());
    for ((own, of_logs), group) in groups {
        cx.check().map_err(interrupted)?;
        let rivals = index.rivals(own, of_logs);
        for (number, (native, bytes, header)) in group {
            cx.check().map_err(interrupted)?;
            found.push((number, index.pair(place, native, *bytes, header, &rivals)?));
        }
    }
    found.sort_by_key(|(number, _)| *number);
    Ok(found.into_iter().map(|(_, found)| found).collect())
}

impl<'a> Index<'a> {
    fn new(cx: &Cx, finds: &'a Finds) -> PluginResult<Self> {
        let mut clones: BTreeMap<SignatureBytes, Vec<&Path>> = BTreeMap::new();
        // A stream that is nobody's is of no use.
        let mut used: BTreeSet<&SignatureBytes> = BTreeSet::new();
        for (native, _, header) in &finds.databases {
            clones.entry(*header.signature.as_bytes()).or_default().push(native);
            used.insert(header.log_signature.as_bytes());
        }
        let mut logs: BTreeMap<SignatureBytes, Vec<&Log>> = BTreeMap::new();
        for log in &finds.logs {
            let signature = log.header.signature.as_bytes();
            if used.contains(signature) {
                logs.entry(*signature).or_default().push(log);
            }
        }
        let mut families: BTreeMap<SignatureBytes, Family<'_>> = BTreeMap::new();
        for (signature, logs) in logs {
            let family = Family { streams: streams(logs), checkpoints: Vec::new() };
            families.insert(signature, family);
        }
        for checkpoint in &finds.checkpoints {
            let signature = checkpoint.header.log_signature.as_bytes();
            if let Some(family) = families.get_mut(signature) {
                family.checkpoints.push((checkpoint, None));
            }
        }
        for family in families.values_mut() {
            cx.check().map_err(interrupted)?;
            let near: Places<'_> = family.streams.iter().map(|stream| stream.folder).collect();
            for (checkpoint, nearest) in &mut family.checkpoints {
                *nearest = near.nearest(folder_of(&checkpoint.native));
            }
        }
        let homes = clones
            .iter()
            .map(|(own, natives)| (*own, natives.iter().copied().map(folder_of).collect()))
            .collect();
        let named = |spoiled: &'a Spoiled| {
            let name = log_name(&spoiled.native)?;
            Some(((folder_of(&spoiled.native), name.base), spoiled))
        };
        let damaged_checkpoints = finds.spoiled_checkpoints.iter().filter_map(named).collect();
        Ok(Self { finds, families, clones, homes, damaged_checkpoints })
    }

    /// Gives a database its logs and checkpoint, and judges whether it can be recovered.
    fn pair(
        &self,
        place: &Place,
        native: &Path,
        bytes: u64,
        header: &DatabaseHeader,
        rivals: &[Option<Nearness>],
    ) -> PluginResult<Found> {
        let id = place.database_id(native, Some(header.signature.as_bytes()));
        let mut files = vec![FoundFile {
            native: native.to_path_buf(),
            path: place.host_path(native)?,
            role: FileRole::Database,
            bytes,
            generation: None,
            is_open_log: false,
        }];
        let mut found = Found {
            id,
            name: String::new(),
            native: native.to_path_buf(),
            header: Some(header.clone()),
            files: Vec::new(),
            log_folder: None,
            log_prefix: None,
            log_state: None,
            is_circular: false,
            reasons: Vec::new(),
            notes: Vec::new(),
        };
        let nearest = self.nearest_streams(native, header, rivals);
        let stream = if nearest.len() > 1 { None } else { nearest.first().copied() };
        if let Some(stream) = stream {
            for log in &stream.logs {
                files.push(FoundFile {
                    native: log.native.clone(),
                    path: place.host_path(&log.native)?,
                    role: FileRole::Log,
                    bytes: log.bytes,
                    generation: Some(Generation(log.header.generation.number())),
                    is_open_log: role(log) == Some(LogRole::Current),
                });
            }
            found.log_folder = Some(place.host_path(stream.folder)?);
            found.log_prefix = Some(stream.base.to_owned()).filter(|base| !base.is_empty());
            found.is_circular = stream.logs.last().is_some_and(|log| log.header.is_circular);
            found.notes.extend(self.damaged_checkpoint(stream));
            if let Some(checkpoint) = self.checkpoint_of(native, stream, header) {
                files.push(FoundFile {
                    native: checkpoint.native.clone(),
                    path: place.host_path(&checkpoint.native)?,
                    role: FileRole::Checkpoint,
                    bytes: checkpoint.bytes,
                    generation: None,
                    is_open_log: false,
                });
            }
        }
        found.log_state = Some(log_state(header, stream));
        found.files = files;
        found.reasons = if nearest.len() < 2 {
            self.judge(place, header, stream, &mut found.notes)?
        } else if header.state.is_clean() {
            // It needs no log, so it does not matter which are its own.
            Vec::new()
        } else {
            vec![Reason::Ambiguous {
                others: self.clones(place, native, header),
                message: format!("{} log streams of its signature lie equally near", nearest.len()),
            }]
        };
        Ok(found)
    }

    fn family(&self, header: &DatabaseHeader) -> Option<&Family<'a>> {
        self.families.get(header.log_signature.as_bytes())
    }

    /// How near to each stream of a log signature the nearest database of a signature lies.
    fn rivals(&self, own: &SignatureBytes, of_logs: &SignatureBytes) -> Vec<Option<Nearness>> {
        let homes = self.homes.get(own);
        let streams = self.families.get(of_logs).into_iter().flat_map(|family| &family.streams);
        streams.map(|stream| homes.and_then(|homes| homes.nearest(stream.folder))).collect()
    }

    /// The log streams that may be the database's own: those of its signature that lie nearest, unless a clone of the
    /// database lies nearer to them.
    fn nearest_streams(
        &self,
        native: &Path,
        header: &DatabaseHeader,
        rivals: &[Option<Nearness>],
    ) -> Vec<&Stream<'a>> {
        let home = folder_of(native);
        let mut best = None;
        let mut nearest = Vec::new();
        let streams = self.family(header).map(|family| &family.streams).into_iter().flatten();
        for (stream, rival) in streams.zip(rivals) {
            let near = nearness(home, stream.folder);
            let of_clone = rival.is_some_and(|rival| rival < near);
            if of_clone || best.is_some_and(|best| best < near) {
                continue;
            }
            if best != Some(near) {
                best = Some(near);
                nearest.clear();
            }
            nearest.push(stream);
        }
        nearest
    }

    /// The checkpoint of a stream: that of its signature which lies nearest to it or to the database, then that with the
    /// stream's name. One that lies nearer to another stream is that one's.
    fn checkpoint_of(
        &self,
        native: &Path,
        stream: &Stream<'_>,
        header: &DatabaseHeader,
    ) -> Option<&'a Checkpoint> {
        let family = self.family(header)?;
        let candidates = family.checkpoints.iter().filter_map(|&(checkpoint, nearest)| {
            let folder = folder_of(&checkpoint.native);
            let near = nearness(stream.folder, folder).min(nearness(folder_of(native), folder));
            let of_other = nearest.is_some_and(|nearest| nearest < near);
            let is_named = log_name(&checkpoint.native).is_some_and(|n| n.base == stream.base);
            (!of_other).then_some(((near, !is_named), checkpoint))
        });
        candidates.min_by_key(|(rank, _)| *rank).map(|(_, checkpoint)| checkpoint)
    }

    /// What is wrong with the file that by its name and folder is the checkpoint of a stream.
    fn damaged_checkpoint(&self, stream: &Stream<'_>) -> Option<String> {
        let spoiled = self.damaged_checkpoints.get(&(stream.folder, stream.base.to_owned()))?;
        let (Problem::Unreadable(why) | Problem::Damaged(why)) = &spoiled.problem;
        let name = spoiled.native.display();
        Some(format!("the checkpoint {name} is left out, as it cannot be used: {why}"))
    }

    fn clones(&self, place: &Place, native: &Path, header: &DatabaseHeader) -> Vec<CopyId> {
        let own = header.signature.as_bytes();
        let clones = self.clones.get(own).into_iter().flatten();
        clones
            .filter(|other| **other != native)
            .map(|other| place.copy_id(place.database_id(other, Some(own))))
            .collect()
    }

    fn judge(
        &self,
        place: &Place,
        header: &DatabaseHeader,
        stream: Option<&Stream<'_>>,
        notes: &mut Vec<String>,
    ) -> PluginResult<Vec<Reason>> {
        let members: Vec<LogMember> = stream
            .map(|stream| stream.logs.as_slice())
            .unwrap_or_default()
            .iter()
            .map(|log| LogMember::from_header(log.native.to_string_lossy(), &log.header))
            .collect();
        let (missing, reasons) = match judge_set(header, &members).verdict {
            SetVerdict::NotRecoverable { missing, reasons } => (missing, reasons),
            SetVerdict::RecoverableWithLoss { reasons, .. } => {
                notes.extend(reasons.iter().map(|reason| format!("work is lost: {reason}")));
                return Ok(Vec::new());
            }
            _ => return Ok(Vec::new()),
        };
        let mut out = vec![Reason::NotRecoverable { missing: ranges(&missing) }];
        // What is there under the name of a missing log, but of no use, explains why it is missing.
        for spoiled in &self.finds.spoiled_logs {
            let is_of_stream =
                stream.is_none_or(|stream| folder_of(&spoiled.native) == stream.folder);
            let is_missing = match log_name(&spoiled.native).map(|name| name.role) {
                Some(LogRole::Closed(generation)) => {
                    missing.iter().any(|range| range.contains(generation))
                }
                _ => true,
            };
            if is_of_stream && is_missing {
                out.push(spoiled.problem.reason(place.nearest_host_path(&spoiled.native)?));
            }
        }
        for reason in reasons {
            let file = match &reason {
                stillpoint_ese::Reason::LogDamaged { file, .. }
                | stillpoint_ese::Reason::CreationMismatch { file, .. } => file.clone(),
                stillpoint_ese::Reason::Stream(finding) => finding.file.clone(),
                _ => continue,
            };
            let file = place.host_path(Path::new(&file))?;
            out.push(Reason::Damaged { file, message: reason.to_string() });
        }
        Ok(out)
    }
}

fn role(log: &Log) -> Option<LogRole> {
    log.name.as_ref().map(|name| name.role)
}

/// The streams that some logs of one signature make, in the order of their folders.
fn streams<'a>(logs: Vec<&'a Log>) -> Vec<Stream<'a>> {
    let mut streams: BTreeMap<(&Path, &str), Vec<&Log>> = BTreeMap::new();
    let mut unnamed: BTreeMap<&Path, Vec<&'a Log>> = BTreeMap::new();
    for log in logs {
        let folder = folder_of(&log.native);
        match &log.name {
            Some(name) if matches!(name.role, LogRole::Closed(_) | LogRole::Current) => {
                streams.entry((folder, name.base.as_str())).or_default().push(log);
            }
            Some(_) => {}
            None => unnamed.entry(folder).or_default().push(log),
        }
    }
    // Renamed logs count only where no log kept its name: beside a stream they are leftovers.
    let named: BTreeSet<&Path> = streams.keys().map(|(folder, _)| *folder).collect();
    for (folder, logs) in unnamed {
        if !named.contains(folder) {
            streams.insert((folder, ""), logs);
        }
    }
    let sorted = |((folder, base), mut logs): ((&'a Path, &'a str), Vec<&'a Log>)| {
        logs.sort_by_key(|log| (log.header.generation, role(log) == Some(LogRole::Current)));
        Stream { folder, base, logs }
    };
    streams.into_iter().map(sorted).collect()
}

fn log_state(header: &DatabaseHeader, stream: Option<&Stream<'_>>) -> LogState {
    let mut state = LogState::new(LogSignature(*header.log_signature.as_bytes()));
    let generation = |generation: stillpoint_ese::Generation| Generation(generation.number());
    state.required =
        header.required().map(|range| generation(range.first())..=generation(range.last()));
    if state.required.is_some() {
        state.committed = Some(generation(header.committed()));
    }
    let logs = stream.map(|stream| stream.logs.as_slice()).unwrap_or_default();
    state.oldest_present = logs.first().map(|log| generation(log.header.generation));
    for log in logs {
        let number = Some(generation(log.header.generation));
        if role(log) == Some(LogRole::Current) {
            state.open = state.open.max(number);
        } else {
            state.last_closed = state.last_closed.max(number);
        }
    }
    state
}

#[cfg(test)]
#[path = "../../tests/support/mod.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "it is shared with the tests outside")]
mod support;

#[cfg(test)]
mod tests {
    use std::fs;

    use stillpoint_context::HostId;
    use stillpoint_ese::{PageSize, write::ExchangeSet};
    use stillpoint_exchange::PluginErrorKind;

    use super::{super::near::COMPARED, support::Bench, *};
    use crate::{FilesPlugin, survey::survey};

    /// So many clones of one set, each in a folder of its own.
    fn clones(number: usize) -> (tempfile::TempDir, Finds) {
        let folder = tempfile::tempdir().unwrap();
        let mut finds = Finds::default();
        for clone in 0..number {
            let at = folder.path().join(format!("{clone}"));
            fs::create_dir(&at).unwrap();
            let set = ExchangeSet::new(7).with_page_size(PageSize::KIB_4).with_pages(4);
            set.with_log_segments(2).write_to(&at).unwrap();
            for entry in fs::read_dir(&at).unwrap() {
                finds.examine(entry.unwrap().path());
            }
        }
        (folder, finds)
    }

    fn place(root: &Path) -> std::sync::Arc<Place> {
        let plugin = FilesPlugin::new(root, HostId::new("lab").unwrap()).unwrap();
        std::sync::Arc::clone(plugin.place())
    }

    #[test]
    fn each_database_is_compared_with_each_stream_and_checkpoint_once() {
        let number = 24;
        let (folder, finds) = clones(number);
        COMPARED.set(0);
        let found = pair_all(&Bench::new().cx(), &place(folder.path()), &finds).unwrap();
        assert_eq!(found.len(), number);
        for found in &found {
            assert_eq!(found.reasons, []);
            assert_eq!(found.files.len(), 8);
        }
        // Once with each stream, and twice with each checkpoint: from the stream and from the database.
        assert_eq!(COMPARED.get(), 3 * number * number);
    }

    #[test]
    fn the_pairing_can_be_cancelled() {
        let (folder, finds) = clones(2);
        let cx = Bench::new().cx();
        cx.cancel().cancel();
        let cancelled = pair_all(&cx, &place(folder.path()), &finds).unwrap_err();
        assert_eq!(cancelled.kind(), &PluginErrorKind::Cancelled);
    }

    #[test]
    fn a_damaged_checkpoint_is_told_and_stands_in_the_way_of_nothing() {
        let (folder, _) = clones(1);
        let checkpoint = folder.path().join("0/E00.chk");
        let mut bytes = fs::read(&checkpoint).unwrap();
        for at in [500, 4096 + 500] {
            bytes[at] ^= 0xFF;
        }
        fs::write(&checkpoint, &bytes).unwrap();
        for content in [bytes, Vec::new()] {
            fs::write(&checkpoint, content).unwrap();
            let found = survey(&Bench::new().cx(), &place(folder.path())).unwrap();
            assert_eq!(found.len(), 1);
            assert_eq!(found[0].reasons, []);
            assert!(found[0].files.iter().all(|file| file.role != FileRole::Checkpoint));
            let [note] = found[0].notes.as_slice() else { panic!("{:?}", found[0].notes) };
            assert!(note.contains("E00.chk") && note.contains("checkpoint"), "{note}");
        }
    }
}
