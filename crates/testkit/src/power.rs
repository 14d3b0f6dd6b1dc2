//! Power cuts: what a disk could hold at a moment of a [`Recording`].
//!
//! # What is assumed of the disk
//! * What was written to a file before a sync of it began is there once that sync has ended. So is its size.
//! * Of what was done to it since, any part may be there, in any order: some writes and not others, some sectors of 512
//!   bytes of a write and not others, a size without what was written up to it (zeros are there then). A sector is written
//!   whole, or not at all.
//! * Names that were made, changed and removed are there once the directory was synced. Until then any of these changes
//!   may be there, and a sync of the file is no help.
//! * What went through a memory mapping is not there, nor is a lock.
//!
//! That is what POSIX promises, and less than what most file systems do.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use bytes::Bytes;

use crate::random::Random;
use crate::recorder::{DIRECTORY, FileId, Record, Recording};

/// What the disk writes whole.
const SECTOR: u64 = 512;

/// Records that are soon after another one.
const SOON: usize = 150;

/// Whether the disk does as it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syncs {
    /// What was synced is there.
    Honest,
    /// Syncs of files do nothing. Those of the directory do: without its files, any loss would be found.
    Ignored,
}

/// The disk at one moment of a recording, which goes forward.
#[derive(Debug)]
pub struct Disk<'r> {
    records: &'r [Record],
    syncs: Syncs,
    at: usize,
    files: HashMap<FileId, Content>,
    /// The names that are there for certain.
    names: BTreeMap<String, FileId>,
    /// The names as the process sees them.
    seen: BTreeMap<String, FileId>,
    /// What happened to names since the directory was synced, each with the number of its record.
    renamed: Vec<(usize, Name)>,
    /// The syncs that have begun: the numbers of their records.
    begun: HashMap<u64, usize>,
}

/// What is in a file.
#[derive(Debug, Default)]
struct Content {
    /// For certain.
    synced: Vec<u8>,
    /// What was done to it since, each with the number of its record.
    changes: Vec<(usize, Change)>,
}

#[derive(Debug, Clone)]
enum Change {
    Write { place: u64, data: Bytes },
    Truncate(u64),
}

#[derive(Debug, Clone)]
enum Name {
    Leads(String, FileId),
    Moves(String, String, FileId),
    Gone(String),
}

/// What becomes of changes that were not synced.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// Those before this record are there, and a part of it.
    UpTo(usize),
    /// Each is there or not, whole: so many in a hundred are.
    Whole(u8),
    /// Each sector of each is there or not: so many in a hundred are.
    Torn(u8),
}

