use std::{
    fs,
    io::{Cursor, Write},
    os::unix::fs::symlink,
    time::Duration,
};

use ::zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use super::*;

const MOST: u64 = 1 << 20;

/// A source's folder with a shard's folder `shards` in it, and a file outside.
struct TestSource {
    folder: tempfile::TempDir,
}

impl TestSource {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("root/shards")).unwrap();
        fs::write(folder.path().join("secret"), "secret").unwrap();
        TestSource { folder }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    fn put(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.root().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn beside(&self) -> Beside {
        Beside::new(&self.root().join("shards"), &self.root(), MOST)
    }

    fn read(&self, path: &str) -> Result<String, String> {
        let read = self.beside().read(path);
        read.map(|bytes| String::from_utf8(bytes).unwrap())
    }
}

fn tar_of(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = ::tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = ::tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, *bytes).unwrap();
    }
    tar.into_inner().unwrap()
}

/// A member whose header says `change`.
fn odd_tar(name: &str, bytes: &[u8], change: impl FnOnce(&mut ::tar::Header)) -> Vec<u8> {
    let mut tar = ::tar::Builder::new(Vec::new());
    let mut header = ::tar::Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_size(bytes.len() as u64);
    change(&mut header);
    header.set_cksum();
    tar.append(&header, bytes).unwrap();
    tar.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut packed = ::zstd::Encoder::new(Vec::new(), 1).unwrap();
    packed.include_checksum(true).unwrap();
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut packed = ::bzip2::write::BzEncoder::new(Vec::new(), ::bzip2::Compression::fast());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

fn zip_of(method: CompressionMethod, members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in members {
        zip.start_file(*name, SimpleFileOptions::default().compression_method(method)).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// The same members in all kinds of archives.
fn archives(members: &[(&str, &[u8])]) -> Vec<(&'static str, Vec<u8>)> {
    let tar = tar_of(members);
    vec![
        ("a.zip", zip_of(CompressionMethod::Deflated, members)),
        ("stored.zip", zip_of(CompressionMethod::Stored, members)),
        ("a.tar.gz", gzip(&tar)),
        ("a.tgz", gzip(&tar)),
        ("a.tar.zst", zstd(&tar)),
        ("a.tar.bz2", bzip2(&tar)),
        ("a.tar", tar),
    ]
}

/// Numbers that look random and are the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }

    fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.below(256) as u8).collect()
    }
}

#[test]
fn a_file_is_looked_up_beside_the_shard_then_where_the_source_begins() {
    let place = TestSource::new();
    place.put("shards/images/a", "beside");
    place.put("images/a", "at the root");
    place.put("images/b", "at the root");
    place.put("shards/::", "never read");
    for (path, expected) in [
        ("images/a", "beside"),
        ("./images/a", "beside"),
        ("images/b", "at the root"),
        ("../images/a", "at the root"),
        ("shards/images/a", "beside"),
    ] {
        assert_eq!(place.read(path).as_deref(), Ok(expected), "{path}");
    }
    place.put("a", vec![b'x'; MOST as usize]);
    assert_eq!(place.beside().size("a"), Ok(MOST));
    assert_eq!(place.beside().read("a").map(|bytes| bytes.len() as u64), Ok(MOST));
    place.put("a", vec![b'x'; MOST as usize + 1]);
    let expected =
        "failed to read \"a\": 1048577 bytes of content, more than limits.max_document_bytes = 1048576";
    assert_eq!(place.beside().size("a").unwrap_err(), expected);
    assert_eq!(place.beside().read("a").unwrap_err(), expected);
    place.put("empty", "");
    assert_eq!(place.read("empty").as_deref(), Ok(""));
}

