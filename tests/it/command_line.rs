//! What a person types and what comes back: commands, flags, exit codes, the summary.

use serde_json::Value;

use crate::{
    golden,
    support::{Work, blt, files},
};

#[test]
fn help_of_every_command_has_an_example_and_run_tells_the_exit_codes() {
    for command in [vec!["run"], vec!["plan"], vec!["model", "info"], vec!["push"], vec!["schema"]] {
        let help = blt(&[&command[..], &["--help"]].concat());
        let example = format!("blt-pipeline {} ", command.join(" "));
        help.expect(0, &["Example", &example]);
    }
    blt(&["--help"])
        .expect(0, &["0   done", "2   wrong usage", "65  bad input", "70  a defect", "75  interr"]);
    blt(&["run", "--help"]).expect(0, &["0 done, 2 bad plan, 65 bad input, 70 a defect, 75 interrupted"]);
}

#[test]
fn wrong_usage_is_exit_2() {
    for arguments in [
        &["run"][..],
        &["runn", "x.toml"],
        &["run", "no/such/file.toml"],
        &["plan", "pipelines/quickstart.toml", "--set", "nonsense"],
        &["run", "pipelines/quickstart.toml", "--limit", "many"],
        &["run", "pipelines/quickstart.toml", "--log-format", "xml"],
        &["schema", "nonsense"],
        &["model", "info"],
    ] {
        let outcome = blt(arguments);
        assert_eq!(outcome.code, 2, "{arguments:?}: {}", outcome.stderr);
        assert!(!outcome.stderr.is_empty() && outcome.stdout.is_empty(), "{arguments:?}");
    }
    blt(&["run", "no/such/file.toml"]).expect(2, &["failed to read no/such/file.toml"]);
}

#[test]
fn model_info_describes_any_model_and_says_what_is_wrong_with_the_rest() {
    let nano = golden::folder("nano");
    let nano = nano.to_str().unwrap();
    blt(&["model", "info", "embedded"]).expect(0, &["dim 256", "threshold     1.9137 nats", "sha256"]);
    blt(&["model", "info", nano]).expect(0, &["dim 64", "window        32 tokens", "none of its own"]);
    blt(&["model", "info", &format!("{nano}/model.safetensors")]).expect(0, &["parameters    230336"]);
    blt(&["model", "info", "no/such/model"]).expect(2, &["failed to read no/such"]);
    let work = Work::new();
    for (name, bytes) in
        [("config.json", &b"{}"[..]), ("model.safetensors", &b"\x08\0\0\0\0\0\0\0garbage!"[..])]
    {
        std::fs::write(work.path(name), bytes).unwrap();
    }
    let folder = work.path("");
    blt(&["model", "info", folder.to_str().unwrap()]).expect(2, &["failed to read", "config.json"]);
    std::fs::copy(golden::folder("nano").join("config.json"), work.path("config.json")).unwrap();
    let garbage = blt(&["model", "info", folder.to_str().unwrap()]);
    garbage.expect(2, &["model.safetensors"]);
    assert!(!garbage.stderr.contains("panicked"));
}

#[cfg(not(feature = "remote"))]
#[test]
fn an_address_in_a_build_without_a_network_names_the_feature() {
    let says = ["this build has no network", "--features remote"];
    blt(&["model", "info", "hf://facebook/blt-entropy"]).expect(2, &says);
    let fineweb = "pipelines/fineweb.toml";
    blt(&["plan", fineweb, "--set", "model.weights=embedded"]).expect(2, &says);
    blt(&["plan", "pipelines/quickstart.toml", "--output", "s3://bucket/out"]).expect(2, &says);
}

#[cfg(not(feature = "push"))]
#[test]
fn push_in_a_build_without_it_names_the_feature_and_how_to_build_it() {
    let outcome = blt(&["push", "models/small", "hf://sea/tides"]);
    outcome.expect(2, &["with the feature `push`", "cargo build --release --features push"]);
}

#[test]
fn schema_prints_json_for_each_name_and_all_tables_without_one() {
    for name in ["documents", "patches", "bytes", "quarantine"] {
        let printed: Value = serde_json::from_str(&blt(&["schema", name]).stdout).unwrap();
        assert_eq!(printed["table"], name);
    }
    let pipeline: Value = serde_json::from_str(&blt(&["schema", "pipeline"]).stdout).unwrap();
    assert!(pipeline["properties"]["source"].is_object());
    let all: Value = serde_json::from_str(&blt(&["schema"]).stdout).unwrap();
    assert_eq!(all.as_array().map(Vec::len), Some(4));
}

