//! What a developer of Skep runs: tests and benchmarks.
fn main() {}
