//! A hash that never changes: clients of different versions, on different machines, agree on it.
//!
//! The hashers of the standard library promise no such thing. This one multiplies to 128 bits and folds the halves,
//! as wyhash does; it is meant for spreading, not for keeping secrets.

/// Arbitrary odd bits: the fractional part of the golden ratio, and of pi.
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
const STEP: u64 = 0x243f_6a88_85a3_08d3;

/// The digest of some bytes.
pub(super) fn of(bytes: &[u8]) -> u64 {
    let mut words = bytes.chunks_exact(8);
    let len = bytes.len() as u64;
    let mut state = len;
    for word in &mut words {
        state = mix(state, word.iter().rev().fold(0, |all, byte| all << 8 | u64::from(*byte)));
    }
    let rest = words.remainder().iter().rev().fold(0, |all, byte| all << 8 | u64::from(*byte));
    mix(mix(state, rest), len)
}

/// Two digests made one.
pub(super) fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a ^ SEED) * u128::from(b ^ STEP);
    #[allow(clippy::cast_possible_truncation, reason = "the halves are what is wanted")]
    let (high, low) = ((product >> 64) as u64, product as u64);
    high ^ low
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_changes() {
        assert_eq!(of(b""), 0x5ecc_b6bd_ad64_20b2);
        assert_eq!(of(b"cart/1"), 0xf3a2_79f8_e5d1_a227);
        assert_eq!(of(b"a longer key than fits one word"), 0x7d88_4eeb_755c_0498);
    }

    #[test]
    fn every_bit_of_the_input_moves_half_of_the_output() {
        let base = *b"0123456789";
        for bit in 0..8 * base.len() {
            let mut other = base;
            other[bit / 8] ^= 1 << (bit % 8);
            let moved = (of(&base) ^ of(&other)).count_ones();
            assert!((12..=52).contains(&moved), "bit {bit} moves {moved}");
        }
    }
}
