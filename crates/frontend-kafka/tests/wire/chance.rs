//! Messages from chance: a source that invents every field that its version has.

use std::convert::Infallible;

use bytes::Bytes;
use varve_frontend_kafka::wire::codec::{Source, Wire};
use varve_frontend_kafka::wire::{ApiKey, Request, Response, Text, Uuid};

/// Pseudo-random numbers (SplitMix64); the same seed gives the same message.
pub struct Chance {
    state: u64,
    version: i16,
    /// How deep in structures.
    depth: u32,
}

impl Chance {
    pub fn new(seed: u64, version: i16) -> Self {
        Self {
            state: seed,
            version,
            depth: 0,
        }
    }

    pub fn request(&mut self, key: ApiKey) -> Request {
        let Ok(request) = Request::read(key, self);
        request
    }

    pub fn response(&mut self, key: ApiKey) -> Response {
        let Ok(response) = Response::read(key, self);
        response
    }

    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Edges as often as anything else.
    fn number(&mut self) -> i64 {
        match self.below(6) {
            0 => 0,
            1 => -1,
            2 => i64::MAX,
            3 => i64::MIN,
            _ => self.next() as i64,
        }
    }

    fn text(&mut self) -> Text {
        const LETTERS: [&str; 6] = ["a", "Z", "-", "\"", "ß", "𝄞"];
        let length = match self.below(8) {
            0 => 0,
            1 => 200,
            _ => self.below(12),
        };
        let text: String = (0..length)
            .map(|_| LETTERS[self.below(LETTERS.len() as u64) as usize])
            .collect();
        Text::from(text)
    }

    /// Sometimes long enough to be a part of its own.
    fn some_bytes(&mut self) -> Bytes {
        let length = match self.below(8) {
            0 => 0,
            1 => 1024 + self.below(3) - 1,
            _ => self.below(40),
        };
        (0..length).map(|_| self.next() as u8).collect()
    }

    fn is_null(&mut self, null: bool) -> bool {
        null && self.below(4) == 0
    }

    fn elements<T: Wire>(&mut self) -> Result<Vec<T>, Infallible> {
        self.depth += 1;
        let most = if self.depth > 2 { 3 } else { 4 };
        let elements = (0..self.below(most)).map(|_| T::read(self)).collect();
        self.depth -= 1;
        elements
    }
}

impl Source for Chance {
    type Error = Infallible;

    fn version(&self) -> i16 {
        self.version
    }

    fn boolean(&mut self, _field: &'static str) -> Result<bool, Infallible> {
        Ok(self.below(2) == 0)
    }

    fn int8(&mut self, _field: &'static str) -> Result<i8, Infallible> {
        Ok(self.number() as i8)
    }

    fn int16(&mut self, _field: &'static str) -> Result<i16, Infallible> {
        Ok(self.number() as i16)
    }

    fn uint16(&mut self, _field: &'static str) -> Result<u16, Infallible> {
        Ok(self.number() as u16)
    }

    fn int32(&mut self, _field: &'static str) -> Result<i32, Infallible> {
        Ok(self.number() as i32)
    }

    fn int64(&mut self, _field: &'static str) -> Result<i64, Infallible> {
        Ok(self.number())
    }

    fn uuid(&mut self, _field: &'static str) -> Result<Uuid, Infallible> {
        let high = u128::from(self.next()) << 64;
        Ok(Uuid(high | u128::from(self.next())))
    }

    fn string(&mut self, _field: &'static str) -> Result<Text, Infallible> {
        Ok(self.text())
    }

    fn string_or_null(
        &mut self,
        _field: &'static str,
        null: bool,
    ) -> Result<Option<Text>, Infallible> {
        Ok((!self.is_null(null)).then(|| self.text()))
    }

    fn bytes(&mut self, _field: &'static str) -> Result<Bytes, Infallible> {
        Ok(self.some_bytes())
    }

    fn bytes_or_null(
        &mut self,
        _field: &'static str,
        null: bool,
    ) -> Result<Option<Bytes>, Infallible> {
        Ok((!self.is_null(null)).then(|| self.some_bytes()))
    }

    fn array<T: Wire>(&mut self, _field: &'static str) -> Result<Vec<T>, Infallible> {
        self.elements()
    }

    fn array_or_null<T: Wire>(
        &mut self,
        _field: &'static str,
        null: bool,
    ) -> Result<Option<Vec<T>>, Infallible> {
        if self.is_null(null) {
            return Ok(None);
        }
        self.elements().map(Some)
    }

    fn structure<T: Wire>(&mut self, _field: &'static str) -> Result<T, Infallible> {
        T::read(self)
    }

    fn structure_or_null<T: Wire>(
        &mut self,
        _field: &'static str,
        null: bool,
    ) -> Result<Option<T>, Infallible> {
        if self.is_null(null) {
            return Ok(None);
        }
        T::read(self).map(Some)
    }

    fn tags(
        &mut self,
        known: &'static [u32],
        mut each: impl FnMut(&mut Self, u32) -> Result<bool, Infallible>,
    ) -> Result<(), Infallible> {
        for tag in known {
            if self.below(2) == 0 {
                each(self, *tag)?;
            }
        }
        Ok(())
    }
}