impl<'r> Disk<'r> {
    /// The disk before the recording.
    pub fn new(recording: &'r Recording, syncs: Syncs) -> Disk<'r> {
        let mut disk = Disk {
            records: recording.records(),
            syncs,
            at: 0,
            files: HashMap::new(),
            names: BTreeMap::new(),
            seen: BTreeMap::new(),
            renamed: Vec::new(),
            begun: HashMap::new(),
        };
        for (name, file, data) in recording.before() {
            disk.files.insert(*file, Content { synced: data.to_vec(), changes: Vec::new() });
            disk.names.insert(name.clone(), *file);
        }
        disk.seen = disk.names.clone();
        disk
    }

    /// Goes on to the moment after so many records.
    pub fn advance(&mut self, to: usize) {
        while self.at < to {
            let record = &self.records[self.at];
            self.at += 1;
            self.step(record);
        }
    }

    fn step(&mut self, record: &Record) {
        let at = self.at;
        match record {
            Record::Create { name, file } => {
                self.files.insert(*file, Content::default());
                self.seen.insert(name.clone(), *file);
                self.renamed.push((at, Name::Leads(name.clone(), *file)));
            }
            Record::Write { file, place, data } => {
                self.change(*file, Change::Write { place: *place, data: data.clone() });
            }
            Record::Truncate { file, size } => self.change(*file, Change::Truncate(*size)),
            Record::SyncBegin { number, .. } => drop(self.begun.insert(*number, at)),
            Record::SyncEnd { file, number } => {
                let begun = self.begun.remove(number).unwrap_or(0);
                self.sync(*file, begun);
            }
            Record::Rename { from, to } => {
                if let Some(file) = self.seen.remove(from) {
                    self.seen.insert(to.clone(), file);
                    self.renamed.push((at, Name::Moves(from.clone(), to.clone(), file)));
                }
            }
            Record::Unlink { name } => {
                self.seen.remove(name);
                self.renamed.push((at, Name::Gone(name.clone())));
            }
            Record::Mark(_) => {}
        }
    }

    fn change(&mut self, file: FileId, change: Change) {
        self.files.entry(file).or_default().changes.push((self.at, change));
    }

    /// What was recorded before record `begun` is there for certain.
    fn sync(&mut self, file: FileId, begun: usize) {
        if file == DIRECTORY {
            let later = self.renamed.partition_point(|(at, _)| *at < begun);
            for (_, name) in self.renamed.drain(..later) {
                name.apply(&mut self.names);
            }
        } else if self.syncs == Syncs::Honest
            && let Some(content) = self.files.get_mut(&file)
        {
            let later = content.changes.partition_point(|(at, _)| *at < begun);
            for (_, change) in content.changes.drain(..later) {
                change.apply(&mut content.synced, |_| true);
            }
        }
    }

    /// What the disk could hold if the power went at this moment: the files by their names.
    pub fn cut(&self, random: &mut Random) -> BTreeMap<String, Vec<u8>> {
        let unsynced = || self.files.values().flat_map(|content| &content.changes).map(|(at, _)| *at);
        let earliest = unsynced().min().unwrap_or(self.at);
        let share = [10, 50, 90, 100][random.below(4)];
        let fate = match random.below(3) {
            0 => Fate::UpTo(earliest + random.below(self.at - earliest + 2)),
            1 => Fate::Whole(share),
            _ => Fate::Torn(share),
        };
        let mut names = self.names.clone();
        for (at, name) in &self.renamed {
            if fate.keeps(*at, random) {
                name.apply(&mut names);
            }
        }
        names.retain(|name, _| is_kept(name));
        names.into_iter().map(|(name, file)| (name, self.content(file, fate, random))).collect()
    }

    /// What the process has on the disk as it sees it, with all that was not synced. If it is not what is there, then
    /// something was not recorded.
    pub fn seen(&self) -> BTreeMap<String, Vec<u8>> {
        let seen = self.seen.iter().filter(|(name, _)| is_kept(name));
        seen.map(|(name, file)| {
            let mut data = Vec::new();
            if let Some(content) = self.files.get(file) {
                data.clone_from(&content.synced);
                content.changes.iter().for_each(|(_, change)| change.apply(&mut data, |_| true));
            }
            (name.clone(), data)
        })
        .collect()
    }

    fn content(&self, file: FileId, fate: Fate, random: &mut Random) -> Vec<u8> {
        let Some(content) = self.files.get(&file) else { return Vec::new() };
        let mut data = content.synced.clone();
        for (at, change) in &content.changes {
            let torn = match fate {
                Fate::UpTo(last) if *at == last => Some(50),
                Fate::Torn(share) => Some(share),
                Fate::UpTo(_) | Fate::Whole(_) => None,
            };
            match (torn, change) {
                (Some(share), Change::Write { .. }) => {
                    if random.percent(25) {
                        change.extend(&mut data);
                    }
                    change.apply(&mut data, |_| random.percent(share));
                }
                _ if fate.keeps(*at, random) => change.apply(&mut data, |_| true),
                // The size may be there before what was written.
                _ if random.percent(10) => change.extend(&mut data),
                _ => {}
            }
        }
        data
    }
}

impl Fate {
    fn keeps(self, at: usize, random: &mut Random) -> bool {
        match self {
            Fate::UpTo(last) => at < last,
            Fate::Whole(share) | Fate::Torn(share) => random.percent(share),
        }
    }
}

impl Change {
    /// Does it to `data`; of a write, those sectors that `keeps` says.
    fn apply(&self, data: &mut Vec<u8>, mut keeps: impl FnMut(u64) -> bool) {
        match self {
            Change::Truncate(size) => data.resize(index(*size), 0),
            Change::Write { place, data: written } => {
                let (mut from, end) = (*place, *place + written.len() as u64);
                while from < end {
                    let to = end.min((from / SECTOR + 1) * SECTOR);
                    if keeps(from / SECTOR) {
                        let part = &written[index(from - place)..index(to - place)];
                        if data.len() < index(to) {
                            data.resize(index(to), 0);
                        }
                        data[index(from)..index(to)].copy_from_slice(part);
                    }
                    from = to;
                }
            }
        }
    }

