//! A picture made smaller with a Lanczos filter of three lobes, as Pillow's `resize` with `LANCZOS` computes it: weights in fixed
//! point, columns first, then rows, each pass rounded to 8 bits. The same on every machine: no function of the system's mathematical
//! library takes part.

use super::Picture;

const LOBES: f64 = 3.0;
/// Bits of a weight behind the point: sums of 8-bit samples fit 32 bits, with room for weights that sum to more than 1.
const WEIGHT_BITS: u32 = 22;
const HALF: i32 = 1 << (WEIGHT_BITS - 1);

/// `picture` in `width` x `height` pixels; none of them is more than it has, or 0.
///
/// Takes `3 * width * picture.height` bytes besides the result, and 24 for each column and row of `picture`.
pub(super) fn lanczos3(picture: &Picture, width: u32, height: u32) -> Picture {
    let narrow = narrowed(picture, width);
    let weights = Weights::new(picture.height as usize, height as usize);
    let row_bytes = 3 * width as usize;
    let mut rgb = vec![0; row_bytes * height as usize];
    let mut sums = vec![0_i32; row_bytes];
    for (y, out) in rgb.chunks_exact_mut(row_bytes).enumerate() {
        let (start, weights) = weights.of(y);
        sums.fill(HALF);
        for (row, weight) in narrow[start * row_bytes..].chunks_exact(row_bytes).zip(weights) {
            for (sum, sample) in sums.iter_mut().zip(row) {
                *sum += i32::from(*sample) * weight;
            }
        }
        for (sample, sum) in out.iter_mut().zip(&sums) {
            *sample = rounded(*sum);
        }
    }
    Picture { width, height, rgb }
}

/// The samples of `picture` in rows of `width` pixels.
fn narrowed(picture: &Picture, width: u32) -> Vec<u8> {
    let weights = Weights::new(picture.width as usize, width as usize);
    let mut narrow = vec![0; 3 * width as usize * picture.height as usize];
    for (y, out) in narrow.chunks_exact_mut(3 * width as usize).enumerate() {
        let row = picture.row(y as u32, 0, picture.width).as_chunks::<3>().0;
        for (x, out) in out.as_chunks_mut::<3>().0.iter_mut().enumerate() {
            let (start, weights) = weights.of(x);
            let mut sums = [HALF; 3];
            for (pixel, weight) in row[start..].iter().zip(weights) {
                for (sum, sample) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(*sample) * weight;
                }
            }
            *out = sums.map(rounded);
        }
    }
    narrow
}

fn rounded(sum: i32) -> u8 {
    (sum >> WEIGHT_BITS).clamp(0, 255) as u8
}

/// Of which samples of a line each new one is made, and how much each weighs.
struct Weights {
    /// First sample, and where its weight and the following end.
    spans: Vec<(usize, usize)>,
    weights: Vec<i32>,
}

impl Weights {
    /// From `old` samples to `new`, which are not more.
    fn new(old: usize, new: usize) -> Weights {
        let scale = old as f64 / new as f64;
        let (reach, narrowing) = (LOBES * scale, 1.0 / scale);
        let mut weights = Weights { spans: Vec::with_capacity(new), weights: Vec::new() };
        let mut exact = Vec::new();
        for i in 0..new {
            let center = (i as f64 + 0.5) * scale;
            let start = (center - reach + 0.5).max(0.0) as usize;
            let end = ((center + reach + 0.5) as usize).min(old);
            exact.clear();
            exact.extend((start..end).map(|sample| lanczos((sample as f64 - center + 0.5) * narrowing)));
            let total: f64 = exact.iter().sum();
            let fixed =
                exact.iter().map(|weight| (weight / total * f64::from(1 << WEIGHT_BITS)).round() as i32);
            weights.weights.extend(fixed);
            weights.spans.push((start, weights.weights.len()));
        }
        weights
    }

    /// First sample of the new one `i`, and the weights from there on.
    fn of(&self, i: usize) -> (usize, &[i32]) {
        let weights_start = i.checked_sub(1).map_or(0, |before| self.spans[before].1);
        let (start, weights_end) = self.spans[i];
        (start, &self.weights[weights_start..weights_end])
    }
}

fn lanczos(x: f64) -> f64 {
    if (-LOBES..LOBES).contains(&x) { sinc(x) * sinc(x / LOBES) } else { 0.0 }
}

/// sin(πx) / πx for |x| up to 3.
fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    // sin(πx) is that of the distance to the nearest integer, with the other sign if that is odd.
    let nearest = x.round();
    let sign = if nearest % 2.0 == 0.0 { 1.0 } else { -1.0 };
    let t = (x - nearest) * std::f64::consts::PI;
    // Taylor: |t| is at most π/2, and the first term left out below 1e-17.
    let series = (1..12).rev().fold(1.0_f64, |sum, k| 1.0 - sum * t * t / f64::from(2 * k * (2 * k + 1)));
    sign * t * series / (x * std::f64::consts::PI)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sinc_is_that_of_the_mathematical_library_to_its_last_bits() {
        for i in -3000..=3000 {
            let x = f64::from(i) / 1000.0;
            let expected =
                if i == 0 { 1.0 } else { (x * std::f64::consts::PI).sin() / (x * std::f64::consts::PI) };
            assert!((sinc(x) - expected).abs() < 1e-15, "{x}: {} {expected}", sinc(x));
        }
    }

    #[test]
    fn one_color_stays_that_color() {
        for color in [0, 1, 127, 254, 255] {
            let picture = Picture { width: 13, height: 7, rgb: vec![color; 3 * 13 * 7] };
            assert_eq!(lanczos3(&picture, 5, 3).rgb, vec![color; 3 * 5 * 3]);
        }
    }

    #[test]
    fn a_step_becomes_what_pillow_makes_of_it() {
        // Image.frombytes("RGB", (8, 1), ...).resize((3, 1), Image.Resampling.LANCZOS)
        let rgb = (0..8).flat_map(|x| [if x < 4 { 0 } else { 255 }, 10 * x, 200 - 20 * x]).collect();
        let small = lanczos3(&Picture { width: 8, height: 1, rgb }, 3, 1);
        assert_eq!(small.rgb, [0, 8, 184, 127, 35, 130, 255, 62, 76]);
    }
}
