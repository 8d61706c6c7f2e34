//! Client library: batching, routing, retry.
