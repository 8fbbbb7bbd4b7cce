//! HMAC-SHA-256 of keys under a pepper, the server's secret, and its comparison in constant time.
//!
//! HMAC's inner and outer hash each begin with a block that depends on the pepper alone, so the
//! states after these blocks are computed once per pepper. The MAC of a key of Keytally's form then
//! takes one SHA-256 compression for each hash. On 64 bits, its block is laid out without a loop.
//! The function `hash` pads all other messages, and on smaller targets all. SAFETY.md says why the
//! crate `hmac` is used in tests only. RFC 2104 and RFC 4231.

use core::fmt;

use heapless::Vec;
use sha2::block_api::compress256;
use subtle::{Choice, ConstantTimeEq};
use zeroize::Zeroize;

use crate::bits::IS_64_BIT;
use crate::features::Feature;

/// The shortest pepper, in bytes.
pub const MIN_PEPPER_LEN: usize = 32;

/// The most peppers that are in use at a time.
pub const MAX_PEPPERS: usize = 4;

/// The most peppers that a list holds in this build.
pub(crate) const KEPT_PEPPERS: usize =
    if Feature::PepperRotation.is_included() { MAX_PEPPERS } else { 1 };

/// Bytes in a SHA-256 block.
const BLOCK_LEN: usize = 64;

/// Bytes in a digest.
const DIGEST_LEN: usize = 32;

/// The second of the outer hash's two blocks: room for the inner digest, then SHA-256's padding.
/// The first block is the outer pad.
///
/// It is a constant that is copied, so that its stores are as wide as the loads of the compression.
const OUTER_BLOCK: [u8; BLOCK_LEN] = {
    let mut block = [0; BLOCK_LEN];
    block[DIGEST_LEN] = 0x80;
    let bits = (8 * (BLOCK_LEN + DIGEST_LEN) as u64).to_be_bytes();
    let mut index = 0;
    while index < bits.len() {
        block[BLOCK_LEN - bits.len() + index] = bits[index];
        index += 1;
    }
    block
};

/// The state of SHA-256 between two blocks.
type State = [u32; 8];

/// The initial state of SHA-256, FIPS 180-4, 5.3.3.
const INITIAL: State = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// The server's HMAC secret, as the two hash states that depend on it.
///
/// Its memory is wiped when it is dropped. `Debug` shows nothing of it.
#[derive(Clone)]
pub struct Pepper {
    inner: State,
    outer: State,
    fingerprint: u64,
}

/// The error of a pepper with fewer than 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PepperTooShort {
    /// The length of the pepper in bytes.
    pub len: usize,
}

impl fmt::Display for PepperTooShort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the pepper has {} bytes; it must have at least {MIN_PEPPER_LEN}", self.len)
    }
}

impl core::error::Error for PepperTooShort {}

impl Pepper {
    /// The pepper of these bytes, which should be random.
    ///
    /// # Errors
    /// [`PepperTooShort`] if there are fewer than 32 bytes.
    pub fn new(bytes: &[u8]) -> Result<Self, PepperTooShort> {
        if bytes.len() < MIN_PEPPER_LEN {
            return Err(PepperTooShort { len: bytes.len() });
        }
        Ok(Self::from_bytes(bytes))
    }

    /// The pepper of these bytes, whatever their number.
    fn from_bytes(bytes: &[u8]) -> Self {
        let mut block = [0; BLOCK_LEN];
        match block.get_mut(..bytes.len()) {
            Some(start) => start.copy_from_slice(bytes),
            // HMAC replaces a secret that is longer than a block by its hash.
            None => block[..32].copy_from_slice(&to_bytes(&hash(&INITIAL, 0, bytes))),
        }
        let mut pepper =
            Self { inner: keyed(&block, 0x36), outer: keyed(&block, 0x5c), fingerprint: 0 };
        block.zeroize();
        pepper.fingerprint = pepper.mac(b"keytally pepper fingerprint").words()[0].max(1);
        pepper
    }

    /// Returns the HMAC-SHA-256 of `message`.
    pub fn mac(&self, message: &[u8]) -> Mac {
        self.mac_of(&Message::new(message))
    }

