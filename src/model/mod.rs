//! The entropy model: bytes in; entropies, norms and hidden states out. Knows nothing of files of
//! documents, patches or threads.

pub mod architecture;
pub mod burn;
pub mod cpu;
#[cfg(feature = "fake-model")]
pub mod fake;
pub mod pack;
pub mod weights;

use std::path::PathBuf;

use crate::{
    config,
    data::{PackedTokens, Scores, VOCABULARY, Wanted},
};

pub use self::architecture::ModelConfig;
pub use self::burn::BurnModel;
pub use self::cpu::CpuModel;
#[cfg(feature = "fake-model")]
pub use self::fake::{FakeModel, Fault};
pub use self::pack::{PackedBatch, Packer, Span};
pub use self::weights::{ModelFiles, ModelInfo, PatchDefaults, Weights};

/// A byte-level language model that tells how uncertain it is after every token.
pub trait EntropyModel: Send {
    /// Width of the hidden state.
    fn dim(&self) -> usize;

    /// Longest context in tokens that the model accepts.
    fn max_context(&self) -> usize;

    /// What decides the last bits of the results: backend, adapter, driver, precision, kernels, CPU
    /// instruction level. Equal classes give equal bytes for equal [`PackedTokens`].
    fn device_class(&self) -> String;

    /// Scores every token of `batch`: each context alone, with positions from 0.
    ///
    /// # Errors
    /// When a context is empty or longer than [`max_context`](Self::max_context), when a token is
    /// outside the vocabulary, or when the device fails.
    fn score(&mut self, batch: &PackedTokens, wanted: Wanted) -> Result<Scores, ModelError>;
}

/// Why a model could not be opened or a batch not be scored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A file of the model cannot be read.
    #[error("failed to read {}: {source}", .file.display())]
    Read {
        /// Which file.
        file: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// `config.json` or `patch.json` is not JSON, or says something the model cannot be.
    #[error("failed to read {}: {reason}", .file.display())]
    Config {
        /// Which file.
        file: PathBuf,
        /// The key, and what is wrong with it.
        reason: String,
    },
    /// The tensors are not those that the configuration asks for; every difference is listed.
    #[error("failed to load {}: {}", .file.display(), .problems.join("; "))]
    Weights {
        /// The safetensors file.
        file: PathBuf,
        /// One entry a difference.
        problems: Vec<String>,
    },
    /// Lengths that no batch can be packed to.
    #[error("failed to pack: {0}")]
    Packing(String),
    /// A batch that breaks the contract of [`PackedTokens`] or of the model.
    #[error("failed to score a batch: {0}")]
    Batch(String),
    /// What the pipeline file asks for is not in this build.
    #[error("{0}")]
    Unsupported(String),
    /// The device, its driver or the tensor library failed.
    #[error("failed to run the model on the device: {0}")]
    Device(String),
}

/// Opens the model that `weights` names.
///
/// # Errors
/// As [`ModelFiles::open`], and for a Hub URI, which this build does not read.
pub fn open(weights: &config::Weights) -> Result<ModelFiles, ModelError> {
    match weights {
        config::Weights::Embedded => ModelFiles::embedded(),
        config::Weights::Path(path) => ModelFiles::open(path),
        config::Weights::Hub { repo, .. } => Err(hub_unsupported(repo)),
    }
}

fn hub_unsupported(repo: &str) -> ModelError {
    ModelError::Unsupported(format!(
        "model.weights: this build does not fetch from the Hub; download config.json and model.safetensors of \
         {repo} into a folder and name that folder"
    ))
}

/// What `settings` ask for that this build does not have.
pub fn unsupported(settings: &config::Model) -> Vec<ModelError> {
    use config::{Device, Precision};
    let mut problems = Vec::new();
    if let config::Weights::Hub { repo, .. } = &settings.weights {
        problems.push(hub_unsupported(repo));
    }
    if !matches!(settings.device, Device::Auto | Device::Cpu) {
        let device = settings.device.name();
        problems.push(ModelError::Unsupported(format!(
            "model.device = {device:?}: this build computes on the CPU only; use \"cpu\" or \"auto\""
        )));
    }
    if !matches!(settings.precision, Precision::Auto | Precision::F32) {
        let precision = settings.precision.name();
        problems.push(ModelError::Unsupported(format!(
            "model.precision = {precision:?}: on a CPU the model runs in f32; use \"f32\" or \"auto\""
        )));
    }
    problems
}

