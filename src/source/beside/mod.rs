//! The files that rows of a shard name in place of their content: below the source's folder, by themselves or in an archive. A path
//! comes in, the file's bytes or the reason why the row is given up go out. Knows nothing of rows, nor of what is in a file.
//!
//! A path is relative, `images/a.png`; a member of an archive is named as in `images.zip::a.png`, or as the Hub's loaders do,
//! `zip://a.png::images.zip`. It is looked up below the shard's folder and, if there is nothing of that name, below the folder where
//! the source begins. What a path gives does not depend on what was read before it.

mod folder;
mod members;
mod tar;
mod zip;

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use self::{
    folder::{Folder, Miss},
    members::{Members, Place},
    tar::Tar,
    zip::Zip,
};
use super::{ShardFile, packed::Packing, rows::too_long};
use crate::config::Source;

/// Archives that stay open: rows of a shard may take turns among some.
const KEPT_ARCHIVES: usize = 8;
/// What those may hold together, beside the last one.
const KEPT_BYTES: u64 = 128 << 20;
/// Of a path; no system opens longer ones.
const MAX_PATH_BYTES: usize = 4096;
/// Why a member that is a link is not read.
const A_LINK: &str = "it is a link, which is not followed; name the file that it leads to";

/// Reads files that rows of one shard name.
///
/// A ZIP file, or a tar file that is not packed, is read where the member lies. One that is packed costs being unpacked once when it
/// is first named, to learn what is where and whether it is whole, and then once more for all rows together if they name its
/// members in their order. A row that names one before the last one read costs unpacking from the beginning up to there: rows in
/// random order want the archive unpacked, or a ZIP file.
///
/// Memory: the members' names, 128 MiB for an archive and as much for all that are kept beside; what unpacking takes, 128 MiB at
/// the most, which is zstd with its largest window; and the content itself.
pub struct Beside {
    shard_folder: PathBuf,
    root: PathBuf,
    max_document_bytes: u64,
    folders: Option<Result<Folders, String>>,
    /// The last one used at the end.
    archives: Vec<Kept>,
}

/// An archive that rows named, or why it cannot be read.
struct Kept {
    path: String,
    format: Format,
    opened: Result<Archive, String>,
}

/// Where files are looked up.
struct Folders {
    root: Folder,
    /// The shard's folder below it, unless links lead elsewhere.
    shard: Option<PathBuf>,
}

impl Beside {
    /// For the shard `file`, where `source` has such rows read.
    pub(super) fn of(file: &ShardFile, source: &Source, max_document_bytes: u64) -> Option<Self> {
        let depth = file.source_file.split('/').count();
        let here = |path: &Path| match path.as_os_str().is_empty() {
            true => PathBuf::from("."),
            false => path.to_owned(),
        };
        let (shard_folder, root) = (file.path.parent()?, file.path.ancestors().nth(depth)?);
        source.resolve_paths.then(|| Beside::new(&here(shard_folder), &here(root), max_document_bytes))
    }

    /// For the shard in `shard_folder` of a source that begins in the folder `root`. Files of more than `max_document_bytes` are
    /// not read.
    pub fn new(shard_folder: &Path, root: &Path, max_document_bytes: u64) -> Self {
        Beside {
            shard_folder: shard_folder.to_owned(),
            root: root.to_owned(),
            max_document_bytes,
            folders: None,
            archives: Vec::new(),
        }
    }

    /// The bytes of the file that a row names `path`.
    ///
    /// # Errors
    /// Why the row is given up: there is no such file, it lies outside of the source's folder, is too long, damaged, or changes
    /// while it is read.
    pub fn read(&mut self, path: &str) -> Result<Vec<u8>, String> {
        let read = self.find(path).and_then(|found| match found {
            Found::File(file, version) => read_file(file, version),
            Found::Member(archive, place) => archive.read(place),
        });
        read.map_err(|problem| failed(path, &problem))
    }

    /// The bytes of memory that [`read`](Self::read) will give, known before anything of them is read.
    ///
    /// # Errors
    /// Those of [`read`](Self::read) that are seen so early.
    pub fn size(&mut self, path: &str) -> Result<u64, String> {
        self.find(path).map(|found| found.bytes()).map_err(|problem| failed(path, &problem))
    }

    /// The memory that is held between calls, in bytes, about.
    pub fn held(&self) -> u64 {
        self.archives.iter().flat_map(|kept| &kept.opened).map(Archive::held).sum()
    }

