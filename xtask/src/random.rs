//! `cargo xtask kills`: processes that are killed at random, for as long as one likes.

use crate::step;

/// The kills of a long run.
const LONG: u64 = 1_000;

/// Runs the kills.
///
/// # Errors
/// When an argument is wrong, or when what must hold after a kill does not.
pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    let (mut kills, mut seed) = (LONG, 1);
    let mut rest = arguments.iter();
    while let Some(name) = rest.next() {
        let value = rest
            .next()
            .ok_or_else(|| format!("{name} wants a number"))?;
        let value: u64 = value
            .parse()
            .map_err(|_| format!("{name} wants a number, not `{value}`"))?;
        match name.as_str() {
            "--kills" => kills = value,
            "--seed" => seed = value,
            other => return Err(format!("there is no option `{other}`")),
        }
    }
    // Not with nextest, which ends what takes as long as this.
    let test = "kills::random::killed_at_any_moment_every_request_ends_as_it_would_have";
    let mut command = step::command(
        "cargo",
        &[
            "test",
            "--package",
            "skep-cli",
            "--test",
            "binary",
            test,
            "--",
            "--exact",
            "--nocapture",
        ],
    );
    command
        .env("SKEP_KILLS", kills.to_string())
        .env("SKEP_SEED", seed.to_string());
    step::run(&format!("{kills} kills from seed {seed}"), &mut command)
}
