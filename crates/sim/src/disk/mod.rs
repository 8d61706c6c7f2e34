//! The simulated disk as crash tests use it: [`trace`] records what a program asked of it, [`states`]
//! enumerates what a power cut may leave of that.

pub mod states;
pub mod trace;
