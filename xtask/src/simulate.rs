//! `cargo xtask simulate`: many seeds of the ledger's simulation, in a release build.
//!
//! What it does is said in `docs/ledger.md`; the program is `crates/ledger/examples/simulate.rs`.

use crate::step;

/// Builds the simulation and runs it; `rest` is for it.
pub(crate) fn run(rest: &[String]) -> Result<(), String> {
    let mut arguments = vec![
        "run",
        "--release",
        "--quiet",
        "--package",
        "skep-ledger",
        "--example",
        "simulate",
        "--",
    ];
    arguments.extend(rest.iter().map(String::as_str));
    step::run("simulate", &mut step::command("cargo", &arguments))
}
