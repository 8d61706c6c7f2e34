//! The bytes of the Kafka protocol: frames, headers, and every request and response as plain data.
//!
//! Messages are generated from the tables in `messages` (`cargo xtask kafka`); reading and writing them is
//! in [`reader`] and [`writer`], which the generated code calls field by field.
//!
//! Invariants:
//! - No bytes make this module panic. What is wrong with them is a value: message, field, place, cause.
//! - Reading a frame of n bytes allocates at most [`reader::MEMORY_FACTOR`] times n, and
//!   [`reader::MEMORY_FLOOR`] more; an array is refused before memory is taken for it when it cannot be there.
//! - Strings, byte fields and records are slices of the frame: they keep it alive, and nothing is copied.
//! - A message that is written was measured before with the same code, so its length is always right.
//! - No I/O, no clock, no chance. Records are not looked into: they are batches for `varve-record`.

pub mod codec;
pub mod error;
pub mod error_code;
pub mod frame;
// The generator lays its text out itself.
#[rustfmt::skip]
pub mod generated;
pub mod header;
pub mod message;
pub mod reader;
pub mod text;
pub mod writer;

pub use error::{DecodeError, DecodeFault, EncodeError, EncodeFault};
pub use error_code::ErrorCode;
pub use frame::{Frame, FrameError, FrameReader};
pub use generated::{ApiKey, Request, Response};
pub use header::{Prefix, RequestHeader};
pub use message::{RequestError, decode_request, decode_response, encode_request, encode_response};
pub use text::{Text, Uuid};
