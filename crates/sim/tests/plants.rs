//! Planted bugs are caught: `cargo test -p varve-sim --features planted --test plants`.

use varve_sim::plants::Plant;
use varve_sim::torture::Effort;
use varve_sim::torture::planted::hunt;

#[test]
fn every_planted_bug_is_caught() {
    let plants = Plant::all();
    assert!(plants.len() >= 15, "built with the feature");
    let mut missed = Vec::new();
    for plant in plants {
        let (states, caught) = hunt(plant, Effort::bounded());
        match caught {
            Some(c) => println!(
                "{} -> {} after {states} states: {}",
                plant.describe(),
                c.by,
                c.said
            ),
            None => missed.push(plant.describe()),
        }
    }
    assert!(missed.is_empty(), "nobody noticed: {missed:?}");
}
