//! Runs the cores: lanes, flushers, readers, admission.
