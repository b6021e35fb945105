//! Sealed processes: create, exec, diagnose, destroy.
