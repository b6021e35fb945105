//! What this crate promises, tried on real repositories.

mod apply;
mod checkout;
mod fetch;
mod merge;
mod publish;
mod repo;
mod source;
mod tree;
