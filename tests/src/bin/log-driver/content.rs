//! What batches contain, as a pure function, and the numbers that choose operations.

use varve_record::{BatchBuilder, Compression, Sequenced};
use varve_types::{LeaderEpoch, Offset, PartitionId, TopicId};

use varve_storage::LogIdentity;

/// First timestamp; offsets are added, so that time rises with them.
pub const NOW: i64 = 1_700_000_000_000;

/// Whose log a partition's is.
pub fn identity(partition: u32) -> LogIdentity {
    LogIdentity {
        topic_id: TopicId(0x7661_7276_655f_7077_7231_0000_0000_0000),
        partition: PartitionId(i32::try_from(partition).unwrap()),
    }
}

/// A small generator (splitmix64): the same numbers on every machine.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`, which is not 0.
    pub const fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// A batch as a line describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Described {
    pub base: i64,
    /// Counts all writes of all runs, so that what is written twice at one offset differs.
    pub generation: u64,
    pub epoch: i32,
    pub records: u32,
    /// Bytes of each record's value.
    pub size: u32,
}

impl Described {
    /// Offset after its last record.
    pub const fn next(&self) -> i64 {
        self.base + self.records as i64
    }

    /// The batch.
    pub fn build(&self, seed: u64, partition: u32) -> Sequenced {
        let place = (u64::from(partition) << 48) ^ (self.base.cast_unsigned() << 16);
        let mut random = Random::new(seed ^ place ^ self.generation.rotate_left(40));
        let mut builder = BatchBuilder::new(Compression::None, None);
        for n in 0..self.records {
            let mut value = Vec::with_capacity(self.size as usize + 8);
            while value.len() < self.size as usize {
                value.extend_from_slice(&random.next().to_le_bytes());
            }
            value.truncate(self.size as usize);
            let time = NOW + self.base + i64::from(n);
            builder.append(time, None, Some(&value), &[]).unwrap();
        }
        let base = Offset::new(self.base).unwrap();
        let epoch = LeaderEpoch::new(self.epoch).unwrap();
        builder.build_batch().unwrap().sequence(base, epoch)
    }

    /// Its bytes in the log.
    pub fn bytes(&self, seed: u64, partition: u32) -> Vec<u8> {
        self.build(seed, partition).to_bytes().to_vec()
    }
}
