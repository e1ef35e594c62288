//! A canvas in, the sixels out that draw it (DEC VT340: bands of six rows, a run of characters for each colour in a band). Knows nothing
//! of documents.

use super::picture::Canvas;

/// Steps of red, green and blue: with 256 colours at most, a cube of 6 × 7 × 6.
const STEPS: [u32; 3] = [6, 7, 6];
const N_COLOURS: usize = 252;
/// Ordered dithering (Bayer): what is added to a pixel before it is rounded, in sixteenths of a step.
const DITHER: [[u32; 4]; 4] = [[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]];
const ROWS: usize = 6;

/// Draws `canvas` from where the cursor is; pixels without colour stay as they are.
pub(super) fn sixels(canvas: &Canvas) -> String {
    let colours: Vec<Option<u8>> = (0..canvas.pixels.len())
        .map(|i| canvas.pixels[i].map(|colour| nearest(colour, i % canvas.width, i / canvas.width)))
        .collect();
    let mut sixels = format!("\x1bP0;1;0q\"1;1;{};{}", canvas.width, canvas.height);
    for colour in (0..N_COLOURS).filter(|colour| colours.contains(&Some(*colour as u8))) {
        let [r, g, b] = percent(colour);
        sixels.push_str(&format!("#{colour};2;{r};{g};{b}"));
    }
    for band in colours.chunks(ROWS * canvas.width) {
        let mut bits = vec![[0u8; N_COLOURS]; canvas.width];
        let mut is_used = [false; N_COLOURS];
        for (i, colour) in band.iter().enumerate() {
            if let Some(colour) = colour.map(usize::from) {
                bits[i % canvas.width][colour] |= 1 << (i / canvas.width);
                is_used[colour] = true;
            }
        }
        for colour in (0..N_COLOURS).filter(|colour| is_used[*colour]) {
            sixels.push_str(&format!("#{colour}"));
            push_runs(&mut sixels, bits.iter().map(|bits| bits[colour]));
            sixels.push('$');
        }
        sixels.push('-');
    }
    sixels.push_str("\x1b\\");
    sixels
}

/// One character for six pixels, runs of the same by their length.
fn push_runs(sixels: &mut String, bits: impl Iterator<Item = u8>) {
    let mut bits = bits.peekable();
    while let Some(first) = bits.next() {
        let mut length = 1;
        while bits.next_if_eq(&first).is_some() {
            length += 1;
        }
        let character = char::from(b'?' + first);
        match length {
            1..=3 => sixels.extend(std::iter::repeat_n(character, length)),
            _ => sixels.push_str(&format!("!{length}{character}")),
        }
    }
}

fn nearest(colour: [u8; 3], x: usize, y: usize) -> u8 {
    let dither = DITHER[y % 4][x % 4];
    let step = |c: usize| (u32::from(colour[c]) * (STEPS[c] - 1) * 16 + dither * 255 + 127) / (255 * 16);
    let [r, g, b] = [0, 1, 2].map(|c| step(c).min(STEPS[c] - 1));
    ((r * STEPS[1] + g) * STEPS[2] + b) as u8
}

fn percent(colour: usize) -> [u32; 3] {
    let colour = colour as u32;
    let steps = [colour / (STEPS[1] * STEPS[2]), colour / STEPS[2] % STEPS[1], colour % STEPS[2]];
    [0, 1, 2].map(|c| steps[c] * 100 / (STEPS[c] - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_of_six_rows_are_drawn_colour_by_colour() {
        let (black, white) = (Some([0; 3]), Some([255; 3]));
        let mut pixels = vec![black; 5 * 7];
        pixels[5] = white;
        pixels[6 * 5] = None;
        let drawn = sixels(&Canvas { width: 5, height: 7, pixels });
        // Of the first column the second row is white; of the seventh row the first pixel stays as it is.
        assert_eq!(drawn, "\x1bP0;1;0q\"1;1;5;7#0;2;0;0;0#251;2;100;100;100#0|!4~$#251A!4?$-#0?!4@$-\x1b\\");
    }

    #[test]
    fn pure_colours_stay_pure_and_greys_are_mixed() {
        for y in 0..4 {
            for x in 0..4 {
                assert_eq!(percent(usize::from(nearest([255, 0, 255], x, y))), [100, 0, 100]);
            }
        }
        let reds: u32 = (0..16).map(|i| percent(usize::from(nearest([128; 3], i % 4, i / 4)))[0]).sum();
        assert!((45..=55).contains(&(reds / 16)), "{reds}");
    }
}