/// Puts the model on the device that `settings` name.
///
/// # Errors
/// The first of what is [`unsupported`], and when the device cannot be had.
pub fn load(settings: &config::Model, files: &ModelFiles) -> Result<Box<dyn EntropyModel>, ModelError> {
    match unsupported(settings).into_iter().next() {
        Some(problem) => Err(problem),
        None => Ok(Box::new(CpuModel::new(files))),
    }
}

/// Checks what [`EntropyModel::score`] promises to refuse.
///
/// # Errors
/// When a context is empty or longer than `max_context`, when the lengths do not sum to the number
/// of tokens, or when a token is outside the vocabulary.
pub(crate) fn check_batch(batch: &PackedTokens, max_context: usize) -> Result<(), ModelError> {
    let mut sum = 0usize;
    for (i, &length) in batch.context_lengths.iter().enumerate() {
        if length == 0 {
            return Err(ModelError::Batch(format!("context {i} is empty")));
        }
        if length > max_context {
            return Err(ModelError::Batch(format!(
                "context {i} has {length} tokens, more than the model's {max_context}"
            )));
        }
        sum = sum.saturating_add(length);
    }
    if sum != batch.tokens.len() {
        return Err(ModelError::Batch(format!(
            "contexts have {sum} tokens together, the batch has {}",
            batch.tokens.len()
        )));
    }
    let largest = batch.tokens.iter().copied().max();
    if let Some(token) = largest.filter(|&token| usize::from(token) >= VOCABULARY) {
        return Err(ModelError::Batch(format!("token {token} is outside the vocabulary of {VOCABULARY}")));
    }
    Ok(())
}

/// What the model says of one document.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DocumentScores {
    /// `[n_bytes + 2]`, nats: entropy of the prediction made after each token, so `entropies[j]` is
    /// the uncertainty about byte `j`.
    pub entropies: Vec<f32>,
    /// `[n_bytes + 2]`: L2 norm of `pre_norm`; `None` unless wanted.
    pub norms: Option<Vec<f32>>,
    /// `[(n_bytes + 2) × dim]`, row-major: hidden state before the final norm; `None` unless wanted.
    pub pre_norm: Option<Vec<f32>>,
}

/// Scores whole documents in memory, each cut into contexts of `model.max_context()` tokens.
///
/// The result of a document does not depend on the documents beside it. `batch_tokens` is the most
/// the model sees in one go; more tokens need more memory.
///
/// # Errors
/// When `batch_tokens` is smaller than the model's context, or when the model fails.
///
/// # Example
/// ```
/// use blt_pipeline::data::Wanted;
/// use blt_pipeline::model::{CpuModel, ModelFiles, score_documents};
///
/// let mut model = CpuModel::new(&ModelFiles::embedded()?);
/// let scores = score_documents(&mut model, &[b"Once upon a time"], 8192, Wanted::default())?;
///
/// let entropies = &scores[0].entropies; // nats; BOS, 16 bytes, EOS
/// assert_eq!(entropies.len(), 18);
/// assert!(entropies[11] < entropies[0]); // "Once upon a" says more about what follows than nothing
/// # Ok::<(), blt_pipeline::model::ModelError>(())
/// ```
pub fn score_documents(
    model: &mut dyn EntropyModel,
    documents: &[&[u8]],
    batch_tokens: usize,
    wanted: Wanted,
) -> Result<Vec<DocumentScores>, ModelError> {
    let (dim, context) = (model.dim(), model.max_context());
    let mut all: Vec<DocumentScores> = documents
        .iter()
        .map(|bytes| DocumentScores {
            entropies: Vec::with_capacity(bytes.len() + 2),
            norms: wanted.norms.then(Vec::new),
            pre_norm: wanted.pre_norm.then(Vec::new),
        })
        .collect();
    let mut score = |batch: PackedBatch| -> Result<(), ModelError> {
        let scores = model.score(&batch.packed, wanted)?;
        for (span, tokens) in batch.kept() {
            let document = &mut all[span.document];
            document.entropies.extend_from_slice(&scores.entropies[tokens.clone()]);
            if let (Some(to), Some(from)) = (&mut document.norms, &scores.norms) {
                to.extend_from_slice(&from[tokens.clone()]);
            }
            if let (Some(to), Some(from)) = (&mut document.pre_norm, &scores.pre_norm) {
                to.extend_from_slice(&from[tokens.start * dim..tokens.end * dim]);
            }
        }
        Ok(())
    };
    let mut packer = Packer::new(context, batch_tokens, 0)?;
    for (i, bytes) in documents.iter().enumerate() {
        packer.push(i, bytes, &mut score)?;
    }
    packer.finish(&mut score)?;
    Ok(all)
}
