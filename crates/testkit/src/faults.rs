//! A disk that fails on demand: writing, fsync and truncating, with whatever error, for files below one directory.
//!
//! A library in C (`faults.c`) is compiled with `$CC`, or `cc`, when it is needed, and preloaded into the process under
//! test, which has to be linked dynamically. What it is told while that runs goes through a file that both have.
//!
//! ```no_run
//! use std::path::Path;
//! use aquarium_testkit::config::ConfigDirectory;
//! use aquarium_testkit::faults::{Call, Errno, Fault, Faults};
//! use aquarium_testkit::sidecar::{Launch, Sidecar};
//!
//! # async fn test() {
//! let config = ConfigDirectory::new();
//! let faults = Faults::below(config.queue().parent().unwrap());
//! let sidecar = Sidecar::start(faults.preloaded(Launch::new("aquarium-sidecar")), &config).await;
//! faults.check();
//! faults.start(&Fault::of([Call::Sync], Errno::IO));
//! // …
//! faults.stop();
//! assert!(faults.hits().syncs > 0);
//! # }
//! ```

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

pub use rustix::io::Errno;
use tempfile::TempDir;

use crate::preload;
use crate::sidecar::Launch;

/// The first byte of the file: which calls fail.
const CALLS: u64 = 0;
/// Set by the library when it is in place.
const PRESENT: u64 = 4;
/// Where the hits begin.
const HITS: u64 = 8;
/// The size of the file.
const SIZE: u64 = 32;

/// What is made to fail. The library knows them by these numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// `write`, `pwrite`.
    Write = 1,
    /// `fsync`, `fdatasync`.
    Sync = 2,
    /// `ftruncate`.
    Truncate = 4,
}

/// How the disk fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    calls: u8,
    errno: Errno,
    every: u8,
    partial: bool,
}

impl Fault {
    /// Each of these calls fails with this error.
    pub fn of(calls: impl IntoIterator<Item = Call>, errno: Errno) -> Fault {
        let calls = calls.into_iter().fold(0, |calls, call| calls | call as u8);
        Fault { calls, errno, every: 1, partial: false }
    }

    /// Only one of so many fails.
    pub fn every(mut self, every: u8) -> Fault {
        self.every = every;
        self
    }

    /// A write fails after the first half of its bytes was written.
    pub fn partial(mut self) -> Fault {
        self.partial = true;
        self
    }

    /// Whether nothing goes through for as long as it is on.
    pub fn is_lasting(&self) -> bool {
        self.every <= 1
    }
}

/// How many calls have failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hits {
    /// Writes; what was cut short counts, and the rest of it again.
    pub writes: u64,
    /// Calls of fsync and fdatasync.
    pub syncs: u64,
    /// Truncations.
    pub truncations: u64,
}

/// The failing of one directory.
#[derive(Debug)]
pub struct Faults {
    library: PathBuf,
    directory: PathBuf,
    path: PathBuf,
    control: File,
    _home: TempDir,
}

impl Faults {
    /// A disk that does not fail yet.
    ///
    /// # Panics
    /// If the library cannot be compiled, or the directory does not exist.
    pub fn below(directory: &Path) -> Faults {
        let home = TempDir::with_prefix("aquarium-faults-").expect("a directory for temporary files");
        let library = preload::compile("faults", include_str!("faults.c"), home.path());
        let path = home.path().join("control");
        let control = OpenOptions::new().read(true).write(true).create_new(true).open(&path);
        let control = control.expect("a temporary file can be made");
        control.set_len(SIZE).expect("a temporary file can be written");
        // As the kernel tells the paths of open files.
        let directory = directory.canonicalize().expect("the directory exists");
        Faults { library, directory, path, control, _home: home }
    }

    /// A launch with the library in it.
    pub fn preloaded(&self, launch: Launch) -> Launch {
        launch
            .env("LD_PRELOAD", &self.library)
            .env("AQUARIUM_FAULTS_DIRECTORY", &self.directory)
            .env("AQUARIUM_FAULTS_CONTROL", &self.path)
    }

    /// Makes sure that a process was started with the library in it.
    ///
    /// # Panics
    /// If none was.
    pub fn check(&self) {
        assert_eq!(
            self.read::<1>(PRESENT),
            [1],
            "the library was not loaded: is the binary linked statically, or for another C library than `cc` has?"
        );
    }

    /// From now on it fails.
    pub fn start(&self, fault: &Fault) {
        let errno = u8::try_from(fault.errno.raw_os_error()).expect("the errors of a disk are small numbers");
        // What counts is set last.
        self.write(&[errno, fault.every, u8::from(fault.partial)], CALLS + 1);
        self.write(&[fault.calls], CALLS);
    }

    /// From now on it does not.
    pub fn stop(&self) {
        self.write(&[0], CALLS);
    }

    /// How often it has failed since the beginning.
    pub fn hits(&self) -> Hits {
        let number = |place| u64::from_ne_bytes(self.read(HITS + place));
        Hits { writes: number(0), syncs: number(8), truncations: number(16) }
    }

    fn write(&self, bytes: &[u8], place: u64) {
        self.control.write_all_at(bytes, place).expect("a temporary file can be written");
    }

    fn read<const N: usize>(&self, place: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.control.read_exact_at(&mut bytes, place).expect("a temporary file can be read");
        bytes
    }
}
