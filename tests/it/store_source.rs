//! Sources in an object store and on a web server: what comes of them is what comes of the same files here.

use std::{fs, io::Write, time::Duration};

use crate::{
    fault_proxy::{Fault, FaultProxy, Faults},
    hub::{fineweb_rows, fineweb_shards},
    hub_server::{File, Hub},
    s3_server::S3Server,
    support::{Outcome, Work, assert_same, assert_sound, prose, set_flags, snapshot, write_parquet},
};

type Variables = Vec<(&'static str, String)>;

fn variables(endpoint: &str, work: &Work) -> Variables {
    let mut variables: Variables = S3Server::variables(endpoint).into();
    variables.push(("XDG_CACHE_HOME", work.path("cache").to_str().unwrap().to_owned()));
    variables.push(("BLT_NETWORK_TIMEOUT", "2".to_owned()));
    variables.push(("BLT_NETWORK_PATIENCE", "60".to_owned()));
    variables
}

fn run(work: &Work, variables: &Variables, sets: &[&str]) -> Outcome {
    work.blt_with(variables, &[&["run", "pipeline.toml"], set_flags(sets).as_slice()].concat())
}

#[test]
fn shards_in_a_bucket_become_what_they_become_here() {
    let (server, work) = (S3Server::start(&["fog"]), Work::new());
    fineweb_shards(&work, 3, 60, 16);
    server.upload(&work.path("shards"), "fog", "lamp log/shards/");
    server.put("fog", "lamp log/shards/.notes.parquet", b"not a shard");
    server.set_page_keys(2);
    work.run(&["sink.unit_bytes=16 KiB"]);
    let expected = snapshot(&work.out());
    let variables = variables(&server.endpoint(), &work);
    for (case, uri, more) in [
        ("glob", "s3://fog/lamp log/shards/*.parquet", "source.cache=false"),
        ("folder", "s3://fog/lamp log/shards", "source.cache=false"),
        ("kept", "s3://fog/lamp log/shards/", "source.cache=true"),
    ] {
        let out = work.path(case);
        let (uri, sink) = (format!("source.uri={uri:?}"), format!("sink.uri={}", out.display()));
        run(&work, &variables, &[&uri, &sink, more, "sink.unit_bytes=16 KiB"]).expect(0, &[]);
        assert_sound(&out);
        assert_same(&snapshot(&out), &expected, case);
    }
    // What is kept is read without the store, but it is asked whether that is still what it has.
    fs::remove_dir_all(work.path("kept")).unwrap();
    server.put(
        "fog",
        "lamp log/shards/000_00000.parquet",
        &fs::read(work.path("shards/001_00001.parquet")).unwrap(),
    );
    let (out, sink) = (work.path("kept"), format!("sink.uri={}", work.path("kept").display()));
    let uri = "source.uri=\"s3://fog/lamp log/shards/\"";
    run(&work, &variables, &[uri, &sink, "source.cache=true", "sink.unit_bytes=16 KiB"]).expect(0, &[]);
    assert_ne!(snapshot(&out), expected);
}

#[test]
#[allow(clippy::print_stdout)] // Figures for benches/README.md.
fn a_store_that_fails_every_tenth_time_gives_the_same() {
    let (server, work) = (S3Server::start(&["fog"]), Work::new());
    fineweb_shards(&work, 4, 120, 10);
    server.upload(&work.path("shards"), "fog", "");
    let proxy = FaultProxy::start(server.port());
    work.run(&[]);
    let expected = snapshot(&work.out());
    proxy.set_faults(Faults {
        seed: 5,
        fraction: 0.1,
        kinds: vec![
            Fault::Status503,
            Fault::Status429,
            Fault::Status500,
            Fault::Timeout,
            Fault::ResetBefore,
            Fault::CutBody,
            Fault::LoseAnswer,
            Fault::LoseAnswerReset,
        ],
        retry_after_s: 1,
        hold: Duration::from_secs(5),
        ..Faults::none()
    });
    let out = work.path("faulty");
    let sink = format!("sink.uri={}", out.display());
    run(&work, &variables(&proxy.endpoint(), &work), &["source.uri=s3://fog/*.parquet", &sink])
        .expect(0, &[]);
    assert_same(&snapshot(&out), &expected, "with faults");
    let log = proxy.log();
    let failed = log.iter().filter(|entry| entry.fault.is_some()).count();
    println!("{failed} of {} requests failed, {} came too early", log.len(), proxy.violations());
    assert!(failed >= 5, "the faults were not met");
    assert_eq!(proxy.violations(), 0);
}

#[test]
fn lines_and_loose_files_come_from_a_bucket_too() {
    let (server, work) = (S3Server::start(&["fog"]), Work::new());
    let mut lines = String::new();
    for i in 0..50 {
        lines.push_str(&format!("{{\"id\": \"n{i}\", \"text\": {:?}}}\n", prose(300, i)));
        fs::create_dir_all(work.path("notes/a/b")).unwrap();
        fs::write(work.path(&format!("notes/a/{}{i}.md", if i % 2 == 0 { "b/" } else { "" })), prose(100, i))
            .unwrap();
    }
    fs::create_dir(work.path("lines")).unwrap();
    fs::write(work.path("lines/plain.jsonl"), &lines).unwrap();
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(lines.as_bytes()).unwrap();
    fs::write(work.path("lines/packed.jsonl.gz"), packed.finish().unwrap()).unwrap();
    for folder in ["notes", "lines"] {
        server.upload(&work.path(folder), "fog", &format!("{folder}/"));
    }
    let variables = variables(&server.endpoint(), &work);
    for (folder, format) in [("lines", "auto"), ("notes", "files")] {
        let sets = |uri: String, out: &str| {
            [
                format!("source.uri={uri}"),
                format!("source.format={format}"),
                format!("sink.uri={}", work.path(out).display()),
            ]
        };
        let local = sets(work.path(folder).display().to_string(), &format!("{folder}-here"));
        work.run(&local.each_ref().map(String::as_str));
        let remote = sets(format!("s3://fog/{folder}"), &format!("{folder}-there"));
        run(&work, &variables, &remote.each_ref().map(String::as_str)).expect(0, &[]);
        let there = snapshot(&work.path(&format!("{folder}-there")));
        assert_same(&there, &snapshot(&work.path(&format!("{folder}-here"))), folder);
    }
}

#[test]
fn a_file_on_a_web_server_is_read_in_ranges() {
    let (hub, work) = (Hub::start(), Work::new());
    fineweb_shards(&work, 1, 60, 16);
    let shard = fs::read(work.path("shards/000_00000.parquet")).unwrap();
    hub.dataset("keeper/web").files([File::plain("000_00000.parquet", &shard)]);
    work.run(&[]);
    let out = work.path("web");
    let address = format!("{}/datasets/keeper/web/resolve/main/000_00000.parquet", hub.endpoint());
    let (uri, sink) = (format!("source.uri={address}"), format!("sink.uri={}", out.display()));
    hub.clear_log();
    run(&work, &variables("http://127.0.0.1:9", &work), &[&uri, &sink]).expect(0, &[]);
    assert_same(&snapshot(&out), &snapshot(&work.out()), "web");
    assert!(
        hub.log().iter().filter(|request| request.method == "GET").all(|request| request.range.is_some())
    );
    let refused = |uri: String, parts: &[&str]| {
        run(&work, &variables("http://127.0.0.1:9", &work), &[&format!("source.uri={uri}")]).expect(2, parts);
    };
    refused(address.replace("000_", "*_"), &["a web server lists no files"]);
    refused(address.replace("000_", "009_"), &["009_00000.parquet", "no such object"]);
    refused(format!("{address}?download=true"), &["`?`"]);
}

#[test]
fn every_wrong_address_has_its_own_message() {
    let (server, work) = (S3Server::start(&["fog"]), Work::new());
    write_parquet(&work.path("shards/a.parquet"), &fineweb_rows(10, 1), 10);
    server.upload(&work.path("shards"), "fog", "shards/");
    let good = variables(&server.endpoint(), &work);
    let with = |name: &'static str, value: &str| -> Variables {
        good.iter().filter(|(known, _)| *known != name).cloned().chain([(name, value.to_owned())]).collect()
    };
    let nobody: Variables = good
        .iter()
        .filter(|(name, _)| !name.contains("KEY"))
        .cloned()
        .chain([("AWS_EC2_METADATA_DISABLED", "true".to_owned())])
        .collect();
    for (case, uri, variables, code, parts) in [
        (
            "no such bucket",
            "s3://mist/*.parquet",
            good.clone(),
            2,
            vec!["s3://mist", "no such object or bucket"],
        ),
        (
            "no such object",
            "s3://fog/shards/b.parquet",
            good.clone(),
            2,
            vec!["s3://fog/shards/b.parquet", "none below it"],
        ),
        ("no match", "s3://fog/shards/*.csv", good.clone(), 2, vec!["matches *.csv", "a.parquet"]),
        ("wildcard in the bucket", "s3://f*/a.parquet", good.clone(), 2, vec!["cannot have a wildcard"]),
        ("no bucket", "s3:///a.parquet", good.clone(), 2, vec!["names no bucket"]),
        (
            "wrong key",
            "s3://fog/shards/*.parquet",
            with("AWS_SECRET_ACCESS_KEY", "wrong"),
            2,
            vec!["access is denied", "AWS_ACCESS_KEY_ID"],
        ),
        (
            "no credentials",
            "s3://fog/shards/*.parquet",
            nobody,
            2,
            vec!["s3://fog/shards", "AWS_SKIP_SIGNATURE"],
        ),
        (
            "nobody there",
            "s3://fog/shards/*.parquet",
            with("BLT_NETWORK_PATIENCE", "1")
                .into_iter()
                .filter(|(n, _)| *n != "AWS_ENDPOINT")
                .chain([("AWS_ENDPOINT", "http://127.0.0.1:9".to_owned())])
                .collect(),
            75,
            vec!["failed to list s3://fog/shards", "the same command goes on"],
        ),
    ] {
        let outcome = run(&work, &variables, &[&format!("source.uri={uri}")]);
        outcome.expect(code, &parts);
        assert!(!outcome.stderr.contains(crate::s3_server::SECRET_KEY), "{case}: {}", outcome.stderr);
    }
    run(&work, &good, &["source.uri=s3://fog/shards/*.parquet", "source.content=body"])
        .expect(2, &["source.content = \"body\"", "s3://fog/shards/a.parquet", "no such column"]);
}

