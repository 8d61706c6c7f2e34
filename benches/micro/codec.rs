//! Record batches: what encoding, verifying and reading one costs, per codec and record size. Throughput
//! counts values only, so that the codecs compare.

use std::hint::black_box;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, BenchmarkId, Criterion, Throughput};
use varve_record::{BatchBuilder, Compression, StoredBatch, Unverified, VerifyLimits};
use varve_types::{LeaderEpoch, Offset};

/// Values of one batch, together.
const BATCH_BYTES: usize = 64 * 1024;
const CODECS: [Compression; 3] = [Compression::None, Compression::Lz4, Compression::Zstd];

/// Values that compress about as well as JSON does.
fn values(size: usize) -> Vec<Vec<u8>> {
    let count = BATCH_BYTES / size;
    let value = |n: usize| {
        let mut value = Vec::with_capacity(size + 64);
        while value.len() < size {
            let word = n
                .wrapping_mul(2_654_435_761)
                .wrapping_add(value.len() * 40_503)
                % 100_000;
            value.extend_from_slice(format!("{{\"id\":{word},\"state\":\"open\"}}").as_bytes());
        }
        value.truncate(size);
        value
    };
    (0..count).map(value).collect()
}

fn encode(codec: Compression, values: &[Vec<u8>]) -> Result<Bytes> {
    let mut builder = BatchBuilder::with_capacity(codec, None, BATCH_BYTES * 5 / 4);
    for (n, value) in values.iter().enumerate() {
        builder.append(1_700_000_000_000 + n as i64, None, Some(value), &[])?;
    }
    Ok(builder.build()?)
}

fn verify(bytes: Bytes) -> Result<varve_record::Batch> {
    Ok(Unverified(bytes).verify(&VerifyLimits::default())?)
}

fn read(stored: &StoredBatch) -> Result<usize> {
    let (mut records, mut bytes) = (stored.records()?, 0);
    while let Some(record) = records.next_ref() {
        bytes += record?.value.map_or(0, <[u8]>::len);
    }
    Ok(bytes)
}

fn one(group: &mut BenchmarkGroup<'_, WallTime>, codec: Compression, size: usize) -> Result<()> {
    let values = values(size);
    group.throughput(Throughput::Bytes((values.len() * size) as u64));
    let id = |what: &str| BenchmarkId::new(what, format!("{codec}/{size}"));
    let encoded = encode(codec, &values)?;
    let sequenced = verify(encoded.clone())?.sequence(Offset::ZERO, LeaderEpoch::ZERO);
    let stored = StoredBatch::split_from(&sequenced.to_bytes())?;
    anyhow::ensure!(
        read(&stored)? == values.len() * size,
        "all values come back"
    );
    group.bench_function(id("encode"), |b| {
        b.iter(|| encode(codec, black_box(&values)))
    });
    group.bench_function(id("verify"), |b| {
        b.iter_batched(|| encoded.clone(), verify, BatchSize::SmallInput);
    });
    group.bench_function(id("check crc"), |b| {
        b.iter(|| black_box(&stored).verify_crc())
    });
    group.bench_function(id("read"), |b| b.iter(|| read(black_box(&stored))));
    Ok(())
}

fn main() -> Result<()> {
    varve_benches::tell_profile();
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("codec");
    for codec in CODECS {
        for size in [100, 1024] {
            one(&mut group, codec, size)
                .with_context(|| format!("{codec} with records of {size} bytes"))?;
        }
    }
    group.finish();
    criterion.final_summary();
    Ok(())
}
