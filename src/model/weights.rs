//! Reads an entropy model's files: configuration, safetensors under Meta's or Hugging Face's names,
//! and the patch defaults beside them. Gives `f32` weights; knows nothing of tensor libraries.

use std::fmt;
use std::fs::File;
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{ModelConfig, ModelError};

const EMBEDDED_CONFIG: &[u8] = include_bytes!("../../models/small/config.json");
const EMBEDDED_PATCH: &[u8] = include_bytes!("../../models/small/patch.json");
const EMBEDDED_WEIGHTS: &[u8] = include_bytes!("../../models/small/model.safetensors");

/// Bytes before a safetensors header: its length.
const PREFIX_BYTES: u64 = 8;
/// As the safetensors crate limits it.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Everything a model folder says, checked against its own configuration.
#[derive(Clone, Debug)]
pub struct ModelFiles {
    /// From `config.json`.
    pub config: ModelConfig,
    /// From the safetensors file.
    pub weights: Weights,
    /// From `patch.json`, when the folder has one.
    pub patch: Option<PatchDefaults>,
    /// The same in words and numbers.
    pub info: ModelInfo,
}

/// All weights, row-major `[out, in]` as PyTorch stores them.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    /// `[vocab_size, dim]`
    pub tok_embeddings: Vec<f32>,
    /// The first layer first.
    pub layers: Vec<LayerWeights>,
    /// `[dim]`
    pub norm: Vec<f32>,
    /// `[vocab_size, dim]`; `None` when it is the embedding.
    pub output: Option<Vec<f32>>,
}

/// Weights of one layer. Rows of `wq` and `wk` are in Meta's order: element pairs (2i, 2i + 1) of
/// a head turn together.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerWeights {
    /// `[dim]`
    pub attention_norm: Vec<f32>,
    /// `[n_heads × head_dim, dim]`
    pub wq: Vec<f32>,
    /// `[n_kv_heads × head_dim, dim]`
    pub wk: Vec<f32>,
    /// `[n_kv_heads × head_dim, dim]`
    pub wv: Vec<f32>,
    /// `[dim, n_heads × head_dim]`
    pub wo: Vec<f32>,
    /// `[dim]`
    pub ffn_norm: Vec<f32>,
    /// `[ffn_hidden, dim]`, the gate
    pub w1: Vec<f32>,
    /// `[dim, ffn_hidden]`
    pub w2: Vec<f32>,
    /// `[ffn_hidden, dim]`
    pub w3: Vec<f32>,
}

/// The patch rule that a model folder was calibrated for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PatchDefaults {
    /// Nats; mode `entropy`.
    pub threshold: f32,
}

/// What `model info` prints.
#[derive(Clone, Debug, Serialize)]
pub struct ModelInfo {
    /// The architecture.
    pub config: ModelConfig,
    /// Number of weights, a tied output counted once.
    pub n_parameters: usize,
    /// Size of the safetensors file.
    pub file_bytes: u64,
    /// Types the weights are stored in, such as `BF16`.
    pub dtype: String,
    /// Whose names the tensors have: `Meta` or `Hugging Face`, with the prefix.
    pub names: String,
    /// Nats, from `patch.json`.
    pub threshold: Option<f32>,
    /// Hex SHA-256 over the configuration and all weights as `f32`. Equal for equal models, whatever
    /// their files, names and types.
    pub sha256: String,
}

impl fmt::Display for ModelInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let c = &self.config;
        writeln!(
            f,
            "architecture  dim {}, {} layers, {} heads of {} ({} key-value), SwiGLU {}, RoPE {}, RMSNorm {:e}{}",
            c.dim,
            c.n_layers,
            c.n_heads,
            c.head_dim,
            c.n_kv_heads,
            c.ffn_hidden,
            c.rope_theta,
            c.norm_eps,
            if c.weight_tying { ", tied output" } else { "" },
        )?;
        writeln!(f, "parameters    {}", self.n_parameters)?;
        writeln!(f, "file          {} bytes", self.file_bytes)?;
        writeln!(f, "stored as     {}", self.dtype)?;
        writeln!(f, "names         {}", self.names)?;
        match c.sliding_window {
            Some(window) => writeln!(f, "window        {window} tokens")?,
            None => writeln!(f, "window        whole context")?,
        }
        writeln!(f, "context       {} tokens", c.max_seqlen)?;
        match self.threshold {
            Some(threshold) => writeln!(f, "threshold     {threshold} nats (patch.json)")?,
            None => writeln!(f, "threshold     none of its own")?,
        }
        write!(f, "sha256        {}", self.sha256)
    }
}

