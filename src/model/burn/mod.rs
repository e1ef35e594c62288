//! Runs the entropy model on a GPU with kernels of our own: packed tokens in, scores out. Burn gives the device
//! and its memory, and the products where there are no tensor cores.
//!
//! A batch goes through each layer whole. Rows are padded to whole tiles; padding rows are contexts of one token
//! each, computed and dropped. The hidden state stays in `f32`, and so do norms, softmax, entropies and all sums;
//! weights and what a product reads are in the model's precision.

// Launching a kernel is unsafe: nothing checks that its buffers are as long as it takes them for. Each length here
// is computed from the shapes that the buffers were made with.
#![allow(unsafe_code)]

mod adapters;
mod attention;
mod kernels;
mod linear;

use std::future::Future;
use std::task::{Context, Poll, Waker};

use ::burn::prelude::{Device, Shape, Tensor};
use ::burn::tensor::DType;
use burn_cubecl::kernel::matmul::{MatmulStrategy, matmul};
use burn_cubecl::{CubeBackend, CubeDevice, tensor::CubeTensor};
use cubecl::client::Client;
use cubecl::prelude::*;
use cubecl::server::{Handle, IoError, LaunchError, ServerError};
use half::{bf16, f16, slice::HalfFloatSliceExt};
use rayon::prelude::*;

pub use self::adapters::{abilities, adapters};
use self::attention::Layout;
use super::places::{Angles, Places};
use super::weights::LayerWeights;
use crate::config::Precision;
use crate::data::{PackedTokens, Scores, Wanted};
use crate::model::device::Adapter;
use crate::model::{EntropyModel, ModelConfig, ModelError, ModelFiles, Pending, check_batch};

/// Columns of every matrix are padded to a multiple of this, and rows too.
const TILE: usize = linear::TILE;
/// Units of a cube of a kernel that takes element after element.
const UNITS: u32 = 256;

/// Tokens of a batch for which every kernel has at most 65,535 cubes in a dimension.
const MAX_TOKENS: usize = 65_535 / TILE * TILE * kernels::ROWS as usize;

/// The model on a GPU.
pub struct GpuModel {
    config: ModelConfig,
    precision: Precision,
    kernels: Kernels,
    class: String,
    gpu: Gpu,
    /// `[vocabulary, dim]`, `f32`
    embedding: Matrix,
    layers: Vec<Layer>,
    /// `[dim, vocabulary]`, with the final norm's weight multiplied in.
    output: Matrix,
    /// `[max_seqlen, head_dim / 2]`, `f32`
    cos: Handle,
    sin: Handle,
}

/// What works together on a tile of a product, and so which kernels run. The words are CubeCL's: a *unit* is a thread, a
/// *plane* a subgroup (warp), a *cube* a workgroup (thread block).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kernels {
    /// A whole cube, on tensor cores.
    Cubes,
    /// Each plane, on tensor cores.
    Planes,
    /// Each unit; products are Burn's.
    Units,
}

struct Layer {
    qkv: Matrix,
    wo: Matrix,
    w13: Matrix,
    w2: Matrix,
}

/// Numbers on the device, `rows × width`, both padded.
#[derive(Clone)]
struct Matrix {
    handle: Handle,
    rows: usize,
    width: usize,
}

impl Matrix {
    /// As a kernel takes it that reads `vector` numbers at a time.
    fn argument(&self, vector: usize) -> BufferArg {
        // All of it, as it was made.
        unsafe { BufferArg::from_raw_parts(self.handle.clone(), self.rows * self.width / vector) }
    }
}

#[derive(Clone)]
struct Gpu {
    client: Client,
    device: CubeDevice,
}

impl Gpu {
    fn of(device: &Device) -> Result<Self, ModelError> {
        let probe = Tensor::<1>::zeros([1], device)
            .try_into_primitive::<CubeBackend>()
            .map_err(|e| ModelError::Device(format!("{e:?}")))?;
        Ok(Self { client: probe.client.clone(), device: probe.device })
    }

    fn empty<F: CubeElement>(&self, rows: usize, width: usize) -> Matrix {
        Matrix { handle: self.client.empty(rows * width * size_of::<F>()), rows, width }
    }

