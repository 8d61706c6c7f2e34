//! What generated code is written against: a message reads itself from a [`Source`] and writes itself to a
//! [`Writer`], field by field, in the order of the wire.
//!
//! The source is a trait because tests read messages from chance as well as from bytes: the same generated code
//! then yields random messages that are legal in their version.

use bytes::Bytes;

pub use super::error::EncodeError;
pub use super::text::{Text, Uuid};
pub use super::writer::Writer;

/// A message, a part of one, or an element of an array.
pub trait Wire: Sized {
    /// The fewest bytes that it takes in any version; at least 1.
    const LEAST_BYTES: usize;

    /// Reads one.
    ///
    /// # Errors
    /// What the source finds wrong.
    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error>;

    /// Writes it.
    ///
    /// # Errors
    /// What the version of the writer cannot say.
    fn write(&self, w: &mut Writer) -> Result<(), EncodeError>;
}

/// Where the fields of a message come from. `field` names the field in errors. `null` says whether this
/// version allows null, which is an error otherwise.
pub trait Source: Sized {
    /// What can go wrong.
    type Error;

    /// The version of the message.
    fn version(&self) -> i16;

    /// One byte; anything but 0 is true.
    ///
    /// # Errors
    /// When the bytes end; so for every method below.
    fn boolean(&mut self, field: &'static str) -> Result<bool, Self::Error>;
    /// One byte.
    ///
    /// # Errors
    /// As for all.
    fn int8(&mut self, field: &'static str) -> Result<i8, Self::Error>;
    /// Two bytes.
    ///
    /// # Errors
    /// As for all.
    fn int16(&mut self, field: &'static str) -> Result<i16, Self::Error>;
    /// Two bytes, without a sign.
    ///
    /// # Errors
    /// As for all.
    fn uint16(&mut self, field: &'static str) -> Result<u16, Self::Error>;
    /// Four bytes.
    ///
    /// # Errors
    /// As for all.
    fn int32(&mut self, field: &'static str) -> Result<i32, Self::Error>;
    /// Eight bytes.
    ///
    /// # Errors
    /// As for all.
    fn int64(&mut self, field: &'static str) -> Result<i64, Self::Error>;
    /// Sixteen bytes.
    ///
    /// # Errors
    /// As for all.
    fn uuid(&mut self, field: &'static str) -> Result<Uuid, Self::Error>;
    /// A string.
    ///
    /// # Errors
    /// Null.
    fn string(&mut self, field: &'static str) -> Result<Text, Self::Error>;
    /// A string or null.
    ///
    /// # Errors
    /// Null where it is not allowed.
    fn string_or_null(
        &mut self,
        field: &'static str,
        null: bool,
    ) -> Result<Option<Text>, Self::Error>;
    /// Bytes.
    ///
    /// # Errors
    /// Null.
    fn bytes(&mut self, field: &'static str) -> Result<Bytes, Self::Error>;
    /// Bytes or null.
    ///
    /// # Errors
    /// Null where it is not allowed.
    fn bytes_or_null(
        &mut self,
        field: &'static str,
        null: bool,
    ) -> Result<Option<Bytes>, Self::Error>;
    /// An array.
    ///
    /// # Errors
    /// Null, more elements than can be there, or what is wrong with an element.
    fn array<T: Wire>(&mut self, field: &'static str) -> Result<Vec<T>, Self::Error>;
    /// An array or null.
    ///
    /// # Errors
    /// Null where it is not allowed; otherwise as for an array.
    fn array_or_null<T: Wire>(
        &mut self,
        field: &'static str,
        null: bool,
    ) -> Result<Option<Vec<T>>, Self::Error>;
    /// A structure in place.
    ///
    /// # Errors
    /// What is wrong inside.
    fn structure<T: Wire>(&mut self, field: &'static str) -> Result<T, Self::Error>;
    /// A structure or null.
    ///
    /// # Errors
    /// Null where it is not allowed, or what is wrong inside.
    fn structure_or_null<T: Wire>(
        &mut self,
        field: &'static str,
        null: bool,
    ) -> Result<Option<T>, Self::Error>;
    /// The tagged fields at the end of a structure, in versions that have them. `each` reads the value of
    /// a tag and says whether it knows the tag in this version; others are skipped.
    ///
    /// # Errors
    /// Tags that do not ascend, or a value of another length than announced.
    fn tags(
        &mut self,
        known: &'static [u32],
        each: impl FnMut(&mut Self, u32) -> Result<bool, Self::Error>,
    ) -> Result<(), Self::Error>;
}

/// Elements of arrays that are numbers.
macro_rules! number {
    ($($type:ty, $bytes:literal, $method:ident;)*) => {
        $(impl Wire for $type {
            const LEAST_BYTES: usize = $bytes;

            fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
                s.$method("")
            }

            fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
                w.$method(*self);
                Ok(())
            }
        })*
    };
}

number! {
    i8, 1, int8;
    i32, 4, int32;
    i64, 8, int64;
    Uuid, 16, uuid;
}

impl Wire for Text {
    const LEAST_BYTES: usize = 1;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        s.string("")
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.string("", self)
    }
}
