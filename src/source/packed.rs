//! The lines of a file that may be packed, one after the other, and a hash of the file on the way. Knows nothing of what is in a line.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    sync::{Arc, Mutex, PoisonError},
};

use sha2::{Digest, Sha256};

use super::SourceError;

/// Log2 of the largest window of a zstd file; `zstd --ultra -22` takes that.
const MAX_ZSTD_WINDOW_LOG: u32 = 27;
/// And of the smallest that is counted: levels up to 19 stay below.
const MIN_ZSTD_WINDOW_LOG: u32 = 23;
const BUFFER_BYTES: usize = 256 << 10;
/// Of a bzip2 file: blocks have 900 kB at the most, four bytes a byte.
const BZIP2_BYTES: u64 = 4 << 20;

/// How a file's lines are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    Plain,
    Gzip,
    Zstd,
    /// Of archives alone.
    Bzip2,
}

impl Packing {
    /// Of a file of that name, and whether its ending says that it holds JSON Lines.
    pub(super) fn of(name: &str) -> (Packing, bool) {
        let (name, packing) = match name.rsplit_once('.') {
            Some((name, "gz")) => (name, Packing::Gzip),
            Some((name, "zst")) => (name, Packing::Zstd),
            _ => (name, Packing::Plain),
        };
        (packing, [".jsonl", ".ndjson"].iter().any(|ending| name.ends_with(ending)))
    }

    /// What `file` holds, unpacked, and the bytes of memory that unpacking takes.
    pub(super) fn unpack(
        self,
        file: impl Read + Send + 'static,
    ) -> io::Result<(Box<dyn BufRead + Send>, u64)> {
        let mut file = BufReader::with_capacity(BUFFER_BYTES, file);
        let buffers = 2 * BUFFER_BYTES as u64;
        Ok(match self {
            Packing::Plain => (Box::new(file), BUFFER_BYTES as u64),
            Packing::Gzip => (buffered(flate2::bufread::MultiGzDecoder::new(file)), buffers),
            Packing::Zstd => {
                // What the first frame needs is counted, and no later one may need more.
                let window_log = zstd_window_log(file.fill_buf()?);
                let mut unpacked = zstd::Decoder::with_buffer(file)?;
                unpacked.window_log_max(window_log)?;
                (buffered(unpacked), 1 << window_log)
            }
            Packing::Bzip2 => (buffered(bzip2::bufread::MultiBzDecoder::new(file)), BZIP2_BYTES + buffers),
        })
    }
}

fn buffered(unpacked: impl Read + Send + 'static) -> Box<dyn BufRead + Send> {
    Box::new(BufReader::with_capacity(BUFFER_BYTES, unpacked))
}

/// The bytes of a file as they are read, hashed.
pub(super) struct Hashed {
    pub(super) file: File,
    pub(super) hash: Arc<Mutex<Sha256>>,
}

impl Read for Hashed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.hash.lock().unwrap_or_else(PoisonError::into_inner).update(&buffer[..n]);
        Ok(n)
    }
}

/// The lines of a file that are not blank.
pub(super) struct Lines {
    input: Box<dyn BufRead + Send>,
    /// In the unpacked file.
    offset: u64,
    /// What unpacking takes.
    pub(super) held: u64,
}

/// A line, or the head of one that is too long.
pub(super) struct Line {
    pub(super) start: u64,
    /// All of it.
    pub(super) length: u64,
}

/// Why there is no line, or no going on after it.
pub(super) enum Fault {
    Io(io::Error),
    /// The memory for it was not granted, or what it holds is not to be planned with.
    Refused(SourceError),
}

impl Lines {
    /// Of `file`, whose bytes begin at `offset`, which is 0 unless it is plain.
    pub(super) fn open(file: impl Read + Send + 'static, packing: Packing, offset: u64) -> io::Result<Lines> {
        let (input, held) = packing.unpack(file)?;
        Ok(Lines { input, offset, held })
    }

