//! @generated from `messages/metadata.txt` by `cargo xtask kafka`: do not edit.
//!
//! `Metadata`, versions 0 to 13.

use crate::wire::codec::{EncodeError, Source, Text, Uuid, Wire, Writer};

/// Request of `Metadata`, versions 0 to 13.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataRequest {
    /// Versions 0 to 13, may be null in versions 1 to 13.
    pub topics: Option<Vec<MetadataRequestTopic>>,
    /// Versions 4 to 13.
    pub allow_auto_topic_creation: bool,
    /// Versions 8 to 10.
    pub include_cluster_authorized_operations: bool,
    /// Versions 8 to 13.
    pub include_topic_authorized_operations: bool,
}

impl Default for MetadataRequest {
    fn default() -> Self {
        Self {
            topics: None,
            allow_auto_topic_creation: true,
            include_cluster_authorized_operations: false,
            include_topic_authorized_operations: false,
        }
    }
}

impl Wire for MetadataRequest {
    const LEAST_BYTES: usize = 4;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            topics: s.array_or_null("topics", version >= 1)?,
            allow_auto_topic_creation: if version >= 4 { s.boolean("allow_auto_topic_creation")? } else { true },
            include_cluster_authorized_operations: if (8..=10).contains(&version) { s.boolean("include_cluster_authorized_operations")? } else { false },
            include_topic_authorized_operations: if version >= 8 { s.boolean("include_topic_authorized_operations")? } else { false },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        w.array_or_null("topics", self.topics.as_deref(), version >= 1)?;
        if version >= 4 {
            w.boolean(self.allow_auto_topic_creation);
        } else {
            w.must_be_default("allow_auto_topic_creation", self.allow_auto_topic_creation)?;
        }
        if (8..=10).contains(&version) {
            w.boolean(self.include_cluster_authorized_operations);
        } else {
            w.must_be_default("include_cluster_authorized_operations", !self.include_cluster_authorized_operations)?;
        }
        if version >= 8 {
            w.boolean(self.include_topic_authorized_operations);
        } else {
            w.must_be_default("include_topic_authorized_operations", !self.include_topic_authorized_operations)?;
        }
        w.tag_count(0);
        Ok(())
    }
}

/// Part `topics` of `Metadata`, versions 0 to 13.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MetadataRequestTopic {
    /// Versions 10 to 13.
    pub topic_id: Uuid,
    /// Versions 0 to 13, may be null in versions 10 to 13.
    pub name: Option<Text>,
}

impl Wire for MetadataRequestTopic {
    const LEAST_BYTES: usize = 2;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            topic_id: if version >= 10 { s.uuid("topic_id")? } else { Uuid::ZERO },
            name: s.string_or_null("name", version >= 10)?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        if version >= 10 {
            w.uuid(self.topic_id);
        }
        w.string_or_null("name", self.name.as_ref(), version >= 10)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Response of `Metadata`, versions 0 to 13.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataResponse {
    /// Versions 3 to 13.
    pub throttle_time_ms: i32,
    /// Versions 0 to 13.
    pub brokers: Vec<MetadataResponseBroker>,
    /// Versions 2 to 13, may be null.
    pub cluster_id: Option<Text>,
    /// Versions 1 to 13.
    pub controller_id: i32,
    /// Versions 0 to 13.
    pub topics: Vec<MetadataResponseTopic>,
    /// Versions 8 to 10.
    pub cluster_authorized_operations: i32,
    /// Version 13.
    pub error_code: i16,
}

impl Default for MetadataResponse {
    fn default() -> Self {
        Self {
            throttle_time_ms: 0,
            brokers: Vec::new(),
            cluster_id: None,
            controller_id: -1,
            topics: Vec::new(),
            cluster_authorized_operations: -2147483648,
            error_code: 0,
        }
    }
}

impl Wire for MetadataResponse {
    const LEAST_BYTES: usize = 8;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            throttle_time_ms: if version >= 3 { s.int32("throttle_time_ms")? } else { 0 },
            brokers: s.array("brokers")?,
            cluster_id: if version >= 2 { s.string_or_null("cluster_id", true)? } else { None },
            controller_id: if version >= 1 { s.int32("controller_id")? } else { -1 },
            topics: s.array("topics")?,
            cluster_authorized_operations: if (8..=10).contains(&version) { s.int32("cluster_authorized_operations")? } else { -2147483648 },
            error_code: if version == 13 { s.int16("error_code")? } else { 0 },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        if version >= 3 {
            w.int32(self.throttle_time_ms);
        }
        w.array("brokers", &self.brokers)?;
        if version >= 2 {
            w.string_or_null("cluster_id", self.cluster_id.as_ref(), true)?;
        }
        if version >= 1 {
            w.int32(self.controller_id);
        }
        w.array("topics", &self.topics)?;
        if (8..=10).contains(&version) {
            w.int32(self.cluster_authorized_operations);
        } else {
            w.must_be_default("cluster_authorized_operations", self.cluster_authorized_operations == -2147483648)?;
        }
        if version == 13 {
            w.int16(self.error_code);
        }
        w.tag_count(0);
        Ok(())
    }
}

