//! Outputs and models on their way to the Hub: what goes, what is refused, what becomes of a push that was interrupted.

use std::{
    fs,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use arrow::array::{ArrayRef, StringArray};
use blt_pipeline::sink::Storage;

use crate::{
    golden,
    hub_server::{Category, Faults, Host, Hub, OWNER_TOKEN, RateLimit, Repo, STRANGER_TOKEN},
    support::{Outcome, Work, files, prose, set_flags},
};

const TIDES: &str = "hf://datasets/sea/tides";

/// `blt-pipeline push FOLDER TO FLAGS` with variables, and no others that it reads.
fn push_with(folder: &Path, to: &str, flags: &[&str], variables: &[(&str, &str)]) -> Outcome {
    let home = tempfile::tempdir().unwrap();
    let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_blt-pipeline"));
    command.arg("push").arg(folder).arg(to).args(flags).timeout(Duration::from_secs(120));
    for name in ["RUST_LOG", "HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_OFFLINE", "HF_ENDPOINT"] {
        command.env_remove(name);
    }
    command.env("HF_HOME", home.path()).envs(variables.iter().copied());
    Outcome::of(command.output().unwrap())
}

fn push(hub: &Hub, folder: &Path, to: &str, flags: &[&str]) -> Outcome {
    push_with(folder, to, flags, &[("HF_ENDPOINT", &hub.endpoint()), ("HF_TOKEN", OWNER_TOKEN)])
}

/// A finished output of three documents.
fn small() -> Work {
    let work = Work::with(&["the harbour follows the tide", "low water", ""]);
    work.run(&["sink.embeddings=none"]);
    work
}

/// A finished output of 35 units: 105 files of tables and records.
fn large() -> Work {
    let work = Work::new();
    let texts: Vec<String> = (0..36).map(|row| prose(600, row)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    work.texts("a.parquet", &texts);
    work.run(&["sink.embeddings=none", "sink.unit_bytes=700"]);
    work
}

/// What a finished output has on the Hub, beside the card.
fn expected(out: &Path) -> Vec<String> {
    let mut paths: Vec<String> = ["documents", "patches", "bytes", "quarantine", "_blt/commits"]
        .iter()
        .flat_map(|folder| files(out, folder).into_iter().map(move |name| format!("{folder}/{name}")))
        .chain(["_blt/manifest.json", "_blt/plan.json", "README.md"].map(String::from))
        .collect();
    paths.sort();
    paths
}

fn count(hub: &Hub, method: &str, part: &str) -> usize {
    hub.log().iter().filter(|request| request.method == method && request.path.contains(part)).count()
}

/// Writes the repository's files to `folder`.
fn fetch(repo: &Repo, folder: &Path) {
    for path in repo.paths() {
        let file = folder.join(&path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, repo.bytes(&path).unwrap()).unwrap();
    }
}

#[test]
fn an_output_goes_to_the_hub_and_what_is_fetched_from_there_is_an_output() {
    let (hub, work) = (Hub::start(), small());
    // Nothing else that lies in the folder goes along.
    for stray in ["notes.txt", "_blt/notes.json", "_blt/claims/x.json"] {
        fs::create_dir_all(work.out().join(stray).parent().unwrap()).unwrap();
        fs::write(work.out().join(stray), "mine").unwrap();
    }
    let flags = ["--create", "--private", "--license", "cc-by-4.0"];
    let outcome = push(&hub, &work.out(), TIDES, &flags);
    outcome.expect(0, &["pushed to", "/datasets/sea/tides", "6 sent", "0 were there", "commits     1"]);

    let repo = hub.dataset("sea/tides");
    let mut paths = repo.paths();
    paths.retain(|path| path != ".gitattributes");
    assert_eq!(paths, expected(&work.out()));
    assert_eq!(repo.commits()[0], "blt-pipeline push, 1 of 1: 6 files");
    let n_commits = repo.commits().len();
    let fetched = tempfile::tempdir().unwrap();
    fetch(&repo, fetched.path());
    let verified = blt_pipeline::sink::verify(&Storage::from(fetched.path())).unwrap();
    assert!(verified.complete, "{verified}");
    let again = ["--output", fetched.path().to_str().unwrap(), "--set", "sink.embeddings=none"];
    work.blt("run", &again).expect(0, &["was finished before"]);

    push(&hub, &work.out(), TIDES, &flags).expect(0, &["0 sent", "6 were there", "commits     0"]);
    assert_eq!(repo.commits().len(), n_commits);
}

#[test]
fn a_large_output_takes_several_commits_and_the_manifest_comes_with_the_last() {
    let (hub, work) = (Hub::start(), large());
    let repo = hub.dataset("sea/tides");
    push(&hub, &work.out(), TIDES, &[]).expect(0, &["108 sent", "commits     2"]);
    assert_eq!(
        repo.commits(),
        ["blt-pipeline push, 2 of 2: 8 files", "blt-pipeline push, 1 of 2: 100 files", "Initial commit"]
    );
    assert_eq!(repo.paths(), expected(&work.out()));
    assert_eq!(count(&hub, "PUT", "/uploads/"), 70);

    // As after a push that ended in between.
    let tables = files(&work.out(), "patches");
    for path in [format!("patches/{}", tables[3]), "README.md".into(), "_blt/manifest.json".into()] {
        repo.remove(&path);
    }
    hub.clear_log();
    push(&hub, &work.out(), TIDES, &[]).expect(0, &["3 sent", "105 were there", "commits     1"]);
    assert_eq!(repo.paths(), expected(&work.out()));
    // The store still had the table.
    assert_eq!(count(&hub, "PUT", "/uploads/"), 0);
}

#[test]
fn a_push_that_fails_in_the_middle_goes_on_where_it_stopped() {
    let (hub, work) = (Hub::start(), small());
    let repo = hub.dataset("sea/tides");
    hub.faults(Faults { unavailable: 1.0, path: "/commit/", ..Faults::default() });
    push(&hub, &work.out(), TIDES, &[]).expect(
        75,
        &["failed to commit to hf://datasets/sea/tides", "503", "start the same command again later"],
    );
    assert_eq!(repo.commits(), ["Initial commit"]);
    hub.faults(Faults::default());
    hub.clear_log();
    push(&hub, &work.out(), TIDES, &[]).expect(0, &["6 sent", "commits     1"]);
    assert_eq!(count(&hub, "PUT", "/uploads/"), 0);
    assert_eq!(repo.paths(), expected(&work.out()));
}

#[test]
fn a_commit_whose_answer_was_lost_is_made_once() {
    let (hub, work) = (Hub::start(), large());
    let repo = hub.dataset("sea/tides");
    hub.lose_commit_answers(2);
    push(&hub, &work.out(), TIDES, &[])
        .expect(0, &["commits     2", "the answer to a commit was lost, and the commit was made"]);
    assert_eq!(repo.commits().len(), 3);
    assert_eq!(count(&hub, "POST", "/commit/"), 2);
    assert_eq!(repo.paths(), expected(&work.out()));
}

#[test]
fn requests_that_fail_now_and_then_cost_time_only() {
    let (hub, work) = (Hub::start(), large());
    let repo = hub.dataset("sea/tides");
    hub.faults(Faults { unavailable: 0.05, dropped: 0.05, at_most: 2, seed: 7, ..Faults::default() });
    push(&hub, &work.out(), TIDES, &[]).expect(0, &["108 sent", "commits     2"]);
    assert!(hub.log().iter().any(|request| request.status == 503), "nothing failed");
    assert_eq!((repo.paths(), repo.commits().len()), (expected(&work.out()), 3));
}

#[test]
fn large_files_go_in_the_parts_that_the_store_wants() {
    let (hub, work) = (Hub::start(), small());
    hub.set(|settings| settings.part = Some(1000));
    let repo = hub.dataset("sea/tides");
    push(&hub, &work.out(), TIDES, &[]).expect(0, &["6 sent"]);
    let tables = ["documents", "patches"].map(|table| format!("{table}/{}", files(&work.out(), table)[0]));
    let read = |path: &String| fs::read(work.out().join(path)).unwrap();
    let parts: usize = tables.iter().map(|path| read(path).len().div_ceil(1000)).sum();
    assert!(parts > 4, "{parts}");
    assert_eq!(count(&hub, "PUT", "/uploads/"), parts);
    for path in &tables {
        assert_eq!(repo.bytes(path), Some(read(path)), "{path}");
    }
}

/// Pushes to a store that takes each file at the second try, a second after the first, and does `between` in between.
fn push_and_meanwhile(hub: &Hub, work: &Work, between: impl FnOnce()) -> Outcome {
    let host = Some(Host::Cdn);
    hub.faults(Faults { too_many: 1.0, retry_after: Some(1), at_most: 1, host, ..Faults::default() });
    thread::scope(|scope| {
        let pushed = scope.spawn(|| push(hub, &work.out(), TIDES, &[]));
        let begun = Instant::now();
        while count(hub, "PUT", "/uploads/") < 2 {
            assert!(begun.elapsed() < Duration::from_secs(60), "nothing is sent");
            thread::sleep(Duration::from_millis(5));
        }
        between();
        pushed.join().unwrap()
    })
}

#[test]
fn an_address_that_expires_while_a_file_is_sent_is_asked_for_again() {
    let (hub, work) = (Hub::start(), small());
    let repo = hub.dataset("sea/tides");
    push_and_meanwhile(&hub, &work, || hub.expire_links()).expect(0, &["6 sent"]);
    assert!(hub.log().iter().any(|request| request.host == Host::Cdn && request.status == 403));
    assert_eq!(repo.paths(), expected(&work.out()));
}

#[test]
fn a_file_that_changes_while_it_is_sent_is_not_committed() {
    let (hub, work) = (Hub::start(), small());
    let repo = hub.dataset("sea/tides");
    let file = work.out().join("patches").join(&files(&work.out(), "patches")[0]);
    let mut bytes = fs::read(&file).unwrap();
    bytes[10] ^= 1;
    push_and_meanwhile(&hub, &work, || fs::write(&file, bytes).unwrap())
        .expect(75, &["patches/00000-00000-", "it changed while it was being sent"]);
    assert_eq!(repo.commits(), ["Initial commit"]);
}

#[test]
fn a_limit_of_requests_is_kept_as_the_hub_tells_it() {
    let (hub, work) = (Hub::start(), small());
    hub.dataset("sea/tides");
    hub.rate_limit(Category::Api, RateLimit::new(6, Duration::from_secs(2)));
    push(&hub, &work.out(), TIDES, &[]).expect(0, &["6 sent"]);
    let counts = hub.counts(Category::Api);
    assert!(counts.refused > 0 && counts.violations == 0, "{counts:?}");
}

#[test]
fn a_repaired_output_takes_the_place_of_its_earlier_state() {
    let (hub, work) = (Hub::start(), Work::new());
    let texts = ["short".to_owned(), prose(2000, 1), "short too".to_owned()];
    work.shard("a.parquet", [("text", Arc::new(StringArray::from(texts.to_vec())) as ArrayRef)], 1);
    let sets = ["sink.embeddings=none", "sink.unit_bytes=1", "limits.max_quarantined=1.0"];
    let short = "limits.max_document_bytes=1000";
    work.run(&[&sets[..], &[short]].concat());
    let repo = hub.dataset("sea/tides");
    push(&hub, &work.out(), TIDES, &[]).expect(0, &["commits     1"]);
    assert_eq!(repo.paths().iter().filter(|path| path.starts_with("quarantine/")).count(), 1);

    work.blt("run", &[&["--only-quarantined"], &set_flags(&sets)[..]].concat()).expect(0, &["finished"]);
    push(&hub, &work.out(), TIDES, &[]).expect(0, &["of an earlier state removed", "commits     1"]);
    assert!(!repo.paths().iter().any(|path| path.starts_with("quarantine/")), "{:?}", repo.paths());
    let fetched = tempfile::tempdir().unwrap();
    fetch(&repo, fetched.path());
    let verified = blt_pipeline::sink::verify(&Storage::from(fetched.path())).unwrap();
    assert!(verified.complete && verified.documents == 3, "{verified}");
}

#[test]
fn a_dry_run_shows_what_would_be_sent_and_changes_nothing() {
    let (hub, work) = (Hub::start(), small());
    let told =
        ["6 files would be sent", "bytes  documents/00000-00000-", "bytes  README.md", "nothing was changed"];
    push(&hub, &work.out(), TIDES, &["--dry-run", "--create"]).expect(0, &told);
    push(&hub, &work.out(), TIDES, &["--dry-run"]).expect(2, &["there is no such repository"]);
    hub.dataset("sea/tides").file("_blt/manifest.json", b"{}");
    push(&hub, &work.out(), TIDES, &["--dry-run"]).expect(0, &told);
    assert_eq!(count(&hub, "POST", ""), 0);
}

#[test]
fn another_output_is_neither_replaced_nor_mixed_with_this_one() {
    let (hub, work) = (Hub::start(), small());
    let repo = hub.dataset("sea/tides");
    let other = small_of(&["another text"]);
    push(&hub, &other.out(), TIDES, &[]).expect(0, &[]);
    let before = repo.commits();
    push(&hub, &work.out(), TIDES, &[])
        .expect(2, &["another output lies there (", "push to a repository or branch of its own"]);
    assert_eq!(repo.commits(), before);
    // A branch of its own will do; an empty one has no card either.
    let branch = hub.dataset("sea/empty");
    branch.on("v2");
    push(&hub, &work.out(), "hf://datasets/sea/empty@v2", &[]).expect(0, &["6 sent", "sea/empty/tree/v2"]);
    assert_eq!(branch.commits(), ["Initial commit"]);
    push(&hub, &work.out(), "hf://datasets/sea/empty@v3", &[]).expect(2, &["it has no branch v3"]);
}

fn small_of(texts: &[&str]) -> Work {
    let work = Work::with(texts);
    work.run(&["sink.embeddings=none"]);
    work
}

#[test]
fn a_card_of_somebodys_own_is_left_alone_and_ours_is_written_anew() {
    let (hub, work) = (Hub::start(), small());
    let repo = hub.dataset("sea/tides");
    repo.file("README.md", b"# Tides, by hand\n");
    push(&hub, &work.out(), TIDES, &[])
        .expect(2, &["README.md was not written by blt-pipeline", "--keep-card"]);
    assert_eq!(repo.paths(), ["README.md"]);
    push(&hub, &work.out(), TIDES, &["--keep-card"]).expect(0, &["5 sent"]);
    assert_eq!(repo.bytes("README.md").unwrap(), b"# Tides, by hand\n");

    repo.remove("README.md");
    push(&hub, &work.out(), TIDES, &[]).expect(0, &["1 sent", "5 were there"]);
    push(&hub, &work.out(), TIDES, &["--license", "odc-by"]).expect(0, &["1 sent", "commits     1"]);
    let card = String::from_utf8(repo.bytes("README.md").unwrap()).unwrap();
    assert!(card.starts_with("---\nlicense: odc-by\n"), "{card}");
}

#[test]
fn the_card_says_what_the_records_say() {
    let hub = Hub::start();
    let work = Work::with(&["the harbour follows the tide", "low water", ""]);
    work.run(&["sink.embeddings=patch"]);
    let repo = hub.dataset("sea/tides");
    push(&hub, &work.out(), TIDES, &["--source", "harbour logs, 1891"]).expect(0, &[]);
    let card = String::from_utf8(repo.bytes("README.md").unwrap()).unwrap();
    let head = "---\nlicense: other\npretty_name: \"tides\"\n\
        tags:\n- byte-latent-transformer\n- entropy\n- patches\n- blt-pipeline\n\
        configs:\n- config_name: documents\n  default: true\n  data_files:\n  - split: train\n    path: documents/*.parquet\n\
        - config_name: patches\n  data_files:\n  - split: train\n    path: patches/*.parquet\n---\n\
        <!-- Written by blt-pipeline push";
    assert!(card.starts_with(head), "{card}");
    let plan: serde_json::Value =
        serde_json::from_slice(&fs::read(work.out().join("_blt/plan.json")).unwrap()).unwrap();
    let sha256 = plan["meaning"]["model.sha256"].as_str().unwrap();
    for part in [
        "| documents | 3 |",
        "| bytes | 37 |",
        "| `doc_id` | `string` | the id column (integers in decimal), else or when null &lt;file>#&lt;row>; not unique |",
        "| `embedding` | `fixed_size_list<float16, 64>` |",
        "Rows: 3. Files: 1, ",
        "entropies[start], nats: the uncertainty about the first byte",
        "* **Source:** harbour logs, 1891\n",
        "* **Shards:** 1: `a.parquet`.",
        "* **Rows:** all; the content is that of `text`",
        "one begins where the uncertainty about the next byte is above 1.3354421 nats\n",
        &format!("* **Model:** SHA-256 `{sha256}`"),
        "computed in f32",
        "* **Devices:** `cpu",
        "| `sink.embedding_dtype` | `\"f16\"` |",
        "so the card says `other`",
        "The model that was used has a licence of its own. blt-pipeline itself is under CC BY-NC 4.0.",
        "load_dataset(\"sea/tides\", \"patches\", split=\"train\")",
        "hf://datasets/sea/tides/patches/*.parquet",
    ] {
        assert!(card.contains(part), "{part:?} is not in:\n{card}");
    }
    assert!(!card.contains("| `null` |") && !card.contains("config_name: bytes"), "{card}");
}

#[test]
fn a_model_goes_to_a_repository_of_models_and_is_not_replaced_silently() {
    let hub = Hub::start();
    let folder = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::copy(golden::folder("nano").join(name), folder.path().join(name)).unwrap();
    }
    fs::write(folder.path().join("optimizer.bin"), "stays").unwrap();
    let to = "hf://sea/nano";
    push(&hub, folder.path(), to, &["--create"]).expect(0, &["3 sent", "commits     1"]);
    let repo = hub.model("sea/nano");
    assert_eq!(repo.paths(), [".gitattributes", "README.md", "config.json", "model.safetensors"]);
    let weights = fs::read(folder.path().join("model.safetensors")).unwrap();
    assert_eq!(repo.bytes("model.safetensors"), Some(weights));
    let card = String::from_utf8(repo.bytes("README.md").unwrap()).unwrap();
    for part in
        ["license: other\n", "# nano", "dim 64", "model verify hf://sea/nano", "Written by blt-pipeline push"]
    {
        assert!(card.contains(part), "{part:?} is not in:\n{card}");
    }
    push(&hub, folder.path(), to, &[]).expect(0, &["0 sent", "3 were there"]);

    repo.file("config.json", b"{}");
    push(&hub, folder.path(), to, &[])
        .expect(2, &["its config.json would be replaced by another content", "pass --replace"]);
    push(&hub, folder.path(), to, &["--replace"]).expect(0, &["1 sent"]);

    // Its own card goes along.
    push(&hub, &golden::folder("nano"), "hf://sea/golden", &["--create"]).expect(0, &["3 sent"]);
    let own = fs::read(golden::folder("nano").join("README.md")).unwrap();
    assert_eq!(hub.model("sea/golden").bytes("README.md"), Some(own));

    // Burn's own format is a model as well.
    push(&hub, &golden::folder("nano-burn"), "hf://sea/burn", &["--create"]).expect(0, &["3 sent"]);
    assert!(hub.model("sea/burn").bytes("model.bpk").is_some());

    fs::write(folder.path().join("model.safetensors"), b"\x08\0\0\0\0\0\0\0garbage!").unwrap();
    push(&hub, folder.path(), to, &[]).expect(2, &["model.safetensors"]);
}

#[test]
fn a_folder_that_is_not_whole_or_has_another_address_is_refused_before_anything_is_asked() {
    let (hub, work) = (Hub::start(), small());
    push(&hub, &work.out(), "hf://sea/tides", &[])
        .expect(2, &["it is an output", "hf://datasets/OWNER/NAME"]);
    push(&hub, &golden::folder("nano"), TIDES, &[]).expect(2, &["it is a model", "hf://OWNER/NAME"]);
    push(&hub, &work.path("shards"), TIDES, &[]).expect(2, &["neither an output", "nor a model's folder"]);
    push(&hub, &work.out(), "tides", &[]).expect(2, &["failed to understand tides", "hf://"]);
    push(&hub, &work.out(), TIDES, &["--license", "CC BY 4.0"]).expect(2, &["--license", "cc-by-4.0"]);

    let manifest = work.out().join("_blt/manifest.json");
    let text = fs::read(&manifest).unwrap();
    fs::remove_file(&manifest).unwrap();
    push(&hub, &work.out(), TIDES, &[]).expect(75, &["it is not finished", "blt-pipeline status"]);
    fs::write(&manifest, text).unwrap();
    let patches = work.out().join("patches").join(&files(&work.out(), "patches")[0]);
    let mut bytes = fs::read(&patches).unwrap();
    bytes[10] ^= 1;
    fs::write(&patches, bytes).unwrap();
    push(&hub, &work.out(), TIDES, &[]).expect(65, &["it is not sound", "patches/00000-00000-"]);
    assert!(hub.log().is_empty());
}

#[test]
fn each_refusal_of_the_hub_has_its_own_words_and_none_shows_the_token() {
    let (hub, work) = (Hub::start(), small());
    hub.dataset("sea/tides");
    hub.dataset("sea/secret").private();
    let endpoint = hub.endpoint();
    let closed = {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let nobody = "hf_nobody_knows_this_one";
    let (secret, none) = ("hf://datasets/sea/secret", "hf://datasets/sea/none");
    for (to, flags, variables, code, parts) in [
        (
            TIDES,
            &[][..],
            &[("HF_ENDPOINT", &*endpoint)][..],
            2,
            &["there is no token", "HF_TOKEN", "/token"][..],
        ),
        (
            TIDES,
            &[],
            &[("HF_ENDPOINT", &endpoint), ("HF_TOKEN_PATH", "/no/file")],
            2,
            &["HF_TOKEN_PATH", "/no/file"],
        ),
        (
            TIDES,
            &[],
            &[("HF_ENDPOINT", &endpoint), ("HF_TOKEN", nobody)],
            2,
            &["does not accept the token from HF_TOKEN"],
        ),
        (
            TIDES,
            &[],
            &[("HF_ENDPOINT", &endpoint), ("HF_TOKEN", STRANGER_TOKEN)],
            2,
            &["may not", "permission to write"],
        ),
        (
            secret,
            &[],
            &[("HF_ENDPOINT", &endpoint), ("HF_TOKEN", STRANGER_TOKEN)],
            2,
            &["may not see it", "--create"],
        ),
        (
            none,
            &[],
            &[("HF_ENDPOINT", &endpoint), ("HF_TOKEN", OWNER_TOKEN)],
            2,
            &["no such repository", "--create"],
        ),
        (
            none,
            &["--create"],
            &[("HF_ENDPOINT", &endpoint), ("HF_TOKEN", STRANGER_TOKEN)],
            2,
            &["make the repository"],
        ),
        (
            TIDES,
            &["--private"],
            &[("HF_ENDPOINT", &endpoint), ("HF_TOKEN", OWNER_TOKEN)],
            2,
            &["it is public"],
        ),
        (TIDES, &[], &[("HF_HUB_OFFLINE", "1"), ("HF_TOKEN", OWNER_TOKEN)], 2, &["HF_HUB_OFFLINE"]),
        (TIDES, &[], &[("HF_ENDPOINT", "hub"), ("HF_TOKEN", OWNER_TOKEN)], 2, &["HF_ENDPOINT = \"hub\""]),
        (
            TIDES,
            &[],
            &[("HF_ENDPOINT", &endpoint), ("HF_TOKEN", "hf two words")],
            2,
            &["what HF_TOKEN holds is no token"],
        ),
        (TIDES, &[], &[("HF_ENDPOINT", &closed), ("HF_TOKEN", OWNER_TOKEN)], 75, &["refused", "again later"]),
    ] {
        let variables = [variables, &[("RUST_LOG", "trace")]].concat();
        let outcome = push_with(&work.out(), to, flags, &variables);
        outcome.expect(code, parts);
        let all = format!("{}{}", outcome.stdout, outcome.stderr);
        for token in [nobody, STRANGER_TOKEN, OWNER_TOKEN, "two words"] {
            assert!(!all.contains(token), "{token} is in:\n{all}");
        }
    }
    assert_eq!(hub.dataset("sea/tides").commits().len(), 1);
}

#[test]
fn a_token_is_found_in_each_of_its_places_and_shown_in_none() {
    let (hub, work) = (Hub::start(), small());
    let endpoint = hub.endpoint();
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("token");
    fs::write(&file, format!("{OWNER_TOKEN}\n")).unwrap();
    let (home, file) = (home.path().to_str().unwrap(), file.to_str().unwrap());
    for (name, variable) in
        [("a", ("HF_TOKEN", OWNER_TOKEN)), ("b", ("HF_TOKEN_PATH", file)), ("c", ("HF_HOME", home))]
    {
        let to = format!("hf://datasets/sea/{name}");
        let variables = [("HF_ENDPOINT", &*endpoint), ("RUST_LOG", "trace"), variable];
        let outcome = push_with(&work.out(), &to, &["--create"], &variables);
        outcome.expect(0, &["6 sent"]);
        assert!(!format!("{}{}", outcome.stdout, outcome.stderr).contains(OWNER_TOKEN), "{}", outcome.stderr);
    }
}
