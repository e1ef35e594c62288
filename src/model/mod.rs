//! The entropy model: bytes in; entropies, norms and hidden states out. Knows nothing of files of
//! documents, patches or threads.

pub mod architecture;
#[cfg(feature = "gpu")]
pub mod burn;
mod burnpack;
pub mod card;
pub mod convert;
pub mod cpu;
pub mod device;
#[cfg(feature = "fake-model")]
pub mod fake;
pub mod golden;
pub mod pack;
mod places;
pub mod tensors;
pub mod weights;

use std::path::PathBuf;

use crate::{
    config,
    data::{PackedTokens, Scores, VOCABULARY, Wanted},
    remote::{self, Pins, RemoteError},
};

pub use self::architecture::ModelConfig;
#[cfg(feature = "gpu")]
pub use self::burn::GpuModel;
pub use self::card::{Card, FileFacts};
pub use self::convert::{Converted, StoredAs, Style};
pub use self::cpu::CpuModel;
pub use self::device::{Abilities, Adapter, BatchCache, adapters, choose, fitting_batch, precision};
#[cfg(feature = "fake-model")]
pub use self::fake::{FakeModel, Fault};
pub use self::golden::{Agreement, Verified};
pub use self::pack::{PackedBatch, Packer, Span};
pub use self::tensors::Format;
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

    /// Starts to score `batch` like [`score`](Self::score). A device that computes beside the calling thread returns
    /// at once; batches come out in the order they went in.
    ///
    /// # Errors
    /// As [`score`](Self::score); what fails on the device, [`Pending::wait`] tells.
    fn submit(&mut self, batch: &PackedTokens, wanted: Wanted) -> Result<Pending, ModelError> {
        self.score(batch, wanted).map(Pending::done)
    }
}

/// A batch that the model was given.
pub struct Pending(State);

enum State {
    Done(Scores),
    Running(Box<dyn FnOnce() -> Result<Scores, ModelError> + Send>),
}

impl Pending {
    /// One that is scored already.
    pub fn done(scores: Scores) -> Self {
        Self(State::Done(scores))
    }

    /// One that `wait` waits for.
    pub fn running(wait: impl FnOnce() -> Result<Scores, ModelError> + Send + 'static) -> Self {
        Self(State::Running(Box::new(wait)))
    }

    /// Whether there is nothing to wait for.
    pub fn is_done(&self) -> bool {
        matches!(self.0, State::Done(_))
    }

    /// Waits for the scores.
    ///
    /// # Errors
    /// When the device failed.
    pub fn wait(self) -> Result<Scores, ModelError> {
        match self.0 {
            State::Done(scores) => Ok(scores),
            State::Running(wait) => wait(),
        }
    }
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
    /// A file of a model cannot be written.
    #[error("failed to write {}: {source}", .file.display())]
    Write {
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
        /// The file of tensors.
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
    /// A model on the Hub could not be had.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// What the pipeline file asks for is not in this build.
    #[error("{0}")]
    Unsupported(String),
    /// The device is gone, and with it everything that is asked of it from now on.
    #[error("the device is lost: {0}")]
    Lost(String),
    /// The device has no room for a batch.
    #[error("the device is out of memory: {0}")]
    OutOfMemory(String),
    /// The device, its driver or the tensor library failed.
    #[error("failed to run the model on the device: {0}")]
    Device(String),
}

/// Opens the model that `weights` names. One on the Hub is downloaded to the cache unless it is there; what its revision stands
/// for is taken from `pins`, and put there.
///
/// # Errors
/// As [`ModelFiles::open`]; [`ModelError::Remote`] for one on the Hub.
pub fn open(weights: &config::Weights, pins: &mut Pins) -> Result<ModelFiles, ModelError> {
    match weights {
        config::Weights::Embedded => ModelFiles::embedded(),
        config::Weights::Path(path) => ModelFiles::open(path),
        config::Weights::Hub(address) => ModelFiles::open(&remote::model_folder(address, pins)?),
    }
}

/// Tokens of a full batch on the processor, unless the context is longer: larger ones are no faster there.
pub const CPU_BATCH_TOKENS: usize = 8192;
/// The same on a GPU.
const GPU_BATCH_TOKENS: usize = 65_536;

/// Tokens of a full batch on `adapter`, unless the context is longer.
pub fn batch_tokens(adapter: &Adapter) -> usize {
    if adapter.kind == device::Kind::Cpu { CPU_BATCH_TOKENS } else { GPU_BATCH_TOKENS }
}

/// Puts the model on `adapter`, in a number format that it has.
///
/// # Errors
/// When the device cannot be had.
pub fn load(
    adapter: &Adapter,
    precision: config::Precision,
    files: &ModelFiles,
) -> Result<Box<dyn EntropyModel>, ModelError> {
    #[cfg(feature = "gpu")]
    if adapter.kind != device::Kind::Cpu {
        return Ok(Box::new(GpuModel::load(adapter, precision, files)?));
    }
    debug_assert_eq!((adapter.api, precision), (config::Device::Cpu, config::Precision::F32));
    Ok(Box::new(CpuModel::new(files)))
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

/// Scores `batch` in two halves of whole contexts, and what the device has no room for in halves again.
///
/// # Errors
/// As [`EntropyModel::score`]; [`ModelError::OutOfMemory`] when there is no room for one context.
pub fn score_in_parts(
    model: &mut dyn EntropyModel,
    batch: &PackedTokens,
    wanted: Wanted,
) -> Result<Scores, ModelError> {
    let lengths = &batch.context_lengths;
    if lengths.len() < 2 {
        return Err(ModelError::OutOfMemory(format!(
            "there is no room for one context of {} tokens; lower model.context, or use another device",
            batch.tokens.len()
        )));
    }
    let (mut contexts, mut tokens) = (1, lengths[0]);
    while contexts + 1 < lengths.len() && tokens + lengths[contexts] <= batch.tokens.len() / 2 {
        tokens += lengths[contexts];
        contexts += 1;
    }
    let mut all = Scores::default();
    for (tokens, lengths) in
        [(&batch.tokens[..tokens], &lengths[..contexts]), (&batch.tokens[tokens..], &lengths[contexts..])]
    {
        let half = PackedTokens { tokens: tokens.to_vec(), context_lengths: lengths.to_vec() };
        let scores = match model.score(&half, wanted) {
            Err(ModelError::OutOfMemory(_)) => score_in_parts(model, &half, wanted)?,
            scores => scores?,
        };
        all.append(scores);
    }
    Ok(all)
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