impl ModelFiles {
    /// Opens a folder with `config.json`, `model.safetensors` and perhaps `patch.json`, or a
    /// safetensors file that has the others beside it.
    ///
    /// # Errors
    /// When a file cannot be read, says what no entropy model says, or when tensors are missing, too
    /// many or of another shape than the configuration's: all of them in one message.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let (folder, file) = if path.is_dir() {
            (path, path.join("model.safetensors"))
        } else {
            (path.parent().unwrap_or(Path::new("")), path.to_owned())
        };
        let config_file = folder.join("config.json");
        let config = ModelConfig::from_json(&config_file, &read(&config_file)?)?;
        let patch_file = folder.join("patch.json");
        let patch = match read(&patch_file) {
            Ok(json) => Some(patch_defaults(&patch_file, &json)?),
            Err(ModelError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => return Err(e),
        };
        let reader = File::open(&file).map_err(|source| read_error(&file, source))?;
        Self::load(config, patch, &file, reader)
    }

    /// The small model that is part of this crate (see `models/small`).
    ///
    /// # Errors
    /// None in a build whose tests pass.
    pub fn embedded() -> Result<Self, ModelError> {
        let folder = Path::new("models/small");
        let config = ModelConfig::from_json(&folder.join("config.json"), EMBEDDED_CONFIG)?;
        let patch = patch_defaults(&folder.join("patch.json"), EMBEDDED_PATCH)?;
        let file = folder.join("model.safetensors");
        Self::load(config, Some(patch), &file, Cursor::new(EMBEDDED_WEIGHTS))
    }

    fn load(
        config: ModelConfig,
        patch: Option<PatchDefaults>,
        file: &Path,
        reader: impl Read + Seek,
    ) -> Result<Self, ModelError> {
        let mut tensors = TensorFile::open(file, reader)?;
        let names = Names::of(&tensors.metadata);
        let problems = problems(&config, names, &tensors.metadata);
        if !problems.is_empty() {
            return Err(ModelError::Weights { file: file.to_owned(), problems });
        }
        let weights = Weights::read(&config, names, &mut tensors)?;
        let info = ModelInfo {
            n_parameters: config.n_parameters(),
            file_bytes: tensors.file_bytes,
            dtype: stored_types(&config, names, &tensors.metadata),
            names: names.to_string(),
            threshold: patch.map(|p| p.threshold),
            sha256: hash(&config, &weights),
            config: config.clone(),
        };
        Ok(Self { config, weights, patch, info })
    }
}

impl Weights {
    /// The tensors `expected` lists, which [`problems`] has found to be there.
    fn read<R: Read + Seek>(
        config: &ModelConfig,
        names: Names,
        file: &mut TensorFile<R>,
    ) -> Result<Self, ModelError> {
        let tok_embeddings = file.tensor(&names.name(Role::Embedding))?;
        let mut layers = Vec::with_capacity(config.n_layers);
        for layer in 0..config.n_layers {
            let mut read = |part| file.tensor(&names.name(Role::Layer(layer, part)));
            layers.push(LayerWeights {
                attention_norm: read(Part::AttentionNorm)?,
                wq: read(Part::Wq)?,
                wk: read(Part::Wk)?,
                wv: read(Part::Wv)?,
                wo: read(Part::Wo)?,
                ffn_norm: read(Part::FfnNorm)?,
                w1: read(Part::W1)?,
                w2: read(Part::W2)?,
                w3: read(Part::W3)?,
            });
        }
        let norm = file.tensor(&names.name(Role::Norm))?;
        let output = names.name(Role::Output);
        let output = if !config.weight_tying {
            Some(file.tensor(&output)?)
        } else {
            // A tied output is often stored all the same; then it must be the embedding.
            if file.metadata.info(&output).is_some() && file.tensor(&output)? != tok_embeddings {
                return Err(ModelError::Weights {
                    file: file.file.clone(),
                    problems: vec![format!(
                        "{output} is not the embedding, though the configuration ties them"
                    )],
                });
            }
            None
        };
        Ok(Self { tok_embeddings, layers, norm, output })
    }
}