#[test]
fn a_shard_that_a_link_brings_in_has_no_folder_of_its_own() {
    let place = TestSource::new();
    fs::create_dir(place.folder.path().join("elsewhere")).unwrap();
    fs::write(place.folder.path().join("elsewhere/a"), "outside").unwrap();
    symlink("../elsewhere", place.root().join("link")).unwrap();
    let mut beside = Beside::new(&place.root().join("link"), &place.root(), MOST);
    assert!(beside.read("a").unwrap_err().contains("there is no such file"));
    place.put("a", "inside");
    assert_eq!(beside.read("a").as_deref(), Ok(&b"inside"[..]));
    let mut nowhere = Beside::new(Path::new("/none/a"), Path::new("/none"), MOST);
    assert!(nowhere.read("a").unwrap_err().contains("failed to open the source's folder"));
}

#[cfg(target_os = "linux")]
#[test]
fn hostile_paths_are_refused_each_with_its_reason() {
    let place = TestSource::new();
    let root = place.root();
    place.put("shards/a/x", "x");
    place.put(
        "shards/a.zip",
        zip_of(CompressionMethod::Stored, &[("../x", b"x"), ("x", b"x"), ("/abs", b"x")]),
    );
    place.put("shards/absolute.tar", odd_tar("/etc/passwd", b"x", |_| {}));
    place.put("shards/a.rar", "x");
    place.put("shards/text.zip", "this is no archive");
    place.put("shards/text.tar", "this is no archive, either, but it is long enough for a header".repeat(20));
    place.put("shards/text.tar.gz", "nor this");
    symlink("../../secret", root.join("shards/out")).unwrap();
    symlink("a/x", root.join("shards/in")).unwrap();
    symlink("../../secret", root.join("shards/out.zip")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, root.join("shards/pipe"), rustix::fs::Mode::RUSR).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, root.join("shards/pipe.tar"), rustix::fs::Mode::RUSR).unwrap();
    assert_eq!(place.read("in").as_deref(), Ok("x"));
    assert_eq!(place.read("a.zip::x").as_deref(), Ok("x"));
    let long = format!("{}x", "a/".repeat(3000));
    for (path, reason) in [
        ("", "the path is empty"),
        (&*long, "the path has 6001 bytes, more than 4096"),
        ("../../secret", "it leads out of the source's folder"),
        ("a/../../../secret", "it leads out of the source's folder"),
        ("out", "it leads out of the source's folder"),
        ("/etc/passwd", "it is absolute"),
        ("a", "it is a folder"),
        ("pipe", "it is not a regular file"),
        ("none", "there is no such file beside the shard, nor in the source's folder"),
        ("a.zip/x", "there is no such file"),
        ("https://example.org/a.png", "it is an address"),
        ("file:///etc/passwd", "it is an address"),
        ("a.rar::x", "what stands before `::` is no archive that is read; those end in .zip, .tar, .tar.gz"),
        ("a::x", "what stands before `::` is no archive"),
        ("::x", "what stands before `::` is no archive"),
        ("a.zip::", "\"\" is no name of a file in an archive"),
        ("a.zip::../x", "\"../x\" is no name of a file in an archive"),
        ("a.zip::a/../../x", "is no name of a file in an archive"),
        ("a.zip::/abs", "is no name of a file in an archive"),
        ("a.zip::b.zip::x", "it is in an archive in an archive"),
        ("zip://x", "`zip://` wants a member and its archive"),
        ("zip://x::https://example.org/a.zip", "it is an address"),
        ("zip://x::/etc/a.zip", "the archive: it is absolute"),
        ("a.zip::y", "it is not among the 3 files of the archive, where the nearest name is \"x\""),
        ("a.zip::X", "it is not among the 3 files of the archive"),
        ("absolute.tar::etc/passwd", "the nearest name is \"/etc/passwd\""),
        ("absolute.tar::/etc/passwd", "is no name of a file in an archive"),
        ("out.zip::x", "the archive: it leads out of the source's folder"),
        ("pipe.tar::x", "the archive: it is not a regular file"),
        ("../../none.zip::x", "the archive: it leads out of the source's folder"),
        ("none.zip::x", "the archive: there is no such file"),
        ("text.zip::x", "the archive: no directory at its end: it is not a ZIP file, or cut short"),
        ("text.tar::x", "the archive: "),
        ("text.tar.gz::x", "the archive: "),
    ] {
        let refused = place.read(path).unwrap_err();
        assert!(refused.contains(reason), "{path}: {refused}");
        assert!(refused.starts_with("failed to read \""), "{refused}");
        assert!(!refused.contains(&*root.to_string_lossy()), "the same on every machine: {refused}");
    }
}

