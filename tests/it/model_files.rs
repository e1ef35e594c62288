//! Model files beyond safetensors: Burn's burnpack, and every way for it to be broken; what `model verify` and `model
//! info` find out about a model and its folder.

use std::{collections::HashMap, fs, path::Path};

use blt_pipeline::model::{CpuModel, Format, ModelFiles, StoredAs, Style, score_documents};
use safetensors::{
    SafeTensors,
    tensor::{Dtype, TensorView},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::{
    golden::{self, ALL, documents},
    reference::{meta_json, random_tensors, small_config, write_model},
    support::blt,
};

/// A model of one layer in a folder of its own, as Burn has it, in `f32`.
fn burnpack() -> (TempDir, ModelFiles) {
    let config = small_config(1, Some(40));
    let (from, to) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    write_model(from.path(), &meta_json(&config), &random_tensors(&config, 5), Dtype::F32);
    let model = ModelFiles::open(from.path()).unwrap();
    model.save(to.path(), Format::Burnpack, Style::Burn, StoredAs::F32).unwrap();
    (to, model)
}

#[test]
fn what_burn_wrote_is_the_same_model_to_every_command() {
    let nano = ModelFiles::open(&golden::folder("nano")).unwrap();
    let folder = golden::folder("nano-burn");
    let burn = ModelFiles::open(&folder).unwrap();
    assert_eq!((&burn.config, &burn.weights), (&nano.config, &nano.weights));
    assert_eq!(burn.info.sha256, nano.info.sha256);
    let info = &burn.info;
    assert_eq!(
        (info.format.as_str(), info.names.as_str(), info.dtype.as_str()),
        ("burnpack", "Burn", "BF16")
    );
    let (folder, file) = (folder.to_str().unwrap(), folder.join("model.bpk"));
    blt(&["model", "verify", folder, "tests/data/golden/nano"]).expect(0, &["the same model"]);
    blt(&["model", "info", file.to_str().unwrap()])
        .expect(0, &["bytes of burnpack", "names         Burn", "dim 64"]);
    let scores = |files: &ModelFiles| {
        score_documents(&mut CpuModel::new(files), &[b"The keeper counts ships."], 8192, ALL).unwrap()
    };
    assert_eq!(scores(&burn), scores(&nano));
}

#[test]
fn a_model_goes_to_burnpack_and_back() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let nano = "tests/data/golden/nano";
    blt(&["model", "convert", nano, &at("burn"), "--format", "bpk"]).expect(0, &["rounding      none"]);
    blt(&["model", "info", &at("burn")]).expect(0, &["names         Burn", "stored as     BF16"]);
    blt(&["model", "convert", &at("burn"), &at("back")]).expect(0, &["rounding      none"]);
    blt(&["model", "verify", nano, &at("back")]).expect(0, &["the same model"]);
    let tensors = |folder: &str| {
        let bytes = fs::read(Path::new(folder).join("model.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let mut all: Vec<_> = tensors
            .iter()
            .map(|(name, t)| (name.to_owned(), t.shape().to_vec(), t.data().to_vec()))
            .collect();
        all.sort_unstable();
        all
    };
    assert_eq!(tensors(&at("back")), tensors(nano), "names, shapes and bytes");
    // Under other names, and not called as it is.
    blt(&["model", "convert", nano, &at("hf"), "--format", "bpk", "--names", "hugging-face"])
        .expect(0, &["rounding      none"]);
    fs::rename(at("hf/model.bpk"), at("hf/weights")).unwrap();
    blt(&["model", "verify", nano, &at("hf/weights")])
        .expect(0, &["the same model, stored as BF16 in safetensors and as BF16 in burnpack"]);
}

#[test]
fn a_folder_has_one_file_of_weights_and_no_mpk() {
    let (folder, _) = burnpack();
    let at = |name: &str| folder.path().join(name);
    let info = || blt(&["model", "info", folder.path().to_str().unwrap()]);
    fs::write(at("model.safetensors"), "").unwrap();
    info().expect(
        2,
        &["failed to choose between", "model.safetensors and ", "model.bpk: name one of the files"],
    );
    fs::remove_file(at("model.safetensors")).unwrap();
    fs::rename(at("model.bpk"), at("model.mpk")).unwrap();
    let refusal =
        ["model.mpk: Burn no longer has the format .mpk", "take the safetensors file that it was made from"];
    info().expect(2, &refusal);
    blt(&["model", "convert", at("model.mpk").to_str().unwrap(), at("new").to_str().unwrap()])
        .expect(2, &refusal);
    fs::rename(at("model.mpk"), at("other.mpk.gz")).unwrap();
    blt(&["model", "verify", at("other.mpk.gz").to_str().unwrap()])
        .expect(2, &["other.mpk.gz: Burn no longer has the format .mpk"]);
    info().expect(2, &["failed to read ", "model.safetensors"]);
}

/// The metadata of a burnpack file, and the bytes of its tensors.
fn parts(file: &[u8]) -> (Value, Vec<u8>) {
    let length = u32::from_le_bytes(*file[6..].first_chunk().unwrap()) as usize;
    let metadata = ciborium::from_reader(&file[10..10 + length]).unwrap();
    (metadata, file[(10 + length).next_multiple_of(256)..].to_vec())
}

fn whole(metadata: &[u8], data: &[u8]) -> Vec<u8> {
    let mut file = [&b"NRUB\x01\0"[..], &(metadata.len() as u32).to_le_bytes(), metadata].concat();
    file.resize(file.len().next_multiple_of(256), 0);
    file.extend_from_slice(data);
    file
}

fn cbor(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).unwrap();
    bytes
}

#[test]
fn broken_burnpack_files_are_errors_that_say_what_is_wrong() {
    let (folder, model) = burnpack();
    let file = folder.path().join("model.bpk");
    let good = fs::read(&file).unwrap();
    let (metadata, data) = parts(&good);
    let with = |change: &dyn Fn(&mut Value)| {
        let mut metadata = metadata.clone();
        change(&mut metadata["tensors"]);
        whole(&cbor(&metadata), &data)
    };
    let norm = |key: &str, value: Value| with(&|tensors| tensors["norm.gamma"][key] = value.clone());
    let first = metadata["tensors"]["norm.gamma"]["data_offsets"][0].as_u64().unwrap();
    let head = |bytes: &[u8]| [bytes, &good[bytes.len()..]].concat();
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (vec![], "0 bytes are no burnpack file"),
        (good[..9].to_vec(), "9 bytes are no burnpack file"),
        (head(b"BURN"), "it does not begin as a burnpack file does"),
        (head(b"NRUB\x02\0"), "it has version 2 of burnpack, and only 1 is known"),
        (head(b"NRUB\x01\0\xff\xff\xff\xff"), "metadata of 4294967295 bytes does not fit a burnpack file of"),
        (good[..300].to_vec(), "does not fit a burnpack file of 300 bytes"),
        (good[..good.len() - 300].to_vec(), " of the tensors, after the file's "),
        ([&good[..], &[0; 256]].concat(), " bytes follow the last tensor"),
        (whole(b"", &data), "the burnpack metadata is broken: it ends too early"),
        (whole(b"garbage", &data), "the burnpack metadata is broken: "),
        (whole(&[&cbor(&metadata)[..], b"1"].concat(), &data), "is broken: 1 bytes follow it"),
        (whole(&[0x81; 5000], &data), "the burnpack metadata is broken: "),
        // A map, a list and a text that claim to be longer than any memory.
        (whole(&[0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], &data), "it ends too early"),
        (whole(b"\xa1\x67tensors\xbb\x7f\xff\xff\xff\xff\xff\xff\xff", &data), "it ends too early"),
        (whole(b"\xa1\x7b\x7f\xff\xff\xff\xff\xff\xff\xff", &data), "the burnpack metadata is broken: "),
        (whole(&cbor(&json!({"metadata": {}})), &data), "missing field `tensors`"),
        (whole(&cbor(&json!({"tensors": {}})), &[]), "tok_embeddings.weight is missing"),
        (
            with(&|tensors| drop(tensors.as_object_mut().unwrap().remove("norm.gamma"))),
            "norm.gamma is missing",
        ),
        (norm("dtype", json!(7)), "the name of a number format"),
        (norm("dtype", json!({})), "a number format has no name"),
        (norm("dtype", json!("F64")), "norm.gamma has 96 bytes, which do not make [24] of F64"),
        (norm("dtype", json!("I32")), "norm.gamma is I32, not F32, F16 or BF16"),
        (norm("dtype", json!({"QFloat": {"value": "Q8S"}})), "norm.gamma is QFloat, not F32, F16 or BF16"),
        (norm("shape", json!([25])), "norm.gamma has 96 bytes, which do not make [25] of F32"),
        (norm("shape", json!([4, 6])), "norm.gamma is [4, 6], not [24]"),
        (norm("shape", json!([u64::MAX, 2])), "which do not make [18446744073709551615, 2] of F32"),
        (norm("shape", json!([-1])), "the burnpack metadata is broken: "),
        (norm("data_offsets", json!([first, first + 92])), "norm.gamma has 92 bytes"),
        (norm("data_offsets", json!([first + 96, first])), "of the tensors, and begins at"),
        (
            norm("data_offsets", json!([u64::MAX - 96, u64::MAX])),
            "ends at byte 18446744073709551615 of the tensors",
        ),
        (norm("data_offsets", json!([first])), "the burnpack metadata is broken: "),
        (norm("data_offsets", json!([4, 100])), " begins within another tensor"),
        (
            with(&|tensors| tensors["output.weight"]["shape"] = json!([260, 24])),
            "output.weight is [260, 24], not [24, 260]",
        ),
        (with(&|tensors| tensors["more"] = tensors["norm.gamma"].clone()), "begins within another tensor"),
    ];
    for (bytes, message) in cases {
        fs::write(&file, bytes).unwrap();
        let error = ModelFiles::open(folder.path()).unwrap_err().to_string();
        assert!(error.starts_with("failed to load ") && error.contains("model.bpk: "), "{error}");
        assert!(error.contains(message), "{message:?} is not in: {error}");
    }
    // What Burn may write beside all that: ids, numbers, tensors without elements.
    let more = json!({"dtype": "F32", "shape": [0, 3], "data_offsets": [0, 0], "param_id": 7});
    let mut metadata = metadata.clone();
    metadata["tensors"]["rope_embeddings.freqs_cis"] = more;
    metadata["tensors"]["norm.gamma"]["param_id"] = json!(u64::MAX);
    metadata["scalars"] = json!({"step": {"UInt": 3}});
    fs::write(&file, whole(&cbor(&metadata), &data)).unwrap();
    assert_eq!(ModelFiles::open(folder.path()).unwrap().weights, model.weights);
}

