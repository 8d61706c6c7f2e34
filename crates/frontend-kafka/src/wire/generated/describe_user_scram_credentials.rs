//! @generated from `messages/describe_user_scram_credentials.txt` by `cargo xtask kafka`: do not edit.
//!
//! `DescribeUserScramCredentials`, version 0.

use crate::wire::codec::{EncodeError, Source, Text, Wire, Writer};

/// Request of `DescribeUserScramCredentials`, version 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DescribeUserScramCredentialsRequest {
    /// Version 0, may be null.
    pub users: Option<Vec<UserName>>,
}

impl Wire for DescribeUserScramCredentialsRequest {
    const LEAST_BYTES: usize = 2;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            users: s.array_or_null("users", true)?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.array_or_null("users", self.users.as_deref(), true)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `users` of `DescribeUserScramCredentials`, version 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserName {
    /// Version 0.
    pub name: Text,
}

impl Wire for UserName {
    const LEAST_BYTES: usize = 2;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            name: s.string("name")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.string("name", &self.name)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Response of `DescribeUserScramCredentials`, version 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DescribeUserScramCredentialsResponse {
    /// Version 0.
    pub throttle_time_ms: i32,
    /// Version 0.
    pub error_code: i16,
    /// Version 0, may be null.
    pub error_message: Option<Text>,
    /// Version 0.
    pub results: Vec<DescribeUserScramCredentialsResult>,
}

impl Wire for DescribeUserScramCredentialsResponse {
    const LEAST_BYTES: usize = 9;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            throttle_time_ms: s.int32("throttle_time_ms")?,
            error_code: s.int16("error_code")?,
            error_message: s.string_or_null("error_message", true)?,
            results: s.array("results")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.int32(self.throttle_time_ms);
        w.int16(self.error_code);
        w.string_or_null("error_message", self.error_message.as_ref(), true)?;
        w.array("results", &self.results)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `results` of `DescribeUserScramCredentials`, version 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DescribeUserScramCredentialsResult {
    /// Version 0.
    pub user: Text,
    /// Version 0.
    pub error_code: i16,
    /// Version 0, may be null.
    pub error_message: Option<Text>,
    /// Version 0.
    pub credential_infos: Vec<CredentialInfo>,
}

impl Wire for DescribeUserScramCredentialsResult {
    const LEAST_BYTES: usize = 6;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            user: s.string("user")?,
            error_code: s.int16("error_code")?,
            error_message: s.string_or_null("error_message", true)?,
            credential_infos: s.array("credential_infos")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.string("user", &self.user)?;
        w.int16(self.error_code);
        w.string_or_null("error_message", self.error_message.as_ref(), true)?;
        w.array("credential_infos", &self.credential_infos)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `credential_infos` of `DescribeUserScramCredentials`, version 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CredentialInfo {
    /// Version 0.
    pub mechanism: i8,
    /// Version 0.
    pub iterations: i32,
}

impl Wire for CredentialInfo {
    const LEAST_BYTES: usize = 6;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            mechanism: s.int8("mechanism")?,
            iterations: s.int32("iterations")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.int8(self.mechanism);
        w.int32(self.iterations);
        w.tag_count(0);
        Ok(())
    }
}
