//! Reads an entropy model's files: configuration, weights under Meta's, Hugging Face's or Burn's names, and the
//! patch defaults beside them. Gives `f32` weights; knows nothing of tensor libraries, nor of how a file holds tensors.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::io::{Cursor, Read, Seek};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::tensors::{Entry, Format, TensorFile, read_error};
use super::{ModelConfig, ModelError};

const EMBEDDED_CONFIG: &[u8] = include_bytes!("../../models/small/config.json");
const EMBEDDED_PATCH: &[u8] = include_bytes!("../../models/small/patch.json");
const EMBEDDED_WEIGHTS: &[u8] = include_bytes!("../../models/small/model.safetensors");

/// Everything a model folder says, checked against its own configuration.
#[derive(Clone, Debug)]
pub struct ModelFiles {
    /// From `config.json`.
    pub config: ModelConfig,
    /// From the file of tensors.
    pub weights: Weights,
    /// From `patch.json`, when the folder has one.
    pub patch: Option<PatchDefaults>,
    /// The same in words and numbers.
    pub info: ModelInfo,
    pub(super) origin: Origin,
}

/// Where a model was read from.
#[derive(Clone, Debug)]
pub(super) enum Origin {
    /// This program: each file's name and contents.
    Embedded([(&'static str, &'static [u8]); 3]),
    /// Files in a folder: the configuration, the weights, and the patch defaults where there are any.
    Folder { folder: PathBuf, files: Vec<PathBuf> },
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
    /// Size of the file of tensors.
    pub file_bytes: u64,
    /// How that file holds them: `safetensors` or `burnpack`.
    pub format: String,
    /// Types the weights are stored in, such as `BF16`.
    pub dtype: String,
    /// Whose names the tensors have: `Meta`, `Burn` or `Hugging Face`, with the prefix.
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
        writeln!(f, "file          {} bytes of {}", self.file_bytes, self.format)?;
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
    /// Opens a folder with `config.json`, `model.safetensors` or `model.bpk`, and perhaps `patch.json`, or a file of
    /// tensors that has the others beside it.
    ///
    /// # Errors
    /// When a file cannot be read, says what no entropy model says, or when tensors are missing, too
    /// many or of another shape than the configuration's: all of them in one message.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let (folder, file) = if path.is_dir() {
            (path, weights_in(path)?)
        } else {
            (path.parent().unwrap_or(Path::new("")), path.to_owned())
        };
        refuse_record(&file)?;
        let config_file = folder.join("config.json");
        let config = ModelConfig::from_json(&config_file, &read(&config_file)?)?;
        let mut files = vec![config_file, file];
        let patch_file = folder.join("patch.json");
        let patch = match read(&patch_file) {
            Ok(json) => {
                let patch = patch_defaults(&patch_file, &json)?;
                files.push(patch_file);
                Some(patch)
            }
            Err(ModelError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => return Err(e),
        };
        let tensors = TensorFile::open_path(&files[1])?;
        Self::load(config, patch, tensors, Origin::Folder { folder: folder.to_owned(), files })
    }

    /// The small model that is part of this crate (see `models/small`).
    ///
    /// # Errors
    /// None in a build whose tests pass.
    pub fn embedded() -> Result<Self, ModelError> {
        let folder = Path::new("models/small");
        let config = ModelConfig::from_json(&folder.join("config.json"), EMBEDDED_CONFIG)?;
        let patch = patch_defaults(&folder.join("patch.json"), EMBEDDED_PATCH)?;
        let tensors =
            TensorFile::open(&folder.join(Format::Safetensors.file_name()), Cursor::new(EMBEDDED_WEIGHTS))?;
        let files = [
            ("config.json", EMBEDDED_CONFIG),
            (Format::Safetensors.file_name(), EMBEDDED_WEIGHTS),
            ("patch.json", EMBEDDED_PATCH),
        ];
        Self::load(config, Some(patch), tensors, Origin::Embedded(files))
    }

    fn load<R: Read + Seek>(
        config: ModelConfig,
        patch: Option<PatchDefaults>,
        mut tensors: TensorFile<R>,
        origin: Origin,
    ) -> Result<Self, ModelError> {
        let names = Names::of(&tensors.entries);
        let problems = problems(&config, names, &tensors.entries);
        if !problems.is_empty() {
            return Err(ModelError::Weights { file: tensors.file, problems });
        }
        let weights = Weights::read(&config, names, &mut tensors)?;
        let info = ModelInfo {
            n_parameters: config.n_parameters(),
            file_bytes: tensors.file_bytes,
            format: tensors.format.to_string(),
            dtype: stored_types(&config, names, &tensors.entries),
            names: names.to_string(),
            threshold: patch.map(|p| p.threshold),
            sha256: hash(&config, &weights),
            config: config.clone(),
        };
        Ok(Self { config, weights, patch, info, origin })
    }
}

