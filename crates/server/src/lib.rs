//! The node as a library: configuration, wiring, lifecycle, telemetry.