    /// Returns the HMAC-SHA-256 of a message that was laid out before.
    #[cfg_attr(target_pointer_width = "64", inline(always))]
    #[cfg_attr(not(target_pointer_width = "64"), inline)]
    pub(crate) fn mac_of(&self, message: &Message<'_>) -> Mac {
        if !IS_64_BIT {
            let digest = to_bytes(&hash(&self.inner, BLOCK_LEN, message.text));
            return Mac(hash(&self.outer, BLOCK_LEN, &digest));
        }
        let mut state = self.inner;
        if message.is_single {
            compress256(&mut state, core::slice::from_ref(&message.block.0));
        } else {
            state = hash(&self.inner, BLOCK_LEN, message.text);
        }
        let mut block = [OUTER_BLOCK];
        block[0][..DIGEST_LEN].copy_from_slice(&to_bytes(&state));
        state = self.outer;
        compress256(&mut state, &block);
        Mac(state)
    }

    /// Returns a number that identifies this pepper and reveals nothing else about it; never 0.
    pub(crate) fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}

impl fmt::Debug for Pepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pepper(…)")
    }
}

impl Drop for Pepper {
    fn drop(&mut self) {
        self.inner.zeroize();
        self.outer.zeroize();
    }
}

/// Up to four peppers, newest last. New keys use the newest.
#[derive(Clone, Debug)]
pub struct Peppers(pub(crate) Vec<Pepper, KEPT_PEPPERS>);

/// Why a list of peppers is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeppersError {
    /// One of the peppers is too short.
    TooShort(PepperTooShort),
    /// There is no pepper, or more than [`MAX_PEPPERS`].
    Count,
    /// One of the peppers is given twice.
    Repeated,
    /// This build leaves out the feature that more than one pepper needs.
    LeftOut(Feature),
}

impl fmt::Display for PeppersError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort(error) => error.fmt(f),
            Self::Count => write!(f, "give 1 to {MAX_PEPPERS} different peppers, newest last"),
            Self::Repeated => {
                f.write_str("the same pepper is given twice; give each once, newest last")
            }
            Self::LeftOut(feature) => feature.fmt(f),
        }
    }
}

impl core::error::Error for PeppersError {}

impl Peppers {
    /// The peppers of these bytes, newest last.
    ///
    /// # Errors
    /// [`PeppersError`] if there are none or too many, if one is too short, if one is repeated, or
    /// if this build has one pepper per gate and more are given.
    pub fn new<P: AsRef<[u8]>>(peppers: &[P]) -> Result<Self, PeppersError> {
        if peppers.len() > 1 && !Feature::PepperRotation.is_included() {
            return Err(PeppersError::LeftOut(Feature::PepperRotation));
        }
        let mut list = Vec::<Pepper, KEPT_PEPPERS>::new();
        for bytes in peppers {
            let pepper = Pepper::new(bytes.as_ref()).map_err(PeppersError::TooShort)?;
            if list.iter().any(|other| other.fingerprint() == pepper.fingerprint()) {
                return Err(PeppersError::Repeated);
            }
            list.push(pepper).map_err(|_| PeppersError::Count)?;
        }
        if list.is_empty() { Err(PeppersError::Count) } else { Ok(Self(list)) }
    }

    /// Returns the peppers, newest last.
    ///
    /// A program that needs secrets for another purpose derives them by [`Pepper::mac`] of a label.
    /// A label with a space cannot be the text of a key.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Pepper> {
        self.0.iter()
    }

    /// Returns the newest pepper, under which new keys are stored.
    pub(crate) fn newest(&self) -> &Pepper {
        // `new` rejects an empty list.
        &self.0[self.0.len() - 1]
    }

    /// Returns the pepper with this fingerprint.
    #[cfg_attr(target_pointer_width = "64", inline)]
    pub(crate) fn by_fingerprint(&self, fingerprint: u64) -> Option<&Pepper> {
        self.0.iter().find(|pepper| pepper.fingerprint() == fingerprint)
    }
}

/// A message, laid out as the second of the inner hash's two blocks. The first block is the inner
/// pad.
///
/// The block does not depend on the pepper. So a check lays it out before it reads the record that
/// names the pepper.
pub(crate) struct Message<'a> {
    text: &'a [u8],
    block: Block,
    /// Whether the block is complete: the message has 40 to 55 bytes. Keys of Keytally's form have
    /// 43 to 55.
    is_single: bool,
}

/// A block that is aligned for loads of 16 bytes, so that none spans two cache lines.
#[cfg_attr(target_pointer_width = "64", repr(align(16)))]
struct Block([u8; BLOCK_LEN]);

