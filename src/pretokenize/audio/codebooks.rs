//! The setup header of Vorbis in, how much memory its codebooks ask for out (Vorbis I specification, 3.2.1 and 4.2.4). Knows nothing of
//! what they mean: five kilobytes of header may ask a decoder for gigabytes, before there is any sound.

use memchr::memmem;

/// Numbers that all codebooks hold together, above which the header is taken for damage: encoders make some ten thousand.
const MOST_VALUES: u64 = 1 << 24;

/// Refuses the headers of a Vorbis stream whose codebooks would take too much; what is wrong with them is left to the decoder.
///
/// # Errors
/// How many numbers they hold.
pub(super) fn check(headers: &[u8]) -> Result<(), String> {
    let Some(start) = memmem::find(headers, b"\x05vorbis") else { return Ok(()) };
    let mut bits = Bits { bytes: &headers[start + 7..], at: 0 };
    let mut n_values = 0_u64;
    let n_books = bits.take(8).map_or(0, |n| n + 1);
    for _ in 0..n_books {
        let Some(book) = values_of(&mut bits) else { return Ok(()) };
        n_values += book;
        if n_values > MOST_VALUES {
            return Err(format!("codebooks of {n_values} numbers or more, above {MOST_VALUES}"));
        }
    }
    Ok(())
}

/// Numbers of the codebook that starts here, a word for each entry included; `None` where it is no codebook, or cut.
fn values_of(bits: &mut Bits<'_>) -> Option<u64> {
    let sync = bits.take(24)?;
    let (n_dimensions, n_entries) = (bits.take(16)?, bits.take(24)?);
    if sync != 0x56_4342 {
        return None;
    }
    // What follows is only walked through where it is bounded.
    let most = n_entries.saturating_mul(n_dimensions.max(1));
    if most > MOST_VALUES {
        return Some(most);
    }
    if bits.take(1)? == 1 {
        bits.take(5)?;
        let mut entry = 0;
        while entry < n_entries {
            entry += bits.take(width(n_entries - entry))?;
        }
    } else {
        let is_sparse = bits.take(1)? == 1;
        for _ in 0..n_entries {
            if !is_sparse || bits.take(1)? == 1 {
                bits.take(5)?;
            }
        }
    }
    let lookup = bits.take(4)?;
    if lookup == 0 {
        return Some(n_entries);
    }
    bits.skip(64);
    let n_bits = bits.take(4)? + 1;
    bits.take(1)?;
    let n_multiplicands = if lookup == 1 { root(n_entries, n_dimensions) } else { most };
    bits.skip(n_multiplicands.checked_mul(n_bits)?);
    Some(most)
}

/// Bits that a number up to `n` takes.
fn width(n: u64) -> u32 {
    u64::BITS - n.leading_zeros()
}

/// The largest number whose power `exponent` is at most `n`.
fn root(n: u64, exponent: u64) -> u64 {
    let power = |base: u64| base.checked_pow(u32::try_from(exponent).unwrap_or(u32::MAX));
    (1..=n).take_while(|&base| power(base).is_some_and(|power| power <= n)).last().unwrap_or(0)
}

/// Bits, the lowest of each byte first.
struct Bits<'a> {
    bytes: &'a [u8],
    at: u64,
}

impl Bits<'_> {
    fn take(&mut self, n: u32) -> Option<u64> {
        let mut value = 0;
        for bit in 0..n {
            let byte = *self.bytes.get(usize::try_from(self.at / 8).ok()?)?;
            value |= u64::from(byte >> (self.at % 8) & 1) << bit;
            self.at += 1;
        }
        Some(value)
    }

    fn skip(&mut self, n: u64) {
        self.at = self.at.saturating_add(n);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bits, written as they are read.
    #[derive(Default)]
    struct Writer(Vec<bool>);

    impl Writer {
        fn put(&mut self, value: u64, n: u32) -> &mut Self {
            self.0.extend((0..n).map(|bit| value >> bit & 1 == 1));
            self
        }

        /// A codebook whose words are told in order, all of one length, with a table of numbers from a product.
        fn book(&mut self, n_dimensions: u64, n_entries: u64) -> &mut Self {
            self.put(0x56_4342, 24).put(n_dimensions, 16).put(n_entries, 24);
            self.put(1, 1).put(16, 5).put(n_entries, width(n_entries));
            self.put(1, 4).put(0, 64).put(3, 4).put(0, 1);
            let n = root(n_entries, n_dimensions);
            (0..n).for_each(|i| {
                self.put(i, 4);
            });
            self
        }

        fn header(&self, n_books: u8) -> Vec<u8> {
            let bytes = self
                .0
                .chunks(8)
                .map(|bits| bits.iter().enumerate().fold(0, |byte, (at, &bit)| byte | u8::from(bit) << at));
            [&b"\x05vorbis"[..], &[n_books - 1]].concat().into_iter().chain(bytes).collect()
        }
    }

    #[test]
    fn books_are_counted_until_they_are_too_many() {
        let mut few = Writer::default();
        for _ in 0..100 {
            few.book(4, 625);
        }
        assert_eq!(check(&few.header(100)), Ok(()));
        let mut many = Writer::default();
        for _ in 0..40 {
            many.book(8, 65_536);
        }
        let header = many.header(40);
        assert!(header.len() < 2000, "{} bytes", header.len());
        let words = "codebooks of 17301504 numbers or more, above 16777216";
        assert_eq!(check(&header), Err(words.to_owned()));
        let mut one = Writer::default();
        one.book(65_535, 1 << 23);
        assert!(check(&one.header(1)).is_err());
    }

    #[test]
    fn what_is_no_header_is_left_to_the_decoder() {
        assert_eq!(check(b""), Ok(()));
        assert_eq!(check(b"\x05vorbis"), Ok(()));
        assert_eq!(check(b"\x05vorbis\xffABCABCABCABCABC"), Ok(()));
    }

    #[test]
    fn roots_are_those_of_the_specification() {
        assert_eq!([root(625, 4), root(624, 4), root(1, 9), root(8, 0), root(0, 3)], [5, 4, 1, 8, 0]);
    }
}