    fn numbers<T: CubeElement>(&self, numbers: &[T]) -> Handle {
        self.client.create_from_slice(T::as_bytes(numbers))
    }
}

/// What one batch needs on the device beside the weights.
struct Rows {
    n: usize,
    padded: usize,
    tokens: Handle,
    positions: Handle,
    first_keys: Handle,
}

fn padded(n: usize) -> usize {
    n.next_multiple_of(TILE)
}

/// The most numbers of a row of `n` that a unit may read together.
fn vector(n: usize) -> usize {
    [4, 2, 1].into_iter().find(|v| n.is_multiple_of(*v)).unwrap_or(1)
}

fn cubes(elements: usize) -> CubeCount {
    // At most 65,535 a dimension.
    let all = elements.div_ceil(UNITS as usize) as u32;
    let x = all.min(1 << 15);
    CubeCount::Static(x, all.div_ceil(x), 1)
}

impl GpuModel {
    /// The model on `adapter`, its weights in `precision`, which is not `Auto`.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn load(adapter: &Adapter, precision: Precision, files: &ModelFiles) -> Result<Self, ModelError> {
        let gpu = Gpu::of(&adapters::open(adapter)?)?;
        let Adapter { api, name, driver, .. } = adapter;
        let class = format!("{} {name} {driver} {}", api.name(), precision.name());
        match precision {
            Precision::F16 => Self::with::<f16>(gpu, precision, class, files),
            Precision::Bf16 => Self::with::<bf16>(gpu, precision, class, files),
            Precision::F32 | Precision::Auto => Self::with::<f32>(gpu, Precision::F32, class, files),
        }
    }

    fn with<F: Real>(
        gpu: Gpu,
        precision: Precision,
        class: String,
        files: &ModelFiles,
    ) -> Result<Self, ModelError> {
        let (config, weights) = (&files.config, &files.weights);
        let mut angles = Angles::new(config);
        angles.extend(config.max_seqlen);
        let output = weights.output.as_ref().unwrap_or(&weights.tok_embeddings);
        let dim = config.dim;
        let kernels = kernels::<F>(&gpu.client, config.head_dim);
        let mut table = vec![0.0f32; config.vocab_size * padded(dim)];
        for (to, from) in table.chunks_exact_mut(padded(dim)).zip(weights.tok_embeddings.chunks_exact(dim)) {
            to[..dim].copy_from_slice(from);
        }
        Ok(Self {
            embedding: Matrix { handle: gpu.numbers(&table), rows: config.vocab_size, width: padded(dim) },
            layers: weights.layers.iter().map(|weights| Layer::new::<F>(&gpu, config, weights)).collect(),
            output: upload::<F>(
                &gpu,
                &[Part { rows: rows_of(output, dim), width: config.vocab_size }],
                dim,
                Some(&weights.norm),
            ),
            cos: gpu.numbers(&angles.cos),
            sin: gpu.numbers(&angles.sin),
            config: config.clone(),
            precision,
            kernels,
            class: format!("{class} {kernels:?}").to_lowercase(),
            gpu,
        })
    }

    fn rows(&self, batch: &PackedTokens) -> Rows {
        let n = batch.tokens.len();
        let all = padded(n);
        let mut tokens: Vec<u32> = batch.tokens.iter().map(|&token| u32::from(token)).collect();
        let Places { mut positions, mut first_keys } =
            Places::new(&batch.context_lengths, self.config.sliding_window);
        tokens.resize(all, 0);
        positions.resize(all, 0);
        first_keys.extend((n..all).map(|row| row as u32));
        let gpu = &self.gpu;
        Rows {
            n,
            padded: all,
            tokens: gpu.numbers(&tokens),
            positions: gpu.numbers(&positions),
            first_keys: gpu.numbers(&first_keys),
        }
    }

    /// Queues the whole batch on the device, and the reading of what is wanted.
    fn forward<F: Real>(&self, batch: &PackedTokens, wanted: Wanted) -> Result<Pending, ModelError> {
        let (gpu, config) = (&self.gpu, &self.config);
        let rows = self.rows(batch);
        let n = rows.padded;
        let dim = padded(config.dim);
        let heads = config.n_heads * config.head_dim;
        let layout = Layout {
            queries: config.n_heads as u32,
            keys: config.n_kv_heads as u32,
            dim: config.head_dim as u32,
            qkv_width: padded((config.n_heads + 2 * config.n_kv_heads) * config.head_dim) as u32,
            out_width: padded(heads) as u32,
        };
        let x = gpu.empty::<f32>(n, dim);
        let norms = gpu.empty::<f32>(n, 1);
        let delta = gpu.empty::<F>(n, dim);
        let normed = gpu.empty::<F>(n, dim);
        let qkv = gpu.empty::<F>(n, layout.qkv_width as usize);
        let attended = gpu.empty::<F>(n, layout.out_width as usize);
        let hidden = padded(config.ffn_hidden);
        let both = gpu.empty::<F>(n, 2 * hidden);
        let inner = gpu.empty::<F>(n, hidden);

        if padded(heads) != heads {
            // Its padding is read by a product.
            unsafe {
                kernels::clear::launch_unchecked::<F>(
                    &gpu.client,
                    cubes(n * attended.width / 4),
                    CubeDim::new_1d(UNITS),
                    4,
                    attended.argument(4),
                );
            }
        }
        unsafe {
            kernels::embed::launch_unchecked(
                &gpu.client,
                cubes(n * dim / 4),
                CubeDim::new_1d(UNITS),
                4,
                BufferArg::from_raw_parts(rows.tokens.clone(), n),
                self.embedding.argument(4),
                x.argument(4),
                dim / 4,
            );
        }
        let norm = |add: bool| unsafe {
            kernels::add_norm::launch_unchecked::<F>(
                &gpu.client,
                CubeCount::Static((n / kernels::ROWS as usize) as u32, 1, 1),
                CubeDim::new_2d(kernels::LANES, kernels::ROWS),
                4,
                x.argument(4),
                delta.argument(4),
                normed.argument(4),
                norms.argument(1),
                config.norm_eps,
                dim / 4,
                config.dim,
                add,
            );
        };
        for (i, layer) in self.layers.iter().enumerate() {
            norm(i > 0);
            self.product::<F, F>(&normed, &layer.qkv, &qkv)?;
            self.rotate::<F>(&qkv, &rows, layout);
            self.attend::<F>(&qkv, &rows, &attended, layout);
            self.product::<F, F>(&attended, &layer.wo, &delta)?;
            norm(true);
            self.product::<F, F>(&normed, &layer.w13, &both)?;
            unsafe {
                kernels::swiglu::launch_unchecked::<F>(
                    &gpu.client,
                    cubes(n * hidden / 4),
                    CubeDim::new_1d(UNITS),
                    4,
                    both.argument(4),
                    inner.argument(4),
                    hidden / 4,
                );
            }
            self.product::<F, F>(&inner, &layer.w2, &delta)?;
        }
        norm(!self.layers.is_empty());
        let logits = gpu.empty::<f32>(n, self.output.width);
        self.product::<F, f32>(&normed, &self.output, &logits)?;
        let entropies = gpu.empty::<f32>(n, 1);
        unsafe {
            kernels::entropies::launch_unchecked(
                &gpu.client,
                CubeCount::Static((n / kernels::ROWS as usize) as u32, 1, 1),
                CubeDim::new_2d(kernels::LANES, kernels::ROWS),
                logits.argument(1),
                entropies.argument(1),
                config.vocab_size,
                self.output.width,
            );
        }

        let mut handles = vec![entropies.handle];
        if wanted.norms {
            handles.push(norms.handle);
        }
        if wanted.pre_norm {
            let half = gpu.empty::<F>(n, dim);
            unsafe {
                kernels::narrow::launch_unchecked::<F>(
                    &gpu.client,
                    cubes(n * dim / 4),
                    CubeDim::new_1d(UNITS),
                    4,
                    x.argument(4),
                    half.argument(4),
                );
            }
            handles.push(half.handle);
        }
        let client = gpu.client.clone();
        let mut read = Box::pin(async move { client.read_async(handles).await });
        // The first poll queues the copies behind the kernels; nothing needs to wake up for it.
        let early = match read.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(read) => Some(read),
            Poll::Pending => None,
        };
        let (n, dim) = (rows.n, config.dim);
        Ok(Pending::running(move || {
            let read = early.unwrap_or_else(|| cubecl::future::block_on(read)).map_err(failure)?;
            let mut read = read.iter();
            let mut next = || read.next().ok_or_else(|| ModelError::Device("it returned too little".into()));
            Ok(Scores {
                entropies: next().map(|bytes| f32::from_bytes(bytes)[..n].to_vec())?,
                norms: wanted
                    .norms
                    .then(|| next().map(|bytes| f32::from_bytes(bytes)[..n].to_vec()))
                    .transpose()?,
                pre_norm: wanted
                    .pre_norm
                    .then(|| next().map(|bytes| widened::<F>(bytes, n, dim)))
                    .transpose()?,
            })
        }))
    }

    /// out = a · b
    fn product<F: Real, O: Real>(&self, a: &Matrix, b: &Matrix, out: &Matrix) -> Result<(), ModelError> {
        debug_assert_eq!((a.width, b.width, a.rows), (b.rows, out.width, out.rows));
        let gpu = &self.gpu;
        let count = CubeCount::Static((out.width / TILE) as u32, (out.rows / TILE) as u32, 1);
        let units = CubeDim::new_1d(linear::UNITS);
        match self.kernels {
            Kernels::Cubes => unsafe {
                linear::product_of_cubes::launch_unchecked::<F, O>(
                    &gpu.client,
                    count,
                    units,
                    a.argument(1),
                    b.argument(1),
                    out.argument(1),
                    a.rows as u32,
                    out.width as u32,
                    a.width as u32,
                );
            },
            Kernels::Planes => unsafe {
                linear::product::launch_unchecked::<F, O>(
                    &gpu.client,
                    count,
                    units,
                    a.argument(linear::VECTOR),
                    b.argument(linear::VECTOR),
                    out.argument(linear::VECTOR),
                    out.width,
                    a.width,
                );
            },
            Kernels::Units => self.product_of_burn::<F, O>(a, b, out)?,
        }
        Ok(())
    }

    fn product_of_burn<F: Real, O: Real>(
        &self,
        a: &Matrix,
        b: &Matrix,
        out: &Matrix,
    ) -> Result<(), ModelError> {
        let gpu = &self.gpu;
        let tensor = |matrix: &Matrix, dtype| {
            CubeTensor::new_contiguous(
                gpu.client.clone(),
                gpu.device.clone(),
                Shape::new([matrix.rows, matrix.width]),
                matrix.handle.clone(),
                dtype,
            )
        };
        let (a, b, out) = (tensor(a, F::DTYPE), tensor(b, F::DTYPE), tensor(out, O::DTYPE));
        matmul(a, b, Some(out), MatmulStrategy::Cube, O::DTYPE)
            .map(drop)
            .map_err(|error| ModelError::Device(format!("{error:?}")))
    }

    fn rotate<F: Real>(&self, qkv: &Matrix, rows: &Rows, layout: Layout) {
        let half = layout.dim as usize / 2;
        let v = vector(half);
        let rotated = (layout.queries + layout.keys) as usize;
        let n_pairs = rows.padded * rotated * half / v;
        let angles = self.config.max_seqlen * half / v;
        unsafe {
            kernels::rotate::launch_unchecked::<F>(
                &self.gpu.client,
                cubes(n_pairs),
                CubeDim::new_1d(UNITS),
                v,
                qkv.argument(v),
                BufferArg::from_raw_parts(rows.positions.clone(), rows.padded),
                BufferArg::from_raw_parts(self.cos.clone(), angles),
                BufferArg::from_raw_parts(self.sin.clone(), angles),
                n_pairs,
                rotated,
                half / v,
                qkv.width / v,
            );
        }
    }

    fn attend<F: Real>(&self, qkv: &Matrix, rows: &Rows, out: &Matrix, layout: Layout) {
        let count = CubeCount::Static(rows.padded as u32 / attention::QUERIES, layout.queries, 1);
        let scale = 1.0 / (layout.dim as f32).sqrt();
        unsafe {
            let first_keys = BufferArg::from_raw_parts(rows.first_keys.clone(), rows.padded);
            if self.kernels != Kernels::Units {
                attention::by_planes::launch_unchecked::<F>(
                    &self.gpu.client,
                    count,
                    CubeDim::new_1d(attention::PLANE * attention::QUERIES / 16),
                    qkv.argument(attention::VECTOR),
                    first_keys,
                    out.argument(attention::VECTOR),
                    scale,
                    layout,
                );
            } else {
                attention::by_units::launch_unchecked::<F>(
                    &self.gpu.client,
                    count,
                    CubeDim::new_1d(attention::QUERIES),
                    qkv.argument(1),
                    first_keys,
                    out.argument(1),
                    scale,
                    layout,
                );
            }
        }
    }
}