    fn find(&mut self, path: &str) -> Result<Found<'_>, String> {
        let most = self.max_document_bytes;
        let found = match Named::parse(path)? {
            Named::File(path) => {
                let file = self.open(path)?;
                let version = Version::of(&file)?;
                Found::File(file, version)
            }
            Named::Member { archive, format, member } => {
                let archive = self.archive(archive, format)?;
                let place = archive.members.find(member)?;
                Found::Member(archive, place)
            }
        };
        too_long(found.bytes(), most).map_or(Ok(found), Err)
    }

    /// The archive, open.
    fn archive(&mut self, path: &str, format: Format) -> Result<&mut Archive, String> {
        match self.archives.iter().position(|kept| kept.path == path && kept.format == format) {
            Some(known) => self.archives[known..].rotate_left(1),
            None => {
                let opened = self.open(path).and_then(|file| Archive::open(file, format));
                let opened = opened.map_err(|problem| format!("the archive: {problem}"));
                self.make_room();
                self.archives.push(Kept { path: path.to_owned(), format, opened });
            }
        }
        let last = self.archives.len() - 1;
        self.archives[last].opened.as_mut().map_err(|problem| problem.clone())
    }

    fn make_room(&mut self) {
        while self.archives.len() >= KEPT_ARCHIVES || self.held() > KEPT_BYTES {
            self.archives.remove(0);
        }
    }

    fn open(&mut self, path: &str) -> Result<File, String> {
        let (shard_folder, root) = (&self.shard_folder, &self.root);
        let folders = self.folders.get_or_insert_with(|| {
            let root = Folder::open(root);
            let root = root.map_err(|error| format!("failed to open the source's folder: {error}"))?;
            Ok(Folders { shard: root.below(shard_folder), root })
        });
        folders.as_ref().map_err(String::clone)?.open(Path::new(path))
    }
}

impl Folders {
    fn open(&self, path: &Path) -> Result<File, String> {
        if path.is_absolute() {
            // Even of one that leads below the source's folder: a copy of that elsewhere would give something else.
            return Err(
                "it is absolute, which holds on one machine only; paths from the shard's folder are read"
                    .to_owned(),
            );
        }
        let beside = self.shard.as_ref().map_or(Err(Miss::Absent), |shard| self.root.file(&shard.join(path)));
        let opened = match beside {
            Err(Miss::Absent) => self.root.file(path),
            opened => opened,
        };
        opened.map_err(|miss| match miss {
            Miss::Absent => "there is no such file beside the shard, nor in the source's folder".to_owned(),
            Miss::Refused(problem) => problem,
        })
    }
}

/// What a path names.
#[derive(Debug, PartialEq, Eq)]
enum Named<'a> {
    File(&'a str),
    Member { archive: &'a str, format: Format, member: &'a str },
}

/// What an archive is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Zip,
    Tar(Packing),
}

/// By the endings of their names.
const FORMATS: [(&str, Format); 7] = [
    (".zip", Format::Zip),
    (".tar", Format::Tar(Packing::Plain)),
    (".tar.gz", Format::Tar(Packing::Gzip)),
    (".tgz", Format::Tar(Packing::Gzip)),
    (".tar.zst", Format::Tar(Packing::Zstd)),
    (".tar.bz2", Format::Tar(Packing::Bzip2)),
    (".tbz2", Format::Tar(Packing::Bzip2)),
];

