//! Opens a file below a folder by a path that somebody else wrote, and nothing that lies outside of the folder, whatever links
//! there are and whoever changes them meanwhile. Knows nothing of what is in a file.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, openat, readlinkat, statat},
    io::Errno,
};

/// Links that are followed on the way to a file; as many as Linux follows.
const MAX_LINKS: usize = 40;
/// Parts that a path has once its links are followed; 4096 bytes of path hold no more than half of them.
const MAX_PARTS: usize = 4096;

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// Without NONBLOCK a pipe that takes a file's place would keep us waiting for its writer.
const FILE: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A folder that files are opened below.
pub(super) struct Folder {
    /// Without links.
    path: PathBuf,
    handle: OwnedFd,
}

/// Why a file is not opened.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Miss {
    /// Nothing has that name.
    Absent,
    /// What has it is not to be read.
    Refused(String),
}

impl From<Errno> for Miss {
    fn from(error: Errno) -> Self {
        match error {
            Errno::NOENT | Errno::NOTDIR => Miss::Absent,
            error => Miss::Refused(format!("failed to open it: {}", io::Error::from(error))),
        }
    }
}

impl Folder {
    pub(super) fn open(path: &Path) -> io::Result<Folder> {
        // The folder of a file that is named without one.
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let path = path.canonicalize()?;
        let handle = rustix::fs::open(&path, FOLDER, Mode::empty())?;
        Ok(Folder { path, handle })
    }

    /// Where `other` lies below this folder, if it does.
    pub(super) fn below(&self, other: &Path) -> Option<PathBuf> {
        let other = if other.as_os_str().is_empty() { Path::new(".") } else { other };
        Some(other.canonicalize().ok()?.strip_prefix(&self.path).ok()?.to_owned())
    }

    /// The regular file at `path`, which is relative.
    ///
    /// Each part is opened by itself, from the folder that was opened before it and without following a link; links are read and
    /// their parts gone through in the same way, and `..` goes back to the folder that one came from. So there is no moment at
    /// which another process can put a way out in the place of what was looked at.
    pub(super) fn file(&self, path: &Path) -> Result<File, Miss> {
        let mut folders: Vec<OwnedFd> = Vec::new();
        let mut parts = Vec::new();
        push_parts(&mut parts, path)?;
        let mut n_links = 0;
        while let Some(part) = parts.pop() {
            if part == ".." {
                folders.pop().ok_or_else(outside)?;
                continue;
            }
            let here = folders.last().unwrap_or(&self.handle);
            let found = statat(here, &part, AtFlags::SYMLINK_NOFOLLOW)?;
            match (FileType::from_raw_mode(found.st_mode), parts.is_empty()) {
                (FileType::Symlink, _) => {
                    n_links += 1;
                    if n_links > MAX_LINKS {
                        return Err(Miss::Refused(format!("more than {MAX_LINKS} links lead to it")));
                    }
                    let target = readlinkat(here, &part, Vec::new())?;
                    let mut target = Path::new(OsStr::from_bytes(target.as_bytes()));
                    if target.is_absolute() {
                        target = target.strip_prefix(&self.path).map_err(|_| outside())?;
                        folders.clear();
                    }
                    push_parts(&mut parts, target)?;
                }
                (FileType::Directory, false) => {
                    let folder = openat(here, &part, FOLDER, Mode::empty())?;
                    folders.push(folder);
                }
                (FileType::RegularFile, true) => {
                    let file = File::from(openat(here, &part, FILE, Mode::empty())?);
                    // Something else may have taken its place.
                    return match file.metadata() {
                        Ok(metadata) if metadata.is_file() => Ok(file),
                        Ok(_) => Err(Miss::Refused("it is not a regular file".to_owned())),
                        Err(error) => Err(Miss::Refused(format!("failed to open it: {error}"))),
                    };
                }
                (FileType::Directory, true) => return Err(a_folder()),
                (_, true) => return Err(Miss::Refused("it is not a regular file".to_owned())),
                (_, false) => return Err(Miss::Absent),
            }
        }
        Err(a_folder())
    }
}

fn a_folder() -> Miss {
    Miss::Refused("it is a folder".to_owned())
}

fn outside() -> Miss {
    Miss::Refused(
        "it leads out of the source's folder, and only files below that are read; put it there, or begin source.uri with a \
         folder above both"
            .to_owned(),
    )
}

