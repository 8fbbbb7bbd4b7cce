//! SHA-256 as FIPS 180-4 specifies it, and HMAC as RFC 2104 does.
//!
//! The constants of SHA-256 are computed from their definitions on every call, instead of copied
//! from a table. That is slow, but errors in a table cannot occur.

/// Returns the first `count` prime numbers.
fn primes(count: usize) -> Vec<u128> {
    let mut primes: Vec<u128> = Vec::new();
    let mut candidate = 2;
    while primes.len() < count {
        if primes.iter().all(|prime| candidate % prime != 0) {
            primes.push(candidate);
        }
        candidate += 1;
    }
    primes
}

/// Returns the first 32 bits of the fractional part of the `degree`th root of `value`.
///
/// The integer root of `value` × 2^(32 × `degree`) is the root of `value` × 2^32, rounded down. The
/// fractional bits are its low 32 bits.
fn root_fraction(value: u128, degree: u32) -> u32 {
    let scaled = value << (32 * degree);
    // The root has fewer than 38 bits: that of `value` is below 2^6. Each bit is tried from the
    // highest.
    let mut root: u128 = 0;
    for bit in (0..38).rev() {
        let larger = root + (1 << bit);
        if larger.pow(degree) <= scaled {
            root = larger;
        }
    }
    u32::try_from(root % (1 << 32)).expect("a remainder of 2^32")
}

/// Returns the SHA-256 digest of a message (FIPS 180-4, 6.2).
#[must_use]
pub fn sha256(message: &[u8]) -> [u8; 32] {
    // 4.2.2 and 5.3.3: the fractional parts of roots of the first primes.
    let k: Vec<u32> = primes(64).into_iter().map(|prime| root_fraction(prime, 3)).collect();
    let mut hash: Vec<u32> = primes(8).into_iter().map(|prime| root_fraction(prime, 2)).collect();

    // 5.1.1: a one bit, zeros, and the length in bits as 64 bits.
    let mut padded = message.to_vec();
    padded.push(0x80);
    while padded.len() % 64 != 56 {
        padded.push(0);
    }
    let length_bits = u64::try_from(message.len()).expect("a length") * 8;
    padded.extend(length_bits.to_be_bytes());

    for block in padded.chunks(64) {
        // 6.2.2, step 1: the message schedule.
        let mut w: Vec<u32> = Vec::new();
        for word in block.chunks(4) {
            w.push(u32::from_be_bytes([word[0], word[1], word[2], word[3]]));
        }
        for t in 16..64 {
            let x = w[t - 15];
            let small_sigma0 = x.rotate_right(7) ^ x.rotate_right(18) ^ (x >> 3);
            let x = w[t - 2];
            let small_sigma1 = x.rotate_right(17) ^ x.rotate_right(19) ^ (x >> 10);
            w.push(sum(&[small_sigma1, w[t - 7], small_sigma0, w[t - 16]]));
        }

        // Steps 2 and 3: 64 rounds on a, b, …, h.
        let mut v = hash.clone();
        for t in 0..64 {
            let [a, b, c, d, e, f, g, h] = v[..] else { unreachable!("eight words") };
            let big_sigma1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
            let choose = (e & f) ^ (!e & g);
            let t1 = sum(&[h, big_sigma1, choose, k[t], w[t]]);
            let big_sigma0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
            let majority = (a & b) ^ (a & c) ^ (b & c);
            let t2 = sum(&[big_sigma0, majority]);
            v = vec![sum(&[t1, t2]), a, b, c, sum(&[d, t1]), e, f, g];
        }

        // Step 4.
        for (word, round) in hash.iter_mut().zip(v) {
            *word = sum(&[*word, round]);
        }
    }

    let bytes: Vec<u8> = hash.into_iter().flat_map(u32::to_be_bytes).collect();
    bytes.try_into().expect("eight words are 32 bytes")
}

/// Returns the sum modulo 2^32.
fn sum(words: &[u32]) -> u32 {
    words.iter().fold(0, |total, word| total.wrapping_add(*word))
}

/// Returns the HMAC-SHA-256 tag of a text (RFC 2104): H(K xor opad, H(K xor ipad, text)).
#[must_use]
pub fn hmac_sha256(key: &[u8], text: &[u8]) -> [u8; 32] {
    let mut block = if key.len() > 64 { sha256(key).to_vec() } else { key.to_vec() };
    block.resize(64, 0);
    let mut inner: Vec<u8> = block.iter().map(|byte| byte ^ 0x36).collect();
    inner.extend(text);
    let mut outer: Vec<u8> = block.iter().map(|byte| byte ^ 0x5c).collect();
    outer.extend(sha256(&inner));
    sha256(&outer)
}

/// Returns the MAC that a gate stores of an API key: the first 128 bits of the HMAC of the whole
/// key under the pepper, the server's HMAC key.
#[must_use]
pub fn record_mac(pepper: &[u8], key: &[u8]) -> [u8; 16] {
    let mac = hmac_sha256(pepper, key);
    mac[..16].try_into().expect("16 of 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn constants_match_fips_180_4() {
        assert_eq!(root_fraction(2, 2), 0x6a09_e667);
        assert_eq!(root_fraction(19, 2), 0x5be0_cd19);
        assert_eq!(root_fraction(2, 3), 0x428a_2f98);
        assert_eq!(primes(64)[63], 311);
        assert_eq!(root_fraction(311, 3), 0xc671_78f2);
    }

    #[test]
    fn sha256_matches_known_values() {
        for (message, digest) in [
            ("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            ("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            (
                "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
                "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
            ),
        ] {
            assert_eq!(hex(&sha256(message.as_bytes())), digest);
        }
    }

    /// Compares all seven cases of RFC 4231 with the results that are printed there. The vector
    /// file has the same cases with the model's results.
    #[test]
    fn hmac_matches_known_values() {
        for (key, text, mac) in [
            (
                vec![0x0b; 20],
                b"Hi There".to_vec(),
                "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
            ),
            (
                b"Jefe".to_vec(),
                b"what do ya want for nothing?".to_vec(),
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                vec![0xaa; 20],
                vec![0xdd; 50],
                "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
            ),
            (
                (1..=25).collect(),
                vec![0xcd; 50],
                "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b",
            ),
            (vec![0x0c; 20], b"Test With Truncation".to_vec(), "a3b6167473100ee06e0c796c2955552b"),
            (
                vec![0xaa; 131],
                b"Test Using Larger Than Block-Size Key - Hash Key First".to_vec(),
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
            (
                vec![0xaa; 131],
                b"This is a test using a larger than block-size key and a larger than block-size data. \
                  The key needs to be hashed before being used by the HMAC algorithm."
                    .to_vec(),
                "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
            ),
        ] {
            let tag = hex(&hmac_sha256(&key, &text));
            assert_eq!(&tag[..mac.len()], mac);
        }
    }
}
