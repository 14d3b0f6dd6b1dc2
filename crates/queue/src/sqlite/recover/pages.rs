//! Reads rows from the pages of a file themselves, for a table whose root is lost.
//!
//! A leaf of a table holds whole rows, whatever refers to it. The columns of a row tell which table it is of. Pages that are
//! free hold rows that were removed; they are passed over as far as the list of free pages can be read. Committed pages of the
//! log count instead of those of the file. The formats are SQLite's (<https://www.sqlite.org/fileformat2.html>).

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rusqlite::types::Value;

/// The size of pages, if the file does not say it any more.
const PAGE: usize = 4_096;
/// The largest row that is read.
const LARGEST: usize = 128 * 1024 * 1024;
/// The first byte of a leaf of a table.
const TABLE_LEAF: u8 = 0x0d;
/// The header of the log, and of each frame in it.
const LOG_HEADER: usize = 32;
const FRAME_HEADER: usize = 24;

/// A row: its number, and its columns as they are stored.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) key: i64,
    pub(super) columns: Vec<Value>,
}

/// A file and its log, read page by page. SQLite's locks are lost when another handle of the file is closed: this one has to
/// outlive every connection.
#[derive(Debug)]
pub(super) struct Image {
    file: File,
    log: Option<File>,
    page: usize,
    /// Of each page, what is stored in it.
    usable: usize,
    pages: u32,
    /// Where committed pages are in the log.
    logged: HashMap<u32, u64>,
}

impl Image {
    pub(super) fn open(path: &Path, log: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let mut header = [0; 100];
        let known = file.read_exact_at(&mut header, 0).is_ok() && header.starts_with(b"SQLite format 3\0");
        let page = match usize::from(u16::from_be_bytes([header[16], header[17]])) {
            1 if known => 65_536,
            size @ 512.. if known && size.is_power_of_two() => size,
            _ => PAGE,
        };
        let reserved = if known { usize::from(header[20]) } else { 0 };
        let mut image = Self {
            log: File::open(log).ok(),
            page,
            usable: page.saturating_sub(reserved),
            pages: u32::try_from(file.metadata()?.len() / page as u64).unwrap_or(u32::MAX),
            logged: HashMap::new(),
            file,
        };
        if let Some(log) = &image.log {
            image.logged = committed(log, page).unwrap_or_default();
        }
        image.pages = image.pages.max(image.logged.keys().copied().max().unwrap_or(0));
        Ok(image)
    }

    /// Gives the rows of all leaves to `each`. Those that cannot be read are passed over.
    pub(super) fn rows<E>(&self, mut each: impl FnMut(Row) -> Result<(), E>) -> Result<(), E> {
        let free = self.free();
        for number in (1..=self.pages).filter(|number| !free.contains(number)) {
            let Some(page) = self.read(number) else { continue };
            // The first page begins with the header of the file.
            let start = if number == 1 { 100 } else { 0 };
            for row in self.leaf(&page, start).unwrap_or_default() {
                each(row)?;
            }
        }
        Ok(())
    }

    fn read(&self, number: u32) -> Option<Vec<u8>> {
        let mut page = vec![0; self.page];
        match (self.logged.get(&number), &self.log) {
            (Some(at), Some(log)) => log.read_exact_at(&mut page, *at).ok()?,
            _ => {
                let at = u64::from(number.checked_sub(1)?) * self.page as u64;
                self.file.read_exact_at(&mut page, at).ok()?;
            }
        }
        Some(page)
    }

    /// The pages that are not in use, as far as they can be told.
    fn free(&self) -> HashSet<u32> {
        let mut free = HashSet::new();
        let mut trunk = self.read(1).and_then(|page| big_endian(&page, 32)).unwrap_or(0);
        while trunk != 0 && trunk <= self.pages && free.insert(trunk) {
            let Some(page) = self.read(trunk) else { break };
            let leaves = big_endian(&page, 4).unwrap_or(0) as usize;
            let leaves = leaves.min(self.page / 4 - 2);
            free.extend((0..leaves).filter_map(|leaf| big_endian(&page, 8 + leaf * 4)));
            trunk = big_endian(&page, 0).unwrap_or(0);
        }
        free
    }

    fn leaf(&self, page: &[u8], start: usize) -> Option<Vec<Row>> {
        if *page.get(start)? != TABLE_LEAF {
            return None;
        }
        let cells = usize::from(u16::from_be_bytes(*page.get(start + 3..)?.first_chunk()?));
        let pointers = page.get(start + 8..)?.as_chunks::<2>().0;
        let cell = |pointer: &[u8; 2]| self.cell(page, usize::from(u16::from_be_bytes(*pointer)));
        Some(pointers.iter().take(cells).filter_map(cell).collect())
    }

