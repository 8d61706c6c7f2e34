//! What this machine can do at most, with nothing of the product in the way.
//!
//! Produce: batches over one loopback TCP connection, CRC-32C of each, one writer thread that `pwrite`s
//! into one file per partition and `fdatasync`s the dirty files once per group, an acknowledgement after
//! the flush. Fetch: a file to a loopback TCP connection by `sendfile` and by `pread` + `write`. Sync: one
//! small append and `fdatasync` at a time.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use crc_fast::{CrcAlgorithm, checksum};
use hdrhistogram::Histogram;

use crate::stats;

/// Bytes of acknowledged batches one group holds at most.
const GROUP_BYTES: usize = 4 * 1024 * 1024;

/// How to measure the produce floor.
#[derive(Debug, Clone, Copy)]
pub struct ProduceFloor {
    /// Files written to.
    pub partitions: usize,
    /// Bytes of one batch.
    pub batch_bytes: usize,
    /// Bytes sent in all.
    pub total_bytes: usize,
    /// Bytes sent and not acknowledged.
    pub in_flight_bytes: usize,
    /// Flush before acknowledging.
    pub fsync: bool,
}

struct Arrived {
    partition: usize,
    crc: u64,
    bytes: Vec<u8>,
}

impl ProduceFloor {
    /// Runs once in `dir` and returns bytes per second.
    ///
    /// # Errors
    /// Any I/O error of the machine.
    pub fn run(&self, dir: &Path) -> Result<f64> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let files: Vec<File> = (0..self.partitions)
            .map(|p| File::create(dir.join(format!("floor-{p}.log"))))
            .collect::<std::io::Result<_>>()?;
        let floor = *self;
        let server = std::thread::spawn(move || floor.serve(&listener, files));
        let started = Instant::now();
        self.send(address)?;
        let took = started.elapsed();
        server
            .join()
            .map_err(|_| anyhow::anyhow!("floor server panicked"))??;
        for p in 0..self.partitions {
            std::fs::remove_file(dir.join(format!("floor-{p}.log")))?;
        }
        Ok(self.total_bytes as f64 / took.as_secs_f64())
    }

    fn serve(self, listener: &TcpListener, files: Vec<File>) -> Result<()> {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let acks = stream.try_clone()?;
        let (to_writer, batches) = mpsc::sync_channel::<Arrived>(4096);
        let (recycle, recycled) = mpsc::channel::<Vec<u8>>();
        let writer = std::thread::spawn(move || self.write(&batches, &recycle, &files, acks));
        let batches = self.total_bytes / self.batch_bytes;
        for _ in 0..batches {
            let mut head = [0u8; 4];
            stream.read_exact(&mut head)?;
            let mut bytes = recycled
                .try_recv()
                .unwrap_or_else(|_| vec![0; self.batch_bytes]);
            stream.read_exact(&mut bytes)?;
            let crc = checksum(CrcAlgorithm::Crc32Iscsi, &bytes);
            let partition = u32::from_le_bytes(head) as usize;
            if to_writer
                .send(Arrived {
                    partition,
                    crc,
                    bytes,
                })
                .is_err()
            {
                break;
            }
        }
        drop(to_writer);
        writer
            .join()
            .map_err(|_| anyhow::anyhow!("floor writer panicked"))?
    }

    fn write(
        &self,
        batches: &mpsc::Receiver<Arrived>,
        recycle: &mpsc::Sender<Vec<u8>>,
        files: &[File],
        mut acks: TcpStream,
    ) -> Result<()> {
        let mut ends = vec![0u64; files.len()];
        let mut crcs = 0u64;
        while let Ok(first) = batches.recv() {
            let mut group = VecDeque::from([first]);
            let mut bytes = self.batch_bytes;
            while bytes < GROUP_BYTES
                && let Ok(next) = batches.try_recv()
            {
                bytes += self.batch_bytes;
                group.push_back(next);
            }
            let mut dirty = vec![false; files.len()];
            let count = group.len();
            for Arrived {
                partition,
                crc,
                bytes,
            } in group
            {
                files[partition].write_all_at(&bytes, ends[partition])?;
                ends[partition] += bytes.len() as u64;
                dirty[partition] = true;
                crcs ^= crc;
                let _ = recycle.send(bytes);
            }
            if self.fsync {
                for (file, _) in files.iter().zip(&dirty).filter(|(_, d)| **d) {
                    file.sync_data()?;
                }
            }
            acks.write_all(&u32::try_from(count)?.to_le_bytes())?;
        }
        std::hint::black_box(crcs);
        Ok(())
    }

    fn send(&self, address: std::net::SocketAddr) -> Result<()> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let mut acks = stream.try_clone()?;
        let batches = self.total_bytes / self.batch_bytes;
        let window = (self.in_flight_bytes / self.batch_bytes).max(1);
        let (credit, credits) = mpsc::channel::<usize>();
        let reader = std::thread::spawn(move || -> Result<()> {
            let mut acked = 0;
            while acked < batches {
                let mut count = [0u8; 4];
                acks.read_exact(&mut count)
                    .context("floor acknowledgement")?;
                let count = u32::from_le_bytes(count) as usize;
                acked += count;
                let _ = credit.send(count);
            }
            ensure!(
                acked == batches,
                "acknowledged {acked} of {batches} batches"
            );
            Ok(())
        });
        let mut message = vec![0x5au8; 4 + self.batch_bytes];
        let mut open = window;
        for n in 0..batches {
            while open == 0 {
                open += credits.recv()?;
            }
            open -= 1;
            message[..4].copy_from_slice(&u32::try_from(n % self.partitions)?.to_le_bytes());
            stream.write_all(&message)?;
        }
        reader
            .join()
            .map_err(|_| anyhow::anyhow!("floor client panicked"))?
    }
}

