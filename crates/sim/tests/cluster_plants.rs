//! Every safety line of replication and of the metadata that is taken out is noticed within 1,000 seeds.
//! `PLANT=NAME` hunts only those whose names contain that.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use varve_sim::cluster::planted::{Plant, hunt};

#[test]
fn every_planted_bug_is_caught() {
    let wanted = std::env::var("PLANT").unwrap_or_default();
    let mut plants = Plant::all();
    plants.retain(|plant| format!("{plant:?}").contains(&wanted));
    let next = AtomicUsize::new(0);
    let missed = Mutex::new(Vec::new());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while let Some(plant) = plants.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match hunt(*plant, 1, 1_000) {
                        Some((seed, why)) => println!("{plant:?}: seed {seed}: {why}"),
                        None => {
                            println!("{plant:?}: NOT caught");
                            missed.lock().unwrap().push(*plant);
                        }
                    }
                }
            });
        }
    });
    assert_eq!(missed.into_inner().unwrap(), []);
}