/// Whose names a file uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Names {
    Meta,
    /// With the prefix that the patcher's tensors have; those outside it are another model's.
    HuggingFace(&'static str),
}

/// What a tensor is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Role {
    Embedding,
    Layer(usize, Part),
    Norm,
    Output,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    AttentionNorm,
    Wq,
    Wk,
    Wv,
    Wo,
    FfnNorm,
    W1,
    W2,
    W3,
}

impl Part {
    const ALL: [Part; 9] = [
        Part::AttentionNorm,
        Part::Wq,
        Part::Wk,
        Part::Wv,
        Part::Wo,
        Part::FfnNorm,
        Part::W1,
        Part::W2,
        Part::W3,
    ];

    fn meta(self) -> &'static str {
        match self {
            Part::AttentionNorm => "attention_norm",
            Part::Wq => "attention.wq",
            Part::Wk => "attention.wk",
            Part::Wv => "attention.wv",
            Part::Wo => "attention.wo",
            Part::FfnNorm => "ffn_norm",
            Part::W1 => "feed_forward.w1",
            Part::W2 => "feed_forward.w2",
            Part::W3 => "feed_forward.w3",
        }
    }

    /// transformers' conversion renames and does not permute: its `rotate_half` for this model takes
    /// every second element, so rows of `q_proj` and `k_proj` are in Meta's order.
    fn hugging_face(self) -> &'static str {
        match self {
            Part::AttentionNorm => "input_layernorm",
            Part::Wq => "self_attn.q_proj",
            Part::Wk => "self_attn.k_proj",
            Part::Wv => "self_attn.v_proj",
            Part::Wo => "self_attn.o_proj",
            Part::FfnNorm => "post_attention_layernorm",
            Part::W1 => "mlp.gate_proj",
            Part::W2 => "mlp.down_proj",
            Part::W3 => "mlp.up_proj",
        }
    }
}

impl Names {
    fn of(metadata: &Metadata) -> Self {
        let names = metadata.offset_keys();
        for prefix in ["model.patcher.", "patcher."] {
            if names.iter().any(|name| name.starts_with(prefix)) {
                return Self::HuggingFace(prefix);
            }
        }
        let hugging_face = |name: &String| {
            name == "embed_tokens.weight" || name.contains(".self_attn.") || name.contains(".mlp.")
        };
        if names.iter().any(hugging_face) { Self::HuggingFace("") } else { Self::Meta }
    }

    pub(super) fn name(self, role: Role) -> String {
        match (self, role) {
            (Names::Meta, Role::Embedding) => "tok_embeddings.weight".into(),
            (Names::Meta, Role::Layer(n, part)) => format!("layers.{n}.{}.weight", part.meta()),
            (Names::Meta, Role::Norm) => "norm.weight".into(),
            (Names::Meta, Role::Output) => "output.weight".into(),
            (Names::HuggingFace(prefix), role) => match role {
                Role::Embedding => format!("{prefix}embed_tokens.weight"),
                Role::Layer(n, part) => {
                    format!("{prefix}layers.{n}.{}.weight", part.hugging_face())
                }
                Role::Norm => format!("{prefix}norm.weight"),
                Role::Output => format!("{prefix}lm_head.weight"),
            },
        }
    }

    /// Whether a tensor of this name would have to be one of the model's weights. Tables of rotary
    /// angles, which some exports keep, follow from the configuration.
    fn claims(self, name: &str) -> bool {
        let derived = ["rotary_emb.inv_freq", "rope_embeddings.freqs_cis"];
        let ours = match self {
            Names::Meta => true,
            Names::HuggingFace(prefix) => name.starts_with(prefix),
        };
        ours && !derived.iter().any(|end| name.ends_with(end))
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Names::Meta => write!(f, "Meta"),
            Names::HuggingFace("") => write!(f, "Hugging Face"),
            Names::HuggingFace(prefix) => write!(f, "Hugging Face ({prefix}*)"),
        }
    }
}