#[test]
fn a_plan_tells_what_a_run_would_do_and_writes_nothing() {
    let work = Work::with(&["one", "two", "three"]);
    let plan = work.blt("plan", &["--set", "sink.embeddings=byte"]);
    plan.expect(0, &["shards      1", "units       1", "rows        3", "dim 64", "patches ", "bytes "]);
    plan.expect(0, &["entropy above 1.3354421 nats", "(new)", "device      cpu:0 "]);
    assert!(!work.out().exists());
    work.run(&[]);
    work.blt("plan", &[]).expect(0, &["(finished)", "fingerprint "]);
}

#[test]
fn limit_output_and_set_change_what_a_run_does() {
    let work = Work::with(&["one", "two", "three"]);
    let other = work.path("elsewhere");
    let outcome = work.blt("run", &["--limit", "2", "--output", other.to_str().unwrap()]);
    outcome.expect(0, &["rows        2 read, 2 documents", "elsewhere", "--limit 2 is part of the plan"]);
    assert!(!work.out().exists() && files(&other, "documents").len() == 1);

    work.run(&["sink.embeddings=none", "pipeline.name=harbour"]).expect(0, &["harbour finished"]);
    assert!(work.table("patches").unwrap().column_by_name("embedding").is_none());
    work.blt("run", &["--set", "sink.embeddings=patch"])
        .expect(2, &["sink.embeddings was \"none\", now \"patch\""]);
}

#[test]
fn every_log_line_is_json_when_asked_for_even_the_last_error() {
    let work = Work::with(&["one", "two"]);
    work.texts("b.parquet", &["three"]);
    std::fs::write(work.path("shards/c.parquet"), "no parquet").unwrap();
    let broken = work.blt("run", &["--log-format", "json"]);
    let refused = work.blt("run", &["--log-format", "json", "--set", "sink.norms=false"]);
    for (outcome, code) in [(&broken, 65), (&refused, 2)] {
        assert_eq!(outcome.code, code, "{}", outcome.stderr);
        assert!(!outcome.stderr.is_empty());
        for line in outcome.stderr.lines() {
            let parsed: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{line:?}: {e}"));
            assert!(parsed["level"].is_string(), "{line}");
        }
    }
    assert!(broken.stderr.contains("running pipeline") && refused.stderr.contains("sink.norms was true"));
    let text = work.blt("run", &[]);
    assert!(text.stderr.lines().all(|line| serde_json::from_str::<Value>(line).is_err()), "{}", text.stderr);
}

#[test]
fn the_summary_tells_rows_bytes_patches_stages_bottleneck_and_how_to_read() {
    let work = Work::with(&["A keeper", "", "counts ships"]);
    let outcome = work.run(&["patch.mode=static", "patch.patch_size=5", "patch.max_patch_length=5"]);
    outcome.expect(
        0,
        &["pipeline finished", "rows        3 read, 3 documents", "bytes       20, mean entropy "],
    );
    // Tokens of 10, 2 and 14 in fives: 2, 1 and 3 patches, of which one holds no byte.
    outcome.expect(0, &["patches     5, 4.00 bytes each", "bottleneck  ", " (busy ", "output      "]);
    for stage in ["source", "pretokenize", "pack", "model", "patch", "encode", "compress", "commit"] {
        let line = outcome.stdout.lines().find(|l| l.trim_start().starts_with(&format!("{stage} ")));
        assert!(line.is_some_and(|l| l.contains("s busy")), "{stage}: {}", outcome.stdout);
    }
    let rows = work.documents();
    let bytes = rows.iter().flat_map(|r| &r.entropies[..r.n_bytes as usize]);
    let mean = bytes.map(|&h| f64::from(h)).sum::<f64>() / 20.0;
    outcome.expect(0, &[&format!("mean entropy {mean:.3} nats"), "read it     python -c", "pyarrow.dataset"]);
    work.run(&["patch.mode=static", "patch.patch_size=5", "patch.max_patch_length=5"])
        .expect(0, &["was finished before, nothing to do", "rows        3 read"]);
}

#[test]
fn models_are_converted_and_compared() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (same, short) = (at("same"), at("short"));
    let nano = "tests/data/golden/nano";
    blt(&["model", "convert", nano, &same, "--names", "hugging-face"]).expect(0, &["rounding      none"]);
    blt(&["model", "verify", nano, &same]).expect(0, &["the same model"]);
    blt(&["model", "info", &same]).expect(0, &["names         Hugging Face", "dim 64"]);
    blt(&["model", "convert", nano, &short, "--dtype", "f16"])
        .expect(0, &["another model, with a hash of its own"]);
    blt(&["model", "verify", nano, &short]).expect(65, &["tok_embeddings.weight: ", "values differ, by"]);
    blt(&["model", "verify", nano, "embedded"])
        .expect(65, &["dim is 64 and 256", "layers.0.attention.wq.weight is [64, 64]"]);
    blt(&["model", "convert", nano, &same]).expect(2, &["it is there already"]);
    blt(&["model", "convert", nano, "/proc/no/model"]).expect(2, &["failed to write /proc/no/model"]);
}
