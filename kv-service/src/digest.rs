//! A fixed hash of a logical state, so that replicas can be compared.
//!
//! It finds differences that come from bugs; it protects against nobody who wants to deceive.

/// 64-bit FNV-1a. The same on every machine and in every build, which the hashers of `std` do not
/// promise. Every variable part goes in behind its length, so that two states that differ never
/// feed the same bytes.
#[derive(Clone, Debug)]
pub(crate) struct Digest(u64);

impl Digest {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;

    pub(crate) fn new() -> Self {
        Self(Self::OFFSET)
    }

    pub(crate) fn number(&mut self, value: u64) {
        self.raw(&value.to_le_bytes());
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.raw(bytes);
    }

    pub(crate) fn finish(&self) -> u64 {
        self.0
    }

    fn raw(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(Self::PRIME);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_fnv_1a() {
        // Vectors from the authors' page.
        for (text, expected) in [
            ("", 0xcbf2_9ce4_8422_2325),
            ("a", 0xaf63_dc4c_8601_ec8c),
            ("foobar", 0x8594_4171_f739_67e8),
        ] {
            let mut digest = Digest::new();
            digest.raw(text.as_bytes());
            assert_eq!(digest.finish(), expected, "{text}");
        }
    }

    #[test]
    fn lengths_keep_neighbours_apart() {
        let of = |parts: [&str; 2]| {
            let mut digest = Digest::new();
            parts.iter().for_each(|part| digest.bytes(part.as_bytes()));
            digest.finish()
        };
        assert_ne!(of(["ab", "c"]), of(["a", "bc"]));
    }
}
