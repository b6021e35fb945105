//! The binary `skep`: commands, configuration and presentation. It holds no rules of the domain.

mod config;
mod demo;
#[cfg(test)]
mod docs;
mod exit;
mod view;

fn main() {}