#[test]
fn members_of_every_kind_of_archive_are_read_in_any_order() {
    let mut random = Random(7);
    let mut members: Vec<(String, Vec<u8>)> = vec![
        ("./first".into(), b"1".to_vec()),
        ("empty".into(), Vec::new()),
        ("a/b/full block".into(), random.bytes(512)),
        (format!("{}end", "long/".repeat(60)), random.bytes(1000)),
        ("größe/文.wav".into(), random.bytes(70_000)),
        ("zeros".into(), vec![0; 200_000]),
        ("last".into(), random.bytes(1)),
    ];
    members.extend((0..30).map(|i| (format!("many/{i}"), random.bytes(i * 37))));
    let listed: Vec<(&str, &[u8])> = members.iter().map(|(name, bytes)| (&**name, &**bytes)).collect();
    let place = TestSource::new();
    let archives = archives(&listed);
    for (archive, bytes) in &archives {
        place.put(&format!("shards/{archive}"), bytes);
    }
    let mut beside = place.beside();
    let mut check = |archive: &str, at: usize| {
        let (name, bytes) = &members[at];
        for path in [format!("{archive}::{name}"), format!("{archive}::./{}", name.trim_start_matches("./"))]
        {
            assert_eq!(beside.size(&path), Ok(bytes.len() as u64), "{path}");
            assert_eq!(beside.read(&path).as_ref(), Ok(bytes), "{path}");
        }
    };
    for (archive, _) in &archives {
        (0..members.len()).for_each(|at| check(archive, at));
        (0..members.len()).rev().for_each(|at| check(archive, at));
    }
    for _ in 0..300 {
        check(archives[random.below(archives.len())].0, random.below(members.len()));
    }
    assert_eq!(beside.read("zip://last::a.zip").as_ref(), Ok(&members[6].1));
    assert!(beside.read("zip://last::a.tar").unwrap_err().contains("not a ZIP file"));
    assert_eq!(beside.read("a.tar::last").as_ref(), Ok(&members[6].1));
}

#[test]
fn more_archives_than_are_kept_are_read_all_the_same() {
    let place = TestSource::new();
    for i in 0..3 * KEPT_ARCHIVES {
        let tar = tar_of(&[("a", format!("a{i}").as_bytes()), ("b", format!("b{i}").as_bytes())]);
        place.put(&format!("{i}.tar.gz"), gzip(&tar));
    }
    let mut beside = place.beside();
    let mut random = Random(9);
    for _ in 0..200 {
        let (i, name) = (random.below(3 * KEPT_ARCHIVES), ["a", "b"][random.below(2)]);
        let read = beside.read(&format!("{i}.tar.gz::{name}")).unwrap();
        assert_eq!(read, format!("{name}{i}").as_bytes());
        assert!(beside.archives.len() <= KEPT_ARCHIVES);
        assert!(beside.held() > 0 && beside.held() <= KEPT_ARCHIVES as u64 * (1 << 20), "{}", beside.held());
    }
}

