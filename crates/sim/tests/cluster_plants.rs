//! Every safety line of replication that is taken out is noticed within 1,000 seeds.

use varve_sim::cluster::planted::{ALL, hunt};

#[test]
fn every_planted_bug_of_replication_is_caught() {
    let missed: Vec<_> = ALL
        .into_iter()
        .filter(|plant| {
            let found = hunt(*plant, 1, 1_000);
            match &found {
                Some((seed, why)) => println!("{plant:?}: seed {seed}: {why}"),
                None => println!("{plant:?}: NOT caught"),
            }
            found.is_none()
        })
        .collect();
    assert_eq!(missed, []);
}