impl EntropyModel for GpuModel {
    fn dim(&self) -> usize {
        self.config.dim
    }

    fn max_context(&self) -> usize {
        self.config.max_seqlen
    }

    fn device_class(&self) -> String {
        self.class.clone()
    }

    fn score(&mut self, batch: &PackedTokens, wanted: Wanted) -> Result<Scores, ModelError> {
        self.submit(batch, wanted)?.wait()
    }

    fn submit(&mut self, batch: &PackedTokens, wanted: Wanted) -> Result<Pending, ModelError> {
        check_batch(batch, self.config.max_seqlen)?;
        if batch.tokens.len() > MAX_TOKENS {
            return Err(ModelError::OutOfMemory(format!("a GPU takes at most {MAX_TOKENS} tokens at once")));
        }
        match self.precision {
            Precision::F16 => self.forward::<f16>(batch, wanted),
            Precision::Bf16 => self.forward::<bf16>(batch, wanted),
            Precision::F32 | Precision::Auto => self.forward::<f32>(batch, wanted),
        }
    }
}

/// The first `dim` numbers of each of the first `n` rows. A batch is hundreds of megabytes: with one core, to touch so
/// much new memory would take longer than the device needs for the next batch.
fn widened<F: Real>(bytes: &[u8], n: usize, dim: usize) -> Vec<f32> {
    let stride = padded(dim);
    let mut all = vec![0.0; n * dim];
    let chunk = 256;
    all.par_chunks_mut(chunk * dim).zip(F::from_bytes(bytes).par_chunks(chunk * stride)).for_each(
        |(to, from)| {
            for (to, from) in to.chunks_exact_mut(dim).zip(from.chunks_exact(stride)) {
                F::widen(&from[..dim], to);
            }
        },
    );
    all
}

