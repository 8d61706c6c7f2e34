//! The bytes of `meta.toml`, which says whose a data directory is. See `FORMAT.md`.

use serde::{Deserialize, Serialize};

/// Version of the directory's layout.
pub(crate) const FORMAT_VERSION: u32 = 1;

/// What `meta.toml` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Meta {
    pub(crate) format_version: u32,
    pub(crate) cluster_id: String,
    pub(crate) node_id: i32,
    pub(crate) directory_id: String,
    pub(crate) created_by: String,
}

impl Meta {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(bytes).map_err(|e| e.to_string())?;
        toml::from_str(text).map_err(|e: toml::de::Error| e.message().to_owned())
    }

    pub(crate) fn text(&self) -> Result<String, String> {
        toml::to_string(self).map_err(|e| e.to_string())
    }
}

/// Reads the bytes of a `meta.toml` and writes what they say as this program would. For tools and tests.
///
/// # Errors
/// Why the bytes are refused.
pub fn normal_form(bytes: &[u8]) -> Result<String, String> {
    Meta::parse(bytes)?.text()
}
