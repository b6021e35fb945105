//! Bases, layers, and the extraction of what changed as a stream of entries.
