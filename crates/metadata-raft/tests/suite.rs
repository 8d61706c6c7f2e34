//! openraft's own storage suite on our store, on a real disk and in memory.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::sync::Arc;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use varve_metadata_raft::machine::{Machine, MachineHandle};
use varve_metadata_raft::store::Store;
use varve_metadata_raft::types::TypeConfig;
use varve_vfs::mem::MemVfs;
use varve_vfs::{RealVfs, Vfs, Workers};

struct Builder {
    real: bool,
}

impl StoreBuilder<TypeConfig, Store, MachineHandle, Option<tempfile::TempDir>> for Builder {
    async fn build(
        &self,
    ) -> Result<(Option<tempfile::TempDir>, Store, MachineHandle), StorageError<TypeConfig>> {
        let home = self.real.then(|| tempfile::tempdir().unwrap());
        let (vfs, dir): (Arc<dyn Vfs>, PathBuf) = match &home {
            Some(home) => (Arc::new(RealVfs), home.path().join("raft")),
            None => (Arc::new(MemVfs::new()), PathBuf::from("/raft")),
        };
        let machine = Machine::open(vfs.clone(), &dir, Workers::Threads).unwrap();
        let (store, _) = Store::open(vfs, &dir, 1, &Workers::Threads).unwrap();
        Ok((home, store, MachineHandle(machine)))
    }
}

#[tokio::test]
async fn the_suite_passes_in_memory() {
    Suite::test_all(Builder { real: false }).await.unwrap();
}

#[tokio::test]
async fn the_suite_passes_on_a_disk() {
    Suite::test_all(Builder { real: true }).await.unwrap();
}
