//! What a process does to the files of one directory, recorded in order: writes, truncations, syncs, names.
//!
//! A library in C (`recorder.c`) is compiled with `$CC`, or `cc`, when it is needed, and preloaded into the process, which
//! has to be linked dynamically. [`power`](crate::power) makes of a [`Recording`] what a disk could hold after a power cut.
//!
//! The recording also has *marks*, in the same order: what the process appends to the file [`MARKS`] in the directory, and
//! its HTTP/1.1 answers of status 202. So it shows what had been acknowledged at each moment.
//!
//! ```no_run
//! use aquarium_testkit::config::ConfigDirectory;
//! use aquarium_testkit::recorder::Recorder;
//! use aquarium_testkit::sidecar::{Launch, Sidecar};
//!
//! # async fn test() {
//! let config = ConfigDirectory::new();
//! let recorder = Recorder::of(config.queue().parent().unwrap());
//! let mut sidecar = Sidecar::start(recorder.preloaded(Launch::new("aquarium-sidecar")), &config).await;
//! // …
//! sidecar.kill().await;
//! let recording = recorder.finish();
//! println!("{} records", recording.records().len());
//! # }
//! ```

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tempfile::TempDir;

use crate::preload;
use crate::sidecar::Launch;

/// The file whose writes are marks. It is no part of what is on the disk.
pub const MARKS: &str = "marks";

/// The size of what stands before the data of each record.
const HEADER: usize = 24;

/// Records one directory.
#[derive(Debug)]
pub struct Recorder {
    library: PathBuf,
    directory: PathBuf,
    log: PathBuf,
    /// The inode of the directory.
    node: u64,
    before: Vec<(String, u64, Bytes)>,
    _home: TempDir,
}

/// A file for as long as it exists: another one of the same name is another file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileId(pub usize);

/// The directory itself, of which only syncs are recorded.
pub const DIRECTORY: FileId = FileId(0);

/// One step of a recording. Each has happened completely before the next one began, but for syncs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A file was made.
    Create {
        /// Its name.
        name: String,
        /// The file, which is empty.
        file: FileId,
    },
    /// A file was written to.
    Write {
        /// The file.
        file: FileId,
        /// Where, in bytes from the beginning.
        place: u64,
        /// What was written.
        data: Bytes,
    },
    /// A file got another size.
    Truncate {
        /// The file.
        file: FileId,
        /// The size.
        size: u64,
    },
    /// A sync of a file began.
    SyncBegin {
        /// The file.
        file: FileId,
        /// What its end has as well.
        number: u64,
    },
    /// A sync of a file succeeded.
    SyncEnd {
        /// The file.
        file: FileId,
        /// What its beginning has as well.
        number: u64,
    },
    /// A file got another name.
    Rename {
        /// Its old name.
        from: String,
        /// Its new name.
        to: String,
    },
    /// A name was removed.
    Unlink {
        /// The name.
        name: String,
    },
    /// The process acknowledged something.
    Mark(Bytes),
}

/// What was recorded, and what was there before.
#[derive(Debug, Clone, Default)]
pub struct Recording {
    before: Vec<(String, FileId, Bytes)>,
    records: Vec<Record>,
}

impl Recorder {
    /// Reads what is in the directory. Nothing may change it from now on but one recorded process.
    ///
    /// # Panics
    /// If the library cannot be compiled, or the directory cannot be read.
    pub fn of(directory: &Path) -> Recorder {
        let home = TempDir::with_prefix("aquarium-recorder-").expect("a directory for temporary files");
        let library = preload::compile("recorder", include_str!("recorder.c"), home.path());
        let log = home.path().join("log");
        File::create_new(&log).expect("a temporary file can be made");
        // As the kernel tells the paths of open files.
        let directory = directory.canonicalize().expect("the directory exists");
        let node = fs::metadata(&directory).expect("the directory can be read").ino();
        let before = fs::read_dir(&directory).expect("the directory can be read").filter_map(|entry| {
            let entry = entry.expect("the directory can be read");
            let metadata = entry.metadata().expect("its files can be read");
            let name = entry.file_name().into_string().expect("the names of files are UTF-8");
            let data = || fs::read(entry.path()).expect("its files can be read").into();
            metadata.is_file().then(|| (name, metadata.ino(), data()))
        });
        let before = before.collect();
        Recorder { library, directory, log, node, before, _home: home }
    }

