//! `cargo xtask bench`: figures with their marks, beside a peer, in one run.

/// Runs a benchmark by its name.
pub fn run(arguments: &[String]) -> Result<(), String> {
    let name = arguments.iter().find(|argument| !argument.starts_with("--"));
    match name {
        Some(name) => Err(format!("there is no benchmark `{name}`")),
        None => Err("name a benchmark: run-overhead".into()),
    }
}
