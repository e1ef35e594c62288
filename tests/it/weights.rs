//! Model files as others write them: names, types, and every way to be broken.

use std::path::Path;

use blt_pipeline::model::{Format, ModelError, ModelFiles, StoredAs, Style};
use safetensors::tensor::Dtype;
use tempfile::TempDir;

use crate::golden::folder;
use crate::reference::{Stored, meta_json, random_tensors, small_config, write_model};

/// transformers' name of a tensor, after a prefix.
fn hugging_face_name(prefix: &str, name: &str) -> String {
    let pairs = [
        ("tok_embeddings", "embed_tokens"),
        ("attention.wq", "self_attn.q_proj"),
        ("attention.wk", "self_attn.k_proj"),
        ("attention.wv", "self_attn.v_proj"),
        ("attention.wo", "self_attn.o_proj"),
        ("feed_forward.w1", "mlp.gate_proj"),
        ("feed_forward.w2", "mlp.down_proj"),
        ("feed_forward.w3", "mlp.up_proj"),
        ("attention_norm", "input_layernorm"),
        ("ffn_norm", "post_attention_layernorm"),
        ("output", "lm_head"),
    ];
    let name = pairs.iter().fold(name.to_string(), |name, (from, to)| name.replace(from, to));
    format!("{prefix}{name}")
}

fn hugging_face_json(whole: bool) -> String {
    let patcher = serde_json::json!({
        "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
        "max_position_embeddings": 3000, "sliding_window": 40, "rms_norm_eps": 1e-5,
    });
    if whole {
        serde_json::json!({"model_type": "blt", "hidden_size": 1, "patcher_config": patcher}).to_string()
    } else {
        patcher.to_string()
    }
}

fn open_broken(folder: &Path) -> String {
    let error = ModelFiles::open(folder).unwrap_err();
    assert!(!matches!(error, ModelError::Device(_)));
    error.to_string()
}

#[test]
fn hugging_face_names_load_the_same_model() {
    let config = small_config(2, Some(40));
    let tensors = random_tensors(&config, 3);
    let folder = TempDir::new().unwrap();
    write_model(folder.path(), &meta_json(&config), &tensors, Dtype::F32);
    let meta = ModelFiles::open(folder.path()).unwrap();
    assert_eq!((meta.info.names.as_str(), meta.info.dtype.as_str()), ("Meta", "F32"));
    assert_eq!(meta.info.n_parameters, tensors.iter().map(|(_, _, x)| x.len()).sum::<usize>());

    for (prefix, whole) in [("", false), ("patcher.", true), ("model.patcher.", true)] {
        let rename = |(name, shape, x): &Stored| (hugging_face_name(prefix, name), shape.clone(), x.clone());
        let mut renamed: Vec<Stored> = tensors.iter().map(rename).collect();
        if whole {
            // The rest of a BLT checkpoint.
            renamed.push(("model.local_encoder.embed_tokens.weight".into(), vec![2, 3], vec![0.0; 6]));
            renamed.push(("lm_head.weight".into(), vec![2], vec![0.0; 2]));
        }
        write_model(folder.path(), &hugging_face_json(whole), &renamed, Dtype::F32);
        let files = ModelFiles::open(folder.path()).unwrap();
        assert_eq!(files.config, meta.config);
        assert_eq!(files.weights, meta.weights);
        assert_eq!(files.info.sha256, meta.info.sha256);
        assert!(files.info.names.starts_with("Hugging Face"));
    }
}

#[test]
fn half_types_load_as_what_they_round_to() {
    let config = small_config(1, None);
    let tensors = random_tensors(&config, 4);
    let folder = TempDir::new().unwrap();
    let mut hashes = Vec::new();
    for (dtype, name, error) in
        [(Dtype::F32, "F32", 0.0), (Dtype::F16, "F16", 1e-3), (Dtype::BF16, "BF16", 1e-2)]
    {
        write_model(folder.path(), &meta_json(&config), &tensors, dtype);
        let files = ModelFiles::open(folder.path()).unwrap();
        assert_eq!(files.info.dtype, name);
        for (ours, stored) in files.weights.tok_embeddings.iter().zip(&tensors[0].2) {
            assert!((ours - stored).abs() <= error * stored.abs(), "{ours} {stored}");
        }
        hashes.push(files.info.sha256);
    }
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), 3);
}

