//! `cargo xtask test`: what the tests need, then every check of the project.

use crate::{
    needs::needs,
    step::{self, command, first_line, root},
};

const STEPS: [&str; 6] = ["needs", "format", "lint", "deny", "build", "test"];

/// The pinned version of the tool that checks licences, bans and sources of dependencies.
const DENY: &str = "0.20.2";

fn run_step(step: &str) -> Result<(), String> {
    match step {
        "needs" => needs(),
        "format" => step::run(
            "format",
            &mut command("cargo", &["fmt", "--all", "--check"]),
        ),
        "lint" => step::run(
            "lint",
            &mut command(
                "cargo",
                &[
                    "clippy",
                    "--workspace",
                    "--all-targets",
                    "--locked",
                    "--",
                    "-D",
                    "warnings",
                ],
            ),
        ),
        "deny" => deny(),
        "build" => step::run(
            "build",
            &mut command("cargo", &["build", "--locked", "--package", "skep-cli"]),
        ),
        "test" => tests(),
        other => Err(format!(
            "there is no step `{other}`; there are: {}",
            STEPS.join(" ")
        )),
    }
}

/// Runs the steps that are named, or all of them.
pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    if arguments.is_empty() {
        return STEPS.iter().try_for_each(|step| run_step(step));
    }
    arguments.iter().try_for_each(|step| run_step(step))
}

fn tests() -> Result<(), String> {
    if first_line("cargo", &["nextest", "--version"]).is_some() {
        step::run(
            "test",
            &mut command(
                "cargo",
                &[
                    "nextest",
                    "run",
                    "--workspace",
                    "--locked",
                    "--no-fail-fast",
                ],
            ),
        )?;
        step::run(
            "doc tests",
            &mut command(
                "cargo",
                &["test", "--workspace", "--locked", "--doc", "--quiet"],
            ),
        )
    } else {
        step::run(
            "test",
            &mut command(
                "cargo",
                &["test", "--workspace", "--locked", "--no-fail-fast"],
            ),
        )
    }
}

/// Licences, bans and sources of every dependency. Advisories need a database from the network, and
/// are checked where that can be reached: `cargo deny check advisories`.
fn deny() -> Result<(), String> {
    let tools = root().join("target/tools");
    let program = tools.join("bin/cargo-deny");
    if first_line("cargo-deny", &["--version"]).is_some() {
        return step::run(
            "deny",
            &mut command(
                "cargo-deny",
                &["--locked", "check", "bans", "licenses", "sources"],
            ),
        );
    }
    if !program.is_file() {
        let tools = tools.to_string_lossy().into_owned();
        step::run(
            "install cargo-deny",
            &mut command(
                "cargo",
                &[
                    "install",
                    "cargo-deny",
                    "--version",
                    DENY,
                    "--locked",
                    "--root",
                    &tools,
                ],
            ),
        )?;
    }
    let program = program.to_string_lossy().into_owned();
    step::run(
        "deny",
        &mut command(
            &program,
            &["--locked", "check", "bans", "licenses", "sources"],
        ),
    )
}
