//! Generated messages and services of the public API and of the nodes among themselves, nothing else: no
//! conversions, no logic. The schema is `proto/` at the top of the repository.
//!
//! The generated code is part of the source, so that a build needs no compiler of schemas. After a change of `proto/`:
//! `VARVE_BLESS=1 cargo test -p varve-proto`. A test compares the two.

// Generated code follows prost's style, not ours.
#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::unwrap_used, clippy::expect_used)]
#[rustfmt::skip]
/// Package `varve.v1`.
pub mod v1 {
    include!("generated/varve.v1.rs");
}

// Generated code follows prost's style, not ours.
#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::unwrap_used, clippy::expect_used)]
#[rustfmt::skip]
/// What nodes say to each other; not for clients.
pub mod peer {
    /// Package `varve.peer.v1`.
    pub mod v1 {
        include!("generated/varve.peer.v1.rs");
    }
}

/// Encoded `google.protobuf.FileDescriptorSet` of every file of the public API, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("generated/varve.binpb");