/// The file of weights in a model's folder.
fn weights_in(folder: &Path) -> Result<PathBuf, ModelError> {
    let there: Vec<PathBuf> = Format::ALL
        .iter()
        .map(|format| folder.join(format.file_name()))
        .filter(|file| file.exists())
        .collect();
    if let [_, _] = &there[..] {
        return Err(ModelError::Unsupported(format!(
            "failed to choose between {} and {}: name one of the files",
            there[0].display(),
            there[1].display()
        )));
    }
    if let Some(file) = there.into_iter().next() {
        return Ok(file);
    }
    // Says more than that the others are missing.
    let record =
        ["model.mpk", "model.mpk.gz"].iter().map(|name| folder.join(name)).find(|file| file.exists());
    Ok(record.unwrap_or_else(|| folder.join(Format::Safetensors.file_name())))
}

/// Refuses what Burn's recorders wrote before burnpack.
fn refuse_record(file: &Path) -> Result<(), ModelError> {
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if [".mpk", ".mpk.gz"].iter().any(|end| name.ends_with(end)) {
        return Err(ModelError::Unsupported(format!(
            "failed to load {}: Burn no longer has the format .mpk, and it is not read here; take the safetensors file that it \
             was made from, or load it with the release of Burn that wrote it and save it as safetensors",
            file.display()
        )));
    }
    Ok(())
}

impl Weights {
    /// The tensors `expected` lists, which [`problems`] has found to be there.
    fn read<R: Read + Seek>(
        config: &ModelConfig,
        names: Names,
        file: &mut TensorFile<R>,
    ) -> Result<Self, ModelError> {
        let tok_embeddings = values(names, Role::Embedding, file)?;
        let mut layers = Vec::with_capacity(config.n_layers);
        for layer in 0..config.n_layers {
            let mut read = |part| values(names, Role::Layer(layer, part), file);
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
        let norm = values(names, Role::Norm, file)?;
        if !config.weight_tying {
            let output = Some(values(names, Role::Output, file)?);
            return Ok(Self { tok_embeddings, layers, norm, output });
        }
        // A tied output is often stored all the same; then it must be the embedding.
        let output = names.name(Role::Output);
        if file.entries.contains_key(&output) && values(names, Role::Output, file)? != tok_embeddings {
            return Err(ModelError::Weights {
                file: file.file.clone(),
                problems: vec![format!("{output} is not the embedding, though the configuration ties them")],
            });
        }
        Ok(Self { tok_embeddings, layers, norm, output: None })
    }
}

/// A tensor as `[out, in]`, however the file has it.
fn values<R: Read + Seek>(
    names: Names,
    role: Role,
    file: &mut TensorFile<R>,
) -> Result<Vec<f32>, ModelError> {
    let name = names.name(role);
    let values = file.tensor(&name)?;
    match file.entries.get(&name).map(|entry| &entry.shape[..]) {
        Some(&[_, columns]) if names.transposes(role) => Ok(transposed(&values, columns)),
        _ => Ok(values),
    }
}

/// `[rows, columns]` as `[columns, rows]`.
pub(super) fn transposed(values: &[f32], columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|column| values.iter().skip(column).step_by(columns)).copied().collect()
}