/// Puts the parts of `path` on top of `parts`, its first one last.
fn push_parts(parts: &mut Vec<OsString>, path: &Path) -> Result<(), Miss> {
    for component in path.components().rev() {
        match component {
            Component::CurDir => {}
            Component::Normal(_) | Component::ParentDir => parts.push(component.as_os_str().to_owned()),
            Component::RootDir | Component::Prefix(_) => return Err(outside()),
        }
    }
    match parts.len() > MAX_PARTS {
        true => Err(Miss::Refused("its links make a path that is too long".to_owned())),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    /// `root/in/file` and `root/file` with their own names as content, and `secret` outside.
    fn tree() -> (tempfile::TempDir, Folder) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        fs::create_dir_all(root.join("in/deep")).unwrap();
        for name in ["in/file", "file", "in/deep/file"] {
            fs::write(root.join(name), name).unwrap();
        }
        fs::write(folder.path().join("secret"), "secret").unwrap();
        let root = Folder::open(&root).unwrap();
        (folder, root)
    }

    fn read(root: &Folder, path: &str) -> Result<String, Miss> {
        root.file(Path::new(path)).map(|file| io::read_to_string(file).unwrap())
    }

    fn refusal(root: &Folder, path: &str) -> String {
        match read(root, path) {
            Err(Miss::Refused(problem)) => problem,
            other => panic!("{path}: {other:?}"),
        }
    }

    #[test]
    fn parts_are_gone_through_as_the_system_does() {
        let (_folder, root) = tree();
        for (path, expected) in [
            ("file", "file"),
            ("./in//./file", "in/file"),
            ("in/../file", "file"),
            ("in/deep/../../in/file", "in/file"),
        ] {
            assert_eq!(read(&root, path).as_deref(), Ok(expected), "{path}");
        }
        for path in ["none", "in/none", "none/../file", "file/none", "file/../file"] {
            assert_eq!(read(&root, path), Err(Miss::Absent), "{path}");
        }
        for path in ["", ".", "in", "in/deep/..", "in/.."] {
            assert_eq!(refusal(&root, path), "it is a folder", "{path}");
        }
        assert!(refusal(&root, "a\0b").starts_with("failed to open it: "));
        assert!(refusal(&root, &"x".repeat(300)).starts_with("failed to open it: "));
    }

    #[test]
    fn nothing_outside_is_opened_by_any_way() {
        let (folder, root) = tree();
        let at = |name: &str| folder.path().join("root").join(name);
        symlink("../secret", at("out")).unwrap();
        symlink("..", at("up")).unwrap();
        symlink("/etc", at("etc")).unwrap();
        symlink(folder.path().join("secret"), at("absolute")).unwrap();
        symlink("../../root/file", at("in/out-and-back")).unwrap();
        symlink(format!("{}/../secret", at("").display()), at("disguised")).unwrap();
        symlink("/proc/self/root/etc/passwd", at("magic")).unwrap();
        for path in [
            "../secret",
            "in/../../secret",
            "in/deep/../../../secret",
            "/etc/passwd",
            "out",
            "up/secret",
            "etc/passwd",
            "absolute",
            "in/out-and-back",
            "disguised",
            "magic",
            "..",
            "../root/file",
        ] {
            assert!(refusal(&root, path).starts_with("it leads out of the source's folder"), "{path}");
        }
    }

    #[test]
    fn links_that_stay_inside_are_followed() {
        let (folder, root) = tree();
        let at = |name: &str| folder.path().join("root").join(name);
        symlink("in", at("folder")).unwrap();
        symlink("../file", at("in/up")).unwrap();
        symlink(folder.path().canonicalize().unwrap().join("root/in/deep"), at("absolute")).unwrap();
        symlink("folder/up", at("twice")).unwrap();
        symlink("nowhere", at("broken")).unwrap();
        symlink("round", at("round")).unwrap();
        // As the system has it: `..` behind a link is the folder above its target.
        for (path, expected) in [
            ("folder/file", "in/file"),
            ("in/up", "file"),
            ("twice", "file"),
            ("absolute/file", "in/deep/file"),
            ("absolute/../file", "in/file"),
        ] {
            assert_eq!(read(&root, path).as_deref(), Ok(expected), "{path}");
        }
        assert_eq!(read(&root, "broken"), Err(Miss::Absent));
        assert_eq!(refusal(&root, "round"), "more than 40 links lead to it");
    }

    #[test]
    fn links_that_grow_a_path_without_end_are_given_up() {
        let (folder, root) = tree();
        let long = format!("grow{}", "/x".repeat(200));
        symlink(&long, folder.path().join("root/grow")).unwrap();
        assert!(refusal(&root, "grow").contains("links"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_no_file_is_not_opened() {
        let (folder, root) = tree();
        let pipe = folder.path().join("root/pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, Mode::RUSR).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("root/socket")).unwrap();
        symlink("../pipe", folder.path().join("root/in/pipe")).unwrap();
        for path in ["pipe", "socket", "in/pipe"] {
            assert_eq!(refusal(&root, path), "it is not a regular file", "{path}");
        }
    }

    #[test]
    fn a_folder_that_turns_into_a_way_out_is_not_one() {
        let (folder, root) = tree();
        let (inside, aside) = (folder.path().join("root/in"), folder.path().join("root/aside"));
        fs::write(folder.path().join("file"), "secret").unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    fs::rename(&inside, &aside).unwrap();
                    symlink("..", &inside).unwrap();
                    fs::remove_file(&inside).unwrap();
                    fs::rename(&aside, &inside).unwrap();
                }
            });
            for _ in 0..5000 {
                let read = read(&root, "in/file");
                assert!(read.as_ref().is_ok_and(|read| read == "in/file") || read.is_err(), "{read:?}");
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    }
}
