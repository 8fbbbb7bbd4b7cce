//! SipHash-1-3 of a byte string that is in memory as a whole, without the buffer of a hasher that
//! reads its input in parts.
//!
//! Source: Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012, with one round for each
//! word and three at the end.

/// The hash state: four words, as the paper names them.
struct State {
    v0: u64,
    v1: u64,
    v2: u64,
    v3: u64,
}

impl State {
    #[inline]
    fn new([k0, k1]: [u64; 2]) -> Self {
        Self {
            v0: k0 ^ 0x736f_6d65_7073_6575,
            v1: k1 ^ 0x646f_7261_6e64_6f6d,
            v2: k0 ^ 0x6c79_6765_6e65_7261,
            v3: k1 ^ 0x7465_6462_7974_6573,
        }
    }

    #[inline]
    fn round(&mut self) {
        self.v0 = self.v0.wrapping_add(self.v1);
        self.v2 = self.v2.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(13) ^ self.v0;
        self.v3 = self.v3.rotate_left(16) ^ self.v2;
        self.v0 = self.v0.rotate_left(32);
        self.v2 = self.v2.wrapping_add(self.v1);
        self.v0 = self.v0.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(17) ^ self.v2;
        self.v3 = self.v3.rotate_left(21) ^ self.v0;
        self.v2 = self.v2.rotate_left(32);
    }

    #[inline]
    fn compress(&mut self, word: u64) {
        self.v3 ^= word;
        self.round();
        self.v0 ^= word;
    }

    #[inline]
    fn finish(mut self) -> u64 {
        self.v2 ^= 0xff;
        self.round();
        self.round();
        self.round();
        self.v0 ^ self.v1 ^ self.v2 ^ self.v3
    }
}

/// Returns the hash of `bytes` under `key`.
#[inline]
pub(crate) fn hash(key: [u64; 2], bytes: &[u8]) -> u64 {
    let mut state = State::new(key);
    let (words, rest) = bytes.as_chunks();
    for word in words {
        state.compress(u64::from_le_bytes(*word));
    }
    state.compress(last_word(bytes, rest));
    state.finish()
}

/// Returns the hash of the ten bytes of these numbers, the lowest byte first. A caller that has
/// numbers need not store their bytes.
#[inline]
pub(crate) fn hash_ten_bytes(key: [u64; 2], (word, rest): (u64, u16)) -> u64 {
    let mut state = State::new(key);
    state.compress(word);
    state.compress(u64::from(rest) | 10 << 56);
    state.finish()
}

/// Returns the last word: the bytes of `rest`, at most seven, and the length's lowest byte above
/// them.
#[inline]
fn last_word(bytes: &[u8], rest: &[u8]) -> u64 {
    let rest = match bytes.last_chunk() {
        // One load: the last eight bytes without those before `rest`. No shift by 64 bits.
        Some(last) => (u64::from_le_bytes(*last) >> 8) >> (8 * (7 - rest.len())),
        None => rest.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte)),
    };
    rest | (bytes.len() as u64) << 56
}

#[cfg(test)]
mod tests {
    use siphasher::sip::SipHasher13;

    #[test]
    fn hash_of_two_numbers_is_that_of_their_bytes() {
        let (word, rest) = (0x0706_0504_0302_0100, 0x0908);
        let bytes: [u8; 10] = core::array::from_fn(|index| index.to_le_bytes()[0]);
        for key in [[0, 0], [7, u64::MAX]] {
            assert_eq!(super::hash_ten_bytes(key, (word, rest)), super::hash(key, &bytes));
        }
    }

    #[test]
    fn hashes_of_every_length_are_those_of_siphasher() {
        let bytes: [u8; 300] = core::array::from_fn(|index| (index * 37 + 11).to_le_bytes()[0]);
        for len in 0..=bytes.len() {
            for key in [[0, 0], [7, u64::MAX], [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908]] {
                let expected = SipHasher13::new_with_keys(key[0], key[1]).hash(&bytes[..len]);
                assert_eq!(super::hash(key, &bytes[..len]), expected, "{len} bytes");
            }
        }
    }
}