/// One append of `bytes` and one `fdatasync` at a time: what an acknowledgement must wait for.
///
/// # Errors
/// Any I/O error of the machine.
pub fn sync_latency(dir: &Path, bytes: usize, count: usize) -> Result<Histogram<u64>> {
    let path = dir.join("floor-sync.log");
    let file = File::create(&path)?;
    let data = vec![0xa5u8; bytes];
    let mut histogram = stats::latencies();
    for n in 0..count {
        let started = Instant::now();
        file.write_all_at(&data, (n * bytes) as u64)?;
        file.sync_data()?;
        stats::record(&mut histogram, started.elapsed());
    }
    std::fs::remove_file(path)?;
    Ok(histogram)
}

/// How the fetch floor moves bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchBy {
    /// `sendfile`: the kernel copies from its cache to the socket.
    Sendfile,
    /// `pread` into a buffer and `write` it.
    PreadWrite,
}

/// Sends a hot file of `file_bytes` over loopback until `total_bytes` have arrived, `chunk` at a time;
/// returns bytes per second.
///
/// # Errors
/// Any I/O error of the machine.
pub fn fetch(
    dir: &Path,
    by: FetchBy,
    file_bytes: usize,
    total_bytes: usize,
    chunk: usize,
) -> Result<f64> {
    let path = dir.join("floor-fetch.log");
    let mut file = File::create_new(&path)?;
    let block = vec![0x3cu8; 1 << 20];
    for _ in 0..file_bytes / block.len() {
        file.write_all(&block)?;
    }
    let file = File::open(&path)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let sender = std::thread::spawn(move || -> Result<()> {
        let (mut stream, _) = listener.accept()?;
        let mut buffer = vec![0u8; chunk];
        let mut sent = 0;
        while sent < total_bytes {
            let at = (sent % file_bytes) as u64;
            let want = chunk
                .min(total_bytes - sent)
                .min(file_bytes - sent % file_bytes);
            match by {
                FetchBy::PreadWrite => {
                    file.read_exact_at(&mut buffer[..want], at)?;
                    stream.write_all(&buffer[..want])?;
                }
                FetchBy::Sendfile => {
                    let mut offset = at;
                    while offset < at + want as u64 {
                        let left = (at + want as u64 - offset) as usize;
                        rustix::fs::sendfile(&stream, &file, Some(&mut offset), left)?;
                    }
                }
            }
            sent += want;
        }
        Ok(())
    });
    let mut stream = TcpStream::connect(address)?;
    let mut buffer = vec![0u8; 1 << 20];
    let started = Instant::now();
    let mut received = 0;
    while received < total_bytes {
        let n = stream.read(&mut buffer)?;
        ensure!(n > 0, "the floor's sender closed early");
        received += n;
    }
    let took: Duration = started.elapsed();
    sender
        .join()
        .map_err(|_| anyhow::anyhow!("floor sender panicked"))??;
    std::fs::remove_file(path)?;
    Ok(total_bytes as f64 / took.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_floor_runs_and_cleans_up() {
        let dir = tempfile::tempdir().unwrap();
        let floor = ProduceFloor {
            partitions: 2,
            batch_bytes: 4096,
            total_bytes: 64 * 4096,
            in_flight_bytes: 16 * 4096,
            fsync: true,
        };
        assert!(floor.run(dir.path()).unwrap() > 0.0);
        assert_eq!(sync_latency(dir.path(), 1024, 10).unwrap().len(), 10);
        for by in [FetchBy::Sendfile, FetchBy::PreadWrite] {
            assert!(fetch(dir.path(), by, 2 << 20, 5 << 20, 1 << 20).unwrap() > 0.0);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