#[test]
fn what_is_no_file_in_an_archive_is_not_read() {
    let place = TestSource::new();
    let mut tar = ::tar::Builder::new(Vec::new());
    let mut header = ::tar::Header::new_gnu();
    header.set_size(0);
    for (kind, name) in [(::tar::EntryType::Symlink, "symbolic"), (::tar::EntryType::Link, "hard")] {
        header.set_entry_type(kind);
        tar.append_link(&mut header, name, "/etc/passwd").unwrap();
    }
    for (kind, name) in [
        (::tar::EntryType::Directory, "folder/"),
        (::tar::EntryType::Fifo, "pipe"),
        (::tar::EntryType::Char, "device"),
        (::tar::EntryType::XGlobalHeader, "pax_global_header"),
        (::tar::EntryType::new(b'?'), "unknown"),
    ] {
        header.set_entry_type(kind);
        tar.append_data(&mut header, name, &b""[..]).unwrap();
    }
    tar.append_pax_extensions([("GNU.sparse.major", &b"1"[..])]).unwrap();
    header.set_entry_type(::tar::EntryType::Regular);
    for name in ["holes", "twice", "twice", "./twice", "file"] {
        tar.append_data(&mut header, name, &b""[..]).unwrap();
    }
    let tar = tar.into_inner().unwrap();
    place.put("a.tar", &tar);
    place.put("a.tar.gz", gzip(&tar));
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default();
    zip.add_symlink("symbolic", "/etc/passwd", options).unwrap();
    zip.add_directory("folder", options).unwrap();
    for name in ["./twice", "twice", "file"] {
        zip.start_file(name, options).unwrap();
    }
    place.put("a.zip", zip.finish().unwrap().into_inner());
    let mut beside = place.beside();
    for archive in ["a.tar", "a.tar.gz", "a.zip"] {
        assert_eq!(beside.read(&format!("{archive}::file")), Ok(Vec::new()));
        for (name, reason) in [
            ("symbolic", "it is a link, which is not followed"),
            ("twice", "the archive holds several files of that name"),
            ("folder", "it is not among the "),
            ("folder/", "it is not among the "),
            ("pax_global_header", "it is not among the "),
        ] {
            let refused = beside.read(&format!("{archive}::{name}")).unwrap_err();
            assert!(refused.contains(reason), "{archive} {name}: {refused}");
        }
    }
    for (name, reason) in [
        ("hard", "it is a link, which is not followed"),
        ("pipe", "it is not a regular file"),
        ("device", "it is not a regular file"),
        ("unknown", "it is not a regular file"),
        ("holes", "it is stored with its holes left out"),
    ] {
        let refused = beside.read(&format!("a.tar::{name}")).unwrap_err();
        assert!(refused.contains(reason), "{name}: {refused}");
    }
}

#[test]
fn bombs_are_given_up_before_they_are_unpacked() {
    let place = TestSource::new();
    let zeros = vec![0; 10_000_000];
    for (archive, bytes) in archives(&[("bomb", &zeros), ("small", b"small")]) {
        place.put(archive, bytes);
        let mut beside = place.beside();
        let refused = beside.read(&format!("{archive}::bomb")).unwrap_err();
        assert!(
            refused.contains("10000000 bytes of content, more than limits.max_document_bytes"),
            "{refused}"
        );
        assert_eq!(beside.read(&format!("{archive}::small")).as_deref(), Ok(&b"small"[..]));
    }
    // One that says that it is small.
    let mut zip = zip_of(CompressionMethod::Deflated, &[("bomb", &zeros)]);
    let directory = zip.len() - END_AND_NAME;
    zip[directory + 24..directory + 28].copy_from_slice(&1000u32.to_le_bytes());
    place.put("liar.zip", zip);
    let refused = place.read("liar.zip::bomb").unwrap_err();
    assert!(refused.contains("it does not have the 1000 bytes that it should"), "{refused}");
    // A name without end.
    let name =
        odd_tar("././@LongLink", &zeros, |header| header.set_entry_type(::tar::EntryType::GNULongName));
    place.put("name.tar.gz", gzip(&name));
    assert!(
        place
            .read("name.tar.gz::bomb")
            .unwrap_err()
            .starts_with("failed to read \"name.tar.gz::bomb\": the archive: ")
    );
}

/// Of a ZIP file with one member that is called `bomb`: its record and the end.
const END_AND_NAME: usize = 46 + 4 + 22;

