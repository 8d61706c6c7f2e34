//! Snapshots of the state on a disk that loses power at every step of making one.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::stream;
use openraft::storage::{RaftSnapshotBuilder, RaftStateMachine};
use varve_metadata::{Command, command_codec};
use varve_metadata_raft::machine::{Machine, MachineHandle};
use varve_metadata_raft::types::{CommandBytes, Entry, Payload, log_id};
use varve_vfs::Workers;
use varve_vfs::mem::{Answer, MemVfs};

const DIR: &str = "/raft";

fn open(disk: &MemVfs) -> Arc<Machine> {
    Machine::open(Arc::new(disk.clone()), Path::new(DIR), Workers::Threads).unwrap()
}

async fn apply(machine: &Arc<Machine>, index: u64, bytes: Vec<u8>) -> std::io::Result<()> {
    let entry = Entry {
        log_id: log_id(1, index),
        payload: Payload::Normal(CommandBytes(Bytes::from(bytes))),
    };
    let entries = stream::iter([Ok((entry, None))]);
    MachineHandle(machine.clone()).apply(entries).await
}

fn ids(count: u32) -> Vec<u8> {
    command_codec::encode(&Command::AllocateProducerIds { count })
}

fn files(disk: &MemVfs) -> usize {
    let mut files = 0;
    disk.for_each_file(&mut |_, _| files += 1);
    files
}

#[tokio::test]
async fn a_crash_while_a_snapshot_is_made_leaves_the_old_or_the_new_one() {
    let mut news = 0;
    for at in 0..20 {
        let disk = MemVfs::new();
        let machine = open(&disk);
        apply(&machine, 0, ids(10)).await.unwrap();
        MachineHandle(machine.clone())
            .build_snapshot()
            .await
            .unwrap();
        apply(&machine, 1, ids(5)).await.unwrap();
        let copy = Arc::new(Mutex::new(None));
        let (slot, of, left) = (copy.clone(), disk.clone(), Mutex::new(at));
        disk.set_hook(Some(Arc::new(move |_| {
            let mut left = left.lock().unwrap();
            if *left == 0 {
                slot.lock().unwrap().get_or_insert_with(|| of.fork());
            }
            *left = u32::saturating_sub(*left, 1);
            Answer::Go
        })));
        MachineHandle(machine).build_snapshot().await.unwrap();
        disk.set_hook(None);
        let Some(copy) = copy.lock().unwrap().take() else {
            assert!(news > 0, "the snapshot was seen to be replaced");
            assert_eq!(files(&disk), 1, "the old one is gone");
            return;
        };
        for cut in [MemVfs::kill_process, MemVfs::crash_losing_unsynced] {
            let copy = copy.fork();
            cut(&copy);
            let again = open(&copy);
            let next = again.look(varve_metadata::State::next_producer_id);
            match again.applied() {
                Some(id) if id == log_id(1, 0) => assert_eq!(next, 11),
                Some(id) if id == log_id(1, 1) => {
                    assert_eq!(next, 16);
                    news += 1;
                }
                other => panic!("{other:?}"),
            }
            assert_eq!(files(&copy), 1, "leftovers are swept");
        }
    }
    panic!("a snapshot takes fewer operations");
}

#[tokio::test]
async fn what_cannot_be_read_is_never_skipped() {
    let disk = MemVfs::new();
    let machine = open(&disk);
    apply(&machine, 0, ids(10)).await.unwrap();
    let refused = apply(&machine, 1, vec![9, 9, 9]).await;
    assert!(refused.unwrap_err().to_string().contains("newer program"));
    assert_eq!(machine.applied(), Some(log_id(1, 0)));
    let again = apply(&machine, 0, ids(10)).await;
    assert!(again.unwrap_err().to_string().contains("already applied"));
    assert!(machine.result(&log_id(1, 0)).unwrap().is_ok());
    assert!(machine.result(&log_id(2, 0)).is_none());

    MachineHandle(machine).build_snapshot().await.unwrap();
    let mut path = None;
    disk.for_each_file(&mut |found, _| path = Some(found.to_owned()));
    assert!(disk.damage(&path.unwrap(), &mut |bytes| bytes[30] ^= 1));
    let refused = Machine::open(Arc::new(disk), Path::new(DIR), Workers::Threads);
    assert!(refused.unwrap_err().to_string().contains("is damaged"));
}
