//! The public gRPC protocol as a thin adapter over broker-api.
