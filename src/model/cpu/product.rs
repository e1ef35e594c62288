//! Products of a weight matrix and panels of tokens. Knows nothing of layers.
//!
//! A *panel* is as many tokens as two vector registers hold elements, laid out feature by feature:
//! `[n_features, lanes]`. All activations are kept so, which makes the result of a product the input
//! of the next without a copy, and every pass between two products a loop over whole vectors. Weights
//! are reordered once, when the model is loaded, into panels of a few rows, `[n_in, rows]`; a row panel
//! times a token panel is one tile of accumulators that never leaves the registers.
//!
//! Each element is a sum in the order of the inputs, by fused multiply and add: the same bits whatever
//! the width of the vectors, the number of threads or the tokens beside.

use pulp::Simd;

/// Most elements that a tile has: 12 rows of two AVX-512 registers.
const MAX_TILE: usize = 12 * 32;
/// Length of a cache line in elements.
const LINE: usize = 16;

/// Tokens of a panel.
#[inline(always)]
pub(super) const fn lanes<S: Simd>() -> usize {
    2 * S::F32_LANES
}

/// Rows of a tile. Each takes two registers of sums, and the operands take three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rows {
    Six,
    Twelve,
}

impl Rows {
    /// As many as the registers have room for.
    pub(super) const fn of<S: Simd>() -> Self {
        if S::REGISTER_COUNT < 32 { Self::Six } else { Self::Twelve }
    }

    pub(super) const fn count(self) -> usize {
        match self {
            Self::Six => 6,
            Self::Twelve => 12,
        }
    }
}

/// Memory that starts on a cache line, so that no vector straddles two, and grows when more is asked for.
#[derive(Debug, Default)]
pub(super) struct Aligned(Vec<f32>);

impl Aligned {
    /// The first `len` elements: what was written there last, or zeros.
    pub(super) fn first(&mut self, len: usize) -> &mut [f32] {
        if self.0.len() < len + LINE {
            self.0 = vec![0.0; len + LINE];
        }
        let start = self.start();
        &mut self.0[start..][..len]
    }

    /// Those elements again, once they were asked for.
    pub(super) fn filled(&self, len: usize) -> &[f32] {
        &self.0[self.start()..][..len]
    }

    fn start(&self) -> usize {
        self.0.as_ptr().align_offset(size_of::<f32>() * LINE).min(LINE)
    }
}

/// A matrix in the order in which [`multiply`] reads it.
#[derive(Debug)]
pub(super) struct Matrix {
    n_in: usize,
    n_out: usize,
    rows: Rows,
    /// `[row panels, n_in, rows]`; rows past the last are zeros.
    data: Aligned,
    len: usize,
}

impl Matrix {
    /// Of `all` rows, element by element times `scale`; a missing row is zeros.
    pub(super) fn new(all: &[Option<&[f32]>], n_in: usize, scale: Option<&[f32]>, rows: Rows) -> Self {
        let count = rows.count();
        let len = all.len().div_ceil(count) * n_in * count;
        let mut data = Aligned::default();
        for (panel, all) in data.first(len).chunks_exact_mut(n_in * count).zip(all.chunks(count)) {
            for (place, row) in all.iter().enumerate() {
                let Some(row) = row else { continue };
                for (i, (out, value)) in panel.chunks_exact_mut(count).zip(*row).enumerate() {
                    out[place] = value * scale.map_or(1.0, |scale| scale[i]);
                }
            }
        }
        Self { n_in, n_out: all.len(), rows, data, len }
    }

    /// Matrices `[out, n_in]` one below the other.
    pub(super) fn stacked(matrices: &[&Vec<f32>], n_in: usize, scale: Option<&[f32]>, rows: Rows) -> Self {
        let all: Vec<_> = matrices.iter().flat_map(|m| m.chunks_exact(n_in)).map(Some).collect();
        Self::new(&all, n_in, scale, rows)
    }
}

/// Token panels of `height` features, of which a product takes as many as the matrix has columns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Panels<'a> {
    pub data: &'a [f32],
    pub height: usize,
}

/// Gives `sink` each tile of the product: number of the token panel, first row, and
/// `[rows of the tile, lanes]`.
#[inline(always)]
pub(super) fn multiply<S: Simd>(
    simd: S,
    matrix: &Matrix,
    x: Panels<'_>,
    sink: impl FnMut(usize, usize, &[f32]),
) {
    match matrix.rows {
        Rows::Six => multiply_rows::<S, 6>(simd, matrix, x, sink),
        Rows::Twelve => multiply_rows::<S, 12>(simd, matrix, x, sink),
    }
}

#[inline(always)]
fn multiply_rows<S: Simd, const ROWS: usize>(
    simd: S,
    matrix: &Matrix,
    x: Panels<'_>,
    mut sink: impl FnMut(usize, usize, &[f32]),
) {
    let lanes = lanes::<S>();
    let mut tile = [0.0; MAX_TILE];
    // A row panel stays in the L1 cache while it meets all token panels, and these in L2.
    for (i, weights) in matrix.data.filled(matrix.len).chunks_exact(matrix.n_in * ROWS).enumerate() {
        let first_row = i * ROWS;
        let n_rows = ROWS.min(matrix.n_out - first_row);
        for (panel, features) in x.data.chunks_exact(x.height * lanes).enumerate() {
            let features = &features[..matrix.n_in * lanes];
            let tile = &mut tile[..ROWS * lanes];
            multiply_tile::<S, ROWS>(simd, weights, features, Start::Zero, tile);
            sink(panel, first_row, &tile[..n_rows * lanes]);
        }
    }
}

/// What a tile's sums start with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    Zero,
    /// What is there.
    Tile,
}

/// `tile`, `[ROWS, lanes]`, becomes the product of `[n, ROWS]`, turned, and `[n, lanes]`.
#[inline(always)]
pub(super) fn multiply_tile<S: Simd, const ROWS: usize>(
    simd: S,
    weights: &[f32],
    x: &[f32],
    start: Start,
    tile: &mut [f32],
) {
    let (weights, _) = weights.as_chunks::<ROWS>();
    let (x, _) = S::as_simd_f32s(x);
    let (x, _) = x.as_chunks::<2>();
    let (tile, _) = S::as_mut_simd_f32s(tile);
    let (tile, _) = tile.as_chunks_mut::<2>();
    let mut sums = [[simd.splat_f32s(0.0); 2]; ROWS];
    if start == Start::Tile {
        sums.copy_from_slice(&tile[..ROWS]);
    }
    for (weights, x) in weights.iter().zip(x) {
        for (sum, &weight) in sums.iter_mut().zip(weights) {
            let weight = simd.splat_f32s(weight);
            sum[0] = simd.mul_add_e_f32s(weight, x[0], sum[0]);
            sum[1] = simd.mul_add_e_f32s(weight, x[1], sum[1]);
        }
    }
    tile[..ROWS].copy_from_slice(&sums);
}