#[test]
fn zeros_without_end_are_given_up() {
    let place = TestSource::new();
    let head = odd_tar("zeros", b"", |header| header.set_size(1 << 40));
    let mut packed = ::zstd::Encoder::new(Vec::new(), 1).unwrap();
    packed.write_all(&head[..512]).unwrap();
    let zeros = vec![0; 1 << 24];
    (0..65).for_each(|_| packed.write_all(&zeros).unwrap());
    place.put("a.tar.zst", packed.finish().unwrap());
    let refused = place.read("a.tar.zst::zeros").unwrap_err();
    assert!(refused.contains("it unpacks to more than 1073741824 bytes"), "{refused}");
}

#[test]
fn an_archive_that_is_cut_short_gives_nothing_that_is_not_whole() {
    let mut random = Random(3);
    let (first, second) = (random.bytes(3000), random.bytes(5000));
    let members: [(&str, &[u8]); 2] = [("first", &first), ("second", &second)];
    let place = TestSource::new();
    for (archive, bytes) in archives(&members) {
        for i in 0..60 {
            let end = if i < 20 { bytes.len() - 1 - i } else { random.below(bytes.len()) };
            place.put(archive, &bytes[..end]);
            let mut beside = place.beside();
            for (name, whole) in members {
                match beside.read(&format!("{archive}::{name}")) {
                    // Only the end mark of a tar file that has no checksum may be missing.
                    Ok(read) => assert!(read == whole && archive == "a.tar", "{archive} cut at {end}"),
                    Err(refused) => assert!(refused.starts_with("failed to read \""), "{refused}"),
                }
            }
        }
    }
}

#[test]
fn damage_is_an_error_or_without_effect() {
    let mut random = Random(11);
    let (first, second) = (random.bytes(300), vec![b'x'; 3000]);
    let members: [(&str, &[u8]); 2] = [("first", &first), ("second", &second)];
    let place = TestSource::new();
    for (archive, bytes) in archives(&members) {
        for _ in 0..150 {
            let mut bytes = bytes.clone();
            for _ in 0..=random.below(3) {
                let at = random.below(bytes.len());
                bytes[at] = random.below(256) as u8;
            }
            place.put(archive, &bytes);
            let mut beside = place.beside();
            for (name, whole) in members {
                let read = beside.read(&format!("{archive}::{name}"));
                // Only a tar file that is not packed has no checksum.
                assert!(read.is_err() || read.as_deref() == Ok(whole) || archive == "a.tar", "{archive}");
            }
        }
    }
}

#[test]
fn encrypted_members_and_unknown_methods_are_refused_by_name() {
    let place = TestSource::new();
    let zip = zip_of(CompressionMethod::Stored, &[("bomb", b"x")]);
    let directory = zip.len() - END_AND_NAME;
    for (at, value, reason) in
        [(8, 1, "it is encrypted"), (10, 93, "it is packed by a method that is not read")]
    {
        let mut zip = zip.clone();
        zip[directory + at] = value;
        place.put("a.zip", zip);
        let refused = place.read("a.zip::bomb").unwrap_err();
        assert!(refused.contains(reason), "{refused}");
    }
}