    fn cell(&self, page: &[u8], at: usize) -> Option<Row> {
        let mut rest = page.get(at..self.usable)?;
        let most = LARGEST.min(self.pages as usize * self.page);
        let size = usize::try_from(varint(&mut rest)?).ok().filter(|size| *size <= most)?;
        let key = varint(&mut rest)?;
        let record = self.payload(rest, size)?;
        Some(Row { key, columns: record_of(&record)? })
    }

    /// What a cell holds, the part of it in overflow pages included.
    fn payload(&self, cell: &[u8], size: usize) -> Option<Vec<u8>> {
        let (most, least) = (self.usable - 35, (self.usable - 12) * 32 / 255 - 23);
        if size <= most {
            return Some(cell.get(..size)?.to_vec());
        }
        let local = match least + (size - least) % (self.usable - 4) {
            local if local <= most => local,
            _ => least,
        };
        let mut payload = cell.get(..local)?.to_vec();
        let mut next = big_endian(cell, local)?;
        while payload.len() < size {
            // Each adds something, so that a chain that runs in a circle ends too.
            let page = self.read(next)?;
            let part = (size - payload.len()).min(self.usable - 4);
            payload.extend_from_slice(page.get(4..4 + part)?);
            next = big_endian(&page, 0)?;
        }
        Some(payload)
    }
}

/// The columns of a record. `None` if it is none.
fn record_of(record: &[u8]) -> Option<Vec<Value>> {
    let mut rest = record;
    let header = usize::try_from(varint(&mut rest)?).ok()?;
    let mut types = record.get(record.len() - rest.len()..header)?;
    let mut values = record.get(header..)?;
    let mut columns = Vec::new();
    while !types.is_empty() {
        columns.push(value(varint(&mut types)?, &mut values)?);
    }
    values.is_empty().then_some(columns)
}

/// The value of a type that comes next.
fn value(kind: i64, values: &mut &[u8]) -> Option<Value> {
    let mut take = |length: usize| -> Option<&[u8]> {
        let (taken, rest) = values.split_at_checked(length)?;
        *values = rest;
        Some(taken)
    };
    let integer = |bytes: &[u8]| {
        let first = bytes.first().map_or(0, |first| i64::from(first.cast_signed()));
        bytes.iter().skip(1).fold(first, |number, byte| number << 8 | i64::from(*byte))
    };
    Some(match kind {
        0 => Value::Null,
        1..=4 => Value::Integer(integer(take(usize::try_from(kind).ok()?)?)),
        5 => Value::Integer(integer(take(6)?)),
        6 => Value::Integer(integer(take(8)?)),
        7 => Value::Real(f64::from_be_bytes(*take(8)?.first_chunk()?)),
        8 => Value::Integer(0),
        9 => Value::Integer(1),
        12.. => {
            let bytes = take(usize::try_from((kind - 12) / 2).ok()?)?.to_vec();
            if kind % 2 == 0 { Value::Blob(bytes) } else { Value::Text(String::from_utf8(bytes).ok()?) }
        }
        _ => return None,
    })
}

/// A number of one to nine bytes, seven bits in each but the last.
fn varint(rest: &mut &[u8]) -> Option<i64> {
    let mut number = 0_u64;
    for index in 0..9 {
        let (byte, behind) = rest.split_first()?;
        *rest = behind;
        if index == 8 {
            return Some((number << 8 | u64::from(*byte)).cast_signed());
        }
        number = number << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            break;
        }
    }
    Some(number.cast_signed())
}

