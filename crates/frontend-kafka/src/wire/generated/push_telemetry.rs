//! @generated from `messages/push_telemetry.txt` by `cargo xtask kafka`: do not edit.
//!
//! `PushTelemetry`, version 0.

use bytes::Bytes;

use crate::wire::codec::{EncodeError, Source, Uuid, Wire, Writer};

/// Request of `PushTelemetry`, version 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PushTelemetryRequest {
    /// Version 0.
    pub client_instance_id: Uuid,
    /// Version 0.
    pub subscription_id: i32,
    /// Version 0.
    pub terminating: bool,
    /// Version 0.
    pub compression_type: i8,
    /// Version 0.
    pub metrics: Bytes,
}

impl Wire for PushTelemetryRequest {
    const LEAST_BYTES: usize = 24;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            client_instance_id: s.uuid("client_instance_id")?,
            subscription_id: s.int32("subscription_id")?,
            terminating: s.boolean("terminating")?,
            compression_type: s.int8("compression_type")?,
            metrics: s.bytes("metrics")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.uuid(self.client_instance_id);
        w.int32(self.subscription_id);
        w.boolean(self.terminating);
        w.int8(self.compression_type);
        w.bytes("metrics", &self.metrics)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Response of `PushTelemetry`, version 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PushTelemetryResponse {
    /// Version 0.
    pub throttle_time_ms: i32,
    /// Version 0.
    pub error_code: i16,
}

impl Wire for PushTelemetryResponse {
    const LEAST_BYTES: usize = 7;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            throttle_time_ms: s.int32("throttle_time_ms")?,
            error_code: s.int16("error_code")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.int32(self.throttle_time_ms);
        w.int16(self.error_code);
        w.tag_count(0);
        Ok(())
    }
}
