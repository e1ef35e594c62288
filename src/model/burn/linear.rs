//! Products of activations with weights, as kernels in CubeCL on tensor cores.

#![allow(missing_docs, clippy::too_many_arguments)]

use cubecl::cmma::{self, Matrix, MatrixIdent, MatrixLayout};
use cubecl::prelude::*;

use super::attention::PLANE;

/// Rows and columns of a tile of the output, which a cube takes: every matrix is padded to whole tiles.
pub(super) const TILE: usize = 128;
/// Planes of a cube, down and across; each takes an equal part of the tile.
const PLANES: (usize, usize) = (2, 2);
/// Units of a cube.
pub(super) const UNITS: u32 = (PLANES.0 * PLANES.1) as u32 * PLANE;
/// Depth that lies in shared memory together.
const DEPTH: usize = 16;
/// Depth that matrices of a whole cube have. Of the cuts that were tried on an H100 (tiles from 64 to 256, depths of
/// 16 to 64, 1 to 8 planes; `benches/README.md`) these were the fastest for both kernels.
const CUBE_DEPTH: usize = 32;
/// Side of a matrix of the tensor cores.
const FRAGMENT: usize = 16;
/// Numbers read and written together.
pub(super) const VECTOR: usize = 4;
/// A row of a tile is longer by this many numbers, so that rows do not start in the same bank: 2 to 3 times faster.
const PAD: usize = 8;

/// out = a · b for `a [m, k]`, `b [k, n]`, `out [m, n]`: a cube a tile of the output, sums in `f32`.
///
/// Two tiles of each input lie in shared memory: while one is multiplied, the next comes from memory into
/// registers, and goes to shared memory behind the products.
#[cube(launch_unchecked)]
pub(super) fn product<F: Float, O: Float>(
    a: &[Vector<F, Const<VECTOR>>],
    b: &[Vector<F, Const<VECTOR>>],
    out: &mut [Vector<O, Const<VECTOR>>],
    #[comptime] n: usize,
    #[comptime] k: usize,
) {
    let units = comptime!(UNITS as usize);
    let row_a = comptime!((DEPTH + PAD) / VECTOR);
    let row_b = comptime!((TILE + PAD) / VECTOR);
    let size_a = comptime!(TILE * row_a);
    let size_b = comptime!(DEPTH * row_b);
    let mut tiles_a = Shared::<[Vector<F, Const<VECTOR>>]>::new_slice(comptime!(2 * size_a));
    let mut tiles_b = Shared::<[Vector<F, Const<VECTOR>>]>::new_slice(comptime!(2 * size_b));

    let unit = UNIT_POS as usize;
    let plane = unit / PLANE as usize;
    let plane_row = plane / PLANES.1 * comptime!(TILE / PLANES.0);
    let plane_column = plane % PLANES.1 * comptime!(TILE / PLANES.1);
    let down = comptime!(TILE / PLANES.0 / FRAGMENT);
    let across = comptime!(TILE / PLANES.1 / FRAGMENT);
    let first_row = CUBE_POS_Y as usize * TILE;
    let first_column = CUBE_POS_X as usize * comptime!(TILE / VECTOR);

    // Each unit's vectors of a tile, and where they come from and go to.
    let (wide_a, wide_b) = comptime!((DEPTH / VECTOR, TILE / VECTOR));
    let (each_a, each_b) = comptime!((TILE * DEPTH / VECTOR / units, TILE * DEPTH / VECTOR / units));
    let mut next_a = Array::<Vector<F, Const<VECTOR>>>::new(each_a);
    let mut next_b = Array::<Vector<F, Const<VECTOR>>>::new(each_b);
    #[unroll]
    for i in 0..each_a {
        let at = unit + i * units;
        next_a[i] = a[(first_row + at / wide_a) * comptime!(k / VECTOR) + at % wide_a];
    }
    #[unroll]
    for i in 0..each_b {
        let at = unit + i * units;
        next_b[i] = b[at / wide_b * comptime!(n / VECTOR) + first_column + at % wide_b];
    }

    let mut sums = Sequence::<Matrix<f32>>::new();
    #[unroll]
    for _ in 0..comptime!(down * across) {
        sums.push(Matrix::<f32>::from_value(
            MatrixIdent::Accumulator,
            FRAGMENT,
            FRAGMENT,
            FRAGMENT,
            MatrixLayout::Undefined,
            0.0,
        ));
    }

    let steps = comptime!(k / DEPTH);
    for step in 0..steps {
        let (tile_a, tile_b) = (step % 2 * size_a, step % 2 * size_b);
        #[unroll]
        for i in 0..each_a {
            let at = unit + i * units;
            tiles_a[tile_a + at / wide_a * row_a + at % wide_a] = next_a[i];
        }
        #[unroll]
        for i in 0..each_b {
            let at = unit + i * units;
            tiles_b[tile_b + at / wide_b * row_b + at % wide_b] = next_b[i];
        }
        // One barrier a step: whoever writes the other tile next has seen everyone leave it.
        sync_cube();
        if step + 1 < steps {
            #[unroll]
            for i in 0..each_a {
                let at = unit + i * units;
                let column = (step + 1) * comptime!(DEPTH / VECTOR) + at % wide_a;
                next_a[i] = a[(first_row + at / wide_a) * comptime!(k / VECTOR) + column];
            }
            #[unroll]
            for i in 0..each_b {
                let at = unit + i * units;
                let row = (step + 1) * DEPTH + at / wide_b;
                next_b[i] = b[row * comptime!(n / VECTOR) + first_column + at % wide_b];
            }
        }
        #[unroll]
        for at in 0..comptime!(DEPTH / FRAGMENT) {
            let mut column_of_a = Sequence::<Matrix<F>>::new();
            #[unroll]
            for i in 0..down {
                let start = tile_a
                    + (plane_row + comptime!(i * FRAGMENT)) * row_a
                    + comptime!(at * FRAGMENT / VECTOR);
                let mut fragment = operand::<F>(MatrixIdent::A);
                let end = comptime!(2 * size_a);
                cmma::load(&mut fragment, &tiles_a[start..end], comptime!((DEPTH + PAD) as u32));
                column_of_a.push(fragment);
            }
            #[unroll]
            for j in 0..across {
                let start = tile_b
                    + comptime!(at * FRAGMENT * row_b)
                    + plane_column / VECTOR
                    + comptime!(j * FRAGMENT / VECTOR);
                let mut fragment = operand::<F>(MatrixIdent::B);
                let end = comptime!(2 * size_b);
                cmma::load(&mut fragment, &tiles_b[start..end], comptime!((TILE + PAD) as u32));
                #[unroll]
                for i in 0..down {
                    let sum = &sums[comptime!(i * across + j)];
                    cmma::execute(&column_of_a[i], &fragment, sum, sum);
                }
            }
        }
    }

    #[unroll]
    for i in 0..down {
        #[unroll]
        for j in 0..across {
            let row = first_row + plane_row + comptime!(i * FRAGMENT);
            let start = row * comptime!(n / VECTOR)
                + first_column
                + plane_column / VECTOR
                + comptime!(j * FRAGMENT / VECTOR);
            let result = cmma::cast::<f32, O, cmma::Plane>(&sums[comptime!(i * across + j)]);
            let end = out.len();
            cmma::store(&mut out[start..end], &result, n as u32, MatrixLayout::RowMajor);
        }
    }
}