#[test]
fn every_difference_from_the_configuration_stands_in_one_error() {
    let config = small_config(2, None);
    let mut tensors = random_tensors(&config, 5);
    tensors.retain(|(name, ..)| name != "norm.weight" && name != "layers.1.attention.wk.weight");
    tensors.iter_mut().find(|(name, ..)| name == "layers.0.ffn_norm.weight").unwrap().1 = vec![2, 12];
    tensors.push(("layers.2.attention.wq.weight".into(), vec![1], vec![0.0]));
    tensors.push(("rope_embeddings.freqs_cis".into(), vec![1], vec![0.0])); // follows from the configuration
    let folder = TempDir::new().unwrap();
    write_model(folder.path(), &meta_json(&config), &tensors, Dtype::F32);
    let message = open_broken(folder.path());
    let (_, problems) = message.split_once("model.safetensors: ").unwrap();
    assert_eq!(
        problems,
        "layers.1.attention.wk.weight is missing; norm.weight is missing; \
         layers.0.ffn_norm.weight is [2, 12], not [24]; \
         layers.2.attention.wq.weight is not part of the model"
    );
}

#[test]
fn a_tied_output_may_be_stored_but_not_differ() {
    let mut config = small_config(1, None);
    config.weight_tying = true;
    let mut tensors = random_tensors(&config, 6);
    let folder = TempDir::new().unwrap();
    write_model(folder.path(), &meta_json(&config), &tensors, Dtype::F32);
    let without = ModelFiles::open(folder.path()).unwrap();
    let burn = folder.path().join("burn");
    without.save(&burn, Format::Burnpack, Style::Burn, StoredAs::F32).unwrap();
    assert_eq!(ModelFiles::open(&burn).unwrap().info.sha256, without.info.sha256);
    tensors.push(("output.weight".into(), vec![260, 24], tensors[0].2.clone()));
    write_model(folder.path(), &meta_json(&config), &tensors, Dtype::F32);
    assert_eq!(ModelFiles::open(folder.path()).unwrap().info.sha256, without.info.sha256);
    tensors.last_mut().unwrap().2[7] += 1.0;
    write_model(folder.path(), &meta_json(&config), &tensors, Dtype::F32);
    assert!(open_broken(folder.path()).contains("output.weight is not the embedding"));
}