fn big_endian(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Where the log has the last committed version of each page (section 4 of the format).
fn committed(log: &File, page: usize) -> Option<HashMap<u32, u64>> {
    let mut header = [0; LOG_HEADER];
    log.read_exact_at(&mut header, 0).ok()?;
    let big = match big_endian(&header, 0)? {
        0x377f_0682 => false,
        0x377f_0683 => true,
        _ => return None,
    };
    let same_size = big_endian(&header, 8)? as usize == page;
    let mut sums = checksum(big, [0; 2], header.get(..24)?);
    if !same_size || header.get(24..)? != sums.map(u32::to_be_bytes).as_flattened() {
        return None;
    }
    let (mut committed, mut pending) = (HashMap::new(), Vec::new());
    let mut frame = vec![0; FRAME_HEADER + page];
    let mut at = LOG_HEADER as u64;
    while log.read_exact_at(&mut frame, at).is_ok() {
        sums = checksum(big, checksum(big, sums, frame.get(..8)?), frame.get(FRAME_HEADER..)?);
        let same = frame.get(8..16)? == header.get(16..24)?
            && frame.get(16..24)? == sums.map(u32::to_be_bytes).as_flattened();
        if !same {
            break;
        }
        pending.push((big_endian(&frame, 0)?, at + FRAME_HEADER as u64));
        // The last frame of a commit says how large the file is.
        if big_endian(&frame, 4)? != 0 {
            committed.extend(pending.drain(..));
        }
        at += (FRAME_HEADER + page) as u64;
    }
    Some(committed)
}

fn checksum(big: bool, sums: [u32; 2], bytes: &[u8]) -> [u32; 2] {
    let word = |bytes: [u8; 4]| if big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) };
    bytes.as_chunks::<8>().0.iter().fold(sums, |[first, second], pair| {
        let [a, b, c, d, e, f, g, h] = *pair;
        let first = first.wrapping_add(word([a, b, c, d])).wrapping_add(second);
        [first, second.wrapping_add(word([e, f, g, h])).wrapping_add(first)]
    })
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    #[test]
    fn rows_are_read_as_sqlite_reads_them_from_the_file_and_from_the_log() {
        let directory = tempfile::tempdir().unwrap();
        let (path, log) = (directory.path().join("a.db"), directory.path().join("a.db-wal"));
        let connection = Connection::open(&path).unwrap();
        connection.pragma_update(None, "journal_mode", "wal").unwrap();
        connection.execute_batch("CREATE TABLE t (key INTEGER PRIMARY KEY, a, b, c)").unwrap();
        let mut expected = Vec::new();
        let mut insert = connection.prepare("INSERT INTO t VALUES (?, ?, ?, ?)").unwrap();
        let integers = [0, 1, -1, 127, -128, 300, 70_000, -9_000_000, 1 << 40, i64::MAX, i64::MIN];
        let sizes = [0, 1, 100, 4_050, 4_061, 4_062, 5_000, 100_000];
        let values = integers.into_iter().zip(sizes.into_iter().cycle()).enumerate();
        for (number, (integer, size)) in values {
            let key = if number % 2 == 0 { number as i64 } else { (number as i64) << 45 };
            let columns = vec![
                Value::Null,
                Value::Integer(integer),
                Value::Text("ü".repeat(size / 2)),
                if number == 3 { Value::Real(0.5) } else { Value::Blob(vec![number as u8; size]) },
            ];
            insert.execute(rusqlite::params![key, columns[1], columns[2], columns[3]]).unwrap();
            expected.push(Row { key, columns });
            if number == 5 {
                connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).unwrap();
            }
        }
        // This one is not there any more, wherever its bytes are.
        insert.execute(rusqlite::params![77, 77, "77", "77"]).unwrap();
        connection.execute("DELETE FROM t WHERE key = 77", []).unwrap();
        let image = Image::open(&path, &log).unwrap();
        let mut found = Vec::new();
        let each = |row: Row| {
            // The table of tables has five columns.
            if row.columns.len() == 4 {
                found.push(row);
            }
            Ok::<_, ()>(())
        };
        image.rows(each).unwrap();
        expected.sort_by_key(|row| row.key);
        found.sort_by_key(|row| row.key);
        assert_eq!(found, expected);
    }

    #[test]
    fn whatever_stands_in_a_file_reading_its_rows_ends() {
        let directory = tempfile::tempdir().unwrap();
        let (path, log) = (directory.path().join("a.db"), directory.path().join("a.db-wal"));
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch("CREATE TABLE t (key INTEGER PRIMARY KEY, a); CREATE TABLE u (a)").unwrap();
        for number in 0..60 {
            connection.execute("INSERT INTO t VALUES (?, zeroblob(?))", [number, number * 400]).unwrap();
        }
        drop(connection);
        let whole = std::fs::read(&path).unwrap();
        let mut seed = 7_u64;
        for _ in 0..300 {
            let mut bytes = whole.clone();
            for _ in 0..40 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let at = (seed >> 33) as usize % bytes.len();
                bytes[at] = (seed >> 25) as u8;
            }
            std::fs::write(&path, &bytes).unwrap();
            std::fs::write(&log, &bytes).unwrap();
            let image = Image::open(&path, &log).unwrap();
            image.rows(|_| Ok::<_, ()>(())).unwrap();
        }
    }
}
