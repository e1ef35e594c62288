//! Lengths in Parquet's delta encodings of byte arrays, read without room for them, so that a page's claims can be
//! checked before the decoder believes them. Knows nothing of pages.

/// A run of lengths, as DELTA_BINARY_PACKED writes them.
pub struct Lengths<'a> {
    bytes: &'a [u8],
    at: usize,
    left: u64,
    last: i64,
    /// Whether the first value, which stands in the head, is still to come.
    first: bool,
    values_per_miniblock: u64,
    miniblocks: usize,
    /// Widths of the block's miniblocks that are still to come.
    widths: std::ops::Range<usize>,
    min_delta: i64,
    in_miniblock: u64,
    width: u32,
    bit: usize,
}

impl<'a> Lengths<'a> {
    /// Reads the head of a run; `None` when it is none or has more than `most` values.
    pub fn new(bytes: &'a [u8], most: u64) -> Option<Self> {
        let mut at = 0;
        let block = varint(bytes, &mut at)?;
        let miniblocks = varint(bytes, &mut at)?;
        let left = varint(bytes, &mut at)?;
        let last = zigzag(varint(bytes, &mut at)?);
        let sound =
            miniblocks > 0 && miniblocks <= 512 && block % miniblocks == 0 && block > 0 && left <= most;
        sound.then(|| Lengths {
            bytes,
            at,
            left,
            last,
            first: true,
            values_per_miniblock: block / miniblocks,
            miniblocks: miniblocks as usize,
            widths: 0..0,
            min_delta: 0,
            in_miniblock: 0,
            width: 0,
            bit: 0,
        })
    }

    /// Number of lengths that are still to come.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// The next length; `None` when the run is broken. Lengths are 32 bits and wrap, as writers and readers have it.
    pub fn next(&mut self) -> Option<u32> {
        self.left = self.left.checked_sub(1)?;
        if !std::mem::take(&mut self.first) {
            if self.in_miniblock == 0 {
                self.start_miniblock()?;
            }
            let delta = self.bits()? as i64;
            self.in_miniblock -= 1;
            self.last = self.last.wrapping_add(self.min_delta).wrapping_add(delta);
            if self.in_miniblock == 0 {
                self.bit = 0;
            }
        }
        Some(self.last as u32)
    }

    fn start_miniblock(&mut self) -> Option<()> {
        if self.widths.is_empty() {
            self.min_delta = zigzag(varint(self.bytes, &mut self.at)?);
            self.widths = self.at..self.at + self.miniblocks;
            self.at = self.widths.end;
        }
        self.width = u32::from(*self.bytes.get(self.widths.next()?)?);
        self.bit = self.at * 8;
        self.in_miniblock = self.values_per_miniblock;
        let bits = self.values_per_miniblock.checked_mul(self.width.into())?;
        self.at = self.at.checked_add(usize::try_from(bits.div_ceil(8)).ok()?)?;
        (self.width <= 64).then_some(())
    }

    fn bits(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in 0..self.width {
            let byte = *self.bytes.get(self.bit / 8)?;
            value |= u64::from(byte >> (self.bit % 8) & 1) << shift;
            self.bit += 1;
        }
        Some(value)
    }

    /// What follows the run, once every length has come.
    pub fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }
}

fn varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn zigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}
