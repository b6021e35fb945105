//! What must hold of the parsers that face hostile input, one function for each: it takes any bytes,
//! and panics where something does not hold.
//!
//! libFuzzer calls them for as long as one likes (`cargo xtask fuzz`), and the tests of this crate
//! for a moment: both begin with what is in `fuzz/corpus`. A parser that is of no use outside its
//! crate is reached through that crate's `hostile` module.
//!
//! A new target is a function here, a line in [`TARGETS`], one in `tests/short.rs`, a file in
//! `fuzz/fuzz_targets`, its `[[bin]]` in `fuzz/Cargo.toml`, and some seeds.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "panics are how a fuzzer is told"
)]

mod agent;
mod archive;
mod egress;
mod files;
mod inside;
mod listing;
mod model;
mod standing;
mod terminal;
mod words;

pub use agent::{agent_lines, claude};
pub use archive::archive;
pub use egress::{greeting, host, rules, target};
pub use files::{git_name, index, manifest, record};
pub use inside::{init_command, init_plan, init_status, packets};
pub use listing::listing;
pub use model::{reply, request};
pub use standing::{answered, asked};
pub use terminal::terminal;
pub use words::{ids, origin, plan, policy};

/// What must hold for any bytes.
pub type Run = fn(&[u8]);

/// Every target by its name, which is also that of its seeds' directory.
pub const TARGETS: [(&str, Run); 25] = [
    ("agent_lines", agent_lines),
    ("answered", answered),
    ("archive", archive),
    ("asked", asked),
    ("claude", claude),
    ("git_name", git_name),
    ("greeting", greeting),
    ("host", host),
    ("ids", ids),
    ("index", index),
    ("init_command", init_command),
    ("init_plan", init_plan),
    ("init_status", init_status),
    ("listing", listing),
    ("manifest", manifest),
    ("origin", origin),
    ("packets", packets),
    ("plan", plan),
    ("policy", policy),
    ("record", record),
    ("reply", reply),
    ("request", request),
    ("rules", rules),
    ("target", target),
    ("terminal", terminal),
];

/// The bytes as text, whatever they are.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
