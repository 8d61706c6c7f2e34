//! The replication state machine of one partition, without I/O.
