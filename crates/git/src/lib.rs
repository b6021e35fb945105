//! Mirrors, references, trees written from entries, and merges without a checkout.