#[test]
fn a_shard_that_is_replaced_while_it_is_read_fails_by_name() {
    let (server, work) = (S3Server::start(&["fog"]), Work::new());
    fineweb_shards(&work, 1, 400, 10);
    server.upload(&work.path("shards"), "fog", "");
    let proxy = FaultProxy::start(server.port());
    let variables = variables(&proxy.endpoint(), &work);
    let child = work.start_in(
        &variables,
        &set_flags(&["source.uri=s3://fog/000_00000.parquet", "sink.unit_bytes=16 KiB"]),
    );
    let asked = || proxy.log().iter().filter(|entry| entry.range.is_some()).count();
    let begun = std::time::Instant::now();
    while asked() < 6 {
        assert!(begun.elapsed() < Duration::from_secs(60), "nothing is read");
        std::thread::sleep(Duration::from_millis(1));
    }
    write_parquet(&work.path("other.parquet"), &fineweb_rows(400, 2), 10);
    server.put("fog", "000_00000.parquet", &fs::read(work.path("other.parquet")).unwrap());
    let outcome = Outcome::of(child.wait_with_output().unwrap());
    // Either all was read before, or what was not is not mixed in.
    if outcome.code != 0 {
        outcome.expect(65, &["s3://fog/000_00000.parquet", "changed since"]);
    }
}
