//! Python's huggingface_hub against the hub for tests: what the tests take for the real protocol is what that client
//! speaks. Needs an interpreter, `BLT_HUB_PYTHON`, that has it, from 1.0 on, and pyarrow. Knows nothing of the product.

use std::{io::Write, path::Path, process::Command, time::Duration};

use crate::hub_server::{Category, Faults, File, Host, Hub, RateLimit};

/// As in hub_client.py.
fn pattern(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|i| ((i * 31 + seed) % 251) as u8).collect()
}

/// The repositories that hub_client.py asks for.
fn filled() -> Hub {
    let hub = Hub::start();
    let corpus = hub.dataset("owner/corpus");
    corpus.file("README.md", b"---\nlicense: odc-by\n---\n# Corpus\n").tag("v1");
    let parts = (0..12).map(|i| File::lfs(&format!("data/part-{i:02}.bin"), &pattern(300_000 + i, i)));
    corpus.files(parts.chain([File::plain("data/more/odd name é%+#.txt", b"odd")]));
    corpus.on("dev/wide").file("wide.txt", b"wide");
    let converted = corpus.on("refs/convert/parquet");
    converted.lfs("default/train/0000.parquet", &pattern(5000, 1));
    converted.lfs("default/train/0001.parquet", &pattern(5000, 2));
    corpus.formerly("owner/old-corpus");
    hub.model("owner/weights").lfs("model.bin", &pattern(70_000, 9));
    hub.dataset("owner/gated").lfs("a.bin", &pattern(1000, 1)).file("README.md", b"# Gated\n").gated();
    hub.dataset("owner/private").file("README.md", b"# Private\n").private();
    hub
}

/// Also where the test runner keeps what passing tests print to itself.
#[allow(clippy::explicit_write)] // `eprintln!` is captured.
fn tell(text: &str) {
    writeln!(std::io::stderr(), "{text}").unwrap();
}

/// The interpreter that has the client; none is told of loudly.
fn interpreter() -> Option<std::ffi::OsString> {
    let interpreter = std::env::var_os("BLT_HUB_PYTHON");
    if interpreter.is_none() {
        tell(
            "NOT TRIED: Python's huggingface_hub against the hub for tests. Set BLT_HUB_PYTHON to an interpreter \
             that has huggingface_hub, from 1.0 on, and pyarrow",
        );
    }
    interpreter
}

/// What `script` prints, in Python with `variables` in its environment; `None` without an interpreter.
pub fn run_script(script: &str, variables: &[(&'static str, String)]) -> Option<String> {
    let output = Command::new(interpreter()?)
        .args(["-c", script])
        .env("NO_PROXY", "127.0.0.1,localhost")
        .envs(variables.iter().map(|(name, value)| (*name, value.as_str())))
        .output()
        .unwrap();
    let told = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(output.status.success(), "{told:?}");
    let [out, _] = told;
    Some(out)
}

/// Runs all, or some, of the stories of hub_client.py; false, and told loudly, without an interpreter for it.
fn python(hub: &Hub, stories: &[&str], environment: &[(&str, &str)]) -> bool {
    let Some(interpreter) = interpreter() else { return false };
    let script = Path::new(file!()).with_file_name("hub_client.py");
    let output = Command::new(interpreter)
        .arg(script)
        .args(stories)
        .env_remove("HF_HUB_DISABLE_XET")
        .env("HF_ENDPOINT", hub.endpoint())
        .env("NO_PROXY", "127.0.0.1,localhost")
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let told = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    assert!(output.status.success() && told.contains(" passed"), "{told}\n{:#?}", hub.log());
    tell(told.lines().find(|line| line.ends_with("passed")).unwrap());
    true
}

const WITHOUT_XET: (&str, &str) = ("HF_HUB_DISABLE_XET", "1");

#[test]
fn python_client_reads_and_writes() {
    let hub = filled();
    if !python(&hub, &[], &[WITHOUT_XET]) {
        return;
    }
    let uploaded = hub.dataset("owner/uploaded");
    assert_eq!(uploaded.paths(), [".gitattributes", "README.md", "copy.bin", "t.parquet"]);
    assert_eq!(uploaded.bytes("copy.bin").unwrap(), pattern(1_234_567, 8));
    // Each object went up once, the copy of one not at all.
    let puts = hub.log().iter().filter(|r| r.method == "PUT" && r.host == Host::Cdn).count();
    assert_eq!(puts, 3);
}

#[test]
fn python_client_with_xet_falls_back_to_http() {
    python(&filled(), &[], &[]);
}

/// Xet's hashes, redirects within the hub, another name for the CDN, uploads in parts.
#[test]
fn python_client_takes_the_other_ways_of_the_hub() {
    let hub = filled();
    hub.set(|settings| {
        (settings.xet, settings.resolve_cache, settings.cdn_name) = (true, true, "localhost");
        (settings.page, settings.part) = (3, Some(100_000));
    });
    if !python(&hub, &[], &[WITHOUT_XET]) {
        return;
    }
    assert!(hub.log().iter().filter(|r| r.method == "PUT").count() >= 13, "the large object came in parts");
    assert!(hub.log().iter().any(|r| r.path.starts_with("/api/resolve-cache/datasets/owner/corpus/")));
}

#[test]
fn python_client_resumes_what_is_cut() {
    let hub = filled();
    hub.faults(Faults {
        seed: 7,
        cut: 0.3,
        slow: 0.2,
        at_most: 1,
        host: Some(Host::Cdn),
        ..Faults::default()
    });
    if !python(&hub, &["download", "filesystem"], &[WITHOUT_XET]) {
        return;
    }
    assert!(hub.log().iter().any(|r| r.host == Host::Cdn && r.sent < r.length), "no download was cut");
}

#[test]
fn python_client_waits_as_the_limiter_tells() {
    let hub = filled();
    hub.rate_limit(Category::Resolvers, RateLimit::new(2, Duration::from_secs(1)));
    if !python(&hub, &["limits"], &[]) {
        return;
    }
    let counts = hub.counts(Category::Resolvers);
    assert!(counts.served == 5 && counts.refused > 0 && counts.violations == 0, "{counts:?}");
}
