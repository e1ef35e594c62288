//! The members of a ZIP file: where they are, and their bytes. Reads what is stored or deflated, with ZIP64 (APPNOTE 6.3.10);
//! takes the directory at the file's end alone for true, and gives bytes only with the length and checksum that it tells.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    sync::Arc,
};

use flate2::{Crc, read::DeflateDecoder};

use super::{
    At,
    members::{Members, Place},
    read_whole,
};

const END: [u8; 4] = *b"PK\x05\x06";
const END_BYTES: usize = 22;
const MAX_COMMENT_BYTES: u64 = 0xffff;
const END_64: [u8; 4] = *b"PK\x06\x06";
const END_64_BYTES: usize = 56;
const LOCATOR: [u8; 4] = *b"PK\x06\x07";
const LOCATOR_BYTES: usize = 20;
const LARGE_BYTES: usize = END_64_BYTES + LOCATOR_BYTES;
const RECORD: [u8; 4] = *b"PK\x01\x02";
const RECORD_BYTES: usize = 46;
const LOCAL: [u8; 4] = *b"PK\x03\x04";
const LOCAL_BYTES: usize = 30;
/// Id of the field with what 32 bits do not hold.
const EXTRA_64: u64 = 1;
/// In place of such a number.
const ELSEWHERE: u64 = 0xffff_ffff;

const STORED: u64 = 0;
const DEFLATED: u64 = 8;
const ENCRYPTED: u64 = 1;
const UNIX: u64 = 3;
const LINK: u64 = 0o120_000;
const TYPE: u64 = 0o170_000;

/// An open ZIP file.
pub(super) struct Zip {
    file: Arc<File>,
    /// Where the directory is in the file.
    directory: u64,
    directory_bytes: u64,
    /// What stands before the archive in the file.
    before: u64,
}

/// What the directory tells of a member.
struct Record {
    flags: u64,
    method: u64,
    crc: u32,
    packed_bytes: u64,
    bytes: u64,
    /// Where its local header is, in the archive.
    local: u64,
    is_link: bool,
    name: Vec<u8>,
    /// Of the record itself.
    record_bytes: u64,
}

impl Zip {
    /// # Errors
    /// When there is no directory at the end.
    pub(super) fn open(file: &Arc<File>, file_bytes: u64) -> io::Result<Zip> {
        let tail_bytes = file_bytes.min(MAX_COMMENT_BYTES + END_BYTES as u64);
        let mut tail = vec![0; tail_bytes as usize];
        At { file: file.clone(), offset: file_bytes - tail_bytes }.read_exact(&mut tail)?;
        // The comment behind it reaches to the end of the file.
        let is_end = |at: &usize| {
            let end = &tail[*at..];
            end.starts_with(&END) && number(&end[20..22]) + END_BYTES as u64 == end.len() as u64
        };
        let last = tail.len().checked_sub(END_BYTES);
        let at = last.and_then(|last| (0..=last).rev().find(is_end));
        let at = at.ok_or_else(|| damaged("no directory at its end: it is not a ZIP file, or cut short"))?;
        let end = &tail[at..];
        let (mut directory_bytes, mut directory) = (number(&end[12..16]), number(&end[16..20]));
        let mut directory_end = file_bytes - end.len() as u64;
        // Some tools write the end of 64 bits though 32 are enough; where there is one it is what others read, too.
        if let Some(start) = directory_end.checked_sub(LARGE_BYTES as u64) {
            let mut large = [0; LARGE_BYTES];
            At { file: file.clone(), offset: start }.read_exact(&mut large)?;
            if large.starts_with(&END_64) && large[END_64_BYTES..].starts_with(&LOCATOR) {
                (directory_bytes, directory) = (number(&large[40..48]), number(&large[48..56]));
                directory_end = start;
            }
        }
        let start = directory_end.checked_sub(directory_bytes);
        let before = start.and_then(|start| start.checked_sub(directory));
        match (start, before) {
            (Some(start), Some(before)) => {
                Ok(Zip { file: file.clone(), directory: start, directory_bytes, before })
            }
            _ => Err(damaged("its directory is not where its end says")),
        }
    }

    /// Goes through the directory.
    ///
    /// # Errors
    /// When it is damaged, or tells of too much.
    pub(super) fn members(&self) -> Result<Members, String> {
        let mut members = Members::default();
        let mut input = BufReader::new(self.at(self.directory).take(self.directory_bytes));
        let mut at = 0;
        while at < self.directory_bytes {
            let failed = |error: io::Error| format!("{error}, in byte {at} of its directory");
            let record = Record::read(&mut input).map_err(failed)?;
            let place = Place { start: self.directory + at, bytes: record.bytes };
            if !record.name.ends_with(b"/") {
                members.insert(&record.name, record.refused().map_or(Ok(place), Err))?;
            }
            at += record.record_bytes;
        }
        Ok(members)
    }