#[test]
fn broken_files_are_errors_that_name_the_file() {
    let config = small_config(1, None);
    let folder = TempDir::new().unwrap();
    write_model(folder.path(), &meta_json(&config), &random_tensors(&config, 7), Dtype::F32);
    let file = folder.path().join("model.safetensors");
    let whole = std::fs::read(&file).unwrap();
    let header = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (vec![], "0 bytes are no safetensors file"),
        (vec![1; 7], "7 bytes are no safetensors file"),
        (vec![0xff; 4096], "a header of 18446744073709551615 bytes does not fit"),
        ([&5000u64.to_le_bytes()[..], &[b'{'; 4000]].concat(), "a header of 5000 bytes does not fit"),
        (whole[..whole.len() - 1].to_vec(), "the header promises"),
        (whole[..200].to_vec(), "does not fit a safetensors file of 200 bytes"),
        ([&whole[..], b"more"].concat(), "the header promises"),
        (header("garbage"), "the safetensors header is broken"),
        (header("[[[[[[[["), "the safetensors header is broken"),
        (header("{}"), "tok_embeddings.weight is missing"),
        (
            header(
                r#"{"norm.weight": {"dtype": "F32", "shape": [4294967296, 4294967296, 2], "data_offsets": [0, 0]}}"#,
            ),
            "the safetensors header is broken",
        ),
        (
            header(r#"{"norm.weight": {"dtype": "F32", "shape": [24], "data_offsets": [8, 104]}}"#),
            "the safetensors header is broken",
        ),
        (
            header(r#"{"norm.weight": {"dtype": "F32", "shape": [24], "data_offsets": [0, 96]}}"#),
            "the header promises 96 bytes of tensors, the file has 0",
        ),
    ];
    for (bytes, message) in cases {
        std::fs::write(&file, bytes).unwrap();
        let error = open_broken(folder.path());
        assert!(error.starts_with("failed to load ") && error.contains("model.safetensors"), "{error}");
        assert!(error.contains(message), "{error}");
    }
    std::fs::remove_file(&file).unwrap();
    assert!(open_broken(folder.path()).starts_with("failed to read "));
    std::fs::write(&file, &whole).unwrap();
    assert!(ModelFiles::open(&file).is_ok(), "the file itself, its configuration beside it");

    std::fs::write(folder.path().join("patch.json"), r#"{"mode": "entropy", "threshold": 1.5}"#).unwrap();
    assert_eq!(ModelFiles::open(folder.path()).unwrap().patch.unwrap().threshold, 1.5);
    for patch in ["{", r#"{"mode": "space"}"#, r#"{"mode": "static", "threshold": 1}"#] {
        std::fs::write(folder.path().join("patch.json"), patch).unwrap();
        assert!(open_broken(folder.path()).contains("patch.json: "));
    }
}

#[test]
fn the_released_layout_says_what_it_is() {
    let info = ModelFiles::open(&folder("nano")).unwrap().info;
    assert_eq!((info.names.as_str(), info.dtype.as_str()), ("Meta", "BF16"));
    assert_eq!((info.file_bytes, info.threshold), (463_520, None));
    let embedded = ModelFiles::embedded().unwrap();
    assert_eq!(embedded.info.n_parameters, 3_543_296);
    assert_eq!(embedded.patch.unwrap().threshold, 1.9137);
    let text = embedded.info.to_string();
    assert!(text.contains("parameters    3543296") && text.contains("window        256 tokens"), "{text}");
}

#[test]
fn a_converted_model_is_the_same_one_unless_it_was_rounded() {
    // Widths that the reference derives, and some that it would not.
    for config in [small_config(2, Some(40)), small_config(1, None)] {
        let folder = TempDir::new().unwrap();
        write_model(folder.path(), &meta_json(&config), &random_tensors(&config, 5), Dtype::F32);
        std::fs::write(folder.path().join("patch.json"), r#"{"mode": "entropy", "threshold": 1.3354421}"#)
            .unwrap();
        let model = ModelFiles::open(folder.path()).unwrap();
        let styles = [Style::Meta, Style::HuggingFace, Style::Burn];
        for (format, style) in Format::ALL.into_iter().flat_map(|format| styles.map(|style| (format, style)))
        {
            for stored_as in [StoredAs::F32, StoredAs::Bf16, StoredAs::F16] {
                let to = TempDir::new().unwrap();
                let to = to.path().join("new/folder");
                let converted = model.save(&to, format, style, stored_as).unwrap();
                let read = ModelFiles::open(&to).unwrap();
                assert_eq!((&read.config, &read.patch), (&model.config, &model.patch));
                assert_eq!(read.info.format, format.to_string());
                assert!(to.join(format.file_name()).exists());
                assert_eq!(StoredAs::of(&read.info.dtype), Some(stored_as));
                let exact = stored_as == StoredAs::F32;
                assert_eq!(converted.largest_change == 0.0, exact);
                assert_eq!(read.info.sha256 == model.info.sha256, exact);
                assert_eq!(model.differences(&read).is_empty(), exact);
                // What was rounded once stays as it is.
                let back = TempDir::new().unwrap();
                assert_eq!(
                    read.save(back.path(), Format::Safetensors, Style::Meta, stored_as).unwrap().sha256,
                    read.info.sha256
                );
                for format in Format::ALL {
                    let again = model.save(&to, format, style, stored_as).unwrap_err().to_string();
                    assert!(again.contains("it is there already"), "{again}");
                }
            }
        }
    }
}

#[test]
fn a_weight_that_a_format_cannot_hold_is_refused() {
    let config = small_config(1, Some(40));
    let mut tensors = random_tensors(&config, 5);
    tensors[3].2[1] = 1e6;
    let folder = TempDir::new().unwrap();
    write_model(folder.path(), &meta_json(&config), &tensors, Dtype::F32);
    let model = ModelFiles::open(folder.path()).unwrap();
    let to = folder.path().join("new");
    let error = model.save(&to, Format::Safetensors, Style::Meta, StoredAs::F16).unwrap_err().to_string();
    assert!(error.contains("too large for F16") && !to.exists(), "{error}");
    model.save(&to, Format::Safetensors, Style::Meta, StoredAs::Bf16).unwrap();
}