#[test]
fn no_byte_of_a_burnpack_header_makes_it_panic() {
    let (folder, _) = burnpack();
    let file = folder.path().join("model.bpk");
    let good = fs::read(&file).unwrap();
    let length = 10 + u32::from_le_bytes(*good[6..].first_chunk().unwrap()) as usize;
    let mut refused = 0;
    for at in 0..length {
        for change in [0x01, 0x80] {
            let mut bytes = good.clone();
            bytes[at] ^= change;
            fs::write(&file, bytes).unwrap();
            refused += usize::from(ModelFiles::open(folder.path()).is_err());
        }
    }
    // What is left changes where the file says that it comes from, or a name's letters within the map's order.
    assert!(2 * refused > 3 * length, "{refused} of {}", 2 * length);
}

/// The text of `models/golden/<name>.safetensors`: the beginning of that document. It is longer than the embedded
/// model's window.
const GOLDEN: [(&str, &str, &str); 2] =
    [("small", "the embedded model", "faults"), ("nano", "tests/data/golden/nano", "prose")];
const GOLDEN_BYTES: usize = 600;

#[test]
fn the_golden_values_in_the_program_are_the_references() {
    for (name, model, document) in GOLDEN {
        let files = match name {
            "small" => ModelFiles::embedded().unwrap(),
            name => ModelFiles::open(&golden::folder(name)).unwrap(),
        };
        let document = documents(name).into_iter().find(|d| d.name == document).unwrap();
        let text = &document.bytes[..GOLDEN_BYTES];
        let bytes = |values: &[f32]| -> Vec<u8> {
            values[..=GOLDEN_BYTES].iter().flat_map(|value| value.to_le_bytes()).collect()
        };
        let (entropies, norms) = (bytes(&document.entropies), bytes(&document.norms));
        let about = HashMap::from([("model".into(), model.into()), ("sha256".into(), files.info.sha256)]);
        let file = Path::new("models/golden").join(format!("{name}.safetensors"));
        if std::env::var_os("BLT_UPDATE").is_some() {
            let tensors = [
                ("text", TensorView::new(Dtype::U8, vec![GOLDEN_BYTES], text).unwrap()),
                ("entropies", TensorView::new(Dtype::F32, vec![GOLDEN_BYTES + 1], &entropies).unwrap()),
                ("norms", TensorView::new(Dtype::F32, vec![GOLDEN_BYTES + 1], &norms).unwrap()),
            ];
            fs::write(&file, safetensors::serialize(tensors, Some(about.clone())).unwrap()).unwrap();
        }
        let written = fs::read(&file).unwrap();
        assert!(written.len() < 6000, "it is part of the program");
        let (_, metadata) = SafeTensors::read_metadata(&written).unwrap();
        assert_eq!(metadata.metadata().as_ref(), Some(&about));
        let written = SafeTensors::deserialize(&written).unwrap();
        for (name, expected) in [("text", text), ("entropies", &entropies[..]), ("norms", &norms[..])] {
            assert_eq!(written.tensor(name).unwrap().data(), expected, "{file:?} {name}");
        }
    }
}

