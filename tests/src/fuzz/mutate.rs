//! Seeded mutations for test runs without a fuzzer: flipped bits, overwritten numbers, cuts, repeats and
//! splices. The same seed gives the same bytes on every machine.

/// A small generator of pseudo-random numbers (SplitMix64).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The sequence of `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`; 0 when `end` is 0.
    pub const fn below(&mut self, end: usize) -> usize {
        if end == 0 {
            0
        } else {
            (self.next() % end as u64) as usize
        }
    }
}

/// Numbers at which parsers go wrong.
const EDGES: [u64; 12] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0x8000,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0x7fff_ffff_ffff_ffff,
    u64::MAX,
];

/// `bytes` with one to four changes.
#[must_use]
pub fn mutate(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for _ in 0..=random.below(4) {
        change(&mut out, random);
    }
    out
}

fn change(out: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(out.len());
    match random.below(7) {
        0 if !out.is_empty() => out[at] ^= 1 << random.below(8),
        1 if !out.is_empty() => out[at] = random.next() as u8,
        2 | 3 => {
            let value = EDGES[random.below(EDGES.len())];
            let width = 1 << random.below(4);
            let mut edge = value.to_le_bytes()[..width].to_vec();
            if random.below(2) == 0 {
                edge.reverse();
            }
            for (i, byte) in edge.into_iter().enumerate() {
                if let Some(place) = out.get_mut(at + i) {
                    *place = byte;
                }
            }
        }
        4 => out.truncate(at),
        5 => {
            let end = (at + 1 + random.below(64)).min(out.len());
            let part = out[at..end].to_vec();
            let to = random.below(out.len());
            out.splice(to..to, part);
        }
        _ => {
            let end = (at + random.below(16)).min(out.len());
            out.drain(at..end);
        }
    }
}