/// Every tensor of a model with its shape, in the order of its layers; the output last.
pub(super) fn expected(config: &ModelConfig) -> Vec<(Role, Vec<usize>)> {
    let (dim, hidden) = (config.dim, config.ffn_hidden);
    let queries = config.n_heads * config.head_dim;
    let keys = config.n_kv_heads * config.head_dim;
    let mut all = vec![(Role::Embedding, vec![config.vocab_size, dim])];
    for layer in 0..config.n_layers {
        for part in Part::ALL {
            let shape = match part {
                Part::AttentionNorm | Part::FfnNorm => vec![dim],
                Part::Wq => vec![queries, dim],
                Part::Wk | Part::Wv => vec![keys, dim],
                Part::Wo => vec![dim, queries],
                Part::W1 | Part::W3 => vec![hidden, dim],
                Part::W2 => vec![dim, hidden],
            };
            all.push((Role::Layer(layer, part), shape));
        }
    }
    all.push((Role::Norm, vec![dim]));
    all.push((Role::Output, vec![config.vocab_size, dim]));
    all
}

/// Everything that stands between these tensors and the configuration, sorted within its kind.
fn problems(config: &ModelConfig, names: Names, metadata: &Metadata) -> Vec<String> {
    let (mut missing, mut misshapen, mut extra) = (Vec::new(), Vec::new(), Vec::new());
    let mut known = std::collections::HashSet::new();
    for (role, shape) in expected(config) {
        let name = names.name(role);
        match metadata.info(&name) {
            None if matches!(role, Role::Output) && config.weight_tying => {}
            None => missing.push(format!("{name} is missing")),
            Some(info) if info.shape != shape => {
                misshapen.push(format!("{name} is {:?}, not {shape:?}", info.shape));
            }
            Some(info) if !matches!(info.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) => {
                misshapen.push(format!("{name} is {:?}, not F32, F16 or BF16", info.dtype));
            }
            Some(_) => {}
        }
        known.insert(name);
    }
    for name in metadata.offset_keys() {
        if names.claims(&name) && !known.contains(&name) {
            extra.push(format!("{name} is not part of the model"));
        }
    }
    extra.sort_unstable();
    [missing, misshapen, extra].concat()
}

fn stored_types(config: &ModelConfig, names: Names, metadata: &Metadata) -> String {
    let mut types: Vec<String> = expected(config)
        .into_iter()
        .filter_map(|(role, _)| metadata.info(&names.name(role)))
        .map(|info| format!("{:?}", info.dtype))
        .collect();
    types.sort_unstable();
    types.dedup();
    types.join(", ")
}

/// A safetensors file whose header is checked and whose tensors are read one by one, so that a model
/// inside a larger checkpoint costs only its own bytes.
struct TensorFile<R> {
    file: PathBuf,
    reader: R,
    metadata: Metadata,
    /// Where the tensors begin.
    data_start: u64,
    file_bytes: u64,
}

impl<R: Read + Seek> TensorFile<R> {
    fn open(file: &Path, mut reader: R) -> Result<Self, ModelError> {
        let failed = |source| read_error(file, source);
        let broken = |problem: String| ModelError::Weights { file: file.to_owned(), problems: vec![problem] };
        let file_bytes = reader.seek(SeekFrom::End(0)).map_err(failed)?;
        reader.seek(SeekFrom::Start(0)).map_err(failed)?;
        if file_bytes < PREFIX_BYTES {
            return Err(broken(format!("{file_bytes} bytes are no safetensors file")));
        }
        let mut prefix = [0; PREFIX_BYTES as usize];
        reader.read_exact(&mut prefix).map_err(failed)?;
        let header_bytes = u64::from_le_bytes(prefix);
        // Before anything of that size is allocated.
        if header_bytes > MAX_HEADER_BYTES.min(file_bytes - PREFIX_BYTES) {
            return Err(broken(format!(
                "a header of {header_bytes} bytes does not fit a safetensors file of {file_bytes} bytes"
            )));
        }
        let mut header = vec![0; header_bytes as usize];
        reader.read_exact(&mut header).map_err(failed)?;
        let metadata: Metadata = serde_json::from_slice(&header)
            .map_err(|e| broken(format!("the safetensors header is broken: {e}")))?;
        let data_start = PREFIX_BYTES + header_bytes;
        let promised = metadata.data_len() as u64;
        if data_start.checked_add(promised) != Some(file_bytes) {
            return Err(broken(format!(
                "the header promises {promised} bytes of tensors, the file has {}",
                file_bytes - data_start
            )));
        }
        Ok(Self { file: file.to_owned(), reader, metadata, data_start, file_bytes })
    }