/// Whose names a file uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Names {
    Meta,
    /// With the prefix that the patcher's tensors have; those outside it are another model's.
    HuggingFace(&'static str),
    /// Of a Burn module whose fields have Meta's names. A `RmsNorm` calls its weight `gamma`, and a `Linear` keeps its
    /// own `[in, out]`.
    Burn,
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
    fn of(entries: &BTreeMap<String, Entry>) -> Self {
        let any = |is: &dyn Fn(&String) -> bool| entries.keys().any(is);
        for prefix in ["model.patcher.", "patcher."] {
            if any(&|name| name.starts_with(prefix)) {
                return Self::HuggingFace(prefix);
            }
        }
        if any(&|name| {
            name == "embed_tokens.weight" || name.contains(".self_attn.") || name.contains(".mlp.")
        }) {
            return Self::HuggingFace("");
        }
        if any(&|name| name == "norm.gamma" || name.ends_with("_norm.gamma")) {
            Self::Burn
        } else {
            Self::Meta
        }
    }

    pub(super) fn name(self, role: Role) -> String {
        match (self, role) {
            (Names::Burn, Role::Norm) => "norm.gamma".into(),
            (Names::Burn, Role::Layer(n, part @ (Part::AttentionNorm | Part::FfnNorm))) => {
                format!("layers.{n}.{}.gamma", part.meta())
            }
            (Names::Meta | Names::Burn, Role::Embedding) => "tok_embeddings.weight".into(),
            (Names::Meta | Names::Burn, Role::Layer(n, part)) => format!("layers.{n}.{}.weight", part.meta()),
            (Names::Meta, Role::Norm) => "norm.weight".into(),
            (Names::Meta | Names::Burn, Role::Output) => "output.weight".into(),
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

    /// Whether a file with these names has the tensor as `[in, out]`.
    pub(super) fn transposes(self, role: Role) -> bool {
        let vector = matches!(role, Role::Norm | Role::Layer(_, Part::AttentionNorm | Part::FfnNorm));
        self == Names::Burn && !vector && !matches!(role, Role::Embedding)
    }

    /// Whether a tensor of this name would have to be one of the model's weights. Tables of rotary
    /// angles, which some exports keep, follow from the configuration.
    fn claims(self, name: &str) -> bool {
        let derived = ["rotary_emb.inv_freq", "rope_embeddings.freqs_cis"];
        let ours = match self {
            Names::Meta | Names::Burn => true,
            Names::HuggingFace(prefix) => name.starts_with(prefix),
        };
        ours && !derived.iter().any(|end| name.ends_with(end))
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Names::Meta => write!(f, "Meta"),
            Names::Burn => write!(f, "Burn"),
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
fn problems(config: &ModelConfig, names: Names, entries: &BTreeMap<String, Entry>) -> Vec<String> {
    let (mut missing, mut misshapen, mut extra) = (Vec::new(), Vec::new(), Vec::new());
    let mut known = HashSet::new();
    for (role, mut shape) in expected(config) {
        let name = names.name(role);
        if names.transposes(role) {
            shape.reverse();
        }
        match entries.get(&name) {
            None if matches!(role, Role::Output) && config.weight_tying => {}
            None => missing.push(format!("{name} is missing")),
            Some(entry) if entry.shape != shape => {
                misshapen.push(format!("{name} is {:?}, not {shape:?}", entry.shape));
            }
            Some(entry) if !["F32", "F16", "BF16"].contains(&entry.dtype.as_str()) => {
                misshapen.push(format!("{name} is {}, not F32, F16 or BF16", entry.dtype));
            }
            Some(_) => {}
        }
        known.insert(name);
    }
    for name in entries.keys() {
        if names.claims(name) && !known.contains(name) {
            extra.push(format!("{name} is not part of the model"));
        }
    }
    [missing, misshapen, extra].concat()
}

fn stored_types(config: &ModelConfig, names: Names, entries: &BTreeMap<String, Entry>) -> String {
    let mut types: Vec<&str> = expected(config)
        .into_iter()
        .filter_map(|(role, _)| entries.get(&names.name(role)))
        .map(|entry| entry.dtype.as_str())
        .collect();
    types.sort_unstable();
    types.dedup();
    types.join(", ")
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
    hex(sha)
}

pub(super) fn hex(sha: Sha256) -> String {
    sha.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
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
