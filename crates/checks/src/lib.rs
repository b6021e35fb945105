//! Gates on a tree: rules and commands in a fresh sandbox, with evidence.
