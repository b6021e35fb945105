//! From a job to an attempt to a checked change.