    /// The size alone.
    fn extend(&self, data: &mut Vec<u8>) {
        if let Change::Write { place, data: written } = self {
            let end = index(*place) + written.len();
            if data.len() < end {
                data.resize(end, 0);
            }
        }
    }
}

impl Name {
    fn apply(&self, names: &mut BTreeMap<String, FileId>) {
        match self {
            Name::Leads(name, file) => drop(names.insert(name.clone(), *file)),
            Name::Moves(from, to, file) => {
                names.insert(to.clone(), *file);
                names.remove(from);
            }
            Name::Gone(name) => drop(names.remove(name)),
        }
    }
}

/// Locks are none of it, nor is what goes through a memory mapping.
fn is_kept(name: &str) -> bool {
    !name.ends_with("-shm") && !name.ends_with(".lock")
}

fn index(place: u64) -> usize {
    usize::try_from(place).expect("what is recorded fits into memory")
}

/// So many moments of a recording, in order. Half of them are right after a mark: what was acknowledged last is lost most
/// easily. A quarter is soon after the beginning, or after a file was made or removed; the others are anywhere.
pub fn moments(recording: &Recording, count: usize, random: &mut Random) -> Vec<usize> {
    let marks: Vec<usize> = recording.marks().map(|(at, _)| at).collect();
    let is_of_names = |record: &Record| {
        matches!(record, Record::Create { .. } | Record::Rename { .. } | Record::Unlink { .. })
    };
    let named = recording.records().iter().enumerate().filter(|(_, record)| is_of_names(record));
    let named: Vec<usize> = [0].into_iter().chain(named.map(|(at, _)| at)).collect();
    let end = recording.records().len();
    let mut moments: Vec<usize> = (0..count)
        .map(|number| match number % 4 {
            0 | 1 if !marks.is_empty() => marks[random.below(marks.len())],
            2 => end.min(named[random.below(named.len())] + random.below(SOON)),
            _ => random.below(end + 1),
        })
        .collect();
    moments.sort_unstable();
    moments
}

/// Writes files into an empty directory.
///
/// # Panics
/// If they cannot be written.
pub fn restore(files: &BTreeMap<String, Vec<u8>>, directory: &Path) {
    for (name, data) in files {
        fs::write(directory.join(name), data).expect("a temporary file can be written");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const FILE: FileId = FileId(1);
    const OTHER: FileId = FileId(2);

    fn recording(records: Vec<Record>) -> Recording {
        Recording::new(vec![("a".to_owned(), FILE, Bytes::from(vec![b'0'; 1024]))], records)
    }

    fn write(place: u64, byte: u8, size: usize) -> Record {
        Record::Write { file: FILE, place, data: Bytes::from(vec![byte; size]) }
    }

    /// Everything that the disk could hold after so many records, by 300 cuts.
    fn cuts(recording: &Recording, at: usize, syncs: Syncs) -> BTreeSet<BTreeMap<String, Vec<u8>>> {
        let mut disk = Disk::new(recording, syncs);
        disk.advance(at);
        let mut random = Random::seeded(7);
        (0..300).map(|_| disk.cut(&mut random)).collect()
    }

    fn contents(cuts: &BTreeSet<BTreeMap<String, Vec<u8>>>) -> BTreeSet<Vec<u8>> {
        cuts.iter().map(|files| files["a"].clone()).collect()
    }

    fn sectors(first: u8, second: u8) -> Vec<u8> {
        [vec![first; 512], vec![second; 512]].concat()
    }

    #[test]
    fn what_was_not_synced_may_be_there_whole_in_part_or_not_at_all() {
        let recording = recording(vec![write(0, b'1', 1024)]);
        let expected = [(b'0', b'0'), (b'0', b'1'), (b'1', b'0'), (b'1', b'1')];
        let found = contents(&cuts(&recording, 1, Syncs::Honest));
        assert_eq!(found, expected.map(|(first, second)| sectors(first, second)).into());
    }

    #[test]
    fn a_later_write_may_be_there_without_an_earlier_one() {
        let recording = recording(vec![write(0, b'1', 512), write(512, b'2', 512)]);
        let found = contents(&cuts(&recording, 2, Syncs::Honest));
        assert!(found.contains(&sectors(b'0', b'2')) && found.contains(&sectors(b'1', b'0')));
    }

    #[test]
    fn a_sync_covers_what_came_before_it_began_and_nothing_that_came_before_it_ended() {
        let (begin, end) =
            (Record::SyncBegin { file: FILE, number: 3 }, Record::SyncEnd { file: FILE, number: 3 });
        let recording = recording(vec![write(0, b'1', 512), begin, write(512, b'2', 512), end]);
        let all: BTreeSet<_> = [sectors(b'1', b'0'), sectors(b'1', b'2')].into();
        assert_eq!(contents(&cuts(&recording, 4, Syncs::Honest)), all);
        let before = contents(&cuts(&recording, 3, Syncs::Honest));
        assert!(before.contains(&sectors(b'0', b'0')), "it has not ended");
        let lied = contents(&cuts(&recording, 4, Syncs::Ignored));
        assert!(lied.contains(&sectors(b'0', b'0')), "the disk lied");
    }

    #[test]
    fn a_size_may_be_there_without_what_was_written_and_a_truncation_may_be_missing() {
        let appended = recording(vec![write(1024, b'1', 512)]);
        let found = contents(&cuts(&appended, 1, Syncs::Honest));
        assert!(found.contains(&[vec![b'0'; 1024], vec![0; 512]].concat()));
        let truncated = recording(vec![Record::Truncate { file: FILE, size: 3 }]);
        let found = contents(&cuts(&truncated, 1, Syncs::Honest));
        assert_eq!(found, [b"000".to_vec(), vec![b'0'; 1024]].into());
    }

    #[test]
    fn a_name_is_there_for_certain_once_the_directory_was_synced() {
        let create = Record::Create { name: "b".to_owned(), file: OTHER };
        let data = Bytes::from_static(b"new");
        let file = [
            Record::Write { file: OTHER, place: 0, data },
            Record::SyncBegin { file: OTHER, number: 1 },
            Record::SyncEnd { file: OTHER, number: 1 },
        ];
        let directory = [
            Record::SyncBegin { file: DIRECTORY, number: 2 },
            Record::SyncEnd { file: DIRECTORY, number: 2 },
        ];
        let rename = Record::Rename { from: "b".to_owned(), to: "a".to_owned() };
        let records = [vec![create], file.to_vec(), directory.to_vec(), vec![rename]].concat();
        let recording = recording(records);
        let names = |at| -> BTreeSet<Vec<String>> {
            cuts(&recording, at, Syncs::Honest).iter().map(|files| files.keys().cloned().collect()).collect()
        };
        assert_eq!(names(4), [vec!["a".to_owned()], vec!["a".to_owned(), "b".to_owned()]].into());
        assert_eq!(names(6), [vec!["a".to_owned(), "b".to_owned()]].into());
        let renamed = contents(&cuts(&recording, 7, Syncs::Honest));
        assert_eq!(renamed, [vec![b'0'; 1024], b"new".to_vec()].into());
    }
}