#[test]
fn verify_holds_a_known_model_against_the_reference_whatever_its_files() {
    let known = ["600 bytes scored in f32", "differ by", "the model gives the reference's values"];
    for (weights, name) in [
        ("embedded", "the embedded model: "),
        ("models/small", "the embedded model: "),
        ("tests/data/golden/nano", "tests/data/golden/nano: "),
        ("tests/data/golden/nano-burn", "tests/data/golden/nano: "),
    ] {
        blt(&["model", "verify", weights]).expect(0, &known);
        blt(&["model", "verify", weights]).expect(0, &[name, "values        finite, all of them"]);
    }
    // Not the reference's values themselves, which would agree to the last bit.
    let agreement = ModelFiles::embedded().unwrap().verify().unwrap().agreement.unwrap();
    assert!(agreement.holds() && agreement.entropies > 0.0, "{agreement:?}");
}

#[test]
fn verify_says_what_it_cannot_check_and_finds_what_is_no_number() {
    let (folder, model) = burnpack();
    let verify = |weights: &Path| blt(&["model", "verify", weights.to_str().unwrap()]);
    verify(folder.path()).expect(
        0,
        &[
            "tensors       12, all that",
            "values        finite",
            "no values of the reference are known for this model",
            &model.info.sha256,
        ],
    );
    let file = folder.path().join("model.bpk");
    let good = fs::read(&file).unwrap();
    let (metadata, _) = parts(&good);
    let offset = metadata["tensors"]["layers.0.attention.wk.weight"]["data_offsets"][0].as_u64().unwrap();
    let mut bad = good.clone();
    let at = good.len() - parts(&good).1.len() + offset as usize;
    bad[at..at + 8].copy_from_slice(&[f32::NAN.to_le_bytes(), f32::INFINITY.to_le_bytes()].concat());
    fs::write(&file, bad).unwrap();
    verify(folder.path()).expect(65, &["2 of layers.0.attention.wk.weight are no finite numbers"]);
    fs::write(&file, &good[..good.len() - 300]).unwrap();
    verify(folder.path()).expect(65, &["failed to load ", "model.bpk"]);
    fs::remove_file(&file).unwrap();
    verify(folder.path()).expect(2, &["failed to read "]);
    verify(Path::new("no/such/model")).expect(2, &["failed to read no/such"]);
}

