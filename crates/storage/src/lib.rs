//! One partition's log as segment files: synchronous, one writer, many readers.
