//! Generated messages and services of the public API and of the nodes among themselves, nothing else: no
//! conversions, no logic. The schema is `proto/` at the top of the repository.

// Generated code follows prost's style, not ours.
#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::unwrap_used, clippy::expect_used)]
#[rustfmt::skip]
/// Package `varve.v1`.
pub mod v1 {
    tonic::include_proto!("varve.v1");
}

// Generated code follows prost's style, not ours.
#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::unwrap_used, clippy::expect_used)]
#[rustfmt::skip]
/// What nodes say to each other; not for clients.
pub mod peer {
    /// Package `varve.peer.v1`.
    pub mod v1 {
        tonic::include_proto!("varve.peer.v1");
    }
}

/// Encoded `google.protobuf.FileDescriptorSet` of every file of the public API, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/varve.binpb"));
