//! Loose files as a source: a file is a document, a folder a shard.

use std::fs;

use arrow::{array::AsArray, datatypes::UInt64Type};

use crate::support::{Work, assert_same, assert_sound, prose, set_flags, snapshot};

fn write(work: &Work, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = work.path("shards").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

fn sets<'a>(uri: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&[uri, "source.format=files"], more].concat()
}

/// The source is what `glob` matches below the shards' folder.
fn from(work: &Work, glob: &str) -> String {
    format!("source.uri={:?}", work.path("shards").join(glob))
}

#[test]
fn each_file_is_a_document_under_its_path() {
    let work = Work::new();
    write(
        &work,
        &[
            ("b.txt", "second"),
            ("a.md", "first"),
            ("sub/c", "third, it is"),
            ("sub/deep/d.txt", ""),
            (".hidden", "no"),
        ],
    );
    for (glob, expected) in [
        (
            "",
            &[
                ("./", 0, "a.md", 5),
                ("./", 1, "b.txt", 6),
                ("sub/", 0, "sub/c", 12),
                ("sub/deep/", 0, "sub/deep/d.txt", 0),
            ][..],
        ),
        ("**/*.txt", &[("./", 0, "b.txt", 6), ("sub/deep/", 0, "sub/deep/d.txt", 0)]),
        ("sub", &[("./", 0, "c", 12), ("deep/", 0, "deep/d.txt", 0)]),
        ("a.md", &[("./", 0, "a.md", 5)]),
    ] {
        let _ = fs::remove_dir_all(work.out());
        work.run(&sets(&from(&work, glob), &[]));
        assert_sound(&work.out());
        let documents = work.documents();
        let found: Vec<(&str, u64, &str, u64)> = documents
            .iter()
            .map(|row| (row.source_file.as_str(), row.source_row, row.doc_id.as_str(), row.n_bytes))
            .collect();
        assert_eq!(found, expected, "{glob}");
    }
}

#[test]
fn the_documents_are_those_of_a_parquet_file_with_the_same_bytes() {
    let texts: Vec<String> = (0..30).map(|i| prose(100 + 50 * i as usize, i)).collect();
    let work = Work::with(&texts.iter().map(String::as_str).collect::<Vec<_>>());
    work.run(&["sink.unit_bytes=4000"]);
    let parquet = work.documents();
    fs::remove_dir_all(work.out()).unwrap();
    let files = work.path("files");
    fs::create_dir(&files).unwrap();
    for (i, text) in texts.iter().enumerate() {
        fs::write(files.join(format!("{i:03}.txt")), text).unwrap();
    }
    let uri = format!("source.uri={files:?}");
    work.run(&sets(&uri, &["sink.unit_bytes=4000"]));
    assert!(crate::support::files(&work.out(), "documents").len() > 5, "several units");
    let loose = work.documents();
    assert_eq!(loose.len(), parquet.len());
    for (loose, parquet) in loose.iter().zip(&parquet) {
        assert_eq!((&loose.entropies, &loose.patch_lengths), (&parquet.entropies, &parquet.patch_lengths));
    }
    // Shares of it give the same files.
    let shares = work.path("shares");
    for index in ["1", "0"] {
        let flags = ["--shard-count", "2", "--shard-index", index, "--output", shares.to_str().unwrap()];
        work.blt("run", &[&set_flags(&sets(&uri, &["sink.unit_bytes=4000"]))[..], &flags].concat())
            .expect(0, &[]);
    }
    let (mut one, mut many) = (snapshot(&work.out()), snapshot(&shares));
    for output in [&mut one, &mut many] {
        output.retain(|file, _| !file.starts_with("_blt/claims"));
    }
    assert_same(&many, &one, "shares");
}

#[test]
fn path_and_size_are_columns_like_others() {
    let work = Work::new();
    write(
        &work,
        &[("a.md", "first"), ("b.txt", "second"), ("c.txt", "the third is longer than the limit allows")],
    );
    let uri = from(&work, "");
    let more = ["source.carry=['size', 'path']", "limits.max_document_bytes=20", "limits.max_quarantined=1"];
    work.run(&sets(&uri, &more));
    assert_sound(&work.out());
    let documents = work.table("documents").unwrap();
    assert_eq!(documents["size"].as_primitive::<UInt64Type>().values(), &[5, 6]);
    assert_eq!(documents["path"].as_string::<i32>().value(1), "b.txt");
    let quarantine = work.table("quarantine").unwrap();
    assert_eq!(quarantine["doc_id"].as_string::<i32>().value(0), "c.txt");
    #[cfg(feature = "filter")]
    {
        fs::remove_dir_all(work.out()).unwrap();
        work.run(&sets(
            &uri,
            &["source.where=\"path LIKE '%.txt' AND size < 10\"", "limits.max_quarantined=0"],
        ));
        assert_eq!(work.documents().iter().map(|row| row.doc_id.as_str()).collect::<Vec<_>>(), ["b.txt"]);
    }
    for (set, parts) in [
        ("source.carry=['name']", &["source.carry", "the columns path and size only"][..]),
        ("source.id=name", &["source.id", "path and size"]),
        ("source.content=bytes", &["source.content", "their bytes are the content"]),
    ] {
        work.blt("plan", &set_flags(&sets(&uri, &[set]))).expect(2, parts);
    }
    let elsewhere = [&set_flags(&sets(&uri, &["source.id=path"]))[..], &["--output", "elsewhere"]].concat();
    work.blt("plan", &elsewhere).expect(0, &["rows        3"]);
}

#[test]
fn links_and_hidden_folders_are_left_out() {
    let work = Work::new();
    write(&work, &[("a.txt", "first"), (".git/objects/x", "no")]);
    for (target, link) in [("nowhere", "dangling"), (".", "loop"), ("a.txt", "again.txt"), ("/proc", "proc")]
    {
        std::os::unix::fs::symlink(target, work.path("shards").join(link)).unwrap();
    }
    work.run(&sets(&from(&work, ""), &[]));
    assert_eq!(work.documents().iter().map(|row| row.doc_id.as_str()).collect::<Vec<_>>(), ["a.txt"]);
}

#[test]
fn files_that_change_come_or_go_are_noticed() {
    let work = Work::new();
    write(&work, &[("day1/a.txt", "first"), ("day1/b.txt", "second")]);
    let uri = from(&work, "");
    work.run(&sets(&uri, &[]));
    // A new folder is new shards, which are taken in when asked for.
    write(&work, &[("day2/a.txt", "third")]);
    work.blt("run", &set_flags(&sets(&uri, &[]))).expect(2, &["day2/", "--extend"]);
    let flags = [&set_flags(&sets(&uri, &[]))[..], &["--extend"]].concat();
    work.blt("run", &flags).expect(0, &["1 read, 1 documents"]);
    assert_sound(&work.out());
    // A folder that is another one by now is not.
    write(&work, &[("day1/c.txt", "later")]);
    work.blt("run", &flags).expect(2, &["day1/"]);
}
