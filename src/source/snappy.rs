//! Raw Snappy in, its bytes out, without holding either: the format of Parquet's Snappy pages
//! (<https://github.com/google/snappy/blob/main/format_description.txt>). Knows nothing of pages.

use std::io::{self, Read};

/// How far back a copy may reach. Every compressor in use works in blocks of this size, though the format allows more.
const WINDOW_BYTES: usize = 64 << 10;

/// Decompresses one Snappy block while it is read.
pub struct SnappyReader<R> {
    input: R,
    /// The last bytes that came out, and those that are still to be read.
    window: Vec<u8>,
    /// Where in `window` the next read goes on.
    served: usize,
    /// Bytes of the literal that is being read.
    literal: u64,
    /// Bytes that are still to come out.
    left: u64,
}

impl<R: Read> SnappyReader<R> {
    /// Reads the block's length.
    ///
    /// # Errors
    /// When there is none.
    pub fn new(mut input: R) -> io::Result<Self> {
        let mut left = 0;
        for shift in (0..35).step_by(7) {
            let byte = byte(&mut input)?;
            left |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(SnappyReader { input, window: Vec::new(), served: 0, literal: 0, left });
            }
        }
        Err(corrupt("its length is not one"))
    }

    /// Brings more to the window once all of it has been read, unless the block has ended.
    fn fill(&mut self) -> io::Result<()> {
        if self.served < self.window.len() {
            return Ok(());
        }
        if self.served >= 2 * WINDOW_BYTES {
            self.window.drain(..self.served - WINDOW_BYTES);
            self.served = WINDOW_BYTES;
        }
        while self.window.len() - self.served < WINDOW_BYTES && self.left > 0 {
            if self.literal > 0 {
                let n = self.literal.min(WINDOW_BYTES as u64);
                let read = self.input.by_ref().take(n).read_to_end(&mut self.window)? as u64;
                if read < n {
                    return Err(corrupt("it ends inside a literal"));
                }
                self.literal -= n;
                self.left -= n;
            } else {
                self.element()?;
            }
        }
        Ok(())
    }

    fn element(&mut self) -> io::Result<()> {
        let tag = byte(&mut self.input)?;
        let (length, offset) = match tag & 3 {
            0 => {
                let short = u64::from(tag >> 2);
                let length = if short < 60 { short } else { self.number(short as usize - 59)? };
                self.literal = length + 1;
                if self.literal > self.left {
                    return Err(corrupt("a literal is longer than the block"));
                }
                return Ok(());
            }
            1 => {
                let low = u64::from(byte(&mut self.input)?);
                (4 + (tag >> 2 & 7), u64::from(tag >> 5) << 8 | low)
            }
            2 => (1 + (tag >> 2), self.number(2)?),
            _ => (1 + (tag >> 2), self.number(4)?),
        };
        if offset > WINDOW_BYTES as u64 {
            return Err(corrupt(
                "a copy reaches further back than 64 KiB, which cannot be read page by page",
            ));
        }
        if offset == 0 || offset > self.window.len() as u64 || u64::from(length) > self.left {
            return Err(corrupt("a copy lies outside of the block"));
        }
        // A copy may overlap what it writes: then it repeats, and with each part copied what repeats is longer.
        let (mut offset, mut left) = (offset as usize, usize::from(length));
        while left > 0 {
            let (start, n) = (self.window.len() - offset, left.min(offset));
            self.window.extend_from_within(start..start + n);
            offset += n;
            left -= n;
        }
        self.left -= u64::from(length);
        Ok(())
    }

    /// A little-endian number of `bytes` bytes.
    fn number(&mut self, bytes: usize) -> io::Result<u64> {
        let mut number = [0; 8];
        self.input.read_exact(&mut number[..bytes])?;
        Ok(u64::from_le_bytes(number))
    }
}

impl<R: Read> Read for SnappyReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.fill()?;
        let n = buffer.len().min(self.window.len() - self.served);
        buffer[..n].copy_from_slice(&self.window[self.served..self.served + n]);
        self.served += n;
        Ok(n)
    }
}

fn byte(input: &mut impl Read) -> io::Result<u8> {
    let mut byte = [0];
    input.read_exact(&mut byte)?;
    Ok(byte[0])
}

fn corrupt(problem: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the Snappy block is corrupt: {problem}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decompress(block: &[u8]) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        SnappyReader::new(block)?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    #[test]
    fn what_the_compressor_wrote_comes_back() {
        let mut mixed = vec![7u8; 300_000];
        let mut state = 1u32;
        for byte in &mut mixed[100_000..200_000] {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = (state >> 24) as u8;
        }
        for bytes in [&b""[..], b"a", b"abcabcabcabcabcabcabc", &mixed] {
            let block = snap::raw::Encoder::new().compress_vec(bytes).unwrap();
            assert!(decompress(&block).unwrap() == bytes);
        }
    }

    #[test]
    fn a_corrupt_block_is_an_error() {
        for block in
            [&[][..], &[5], &[5, 0], &[3, 0x0c, b'a'], &[4, 0x00, b'a', 0x01, 2], &[2, 0x00, b'a', 0x05, 1]]
        {
            assert!(decompress(block).is_err(), "{block:?}");
        }
        let far = [4, 0x00, b'a', 0x03, 1, 0, 2, 0];
        assert!(decompress(&far).unwrap_err().to_string().contains("further back than 64 KiB"));
    }
}