/// What the device reports, by what can be done about it.
fn failure(error: ServerError) -> ModelError {
    // The rest of the text is a backtrace.
    let text = error.to_string();
    let reason = text.split("\nBacktrace").next().unwrap_or_default().replace('\n', " ");
    match error {
        _ if error.is_device_poisoned() => ModelError::Lost(reason),
        _ if is_out_of_memory(&error) => ModelError::OutOfMemory(reason),
        _ => ModelError::Device(reason),
    }
}

fn is_out_of_memory(error: &ServerError) -> bool {
    let io = |error: &IoError| {
        matches!(
            error,
            IoError::OutOfMemory { .. } | IoError::BufferTooBig { .. } | IoError::PageSizesExhausted { .. }
        )
    };
    match error {
        ServerError::Io(error) => io(error),
        ServerError::Launch(LaunchError::OutOfMemory { .. }) => true,
        ServerError::Unwritten { root, .. } => is_out_of_memory(root),
        ServerError::Several { errors, .. } => errors.iter().any(is_out_of_memory),
        _ => false,
    }
}

/// A number format of weights and activations.
trait Real: Float + CubeElement {
    const DTYPE: DType;

    fn from_f32(value: f32) -> Self;

    fn widen(from: &[Self], to: &mut [f32]);
}