/// Part `brokers` of `Metadata`, versions 0 to 13.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MetadataResponseBroker {
    /// Versions 0 to 13.
    pub node_id: i32,
    /// Versions 0 to 13.
    pub host: Text,
    /// Versions 0 to 13.
    pub port: i32,
    /// Versions 1 to 13, may be null.
    pub rack: Option<Text>,
}

impl Wire for MetadataResponseBroker {
    const LEAST_BYTES: usize = 10;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            node_id: s.int32("node_id")?,
            host: s.string("host")?,
            port: s.int32("port")?,
            rack: if version >= 1 { s.string_or_null("rack", true)? } else { None },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        w.int32(self.node_id);
        w.string("host", &self.host)?;
        w.int32(self.port);
        if version >= 1 {
            w.string_or_null("rack", self.rack.as_ref(), true)?;
        }
        w.tag_count(0);
        Ok(())
    }
}

/// Part `topics` of `Metadata`, versions 0 to 13.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataResponseTopic {
    /// Versions 0 to 13.
    pub error_code: i16,
    /// Versions 0 to 13, may be null in versions 12 to 13.
    pub name: Option<Text>,
    /// Versions 10 to 13.
    pub topic_id: Uuid,
    /// Versions 1 to 13.
    pub is_internal: bool,
    /// Versions 0 to 13.
    pub partitions: Vec<MetadataResponsePartition>,
    /// Versions 8 to 13.
    pub topic_authorized_operations: i32,
}

impl Default for MetadataResponseTopic {
    fn default() -> Self {
        Self {
            error_code: 0,
            name: None,
            topic_id: Uuid::ZERO,
            is_internal: false,
            partitions: Vec::new(),
            topic_authorized_operations: -2147483648,
        }
    }
}

impl Wire for MetadataResponseTopic {
    const LEAST_BYTES: usize = 8;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            error_code: s.int16("error_code")?,
            name: s.string_or_null("name", version >= 12)?,
            topic_id: if version >= 10 { s.uuid("topic_id")? } else { Uuid::ZERO },
            is_internal: if version >= 1 { s.boolean("is_internal")? } else { false },
            partitions: s.array("partitions")?,
            topic_authorized_operations: if version >= 8 { s.int32("topic_authorized_operations")? } else { -2147483648 },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        w.int16(self.error_code);
        w.string_or_null("name", self.name.as_ref(), version >= 12)?;
        if version >= 10 {
            w.uuid(self.topic_id);
        }
        if version >= 1 {
            w.boolean(self.is_internal);
        }
        w.array("partitions", &self.partitions)?;
        if version >= 8 {
            w.int32(self.topic_authorized_operations);
        } else {
            w.must_be_default("topic_authorized_operations", self.topic_authorized_operations == -2147483648)?;
        }
        w.tag_count(0);
        Ok(())
    }
}

/// Part `partitions` of `Metadata`, versions 0 to 13.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataResponsePartition {
    /// Versions 0 to 13.
    pub error_code: i16,
    /// Versions 0 to 13.
    pub partition_index: i32,
    /// Versions 0 to 13.
    pub leader_id: i32,
    /// Versions 7 to 13.
    pub leader_epoch: i32,
    /// Versions 0 to 13.
    pub replica_nodes: Vec<i32>,
    /// Versions 0 to 13.
    pub isr_nodes: Vec<i32>,
    /// Versions 5 to 13.
    pub offline_replicas: Vec<i32>,
}

impl Default for MetadataResponsePartition {
    fn default() -> Self {
        Self {
            error_code: 0,
            partition_index: 0,
            leader_id: 0,
            leader_epoch: -1,
            replica_nodes: Vec::new(),
            isr_nodes: Vec::new(),
            offline_replicas: Vec::new(),
        }
    }
}

impl Wire for MetadataResponsePartition {
    const LEAST_BYTES: usize = 18;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            error_code: s.int16("error_code")?,
            partition_index: s.int32("partition_index")?,
            leader_id: s.int32("leader_id")?,
            leader_epoch: if version >= 7 { s.int32("leader_epoch")? } else { -1 },
            replica_nodes: s.array("replica_nodes")?,
            isr_nodes: s.array("isr_nodes")?,
            offline_replicas: if version >= 5 { s.array("offline_replicas")? } else { Vec::new() },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        w.int16(self.error_code);
        w.int32(self.partition_index);
        w.int32(self.leader_id);
        if version >= 7 {
            w.int32(self.leader_epoch);
        }
        w.array("replica_nodes", &self.replica_nodes)?;
        w.array("isr_nodes", &self.isr_nodes)?;
        if version >= 5 {
            w.array("offline_replicas", &self.offline_replicas)?;
        }
        w.tag_count(0);
        Ok(())
    }
}
