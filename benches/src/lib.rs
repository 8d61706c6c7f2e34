//! Shared pieces of the benches: the floor of this machine, and statistics over runs.
//!
//! Figures are ratios measured in one run, medians of several rounds; absolute numbers of a shared
//! machine mean little. Nothing here is used by the product.

pub mod floor;
pub mod stats;
