//! Writes a model in another format, under other names or in another number format, and says where two models differ.
//! Knows nothing of how a model is run.

use std::{
    borrow::Cow,
    collections::HashMap,
    fmt,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use half::{bf16, f16};
use safetensors::{Dtype, View};
use serde_json::{Value, json};

use super::{
    ModelConfig, ModelError, ModelFiles, burnpack,
    tensors::Format,
    weights::{LayerWeights, Names, Part, Role, expected, transposed},
};

/// Whose names and configuration a model is written with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// As released: `layers.0.attention.wq.weight`, and `{"args": …}`.
    Meta,
    /// As transformers has its patcher: `layers.0.self_attn.q_proj.weight`, and a `BltPatcherConfig`.
    HuggingFace,
    /// As a Burn module has it whose fields have Meta's names: `layers.0.attention_norm.gamma`, a `Linear`'s weight as
    /// `[in, out]`, and Meta's `{"args": …}`.
    Burn,
}

/// Number format of the weights in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredAs {
    /// 32-bit floats.
    F32,
    /// 16-bit floats, IEEE.
    F16,
    /// 16-bit floats with the exponent of f32.
    Bf16,
}

/// A model that was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Converted {
    /// Its folder.
    pub folder: PathBuf,
    /// The largest change of a weight by rounding; 0 where nothing was rounded.
    pub largest_change: f32,
    /// What `model info` says of it.
    pub sha256: String,
}

impl fmt::Display for Converted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "written to    {}", self.folder.display())?;
        match self.largest_change {
            0.0 => writeln!(f, "rounding      none: the same model")?,
            change => writeln!(
                f,
                "rounding      weights change by {change:e} at most: another model, with a hash of its own"
            )?,
        }
        write!(f, "sha256        {}", self.sha256)
    }
}

impl StoredAs {
    /// The format that all weights of a model are stored in, by the name that [`ModelInfo::dtype`](super::ModelInfo::dtype) has.
    pub fn of(dtype: &str) -> Option<StoredAs> {
        [StoredAs::F32, StoredAs::F16, StoredAs::Bf16].into_iter().find(|stored_as| stored_as.name() == dtype)
    }

    fn name(self) -> &'static str {
        match self {
            StoredAs::F32 => "F32",
            StoredAs::F16 => "F16",
            StoredAs::Bf16 => "BF16",
        }
    }

    fn dtype(self) -> Dtype {
        match self {
            StoredAs::F32 => Dtype::F32,
            StoredAs::F16 => Dtype::F16,
            StoredAs::Bf16 => Dtype::BF16,
        }
    }

    fn rounded(self, value: f32) -> f32 {
        match self {
            StoredAs::F32 => value,
            StoredAs::F16 => f16::from_f32(value).to_f32(),
            StoredAs::Bf16 => bf16::from_f32(value).to_f32(),
        }
    }
}

/// A tensor on its way into a file: turned and rounded as it is written, so that no second copy of the model is held.
struct Outgoing<'a> {
    /// Its shape in the file.
    shape: Vec<usize>,
    values: &'a [f32],
    /// Whether the file has rows and columns the other way round than `values`.
    transposed: bool,
    stored_as: StoredAs,
}

impl View for Outgoing<'_> {
    fn dtype(&self) -> Dtype {
        self.stored_as.dtype()
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let turned = match (self.transposed, &self.shape[..]) {
            // `values` has a column for each of the file's rows.
            (true, &[rows, _]) => Cow::Owned(transposed(self.values, rows)),
            _ => Cow::Borrowed(self.values),
        };
        let values = turned.iter();
        match self.stored_as {
            StoredAs::F32 => values.flat_map(|value| value.to_le_bytes()).collect(),
            StoredAs::F16 => values.flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect(),
            StoredAs::Bf16 => values.flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect(),
        }
    }

    fn data_len(&self) -> usize {
        self.values.len() * if self.stored_as == StoredAs::F32 { 4 } else { 2 }
    }
}