    /// Puts the next line into `line`, of one that is longer than `most` bytes only so many. `grant` is asked before more is
    /// held for it.
    pub(super) fn next(
        &mut self,
        line: &mut Vec<u8>,
        most: u64,
        grant: &mut dyn FnMut(u64) -> Result<(), SourceError>,
    ) -> Result<Option<Line>, Fault> {
        loop {
            let start = self.offset;
            let (mut length, mut is_blank) = (0, true);
            line.clear();
            loop {
                let chunk = self.input.fill_buf().map_err(Fault::Io)?;
                if chunk.is_empty() {
                    break;
                }
                let end = memchr::memchr(b'\n', chunk);
                let part = &chunk[..end.unwrap_or(chunk.len())];
                is_blank = is_blank && part.iter().all(u8::is_ascii_whitespace);
                let room = most.saturating_sub(line.len() as u64).min(part.len() as u64) as usize;
                if line.len() + room > line.capacity() {
                    // The old buffer, and one twice its size.
                    grant(3 * (line.len() + room) as u64).map_err(Fault::Refused)?;
                }
                line.extend_from_slice(&part[..room]);
                length += part.len() as u64;
                let used = part.len() + usize::from(end.is_some());
                self.input.consume(used);
                self.offset += used as u64;
                if end.is_some() {
                    break;
                }
            }
            if self.offset == start {
                return Ok(None);
            }
            if !is_blank {
                return Ok(Some(Line { start, length }));
            }
        }
    }
}

/// Log2 of the window that the frame at the start of `bytes` needs (RFC 8878, 3.1.1.1), within what is counted and allowed.
fn zstd_window_log(bytes: &[u8]) -> u32 {
    let window = match bytes {
        [0x28, 0xb5, 0x2f, 0xfd, descriptor, rest @ ..] if descriptor & 0x20 != 0 => {
            // With the flag of a single segment the content's size stands in the window's place, behind the dictionary's id.
            let id_bytes = [0, 1, 2, 4][usize::from(descriptor & 3)];
            let (size_bytes, least) = [(1, 0), (2, 256), (4, 0), (8, 0)][usize::from(descriptor >> 6)];
            let size = rest.get(id_bytes..id_bytes + size_bytes).unwrap_or_default();
            let size = size.iter().rev().fold(0, |size: u64, byte| size << 8 | u64::from(*byte));
            size.saturating_add(least).checked_next_power_of_two().map_or(64, u64::ilog2)
        }
        [0x28, 0xb5, 0x2f, 0xfd, _, window, ..] => 10 + u32::from(window >> 3) + 1,
        _ => 0,
    };
    window.clamp(MIN_ZSTD_WINDOW_LOG, MAX_ZSTD_WINDOW_LOG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zstd_frame_of_one_segment_needs_its_whole_content_as_window() {
        for (head, expected) in [
            (&[0x24, 200][..], MIN_ZSTD_WINDOW_LOG),
            (&[0xa4, 0x60, 0xf5, 0x90, 0x00], 24),
            (&[0xa7, 1, 1, 1, 1, 0x60, 0xf5, 0x90, 0x00], 24),
            (&[0xe0, 0, 0, 0, 0x08, 0, 0, 0, 0], MAX_ZSTD_WINDOW_LOG),
            (&[0xe0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], MAX_ZSTD_WINDOW_LOG),
            (&[0xe0, 0xff], MIN_ZSTD_WINDOW_LOG),
            // Of several segments the second byte tells it.
            (&[0x04, 15 << 3], 26),
        ] {
            let frame = [&[0x28, 0xb5, 0x2f, 0xfd], head].concat();
            assert_eq!(zstd_window_log(&frame), expected, "{head:x?}");
        }
        let content: Vec<u8> = (0..9_500_000u32).map(|i| (i >> 12) as u8).collect();
        let packed = zstd::bulk::compress(&content, 20).unwrap();
        assert_eq!(packed[4] & 0x20, 0x20, "one segment");
        let (mut unpacked, held) = Packing::Zstd.unpack(io::Cursor::new(packed)).unwrap();
        let mut read = Vec::new();
        unpacked.read_to_end(&mut read).unwrap();
        assert!(read == content && held == 1 << 24, "{held}");
    }
}
