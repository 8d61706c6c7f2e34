//! The seam to the operating system: files, sync, time.
