//! The roles wired together in one process.
