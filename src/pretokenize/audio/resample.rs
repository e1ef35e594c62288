//! Samples at one rate to samples at another, through a windowed sinc whose positions are counted in whole numbers: no drift, no delay, and
//! the same result on every processor. Knows nothing of where the samples come from.

use std::{
    collections::HashMap,
    fmt::{self, Debug},
    sync::{Arc, Mutex, PoisonError},
};

use rubato::{
    WindowFunction, calculate_cutoff,
    interpolation::interp_cubic,
    sinc_interpolator::{ScalarInterpolator, SincInterpolator},
};

/// Samples at the lower of both rates that a filter spans: within 0.1 dB up to 0.42 of that rate, -3 dB at 0.44, below -150 dB from half on.
const SPAN: u32 = 128;
/// And the longest filter, so that a header's odd rate does not cost gigabytes.
const MAX_POINTS: u32 = 4096;
/// Positions between two samples that a filter is tabled for. Ratios that need more are interpolated between four of them.
const MAX_PHASES: u64 = 512;
/// Filters kept for the next sound of the same rate, of 17 MB each at the most.
const MAX_KEPT: usize = 4;
const WINDOW: WindowFunction = WindowFunction::BlackmanHarris2;
/// Rates between which there is resampling, in samples a second; those that settings may ask for.
const RATES: std::ops::RangeInclusive<u32> = 1000..=768_000;

/// Number of samples at rate `to` of a sound that has `n` at rate `from`: n·to/from, rounded, halves up.
pub(super) fn resampled_len(n: u64, from: u32, to: u32) -> u64 {
    let (from, to) = (u128::from(from), u128::from(to));
    u64::try_from((2 * u128::from(n) * to + from) / (2 * from)).unwrap_or(u64::MAX)
}

/// The filters towards one rate, made when first needed.
pub(super) struct Filters {
    to: u32,
    kept: Mutex<HashMap<u32, Arc<Filter>>>,
}

impl Filters {
    pub(super) fn new(to: u32) -> Self {
        Self { to, kept: Mutex::default() }
    }

    /// What brings `n_channels` channels from rate `from` to that of the filters; `None` if there is nothing to do.
    ///
    /// # Errors
    /// Rates outside 1000 to 768000.
    pub(super) fn resampler(&self, from: u32, n_channels: usize) -> Result<Option<Resampler>, String> {
        if from == self.to {
            return Ok(None);
        }
        if !RATES.contains(&from) || !RATES.contains(&self.to) {
            return Err(format!("failed to resample from {from} to {} samples a second", self.to));
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MAX_KEPT && !kept.contains_key(&from) {
            kept.clear();
        }
        let filter = Arc::clone(kept.entry(from).or_insert_with(|| Arc::new(Filter::new(from, self.to))));
        Ok(Some(Resampler::new(filter, n_channels)))
    }
}

impl Debug for Filters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filters").field("to", &self.to).finish_non_exhaustive()
    }
}

/// The table of a filter, and the step between two outputs: `step` of `phases` parts of an input sample.
struct Filter {
    from: u32,
    to: u32,
    sinc: ScalarInterpolator<f64>,
    step: u64,
    phases: u64,
}

impl Filter {
    fn new(from: u32, to: u32) -> Self {
        let divisor = u64::from(gcd(from, to));
        let (step, phases) = (u64::from(from) / divisor, u64::from(to) / divisor);
        let (span, cutoff) = if from <= to {
            (SPAN, 1.0)
        } else {
            let span = u64::from(SPAN) * u64::from(from) / u64::from(to);
            ((span as u32).min(MAX_POINTS), (f64::from(to) / f64::from(from)) as f32)
        };
        let cutoff = cutoff * calculate_cutoff::<f32>(SPAN as usize, WINDOW);
        // The scalar one although others are faster: those add in an order that depends on the processor.
        let sinc = ScalarInterpolator::new(
            span.next_multiple_of(8) as usize,
            phases.min(MAX_PHASES) as usize,
            cutoff,
            WINDOW,
        );
        Self { from, to, sinc, step, phases }
    }

