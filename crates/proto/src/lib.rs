//! Generated messages and services of the public API, nothing else.