impl ModelFiles {
    /// Writes the model to the new folder `folder` and reads it back.
    ///
    /// # Errors
    /// When the folder holds a model already, or cannot be written, or a weight has no finite value in that format.
    pub fn save(
        &self,
        folder: &Path,
        format: Format,
        style: Style,
        stored_as: StoredAs,
    ) -> Result<Converted, ModelError> {
        let failed = |file: &Path| {
            let file = file.to_owned();
            move |source| ModelError::Write { file, source }
        };
        let (config, weights) = (folder.join("config.json"), folder.join(format.file_name()));
        let other = Format::ALL.map(|format| folder.join(format.file_name()));
        if let Some(there) = [&config].into_iter().chain(&other).find(|file| file.exists()) {
            let problems = vec!["it is there already; name a folder without a model".to_owned()];
            return Err(ModelError::Weights { file: there.clone(), problems });
        }
        let names = match style {
            Style::Meta => Names::Meta,
            Style::HuggingFace => Names::HuggingFace(""),
            Style::Burn => Names::Burn,
        };
        let (mut tensors, mut problems, mut largest_change) = (Vec::new(), Vec::new(), 0f32);
        for (role, mut shape, values) in self.tensors() {
            let changes = values.iter().map(|&value| (stored_as.rounded(value) - value).abs());
            let change = changes.fold(0f32, f32::max);
            if !change.is_finite() {
                problems.push(format!(
                    "a weight of {} is too large for {}",
                    names.name(role),
                    stored_as.name()
                ));
            }
            largest_change = largest_change.max(change);
            let transposed = names.transposes(role);
            if transposed {
                shape.reverse();
            }
            tensors.push((names.name(role), Outgoing { shape, values, transposed, stored_as }));
        }
        if !problems.is_empty() {
            return Err(ModelError::Weights { file: weights, problems });
        }
        fs::create_dir_all(folder).map_err(failed(folder))?;
        match format {
            Format::Safetensors => {
                // What PyTorch's loaders look for.
                let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
                safetensors::serialize_to_file(tensors, Some(metadata), &weights).map_err(|error| {
                    ModelError::Weights { file: weights.clone(), problems: vec![error.to_string()] }
                })?;
            }
            Format::Burnpack => write_burnpack(&weights, &tensors).map_err(failed(&weights))?,
        }
        if let Some(patch) = self.patch {
            let file = folder.join("patch.json");
            let patch = json!({"mode": "entropy", "threshold": shortest(patch.threshold)});
            fs::write(&file, format!("{patch:#}\n")).map_err(failed(&file))?;
        }
        // Without it the folder is no model yet.
        fs::write(&config, format!("{:#}\n", self.config.to_json(style))).map_err(failed(&config))?;
        let written = ModelFiles::open(folder)?;
        if written.config != self.config {
            let reason = "it does not read back as what was written".to_owned();
            return Err(ModelError::Config { file: config, reason });
        }
        Ok(Converted { folder: folder.to_owned(), largest_change, sha256: written.info.sha256 })
    }

    /// What each tensor is, its shape and its values.
    pub(super) fn tensors(&self) -> Vec<(Role, Vec<usize>, &[f32])> {
        let all = expected(&self.config).into_iter();
        all.filter_map(|(role, shape)| Some((role, shape, self.values(role)?))).collect()
    }

    fn values(&self, role: Role) -> Option<&[f32]> {
        let weights = &self.weights;
        Some(match role {
            Role::Embedding => &weights.tok_embeddings,
            Role::Norm => &weights.norm,
            Role::Output => weights.output.as_ref()?,
            Role::Layer(layer, part) => {
                let LayerWeights { attention_norm, wq, wk, wv, wo, ffn_norm, w1, w2, w3 } =
                    weights.layers.get(layer)?;
                match part {
                    Part::AttentionNorm => attention_norm,
                    Part::Wq => wq,
                    Part::Wk => wk,
                    Part::Wv => wv,
                    Part::Wo => wo,
                    Part::FfnNorm => ffn_norm,
                    Part::W1 => w1,
                    Part::W2 => w2,
                    Part::W3 => w3,
                }
            }
        })
    }