    /// Samples before a position that its value needs, and as many behind it.
    fn reach(&self) -> u64 {
        self.sinc.nbr_points() as u64 / 2 + 2
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Resamples the channels of one sound, piece by piece.
pub(super) struct Resampler {
    filter: Arc<Filter>,
    /// Of each channel, the samples still needed; silence stands before the first.
    held: Vec<Vec<f64>>,
    /// Samples, the silence counted, that were before those held.
    n_dropped: u64,
    n_in: u64,
    n_out: u64,
}

impl Resampler {
    fn new(filter: Arc<Filter>, n_channels: usize) -> Self {
        let silence = vec![0.0; filter.reach() as usize];
        Self { held: vec![silence; n_channels], filter, n_dropped: 0, n_in: 0, n_out: 0 }
    }

    /// Takes the next samples of each channel and adds to `out` what they decide.
    pub(super) fn push(&mut self, planes: &[Vec<i16>], out: &mut [Vec<i16>]) {
        for (held, plane) in self.held.iter_mut().zip(planes) {
            held.extend(plane.iter().map(|&sample| f64::from(sample)));
        }
        self.n_in += planes.first().map_or(0, Vec::len) as u64;
        let end = self.n_in.saturating_sub(self.filter.reach());
        // The first output at or behind the input sample `end` waits.
        self.run(ceil_scaled(end, self.filter.phases, self.filter.step), out);
    }

    /// Adds to `out` what is left, with silence behind the last sample.
    pub(super) fn finish(&mut self, out: &mut [Vec<i16>]) {
        let silence = self.filter.reach() as usize + 1;
        for held in &mut self.held {
            held.resize(held.len() + silence, 0.0);
        }
        self.run(resampled_len(self.n_in, self.filter.from, self.filter.to), out);
    }

    /// Outputs up to number `end`.
    fn run(&mut self, end: u64, out: &mut [Vec<i16>]) {
        for n in self.n_out..end {
            let at = u128::from(n) * u128::from(self.filter.step);
            let (whole, part) = (at / u128::from(self.filter.phases), at % u128::from(self.filter.phases));
            let whole = whole as u64 + self.filter.reach() - self.n_dropped;
            for (held, out) in self.held.iter().zip(&mut *out) {
                out.push(to_s16(value_at(&self.filter, held, whole, part as u64)));
            }
        }
        self.n_out = self.n_out.max(end);
        self.drop_passed();
    }

    /// Forgets samples that no output needs any more, when they are many.
    fn drop_passed(&mut self) {
        let next = u128::from(self.n_out) * u128::from(self.filter.step) / u128::from(self.filter.phases);
        let passed = (next as u64).saturating_sub(self.n_dropped) as usize;
        if passed >= 4096 && self.held.iter().all(|held| held.len() >= passed) {
            self.held.iter_mut().for_each(|held| drop(held.drain(..passed)));
            self.n_dropped += passed as u64;
        }
    }
}

/// n·a/b, rounded up.
fn ceil_scaled(n: u64, a: u64, b: u64) -> u64 {
    (u128::from(n) * u128::from(a)).div_ceil(u128::from(b)) as u64
}

/// The filtered wave at `whole + part/phases`.
fn value_at(filter: &Filter, wave: &[f64], whole: u64, part: u64) -> f64 {
    let tabled = filter.sinc.nbr_sincs() as u64;
    let position = whole * tabled;
    if tabled == filter.phases {
        return tabled_at(filter, wave, position + part);
    }
    let (steps, rest) = (part * tabled / filter.phases, part * tabled % filter.phases);
    let position = position + steps;
    let around = [position - 1, position, position + 1, position + 2].map(|p| tabled_at(filter, wave, p));
    interp_cubic(rest as f64 / filter.phases as f64, &around)
}

/// The filtered wave at `position` parts of a sample, of which the table has `nbr_sincs` to a sample.
fn tabled_at(filter: &Filter, wave: &[f64], position: u64) -> f64 {
    let tabled = filter.sinc.nbr_sincs() as u64;
    let (index, phase) = (position / tabled, position % tabled);
    // Row r of the table is centred (r + 1)/tabled behind sample `nbr_points/2 - 1` of what it is laid over.
    let half = filter.sinc.nbr_points() as u64 / 2;
    let (start, row) = if phase == 0 { (index - half, tabled - 1) } else { (index - half + 1, phase - 1) };
    filter.sinc.get_sinc_interpolated(wave, start as usize, row as usize)
}

/// Nearest, halves away from zero; beyond the range, its end.
fn to_s16(value: f64) -> i16 {
    value.round().clamp(f64::from(i16::MIN), f64::from(i16::MAX)) as i16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resample(samples: &[i16], from: u32, to: u32, chunk: usize) -> Vec<i16> {
        let mut resampler = Filters::new(to).resampler(from, 1).unwrap().unwrap();
        let mut out = vec![Vec::new()];
        for chunk in samples.chunks(chunk) {
            resampler.push(&[chunk.to_vec()], &mut out);
        }
        resampler.finish(&mut out);
        out.remove(0)
    }

    fn sine(n: usize, hz: f64, rate: u32) -> Vec<i16> {
        (0..n)
            .map(|i| (10_000.0 * (i as f64 * hz * std::f64::consts::TAU / f64::from(rate)).sin()) as i16)
            .collect()
    }

    #[test]
    fn a_tone_stays_in_place_and_at_its_height() {
        for (from, to) in
            [(44_100, 16_000), (8000, 48_000), (48_000, 44_100), (22_050, 11_025), (44_100, 15_999)]
        {
            let n = from as usize;
            let out = resample(&sine(n, 440.0, from), from, to, 1152);
            assert_eq!(out.len(), to as usize, "{from} to {to}");
            let expected = sine(to as usize, 440.0, to);
            let middle = out.len() / 10..out.len() * 9 / 10;
            let worst = middle.map(|i| (i32::from(out[i]) - i32::from(expected[i])).abs()).max().unwrap();
            assert!(worst <= 3, "{from} to {to}: {worst}");
        }
    }

    #[test]
    fn what_the_lower_rate_cannot_hold_is_gone() {
        let out = resample(&sine(44_100, 12_000.0, 44_100), 44_100, 16_000, 1152);
        assert!(out[1000..15_000].iter().all(|s| s.abs() <= 1));
    }

    #[test]
    fn pieces_do_not_matter() {
        let samples: Vec<i16> =
            (0..20_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 16) as i16).collect();
        for (from, to) in
            [(44_100, 16_000), (16_000, 44_100), (44_100, 15_999), (768_000, 1000), (1000, 768_000)]
        {
            let samples = if to > from * 100 { &samples[..100] } else { &samples };
            let whole = resample(samples, from, to, samples.len());
            assert_eq!(whole.len() as u64, resampled_len(samples.len() as u64, from, to));
            assert_eq!(resample(samples, from, to, 1), whole, "{from} to {to}");
            assert_eq!(resample(samples, from, to, 4097), whole, "{from} to {to}");
        }
    }

    #[test]
    fn one_sample_gives_as_many_as_the_ratio_tells() {
        assert_eq!(resample(&[1000], 8000, 16_000, 1).len(), 2);
        assert_eq!(resample(&[1000], 16_000, 8000, 1).len(), 1);
        assert_eq!(resample(&[1000], 48_000, 8000, 1).len(), 0);
        assert_eq!(resampled_len(u64::MAX, 1, 2), u64::MAX);
    }

    #[test]
    fn rates_that_no_setting_may_name_are_refused() {
        assert!(Filters::new(16_000).resampler(999, 1).is_err());
        assert!(Filters::new(16_000).resampler(768_001, 1).is_err());
        assert!(Filters::new(16_000).resampler(16_000, 1).unwrap().is_none());
    }
}