#[cube]
fn operand<F: Float>(#[comptime] ident: MatrixIdent) -> Matrix<F> {
    // Loaded before it is read.
    unsafe { Matrix::<F>::uninitialized(ident, FRAGMENT, FRAGMENT, FRAGMENT, MatrixLayout::RowMajor) }
}

/// The same with matrices that a whole cube holds (`VK_NV_cooperative_matrix2`): the driver cuts, stages and schedules.
#[cube(launch_unchecked)]
pub(super) fn product_of_cubes<F: Float, O: Float>(
    a: &[F],
    b: &[F],
    out: &mut [O],
    m: u32,
    #[comptime] n: u32,
    #[comptime] k: u32,
) {
    let (tile, depth) = comptime!((TILE as u32, CUBE_DEPTH as u32));
    let row = CUBE_POS_Y * tile;
    let column = CUBE_POS_X * tile;
    // Whole tiles: nothing reaches over an edge.
    let clamp = comptime!(TensorClampMode::Undefined);
    let a = TensorView::new(a, seq![m, k]).with_clamp_mode(clamp).finish();
    let b = TensorView::new(b, seq![k, n]).with_clamp_mode(clamp).finish();
    let out = TensorView::new(&*out, seq![m, n]).with_clamp_mode(clamp).finish();
    let mut left = operand_of_cube::<F>(MatrixIdent::A);
    let mut right = operand_of_cube::<F>(MatrixIdent::B);
    let sum = Matrix::<f32, cmma::Cube>::from_value(
        MatrixIdent::Accumulator,
        TILE,
        TILE,
        CUBE_DEPTH,
        MatrixLayout::Undefined,
        0.0,
    );
    for at in range_stepped(0, k, depth) {
        cmma::load_tensor(&mut left, &a.slice(seq![row, at], seq![tile, depth]));
        cmma::load_tensor(&mut right, &b.slice(seq![at, column], seq![depth, tile]));
        cmma::execute(&left, &right, &sum, &sum);
    }
    let result = cmma::cast::<f32, O, cmma::Cube>(&sum);
    let mut window = out.slice(seq![row, column], seq![tile, tile]);
    cmma::store_tensor(&mut window, &result);
}

#[cube]
fn operand_of_cube<F: Float>(#[comptime] ident: MatrixIdent) -> Matrix<F, cmma::Cube> {
    // Loaded before it is read.
    unsafe { Matrix::<F, cmma::Cube>::uninitialized(ident, TILE, TILE, CUBE_DEPTH, MatrixLayout::Undefined) }
}