    /// Where `other` is another model, a line each, by Meta's names; none where the two compute the same.
    pub fn differences(&self, other: &ModelFiles) -> Vec<String> {
        let (ours, theirs) = (self.config.to_json(Style::Meta), other.config.to_json(Style::Meta));
        let keys = |config: &Value| config["args"].as_object().cloned().unwrap_or_default();
        let (ours, theirs) = (keys(&ours), keys(&theirs));
        let mut lines: Vec<String> = ours
            .iter()
            .filter(|(key, value)| theirs.get(*key) != Some(value))
            .map(|(key, value)| format!("{key} is {value} and {}", theirs.get(key).unwrap_or(&Value::Null)))
            .collect();
        let theirs: HashMap<String, (Vec<usize>, &[f32])> = other
            .tensors()
            .into_iter()
            .map(|(role, shape, values)| (Names::Meta.name(role), (shape, values)))
            .collect();
        let mut ours = std::collections::HashSet::new();
        for (role, shape, values) in self.tensors() {
            let name = Names::Meta.name(role);
            match theirs.get(&name) {
                None => lines.push(format!("{name} is missing in the second")),
                Some((other, _)) if *other != shape => {
                    lines.push(format!("{name} is {shape:?} and {other:?}"))
                }
                Some((_, others)) => {
                    let differ = values.iter().zip(*others).filter(|(a, b)| a.to_bits() != b.to_bits());
                    let (n, largest) =
                        differ.fold((0, 0f32), |(n, largest), (a, b)| (n + 1, largest.max((a - b).abs())));
                    if n > 0 {
                        lines.push(format!(
                            "{name}: {n} of {} values differ, by {largest:e} at most",
                            values.len()
                        ));
                    }
                }
            }
            ours.insert(name);
        }
        let mut extra: Vec<&String> = theirs.keys().filter(|name| !ours.contains(*name)).collect();
        extra.sort_unstable();
        lines.extend(extra.into_iter().map(|name| format!("{name} is missing in the first")));
        if self.patch != other.patch {
            let threshold = |files: &ModelFiles| {
                files.patch.map_or("none".to_owned(), |patch| patch.threshold.to_string())
            };
            lines.push(format!("patch.json: threshold {} and {}", threshold(self), threshold(other)));
        }
        lines
    }
}

fn write_burnpack(file: &Path, tensors: &[(String, Outgoing<'_>)]) -> io::Result<()> {
    let described: Vec<burnpack::Outgoing<'_>> = tensors
        .iter()
        .map(|(name, tensor)| burnpack::Outgoing {
            name,
            dtype: tensor.stored_as.name(),
            shape: &tensor.shape,
            bytes: tensor.data_len(),
        })
        .collect();
    let head = burnpack::head(&described).map_err(io::Error::other)?;
    let mut file = File::create_new(file)?;
    file.write_all(&head)?;
    for (_, tensor) in tensors {
        let data = tensor.data();
        file.write_all(&data)?;
        file.write_all(burnpack::padding(data.len()))?;
    }
    Ok(())
}

impl ModelConfig {
    /// A `config.json` that [`from_json`](ModelConfig::from_json) reads as this configuration.
    fn to_json(&self, style: Style) -> Value {
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
        } = self;
        let (norm_eps, rope_theta) = (shortest(*norm_eps), shortest(*rope_theta));
        match style {
            Style::Meta | Style::Burn => {
                // The reference derives the width: two thirds of four times `dim`, rounded up.
                let derived = 8 * dim / 3;
                let (multiplier, multiple_of) = match derived.next_multiple_of(256) == *ffn_hidden {
                    true => (1.0, 256),
                    false => ((*ffn_hidden as f64 / derived.max(1) as f64).min(1.0), *ffn_hidden),
                };
                json!({"args": {
                    "dim": dim,
                    "n_layers": n_layers,
                    "n_heads": n_heads,
                    "n_kv_heads": n_kv_heads,
                    "head_dim": head_dim,
                    "ffn_dim_multiplier": multiplier,
                    "multiple_of": multiple_of,
                    "norm_eps": norm_eps,
                    "rope_theta": rope_theta,
                    "sliding_window": sliding_window,
                    "attn_bias_type": if sliding_window.is_some() { "local_block_causal" } else { "causal" },
                    "max_seqlen": max_seqlen,
                    "vocab_size": vocab_size,
                    "weight_tying": weight_tying,
                }})
            }
            Style::HuggingFace => json!({
                "hidden_size": dim,
                "num_hidden_layers": n_layers,
                "num_attention_heads": n_heads,
                "num_key_value_heads": n_kv_heads,
                "head_dim": head_dim,
                "intermediate_size": ffn_hidden,
                "hidden_act": "silu",
                "rms_norm_eps": norm_eps,
                "rope_parameters": {"rope_type": "default", "rope_theta": rope_theta},
                "sliding_window": sliding_window,
                "max_position_embeddings": max_seqlen,
                "vocab_size": vocab_size,
                "tie_word_embeddings": weight_tying,
            }),
        }
    }
}

/// The shortest decimal that reads back as `value`.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}
