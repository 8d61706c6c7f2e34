//! What a server uses: resident memory under eight producers, and memory and CPU with a thousand idle
//! partitions.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::server::Server;
use crate::{Load, drive};

/// Measures and prints.
pub async fn run(dir: Option<&Path>, seconds: u64) -> Result<()> {
    let dir = match dir {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    let data = tempfile::tempdir_in(dir.path())?;
    let server = Server::start(data.path())?;
    let load = Load {
        brokers: server.address.clone(),
        topic: "load".to_owned(),
        partitions: 8,
        record_bytes: 1024,
        batch_bytes: 256 * 1024,
        bytes: 4 << 30,
        clients: 8,
        rate: None,
        count: 0,
    };
    let outcome = drive::produce(&load).await?;
    println!("8 producers: {outcome}");
    println!("  peak resident {:.0} MiB", mib(server.memory("VmHWM")?));
    drop(server);

    let data = tempfile::tempdir_in(dir.path())?;
    let server = Server::start(data.path())?;
    let idle = Load {
        brokers: server.address.clone(),
        partitions: 1_000,
        ..load
    };
    drive::ensure_topic(&idle).await?;
    let before = server.cpu()?;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let share = (server.cpu()? - before).as_secs_f64() / seconds as f64;
    println!(
        "1000 idle partitions: resident {:.0} MiB",
        mib(server.memory("VmRSS")?)
    );
    println!("  {:.2} % of one core over {seconds} s", share * 100.0);
    Ok(())
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
