//! Batches that are not what they say: Produce refuses them with the code and reason of the schema, and
//! nothing of them is appended.

use varve_record::{Compression, compress, crc};

use crate::bad_produce::{all_refused, batch, encoded, topic};
use crate::support::{Code, run, shared};

/// Writes the checksum again after a change, so that the change is what is judged.
fn resealed(mut batch: Vec<u8>, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    change(&mut batch);
    let sum = crc::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&sum.to_be_bytes());
    batch
}

/// A small batch that claims one record and unpacks to `bytes` zeros.
fn bomb(codec: Compression, bytes: usize) -> Vec<u8> {
    let mut packed = batch(&["x"], Compression::None, None);
    packed.truncate(61);
    compress::compress(codec, None, &vec![0; bytes], &mut packed).unwrap();
    let length = i32::try_from(packed.len() - 12).unwrap();
    resealed(packed, |b| {
        b[8..12].copy_from_slice(&length.to_be_bytes());
        b[22] = codec as u8;
    })
}

#[test]
fn bad_crc() {
    run(async {
        let rpc = shared().await;
        let name = "p-crc";
        topic(&rpc, name, &[]).await;
        let good = || batch(&["a", "b"], Compression::None, None);
        let flipped = |at: usize| {
            let mut batch = good();
            batch[at] ^= 0x40;
            encoded(name, batch)
        };
        let last = good().len() - 1;
        let rows = [17, 20, 22, 30, 45, 60, 61, last].map(|at| {
            (
                "flipped bit",
                flipped(at),
                Code::InvalidArgument,
                "CORRUPT_BATCH",
            )
        });
        all_refused(&rpc, name, rows.to_vec()).await;
        rpc.produce(encoded(name, good())).await.unwrap();
        assert_eq!(rpc.values(name, 0).await, ["first", "a", "b"]);
    });
}

#[test]
fn wrong_batch_count() {
    run(async {
        let rpc = shared().await;
        let name = "p-count";
        topic(&rpc, name, &[]).await;
        let good = || batch(&["a", "b"], Compression::None, None);
        let two = [good(), good()].concat();
        let with = |at: usize, bytes: &[u8]| {
            let bytes = bytes.to_vec();
            resealed(good(), move |b| {
                b[at..at + bytes.len()].copy_from_slice(&bytes)
            })
        };
        let short = good()[..40].to_vec();
        let cut = good()[..good().len() - 1].to_vec();
        let long = [good(), vec![0]].concat();
        let rows: Vec<(&str, Vec<u8>)> = vec![
            ("two batches in one", two),
            ("no bytes", Vec::new()),
            ("half a header", short),
            ("a byte short", cut),
            ("a byte more", long),
            ("count 3", with(57, &3_i32.to_be_bytes())),
            ("count 1", with(57, &1_i32.to_be_bytes())),
            ("count 0", with(57, &0_i32.to_be_bytes())),
            ("count -1", with(57, &(-1_i32).to_be_bytes())),
            ("last offset delta 5", with(23, &5_i32.to_be_bytes())),
            ("largest time too small", with(35, &0_i64.to_be_bytes())),
            ("length negative", {
                let mut b = good();
                b[8..12].copy_from_slice(&(-5_i32).to_be_bytes());
                b
            }),
            ("length i32::MAX", {
                let mut b = good();
                b[8..12].copy_from_slice(&i32::MAX.to_be_bytes());
                b
            }),
            ("control batch", with(21, &0x20_i16.to_be_bytes())),
            ("transactional batch", with(21, &0x10_i16.to_be_bytes())),
            ("unknown codec 7", with(21, &7_i16.to_be_bytes())),
            ("unknown attribute", with(21, &0x4000_i16.to_be_bytes())),
            ("gzip that is none", with(21, &1_i16.to_be_bytes())),
            ("zstd that is none", with(21, &4_i16.to_be_bytes())),
            ("lz4 that is none", with(21, &3_i16.to_be_bytes())),
            ("snappy that is none", with(21, &2_i16.to_be_bytes())),
            ("magic 1", {
                let mut b = good();
                b[16] = 1;
                b
            }),
        ];
        let rows = rows
            .into_iter()
            .map(|(what, data)| {
                (
                    what,
                    encoded(name, data),
                    Code::InvalidArgument,
                    "CORRUPT_BATCH",
                )
            })
            .collect();
        all_refused(&rpc, name, rows).await;
    });
}

#[test]
fn compressed_batches_that_unpack_to_too_much() {
    run(async {
        let rpc = shared().await;
        let name = "p-bomb";
        topic(&rpc, name, &[]).await;
        for codec in [Compression::Gzip, Compression::Zstd, Compression::Lz4] {
            let bomb = bomb(codec, (64 << 20) + 1);
            assert!(bomb.len() < 1 << 20, "{codec} packs zeros well");
            let row = (
                "bomb",
                encoded(name, bomb),
                Code::InvalidArgument,
                "BATCH_TOO_LARGE",
            );
            all_refused(&rpc, name, vec![row]).await;
        }
        // Within the bound zeros are looked at, and are no records.
        let row = (
            "zeros",
            encoded(name, bomb(Compression::Zstd, 1 << 20)),
            Code::InvalidArgument,
            "CORRUPT_BATCH",
        );
        all_refused(&rpc, name, vec![row]).await;
    });
}
