//! The members of a tar file, packed or not: where they are, and their bytes. One that is packed is unpacked from its beginning to
//! what is asked for; going on from there costs what lies between, going back costs all before. Follows no links.

use std::{
    fs::File,
    io::{self, Read},
    sync::Arc,
};

use super::{
    At,
    members::{Members, Place},
    read_whole,
};
use crate::source::packed::Packing;

const BLOCK_BYTES: u64 = 512;
/// Of all that stands before a member: its name may be long, but not without end.
const MAX_HEADER_BYTES: u64 = 1 << 20;
/// What a packed file may hold: so much whatever its size, and so many times its size. Deflate packs nothing better, and what does
/// is zeros that would be unpacked for days.
const MIN_UNPACKED_BYTES: u64 = 1 << 30;
const MAX_RATIO: u64 = 1100;

/// An open tar file.
pub(super) struct Tar {
    file: Arc<File>,
    file_bytes: u64,
    packing: Packing,
    input: Box<dyn Read + Send>,
    /// Where `input` is in the unpacked file.
    at: u64,
    /// What unpacking takes.
    pub(super) held: u64,
}

/// What stands before a member's bytes.
struct Header {
    name: Vec<u8>,
    /// Size in the archive.
    bytes: u64,
    /// Why it is not read, if it is not.
    refused: Option<&'static str>,
    /// Whether it is a member at all.
    is_listed: bool,
}

impl Tar {
    /// # Errors
    /// When it is not `packing` that it is packed with.
    pub(super) fn open(file: &Arc<File>, file_bytes: u64, packing: Packing) -> io::Result<Tar> {
        let (input, held) = open(file, packing, 0)?;
        Ok(Tar { file: file.clone(), file_bytes, packing, input, at: 0, held })
    }

    /// Goes through all of it once. Of a packed file the checksums at its end are tried, too, so that damage anywhere in it is
    /// known before a member is read.
    ///
    /// # Errors
    /// When it is damaged, or holds too much.
    pub(super) fn members(&mut self) -> Result<Members, String> {
        let mut members = Members::default();
        while let Some(header) = self.header().map_err(|error| error.to_string())? {
            let place = Place { start: self.at, bytes: header.bytes };
            let padded = header.bytes.checked_next_multiple_of(BLOCK_BYTES);
            let end = padded.and_then(|padded| self.at.checked_add(padded));
            if header.is_listed {
                members.insert(&header.name, header.refused.map_or(Ok(place), Err))?;
            }
            let cut = |error: io::Error| {
                format!("what its header at {} tells of is not there: {error}", place.start)
            };
            self.go_to(end.unwrap_or(u64::MAX)).map_err(cut)?;
        }
        if self.packing != Packing::Plain {
            io::copy(self, &mut io::sink()).map_err(|error| error.to_string())?;
        }
        Ok(members)
    }

    /// The bytes of a member.
    pub(super) fn read(&mut self, place: Place) -> Result<Vec<u8>, String> {
        self.go_to(place.start).map_err(|error| error.to_string())?;
        read_whole(self.take(place.bytes), place.bytes)
    }

    /// The next header, and all that belongs to it; the member's bytes are what comes next.
    fn header(&mut self) -> io::Result<Option<Header>> {
        // A reader of its own for each: it reads not a byte more than the header, and cannot be kept beside what it reads from.
        let mut archive = ::tar::Archive::new(self.take(MAX_HEADER_BYTES));
        let Some(entry) = archive.entries()?.next() else { return Ok(None) };
        let mut entry = entry?;
        let name = entry.path_bytes().into_owned();
        let kind = entry.header().entry_type();
        let is_sparse = kind.is_gnu_sparse();
        // A sparse file's size is that of what it stands for.
        let bytes = if is_sparse { entry.header().entry_size()? } else { entry.size() };
        let is_listed = !(kind.is_dir() || kind.is_pax_global_extensions() || name.ends_with(b"/"));
        let mut refused = if !is_listed || kind.is_file() || kind.is_contiguous() {
            None
        } else if kind.is_symlink() || kind.is_hard_link() {
            Some(super::A_LINK)
        } else if is_sparse {
            Some(SPARSE)
        } else {
            Some("it is not a regular file")
        };
        if is_listed && let Some(extensions) = entry.pax_extensions()? {
            for extension in extensions {
                match extension {
                    Ok(extension) if extension.key_bytes().starts_with(b"GNU.sparse.") => {
                        refused = Some(SPARSE)
                    }
                    Ok(_) => {}
                    Err(_) => refused = Some("its extended header is malformed"),
                }
            }
        }
        Ok(Some(Header { name, bytes, refused, is_listed }))
    }

    /// The next byte is the one at `offset` of the unpacked file.
    fn go_to(&mut self, offset: u64) -> io::Result<()> {
        if self.packing == Packing::Plain || offset < self.at {
            let start = if self.packing == Packing::Plain { offset } else { 0 };
            if start > self.file_bytes {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            (self.input, self.held) = open(&self.file, self.packing, start)?;
            self.at = start;
        }
        let ahead = offset - self.at;
        match io::copy(&mut self.take(ahead), &mut io::sink())? == ahead {
            true => Ok(()),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// What `file` has from byte `start` on, which is 0 if it is packed, and the memory that this takes.
fn open(file: &Arc<File>, packing: Packing, start: u64) -> io::Result<(Box<dyn Read + Send>, u64)> {
    let at = At { file: file.clone(), offset: start };
    match packing {
        // Without a buffer: what is between headers is passed over.
        Packing::Plain => Ok((Box::new(at), 0)),
        packing => packing.unpack(at).map(|(input, held)| (input as Box<dyn Read + Send>, held)),
    }
}

const SPARSE: &str = "it is stored with its holes left out, which is not read; pack it without --sparse";

impl Read for Tar {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.input.read(buffer)?;
        self.at += n as u64;
        let most = self.file_bytes.saturating_mul(MAX_RATIO).max(MIN_UNPACKED_BYTES);
        match self.at > most {
            true => Err(io::Error::other(format!(
                "it unpacks to more than {most} bytes, far more than its size lets expect"
            ))),
            false => Ok(n),
        }
    }
}
