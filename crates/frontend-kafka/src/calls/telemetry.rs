//! Metrics of clients (KIP-714): a client is told its id, and that nothing of what it measures is wanted here. It asks
//! again when the interval is over, and sends nothing.
//!
//! Invariants: what a client sends all the same is dropped; nothing of it is decompressed or kept.

use varve_types::limits;

use crate::wire::generated::get_telemetry_subscriptions::{
    GetTelemetrySubscriptionsRequest, GetTelemetrySubscriptionsResponse,
};
use crate::wire::generated::push_telemetry::{PushTelemetryRequest, PushTelemetryResponse};
use crate::wire::{ErrorCode, Uuid};

/// The one subscription: to nothing.
const SUBSCRIPTION: i32 = 1;
/// How long a client takes that for granted: what Kafka says where nothing is wanted.
const INTERVAL_MS: i32 = 300_000;
// librdkafka counts it in microseconds of 32 bits. What is more than that lies in the past there: it would ask without
// end.
const _: () = assert!(INTERVAL_MS <= i32::MAX / 1000);
/// Most bytes of a push.
const PUSH_MAX_BYTES: usize = limits::TELEMETRY_PUSH_MAX_BYTES;
/// Codecs of a push besides none: zstd, lz4, gzip, snappy.
const CODECS: [i8; 4] = [4, 3, 1, 2];

pub(super) fn subscriptions(
    request: &GetTelemetrySubscriptionsRequest,
) -> GetTelemetrySubscriptionsResponse {
    // Clients show this id to people, who look for it where metrics are; it must be one at all events.
    let client_instance_id = match request.client_instance_id {
        Uuid::ZERO => Uuid(uuid::Uuid::new_v4().as_u128()),
        known => known,
    };
    GetTelemetrySubscriptionsResponse {
        client_instance_id,
        subscription_id: SUBSCRIPTION,
        accepted_compression_types: CODECS.to_vec(),
        push_interval_ms: INTERVAL_MS,
        telemetry_max_bytes: PUSH_MAX_BYTES as i32,
        delta_temporality: true,
        ..GetTelemetrySubscriptionsResponse::default()
    }
}

pub(super) fn push(request: &PushTelemetryRequest) -> PushTelemetryResponse {
    let codec = request.compression_type;
    let error = if request.client_instance_id == Uuid::ZERO {
        ErrorCode::InvalidRequest
    } else if request.subscription_id != SUBSCRIPTION {
        ErrorCode::UnknownSubscriptionId
    } else if codec != 0 && !CODECS.contains(&codec) {
        ErrorCode::UnsupportedCompressionType
    } else if request.metrics.len() > PUSH_MAX_BYTES {
        ErrorCode::TelemetryTooLarge
    } else {
        ErrorCode::None
    };
    PushTelemetryResponse {
        error_code: error.code(),
        ..PushTelemetryResponse::default()
    }
}