    /// The directory, as the process has to write it.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The variables that the process has to be started with.
    pub fn environment(&self) -> [(&'static str, &Path); 3] {
        [
            ("LD_PRELOAD", &self.library),
            ("AQUARIUM_RECORDER_DIRECTORY", &self.directory),
            ("AQUARIUM_RECORDER_LOG", &self.log),
        ]
    }

    /// A launch with the library in it.
    pub fn preloaded(&self, launch: Launch) -> Launch {
        self.environment().into_iter().fold(launch, |launch, (name, value)| launch.env(name, value))
    }

    /// What was recorded, after the process has ended.
    ///
    /// # Panics
    /// If no process was started with the library in it, or one did more than fits into a recording (768 MiB).
    pub fn finish(self) -> Recording {
        let log = Bytes::from(fs::read(&self.log).expect("a temporary file can be read"));
        assert!(
            !log.is_empty(),
            "the library was not loaded: is the binary linked statically, or for another C library than `cc` has?"
        );
        Reader::new(self.node, self.before).read(&log)
    }
}

impl Recording {
    /// A recording made by hand: what is there before, and what happens then.
    pub fn new(before: Vec<(String, FileId, Bytes)>, records: Vec<Record>) -> Recording {
        Recording { before, records }
    }

    /// The files that were there before: names, and what is in them.
    pub fn before(&self) -> &[(String, FileId, Bytes)] {
        &self.before
    }

    /// What happened, in order.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The marks, each with the number of records up to it and with it.
    pub fn marks(&self) -> impl Iterator<Item = (usize, &Bytes)> {
        self.records.iter().enumerate().filter_map(|(at, record)| match record {
            Record::Mark(mark) => Some((at + 1, mark)),
            _ => None,
        })
    }

    /// The file that had this name last.
    pub fn file(&self, wanted: &str) -> Option<FileId> {
        let made = self.records.iter().rev().find_map(|record| match record {
            Record::Create { name, file } if name == wanted => Some(*file),
            _ => None,
        });
        made.or_else(|| self.before.iter().find(|(name, ..)| name == wanted).map(|(_, file, _)| *file))
    }
}

/// Reads a log.
struct Reader {
    recording: Recording,
    /// The file that has an inode now. The system uses the number of one that is gone again.
    nodes: HashMap<u64, FileId>,
    files: usize,
    marks: Option<FileId>,
}

impl Reader {
    fn new(directory: u64, before: Vec<(String, u64, Bytes)>) -> Reader {
        let nodes = HashMap::from([(directory, DIRECTORY)]);
        let mut reader = Reader { recording: Recording::default(), nodes, files: 0, marks: None };
        for (name, node, data) in before {
            let file = reader.next(node);
            if name == MARKS {
                reader.marks = Some(file);
            } else {
                reader.recording.before.push((name, file, data));
            }
        }
        reader
    }

    fn next(&mut self, node: u64) -> FileId {
        self.files += 1;
        let file = FileId(self.files);
        self.nodes.insert(node, file);
        file
    }

    fn read(mut self, log: &Bytes) -> Recording {
        let mut at = 0;
        while let Some(header) = log.get(at..at + HEADER) {
            let word =
                |from: usize| u32::from_ne_bytes(header[from..from + 4].try_into().expect("four bytes"));
            let long =
                |from: usize| u64::from_ne_bytes(header[from..from + 8].try_into().expect("eight bytes"));
            let end = at + HEADER + word(4) as usize;
            if end > log.len() {
                // The process was killed while it wrote this.
                break;
            }
            self.record(word(0), long(8), long(16), log.slice(at + HEADER..end));
            at = end;
        }
        self.recording
    }

    /// The numbers are those of `recorder.c`.
    fn record(&mut self, kind: u32, node: u64, place: u64, data: Bytes) {
        let text = |data: &[u8]| String::from_utf8(data.to_vec()).expect("the names of files are UTF-8");
        let record = match kind {
            1 => return,
            2 => {
                let (name, file) = (text(&data), self.next(node));
                if name == MARKS {
                    self.marks = Some(file);
                    return;
                }
                Record::Create { name, file }
            }
            7 => {
                let split = data.iter().position(|byte| *byte == 0).expect("two names");
                let (from, to) = (text(&data[..split]), text(&data[split + 1..]));
                assert!(!from.is_empty() && !to.is_empty(), "a file was moved into or out of the directory");
                Record::Rename { from, to }
            }
            8 => Record::Unlink { name: text(&data) },
            9 => Record::Mark(data),
            10 => panic!("the process did more than fits into a recording"),
            _ => match self.of_file(kind, node, place, data) {
                Some(record) => record,
                None => return,
            },
        };
        self.recording.records.push(record);
    }

    fn of_file(&self, kind: u32, node: u64, place: u64, data: Bytes) -> Option<Record> {
        let Some(&file) = self.nodes.get(&node) else { panic!("a file that nothing made: inode {node}") };
        if self.marks == Some(file) {
            return (kind == 3).then_some(Record::Mark(data));
        }
        Some(match kind {
            3 => Record::Write { file, place, data },
            4 => Record::Truncate { file, size: place },
            5 => Record::SyncBegin { file, number: place },
            6 => Record::SyncEnd { file, number: place },
            _ => panic!("there is no record of kind {kind}"),
        })
    }
}