/// A ZIP file with one stored member, all of whose numbers are in the fields of 64 bits.
fn large_zip(name: &[u8], bytes: &[u8], crc: u32) -> Vec<u8> {
    let mut zip = Vec::new();
    let n = (bytes.len() as u64).to_le_bytes();
    let extra = [&[1, 0, 24, 0][..], &n, &n, &[0; 8]].concat();
    let head = |start: &[u8], extra_bytes: usize| {
        let lengths = [(name.len() as u16).to_le_bytes(), (extra_bytes as u16).to_le_bytes()].concat();
        [start, &[45, 0, 0, 0, 0, 0, 0, 0, 0, 0], &crc.to_le_bytes(), &[0xff; 8], &lengths].concat()
    };
    zip.extend(head(b"PK\x03\x04", 0));
    zip.extend([name, bytes].concat());
    let directory = zip.len() as u64;
    zip.extend(head(b"PK\x01\x02\x2d\x03", extra.len()));
    zip.extend([&[0; 10][..], &[0xff; 4], name, &extra].concat());
    let directory_bytes = zip.len() as u64 - directory;
    let end_64 = zip.len() as u64;
    let number = u64::to_le_bytes;
    zip.extend([&b"PK\x06\x06"[..], &number(44), &[45, 0, 45, 0], &[0; 8], &number(1), &number(1)].concat());
    zip.extend([number(directory_bytes), number(directory)].concat());
    zip.extend([&b"PK\x06\x07\0\0\0\0"[..], &end_64.to_le_bytes(), &[1, 0, 0, 0]].concat());
    zip.extend([&b"PK\x05\x06\0\0\0\0"[..], &[0xff; 12], &[7, 0], b"comment"].concat());
    zip
}

#[test]
fn zip_files_may_be_large_and_stand_behind_something_else() {
    let place = TestSource::new();
    let mut crc = flate2::Crc::new();
    crc.update(b"content");
    let zip = large_zip(b"a/b", b"content", crc.sum());
    assert!(::zip::ZipArchive::new(Cursor::new(&zip)).unwrap().by_name("a/b").is_ok(), "others read it, too");
    place.put("large.zip", &zip);
    let mut small = zip.clone();
    let end = small.len() - "comment".len() - 22;
    let (directory_bytes, directory) = (46 + 3 + 28, 30 + 3 + 7);
    small[end + 8..end + 20].copy_from_slice(&[1, 0, 1, 0, directory_bytes, 0, 0, 0, directory, 0, 0, 0]);
    place.put("small.zip", small);
    assert_eq!(place.read("small.zip::a/b").as_deref(), Ok("content"));
    place.put("behind.zip", [b"#!/bin/sh\n".repeat(100), zip].concat());
    assert_eq!(place.read("large.zip::a/b").as_deref(), Ok("content"));
    assert_eq!(place.read("behind.zip::a/b").as_deref(), Ok("content"));
    let names: Vec<String> = (0..70_000).map(|i| i.to_string()).collect();
    let members: Vec<(&str, &[u8])> = names.iter().map(|name| (&**name, name.as_bytes())).collect();
    place.put("many.zip", zip_of(CompressionMethod::Stored, &members));
    let mut beside = place.beside();
    for i in [0, 65_535, 65_536, 69_999] {
        assert_eq!(beside.read(&format!("many.zip::{i}")), Ok(i.to_string().into_bytes()));
    }
    assert!(beside.read("many.zip::70000").unwrap_err().contains("it is not among the 70000 files"));
}

#[test]
fn an_archive_that_is_written_to_while_it_is_open_is_not_read_on() {
    for (archive, bytes) in archives(&[("a", b"before"), ("b", b"before")]) {
        let place = TestSource::new();
        place.put(archive, &bytes);
        let mut beside = place.beside();
        assert_eq!(beside.read(&format!("{archive}::a")).as_deref(), Ok(&b"before"[..]));
        let file = File::options().append(true).open(place.root().join(archive)).unwrap();
        let modified = file.metadata().unwrap().modified().unwrap();
        file.set_modified(modified + Duration::from_secs(1)).unwrap();
        let refused = beside.read(&format!("{archive}::b")).unwrap_err();
        assert!(refused.ends_with("the file changed while it was read"), "{refused}");
        // Another one in its place is seen by the next reader, not half of it by this one.
        file.set_modified(modified).unwrap();
        fs::rename(place.root().join(archive), place.root().join("aside")).unwrap();
        place.put(archive, "nothing");
        assert_eq!(beside.read(&format!("{archive}::b")).as_deref(), Ok(&b"before"[..]));
        assert!(place.read(&format!("{archive}::b")).is_err());
    }
}
