//! Consumer groups and committed offsets, without I/O.