impl<'a> Message<'a> {
    #[cfg_attr(target_pointer_width = "64", inline(always))]
    #[cfg_attr(not(target_pointer_width = "64"), inline)]
    pub(crate) fn new(text: &'a [u8]) -> Self {
        let mut message = Self { text, block: Block([0; BLOCK_LEN]), is_single: false };
        message.is_single = IS_64_BIT && fill_block(&mut message.block.0, text).is_some();
        message
    }
}

/// Writes the second of the inner hash's two blocks: `message`, the end mark 0x80, and the length.
/// Returns `None` if the message does not have 40 to 55 bytes.
///
/// The end of the message is put together in registers, so that the block takes few stores. A load
/// that spans several stores stalls until all of them are done.
#[cfg_attr(target_pointer_width = "64", inline(always))]
fn fill_block(block: &mut [u8; BLOCK_LEN], message: &[u8]) -> Option<()> {
    const HALF: usize = BLOCK_LEN / 2;
    const LENGTH_LEN: usize = 8;
    if message.len() >= BLOCK_LEN - LENGTH_LEN {
        return None;
    }
    let (half, rest) = message.split_first_chunk::<HALF>()?;
    let last = u64::from_le_bytes(*rest.last_chunk()?);
    // The bytes of the message that follow the whole words, and the end mark.
    let taken = 8 * (rest.len() % 8);
    let end = last >> 8 >> (56 - taken) | 0x80 << taken;
    let (words, _) = rest.as_chunks();
    let rest = match words {
        [first] => [*first, end.to_le_bytes(), [0; 8]],
        [first, second] => [*first, *second, end.to_le_bytes()],
        _ => return None,
    };
    let length = ((BLOCK_LEN + message.len()) as u64 * 8).to_be_bytes();
    let (first_half, second_half) = block.split_first_chunk_mut::<HALF>()?;
    *first_half = *half;
    *second_half.first_chunk_mut::<24>()? = *rest.as_flattened().first_chunk()?;
    *second_half.last_chunk_mut()? = length;
    Some(())
}

/// Returns the SHA-256 state after the first block of the inner or outer hash: `secret` XOR `pad`.
fn keyed(secret: &[u8; BLOCK_LEN], pad: u8) -> State {
    let mut block = secret.map(|byte| byte ^ pad);
    let mut state = INITIAL;
    compress256(&mut state, &[block]);
    block.zeroize();
    state
}

/// Continues a SHA-256 hash with the whole `message`, and returns its final state. `state` is the
/// state after the first `before` bytes, a multiple of the block length.
///
/// Never inlined, so that checks of keys of Keytally's form do not reserve stack for its block.
#[inline(never)]
fn hash(keyed: &State, before: usize, message: &[u8]) -> State {
    let mut state = *keyed;
    let bits = (before as u64 + message.len() as u64) * 8;
    let (blocks, rest) = message.as_chunks::<BLOCK_LEN>();
    compress256(&mut state, blocks);
    let mut block = [0; BLOCK_LEN];
    block[..rest.len()].copy_from_slice(rest);
    block[rest.len()] = 0x80;
    if rest.len() >= BLOCK_LEN - 8 {
        compress256(&mut state, core::slice::from_ref(&block));
        block = [0; BLOCK_LEN];
    }
    if let Some(end) = block.last_chunk_mut() {
        *end = bits.to_be_bytes();
    }
    compress256(&mut state, core::slice::from_ref(&block));
    state
}

/// Returns the digest of a final state.
#[cfg_attr(target_pointer_width = "64", inline)]
fn to_bytes(state: &State) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (chunk, word) in bytes.chunks_exact_mut(4).zip(state) {
        chunk.copy_from_slice(&word.to_be_bytes());
    }
    bytes
}

/// An HMAC-SHA-256 of a key. It is compared in constant time, as a [`Tag`], and cannot be printed.
#[derive(Clone, Copy)]
pub struct Mac(State);

impl Mac {
    /// Returns all 32 bytes. A comparison of them with `==` would reveal through its time how many
    /// are right, so callers should compare the [`tag`](Self::tag) instead.
    pub fn to_bytes(&self) -> [u8; 32] {
        to_bytes(&self.0)
    }

    /// Returns the first 128 bits, which a record keeps.
    #[inline]
    pub fn tag(&self) -> Tag {
        let [first, second, ..] = self.words();
        Tag([first, second])
    }