/// The fastest kernels that the device has for numbers in `F` and heads of `head_dim`.
fn kernels<F: Real>(client: &Client, head_dim: usize) -> Kernels {
    let properties = client.properties();
    let (hardware, matmul) = (&properties.hardware, &properties.features.matmul);
    let types = (F::elem_type_native(), F::elem_type_native(), f32::elem_type_native());
    let planes = F::DTYPE != DType::F32
        && head_dim.is_multiple_of(16)
        && (hardware.plane_size_min, hardware.plane_size_max) == (attention::PLANE, attention::PLANE)
        && attention::shared_bytes(head_dim) <= hardware.max_shared_memory_size
        && matmul
            .cmma
            .iter()
            .any(|c| (c.a_type, c.b_type, c.cd_type) == types && (c.m, c.n, c.k) == (16, 16, 16));
    let cubes = matmul.cmma_tensor_addressing
        && matmul
            .cube_mma
            .iter()
            .any(|c| (c.a_type, c.b_type, c.cd_type) == types && c.units_per_block == Some(linear::UNITS));
    match (planes, cubes) {
        (true, true) => Kernels::Cubes,
        (true, false) => Kernels::Planes,
        (false, _) => Kernels::Units,
    }
}

impl Real for f32 {
    const DTYPE: DType = DType::F32;

