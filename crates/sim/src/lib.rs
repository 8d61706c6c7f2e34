//! Makes the storage engine's life as hard as a disk can: a recorded workload is cut off after every step,
//! in every state that a power cut may leave, damaged bit by bit, run on a disk whose calls fail or whose
//! space runs out; and bugs are planted to prove that all of this would be noticed.
//!
//! Everything is a function of a seed: nothing here reads a clock to decide, starts a thread or opens a real
//! file. See `docs/testing.md` for the suites.

pub mod cluster;
pub mod disk;
pub mod plants;
pub mod rng;
pub mod torture;