    /// The bytes of a member.
    pub(super) fn read(&self, place: Place) -> Result<Vec<u8>, String> {
        self.read_checked(place).map_err(|error| error.to_string())
    }

    fn read_checked(&self, place: Place) -> io::Result<Vec<u8>> {
        let record = Record::read(&mut self.at(place.start))?;
        let data = self.data(&record)?;
        let bytes = match record.method {
            STORED => read_whole(data, place.bytes),
            _ => read_whole(DeflateDecoder::new(data), place.bytes),
        };
        let bytes = bytes.map_err(io::Error::other)?;
        let mut crc = Crc::new();
        crc.update(&bytes);
        match crc.sum() == record.crc {
            true => Ok(bytes),
            false => Err(damaged("its checksum is wrong")),
        }
    }

    /// A member's packed bytes.
    fn data(&self, record: &Record) -> io::Result<impl Read> {
        let mut local = [0; LOCAL_BYTES];
        let start = self.before.checked_add(record.local).filter(|start| *start < self.directory);
        let start = start.ok_or_else(|| damaged("its place is outside of the archive"))?;
        let mut input = self.at(start);
        input.read_exact(&mut local)?;
        let mut name = vec![0; number(&local[26..28]) as usize];
        input.read_exact(&mut name)?;
        if !local.starts_with(&LOCAL) || name != record.name {
            return Err(damaged("its header is not where the directory says"));
        }
        let data = input.offset + number(&local[28..30]);
        let end = data.checked_add(record.packed_bytes);
        if end.is_none_or(|end| end > self.directory) {
            return Err(damaged("it reaches beyond the end of the archive"));
        }
        Ok(self.at(data).take(record.packed_bytes))
    }

    fn at(&self, offset: u64) -> At {
        At { file: self.file.clone(), offset }
    }
}

impl Record {
    fn read(input: &mut impl Read) -> io::Result<Record> {
        let mut fixed = [0; RECORD_BYTES];
        input.read_exact(&mut fixed)?;
        if !fixed.starts_with(&RECORD) {
            return Err(damaged("no member"));
        }
        let field = |at: usize, bytes: usize| number(&fixed[at..at + bytes]);
        let mut name = vec![0; field(28, 2) as usize];
        let mut extra = vec![0; field(30, 2) as usize];
        let comment_bytes = field(32, 2);
        input.read_exact(&mut name)?;
        input.read_exact(&mut extra)?;
        if io::copy(&mut input.take(comment_bytes), &mut io::sink())? != comment_bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut large = large_numbers(&extra);
        let mut whole = |small: u64| match small {
            ELSEWHERE => large.next().ok_or_else(|| damaged("a size is left out")),
            small => Ok(small),
        };
        // In the order that they have in the field, too.
        let bytes = whole(field(24, 4))?;
        let packed_bytes = whole(field(20, 4))?;
        let local = whole(field(42, 4))?;
        Ok(Record {
            flags: field(8, 2),
            method: field(10, 2),
            crc: field(16, 4) as u32,
            packed_bytes,
            bytes,
            local,
            is_link: field(5, 1) == UNIX && field(40, 2) & TYPE == LINK,
            record_bytes: (RECORD_BYTES + name.len() + extra.len()) as u64 + comment_bytes,
            name,
        })
    }

    /// Why the member is not read, if it is not.
    fn refused(&self) -> Option<&'static str> {
        match self.method {
            _ if self.flags & ENCRYPTED != 0 => Some("it is encrypted; pack it without a password"),
            _ if self.is_link => Some(super::A_LINK),
            STORED | DEFLATED => None,
            _ => Some("it is packed by a method that is not read; pack it with deflate, or not at all"),
        }
    }
}

/// The numbers of 64 bits among the extra fields of a record.
fn large_numbers(mut extra: &[u8]) -> impl Iterator<Item = u64> {
    let mut found: &[u8] = &[];
    while let [a, b, c, d, rest @ ..] = extra {
        let (id, bytes) = (number(&[*a, *b]), number(&[*c, *d]) as usize);
        let (field, rest) = rest.split_at(bytes.min(rest.len()));
        if id == EXTRA_64 {
            found = field;
        }
        extra = rest;
    }
    found.chunks_exact(8).map(number)
}

/// A number as ZIP files have it, its last byte first.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn damaged(problem: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}