    fn from_f32(value: f32) -> Self {
        value
    }

    fn widen(from: &[Self], to: &mut [f32]) {
        to.copy_from_slice(from);
    }
}

impl Real for f16 {
    const DTYPE: DType = DType::F16;

    fn from_f32(value: f32) -> Self {
        f16::from_f32(value)
    }

    fn widen(from: &[Self], to: &mut [f32]) {
        from.convert_to_f32_slice(to);
    }
}

impl Real for bf16 {
    const DTYPE: DType = DType::BF16;

    fn from_f32(value: f32) -> Self {
        bf16::from_f32(value)
    }

    fn widen(from: &[Self], to: &mut [f32]) {
        from.convert_to_f32_slice(to);
    }
}

/// Rows of a weight matrix that stand together in a product, padded to `width`.
struct Part<'a> {
    rows: Vec<&'a [f32]>,
    width: usize,
}

fn rows_of(matrix: &[f32], n_in: usize) -> Vec<&[f32]> {
    matrix.chunks_exact(n_in).collect()
}

/// Matrices `[out, n_in]` side by side as one `[n_in, all outs]`, the weight of a norm before them multiplied in.
fn upload<F: Real>(gpu: &Gpu, parts: &[Part], n_in: usize, norm: Option<&[f32]>) -> Matrix {
    let width = padded(parts.iter().map(|part| part.width).sum());
    let rows = padded(n_in);
    let mut data = vec![F::from_f32(0.0); rows * width];
    let mut first = 0;
    for part in parts {
        for (i, row) in part.rows.iter().enumerate() {
            for (j, &value) in row.iter().enumerate() {
                let scale = norm.map_or(1.0, |norm| norm[j]);
                data[j * width + first + i] = F::from_f32(value * scale);
            }
        }
        first += part.width;
    }
    Matrix { handle: gpu.numbers(&data), rows, width }
}

impl Layer {
    fn new<F: Real>(gpu: &Gpu, config: &ModelConfig, weights: &LayerWeights) -> Self {
        let (dim, hidden) = (config.dim, config.ffn_hidden);
        // Of each head the first numbers of its pairs, then the second ones.
        let mut qkv = Vec::new();
        for matrix in [&weights.wq, &weights.wk] {
            for head in matrix.chunks_exact(config.head_dim * dim) {
                let rows = rows_of(head, dim);
                qkv.extend(rows.iter().step_by(2));
                qkv.extend(rows.iter().skip(1).step_by(2));
            }
        }
        qkv.extend(rows_of(&weights.wv, dim));
        let part = |rows: Vec<_>| Part { width: rows.len(), rows };
        let wide = |matrix| Part { rows: rows_of(matrix, dim), width: padded(hidden) };
        Self {
            qkv: upload::<F>(gpu, &[part(qkv)], dim, Some(&weights.attention_norm)),
            wo: upload::<F>(
                gpu,
                &[part(rows_of(&weights.wo, config.n_heads * config.head_dim))],
                config.n_heads * config.head_dim,
                None,
            ),
            w13: upload::<F>(gpu, &[wide(&weights.w1), wide(&weights.w3)], dim, Some(&weights.ffn_norm)),
            w2: upload::<F>(gpu, &[part(rows_of(&weights.w2, hidden))], hidden, None),
        }
    }
}