    /// Returns the MAC as four words, each of eight bytes read big-endian.
    #[inline]
    pub(crate) fn words(&self) -> [u64; 4] {
        let word =
            |index: usize| u64::from(self.0[2 * index]) << 32 | u64::from(self.0[2 * index + 1]);
        [word(0), word(1), word(2), word(3)]
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mac(…)")
    }
}

/// The 128 bits of a MAC that a record keeps. They can be compared in constant time only.
#[derive(Clone, Copy)]
pub struct Tag(pub(crate) [u64; 2]);

impl Tag {
    /// The tag of these bytes: the first of an HMAC-SHA-256.
    pub(crate) fn from_bytes(bytes: [u8; 16]) -> Self {
        let (words, _) = bytes.as_chunks();
        Self(core::array::from_fn(|word| u64::from_be_bytes(words[word])))
    }

    /// Returns the first 16 bytes of the HMAC-SHA-256.
    pub(crate) fn to_bytes(self) -> [u8; 16] {
        let [first, second] = self.0.map(u64::to_be_bytes);
        core::array::from_fn(|byte| if byte < 8 { first[byte] } else { second[byte - 8] })
    }
}

impl ConstantTimeEq for Tag {
    /// Gathers the differences of all bits in one word, and compares that word with 0.
    #[inline]
    fn ct_eq(&self, other: &Self) -> Choice {
        let different = (self.0[0] ^ other.0[0]) | (self.0[1] ^ other.0[1]);
        different.ct_eq(&0)
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tag(…)")
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::format;

    use hmac::{Hmac, KeyInit, Mac as _};
    use proptest::prelude::*;
    use sha2::Sha256;

    use super::*;

    /// The HMAC-SHA-256 that the crate `hmac` computes.
    fn reference(key: &[u8], message: &[u8]) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
        mac.update(message);
        mac.finalize().into_bytes().into()
    }

    proptest! {
        #[test]
        fn mac_equals_that_of_the_crate_hmac(key in prop::collection::vec(any::<u8>(), 0..200), message in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(Pepper::from_bytes(&key).mac(&message).to_bytes(), reference(&key, &message));
        }
    }

    #[test]
    fn mac_is_right_at_every_length_around_a_block() {
        for len in 0..=130 {
            let message = [0xa5; 130];
            assert_eq!(
                Pepper::from_bytes(&[7; 32]).mac(&message[..len]).to_bytes(),
                reference(&[7; 32], &message[..len]),
                "{len}"
            );
        }
    }

    #[test]
    fn key_of_every_length_fits_a_single_block() {
        let fills = |len: usize| Message::new(&[0xa5; 64][..len]).is_single;
        // The shortest key has 43 characters: `p_e_` and a body of 39.
        for len in 43..=crate::key::MAX_KEY_LEN {
            assert!(fills(len), "{len}");
        }
        assert!(!fills(crate::key::MAX_KEY_LEN + 1));
    }

    #[test]
    fn tag_is_the_first_half_of_a_mac() {
        let mac = Pepper::from_bytes(&[1; 32]).mac(b"key");
        let bytes = mac.to_bytes();
        let words: [u64; 4] = core::array::from_fn(|word| {
            u64::from_be_bytes(bytes[8 * word..][..8].try_into().unwrap())
        });
        assert_eq!(mac.words(), words);
        assert_eq!(mac.tag().0, words[..2]);
    }

    #[test]
    fn pepper_below_32_bytes_is_rejected() {
        assert_eq!(Pepper::new(&[1; 31]).err(), Some(PepperTooShort { len: 31 }));
        assert!(Pepper::new(&[1; 32]).is_ok());
    }

    #[test]
    fn every_bit_of_a_tag_counts() {
        let tag = Pepper::from_bytes(&[1; 32]).mac(b"key").tag();
        assert!(bool::from(tag.ct_eq(&tag)));
        for bit in 0..128 {
            let mut other = tag;
            other.0[bit / 64] ^= 1 << (bit % 64);
            assert!(!bool::from(tag.ct_eq(&other)), "{bit}");
            // Differences in both halves do not cancel each other.
            other.0[1 - bit / 64] ^= 1 << (bit % 64);
            assert!(!bool::from(tag.ct_eq(&other)), "{bit}");
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let pepper = Pepper::from_bytes(&[1; 32]);
        assert_eq!(
            format!("{pepper:?} {:?} {:?}", pepper.mac(b""), pepper.mac(b"").tag()),
            "Pepper(…) Mac(…) Tag(…)"
        );
    }
}