    /// A tensor's elements. Its extent lies in the file, which `open` has checked.
    fn tensor(&mut self, name: &str) -> Result<Vec<f32>, ModelError> {
        let Some(&TensorInfo { dtype, data_offsets: (start, end), .. }) = self.metadata.info(name) else {
            return Err(ModelError::Weights {
                file: self.file.clone(),
                problems: vec![format!("{name} is missing")],
            });
        };
        let mut bytes = vec![0; end - start];
        self.reader
            .seek(SeekFrom::Start(self.data_start + start as u64))
            .and_then(|_| self.reader.read_exact(&mut bytes))
            .map_err(|source| read_error(&self.file, source))?;
        Ok(match dtype {
            Dtype::BF16 => elements(&bytes, |b| bf16::from_le_bytes(b).to_f32()),
            Dtype::F16 => elements(&bytes, |b| f16::from_le_bytes(b).to_f32()),
            _ => elements(&bytes, f32::from_le_bytes),
        })
    }
}

fn elements<const N: usize>(bytes: &[u8], element: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|&b| element(b)).collect()
}

/// See [`ModelInfo::sha256`].
fn hash(config: &ModelConfig, weights: &Weights) -> String {
    let mut sha = Sha256::new();
    let ModelConfig {
        dim,
        n_layers,
        n_heads,
        n_kv_heads,
        head_dim,
        ffn_hidden,
        norm_eps,
        rope_theta,
        sliding_window,
        max_seqlen,
        vocab_size,
        weight_tying,
    } = config;
    sha.update(format!(
        "{dim} {n_layers} {n_heads} {n_kv_heads} {head_dim} {ffn_hidden} {norm_eps:e} \
         {rope_theta:e} {sliding_window:?} {max_seqlen} {vocab_size} {weight_tying}\n"
    ));
    let mut add = |values: &[f32]| {
        let mut bytes = Vec::with_capacity(4 * values.len());
        for value in values {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        sha.update(&bytes);
    };
    add(&weights.tok_embeddings);
    for layer in &weights.layers {
        let LayerWeights { attention_norm, wq, wk, wv, wo, ffn_norm, w1, w2, w3 } = layer;
        for values in [attention_norm, wq, wk, wv, wo, ffn_norm, w1, w2, w3] {
            add(values);
        }
    }
    add(&weights.norm);
    if let Some(output) = &weights.output {
        add(output);
    }
    let digest = sha.finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads `{"mode": "entropy", "threshold": …}`.
fn patch_defaults(file: &Path, json: &[u8]) -> Result<PatchDefaults, ModelError> {
    #[derive(Deserialize)]
    struct PatchFile {
        mode: String,
        threshold: f32,
    }
    let error = |reason: String| ModelError::Config { file: file.to_owned(), reason };
    let patch: PatchFile = serde_json::from_slice(json).map_err(|e| error(e.to_string()))?;
    if patch.mode != "entropy" {
        return Err(error(format!("mode is \"{}\", not \"entropy\"", patch.mode)));
    }
    if !patch.threshold.is_finite() {
        return Err(error(format!("threshold is {}", patch.threshold)));
    }
    Ok(PatchDefaults { threshold: patch.threshold })
}

fn read(file: &Path) -> Result<Vec<u8>, ModelError> {
    std::fs::read(file).map_err(|source| read_error(file, source))
}

fn read_error(file: &Path, source: std::io::Error) -> ModelError {
    ModelError::Read { file: file.to_owned(), source }
}
