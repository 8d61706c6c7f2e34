//! @generated from `messages/get_telemetry_subscriptions.txt` by `cargo xtask kafka`: do not edit.
//!
//! `GetTelemetrySubscriptions`, version 0.

use crate::wire::codec::{EncodeError, Source, Text, Uuid, Wire, Writer};

/// Request of `GetTelemetrySubscriptions`, version 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GetTelemetrySubscriptionsRequest {
    /// Version 0.
    pub client_instance_id: Uuid,
}

impl Wire for GetTelemetrySubscriptionsRequest {
    const LEAST_BYTES: usize = 17;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            client_instance_id: s.uuid("client_instance_id")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.uuid(self.client_instance_id);
        w.tag_count(0);
        Ok(())
    }
}

/// Response of `GetTelemetrySubscriptions`, version 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GetTelemetrySubscriptionsResponse {
    /// Version 0.
    pub throttle_time_ms: i32,
    /// Version 0.
    pub error_code: i16,
    /// Version 0.
    pub client_instance_id: Uuid,
    /// Version 0.
    pub subscription_id: i32,
    /// Version 0.
    pub accepted_compression_types: Vec<i8>,
    /// Version 0.
    pub push_interval_ms: i32,
    /// Version 0.
    pub telemetry_max_bytes: i32,
    /// Version 0.
    pub delta_temporality: bool,
    /// Version 0.
    pub requested_metrics: Vec<Text>,
}

impl Wire for GetTelemetrySubscriptionsResponse {
    const LEAST_BYTES: usize = 38;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            throttle_time_ms: s.int32("throttle_time_ms")?,
            error_code: s.int16("error_code")?,
            client_instance_id: s.uuid("client_instance_id")?,
            subscription_id: s.int32("subscription_id")?,
            accepted_compression_types: s.array("accepted_compression_types")?,
            push_interval_ms: s.int32("push_interval_ms")?,
            telemetry_max_bytes: s.int32("telemetry_max_bytes")?,
            delta_temporality: s.boolean("delta_temporality")?,
            requested_metrics: s.array("requested_metrics")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.int32(self.throttle_time_ms);
        w.int16(self.error_code);
        w.uuid(self.client_instance_id);
        w.int32(self.subscription_id);
        w.array("accepted_compression_types", &self.accepted_compression_types)?;
        w.int32(self.push_interval_ms);
        w.int32(self.telemetry_max_bytes);
        w.boolean(self.delta_temporality);
        w.array("requested_metrics", &self.requested_metrics)?;
        w.tag_count(0);
        Ok(())
    }
}
