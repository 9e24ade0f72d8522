//! All chance in the sandbox: hashes of the seed and of what is asked, the same on every machine.

/// FNV-1a over the text, finished by [`mix`]: tells a million tokens apart, guards nothing.
pub(super) fn hash(text: &str) -> u64 {
    let fnv = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    mix(fnv, 0)
}

/// The finish of splitmix64 over two words. <https://prng.di.unimi.it/splitmix64.c>
pub(super) fn mix(a: u64, b: u64) -> u64 {
    let mut word = a.wrapping_add(b.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// An id such as Meta's `fbtrace_id`: `length` characters that begin with `A`.
pub(super) fn trace_id(from: u64, length: usize) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
    let mut id = String::with_capacity(length);
    id.push('A');
    for place in 1..length {
        let word = mix(from, place as u64);
        id.push(char::from(LETTERS[(word % 64) as usize]));
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_is_the_same_on_every_machine() {
        assert_eq!(trace_id(hash("EAA-ok-1"), 23), trace_id(hash("EAA-ok-1"), 23));
        assert_ne!(hash("EAA-ok-1"), hash("EAA-ok-2"));
        assert_eq!(trace_id(7, 23).len(), 23);
    }
}