impl<'a> Named<'a> {
    fn parse(path: &'a str) -> Result<Named<'a>, String> {
        if path.is_empty() {
            return Err("the path is empty".to_owned());
        }
        if path.len() > MAX_PATH_BYTES {
            return Err(format!("the path has {} bytes, more than {MAX_PATH_BYTES}", path.len()));
        }
        let (archive, format, member) = if let Some(rest) = path.strip_prefix("zip://") {
            let (member, archive) = rest
                .split_once("::")
                .ok_or("`zip://` wants a member and its archive, zip://a.png::images.zip")?;
            (archive, Format::Zip, member)
        } else if let Some((archive, member)) = path.split_once("::") {
            (archive, Format::of(archive)?, member)
        } else {
            no_address(path)?;
            return Ok(Named::File(path));
        };
        no_address(archive)?;
        if archive.contains("::") || member.contains("::") {
            return Err(
                "it is in an archive in an archive, which is not read; unpack the outer one".to_owned()
            );
        }
        if member.is_empty() || member.starts_with('/') || member.split('/').any(|part| part == "..") {
            return Err(format!("{member:?} is no name of a file in an archive"));
        }
        Ok(Named::Member { archive, format, member })
    }
}

impl Format {
    fn of(archive: &str) -> Result<Format, String> {
        let name = archive.to_ascii_lowercase();
        let format = FORMATS.iter().find(|(ending, _)| name.ends_with(ending));
        format.map(|(_, format)| *format).ok_or_else(|| {
            let endings: Vec<&str> = FORMATS.iter().map(|(ending, _)| *ending).collect();
            format!("what stands before `::` is no archive that is read; those end in {}", endings.join(", "))
        })
    }
}

fn no_address(path: &str) -> Result<(), String> {
    match path.contains("://") {
        true => Err("it is an address; only files beside the shard are read, so fetch it first".to_owned()),
        false => Ok(()),
    }
}

/// What a path led to.
enum Found<'a> {
    File(File, Version),
    Member(&'a mut Archive, Place),
}

impl Found<'_> {
    fn bytes(&self) -> u64 {
        match self {
            Found::File(_, version) => version.bytes,
            Found::Member(_, place) => place.bytes,
        }
    }
}

/// An open archive.
struct Archive {
    file: Arc<File>,
    version: Version,
    members: Members,
    packed: Packed,
}

enum Packed {
    Zip(Zip),
    Tar(Tar),
}

impl Archive {
    fn open(file: File, format: Format) -> Result<Archive, String> {
        let file = Arc::new(file);
        let version = Version::of(&file)?;
        let words = |error: io::Error| error.to_string();
        let (members, packed) = match format {
            Format::Zip => {
                let zip = Zip::open(&file, version.bytes).map_err(words)?;
                (zip.members()?, Packed::Zip(zip))
            }
            Format::Tar(packing) => {
                let mut tar = Tar::open(&file, version.bytes, packing).map_err(words)?;
                (tar.members()?, Packed::Tar(tar))
            }
        };
        version.check(&file)?;
        Ok(Archive { file, version, members, packed })
    }

    fn read(&mut self, place: Place) -> Result<Vec<u8>, String> {
        let bytes = match &mut self.packed {
            Packed::Zip(zip) => zip.read(place),
            Packed::Tar(tar) => tar.read(place),
        };
        // Of one that changed, what was seen says nothing.
        self.version.check(&self.file)?;
        bytes
    }

    fn held(&self) -> u64 {
        let unpacking = match &self.packed {
            Packed::Zip(_) => 0,
            Packed::Tar(tar) => tar.held,
        };
        self.members.held() + unpacking
    }
}

/// What tells that an open file was written to.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Version {
    bytes: u64,
    modified: SystemTime,
}

impl Version {
    fn of(file: &File) -> Result<Version, String> {
        let version = file
            .metadata()
            .and_then(|metadata| Ok(Version { bytes: metadata.len(), modified: metadata.modified()? }));
        version.map_err(|error| error.to_string())
    }

    /// # Errors
    /// When `file` was written to since.
    fn check(self, file: &File) -> Result<(), String> {
        match Version::of(file)? == self {
            true => Ok(()),
            false => Err("the file changed while it was read".to_owned()),
        }
    }
}

fn read_file(file: File, version: Version) -> Result<Vec<u8>, String> {
    let bytes = read_whole(&file, version.bytes);
    version.check(&file)?;
    bytes
}

/// What `input` has, which is `n_bytes`; not a byte more is held.
fn read_whole(input: impl Read, n_bytes: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(n_bytes as usize).map_err(|error| error.to_string())?;
    input.take(n_bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    match bytes.len() as u64 == n_bytes {
        true => Ok(bytes),
        false => Err(format!("it does not have the {n_bytes} bytes that it should")),
    }
}

/// A file from a place on, whatever else reads it.
struct At {
    file: Arc<File>,
    offset: u64,
}

impl Read for At {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(buffer, self.offset)?;
        self.offset += n as u64;
        Ok(n)
    }
}

fn failed(path: &str, problem: &str) -> String {
    // No system opens a longer one, and a cell may hold anything.
    let shown = path.get(..path.floor_char_boundary(MAX_PATH_BYTES)).unwrap_or_default();
    format!("failed to read {shown:?}: {problem}")
}

#[cfg(test)]
mod tests;