#[test]
fn info_tells_licence_and_the_hash_of_each_file() {
    let (folder, _) = burnpack();
    let at = |name: &str| folder.path().join(name);
    let info = || blt(&["model", "info", folder.path().to_str().unwrap()]);
    let facts = |name: &str| {
        let bytes = fs::read(at(name)).unwrap();
        let sha: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{name}: {} bytes, sha256 {sha}", bytes.len())
    };
    info().expect(0, &["licence       not stated", &facts("config.json"), &facts("model.bpk")]);
    assert!(!info().stdout.contains("patch.json: "));
    fs::write(at("patch.json"), r#"{"mode": "entropy", "threshold": 1.5}"#).unwrap();
    info().expect(0, &[&facts("patch.json")]);
    fs::write(at("LICENSE"), "\n  The Licence of Someone\n\nText.").unwrap();
    info().expect(0, &["licence       The Licence of Someone (LICENSE)"]);
    fs::write(at("README.md"), "---\nlicense: other\nlicense_name: fair\n---\n# Model").unwrap();
    info().expect(0, &["licence       other: fair (README.md)"]);
    fs::write(at("README.md"), b"\xff\xfe---\nlicense: mit").unwrap();
    info().expect(0, &["licence       The Licence of Someone (LICENSE)"]);

    let embedded = blt(&["model", "info", "embedded"]);
    embedded.expect(
        0,
        &["licence       CC-BY-NC-4.0 (this program's)", "model.safetensors: 7090432 bytes, sha256 "],
    );
    let same = blt(&["model", "info", "models/small"]);
    same.expect(0, &["licence       cc-by-nc-4.0 (README.md)"]);
    let hashes = |text: &str| -> Vec<String> {
        text.lines().filter(|line| line.contains("sha256")).map(str::to_owned).collect()
    };
    assert_eq!(hashes(&embedded.stdout), hashes(&same.stdout));
    assert_eq!(hashes(&embedded.stdout).len(), 4);
}
