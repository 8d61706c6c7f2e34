//! The checker: legal histories pass, and every planted fault is found. One binary for all of it: each module is a
//! suite.

mod legal;
mod model;
mod planted;
mod transactions;
