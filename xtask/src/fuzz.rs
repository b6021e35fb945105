//! `cargo xtask fuzz`: the parsers that face hostile input, for as long as one likes, with libFuzzer.
//!
//! It is what `cargo fuzz run -s none` does, without another program to install: the same flags make
//! the compiler count what is run, which the stable one does, too. Only a sanitizer would need
//! another compiler, and would find what unsafe code does; there is none in these parsers.

use std::{fs, path::PathBuf};

use crate::step::{self, first_line, root};

/// How long each target is run, in seconds.
const LONG: u64 = 300;
/// The longest input, in bytes.
const LONGEST: usize = 64 << 10;
/// How long one input may take, in seconds.
const SLOWEST: u64 = 10;

/// Count each edge of the program, and what is compared; stop where a number runs over.
const FLAGS: [&str; 7] = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
];

/// Runs every target, or those that are named.
///
/// # Errors
/// When an argument is wrong, or a target fails: what it was given is in a file that is named.
pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    let all = targets()?;
    let (mut seconds, mut wanted) = (LONG, Vec::new());
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--seconds" => {
                let value = rest.next().and_then(|it| it.parse().ok());
                seconds = value.ok_or("--seconds wants a number")?;
            }
            name if all.iter().any(|it| it == name) => wanted.push(name.to_owned()),
            other => {
                return Err(format!(
                    "there is no target `{other}`; there are: {}",
                    all.join(" ")
                ));
            }
        }
    }
    if wanted.is_empty() {
        wanted = all;
    }
    let host = host()?;
    build(&wanted, &host)?;
    let mut failed = Vec::new();
    for target in &wanted {
        if let Err(message) = fuzz(target, &host, seconds) {
            println!("== {message}");
            failed.push(target.as_str());
        }
    }
    match failed.as_slice() {
        [] => Ok(()),
        some => Err(format!("these failed: {}", some.join(" "))),
    }
}

/// The targets are the directories of seeds.
fn targets() -> Result<Vec<String>, String> {
    let place = root().join("fuzz/corpus");
    let list = fs::read_dir(&place).map_err(|error| format!("{}: {error}", place.display()))?;
    let mut names: Vec<String> = list
        .filter_map(|it| it.ok()?.file_name().into_string().ok())
        .collect();
    names.sort();
    Ok(names)
}

/// What the compiler builds for: where it is named, flags are not those of build scripts.
fn host() -> Result<String, String> {
    let line = first_line("rustc", &["--print", "host-tuple"]);
    line.ok_or_else(|| "`rustc --print host-tuple` says nothing".into())
}

fn place() -> PathBuf {
    root().join("target/fuzz")
}

fn build(targets: &[String], host: &str) -> Result<(), String> {
    let mut command = step::command(
        "cargo",
        &[
            "build",
            "--release",
            "--locked",
            "--manifest-path",
            "fuzz/Cargo.toml",
            "--target",
            host,
        ],
    );
    for target in targets {
        command.args(["--bin", target]);
    }
    command
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}"))
        .env("CARGO_TARGET_DIR", place());
    step::run("build for libFuzzer", &mut command)
}

fn fuzz(target: &str, host: &str, seconds: u64) -> Result<(), String> {
    let program = place().join(host).join("release").join(target);
    let found = place().join("found").join(target);
    fs::create_dir_all(&found).map_err(|error| format!("{}: {error}", found.display()))?;
    let mut command = step::command(&program.to_string_lossy(), &[]);
    command
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={LONGEST}"))
        .arg(format!("-timeout={SLOWEST}"))
        .arg(format!("-artifact_prefix={}/failed-", place().display()))
        .arg("-print_final_stats=1")
        // What is found is written into the first.
        .arg(&found)
        .arg(root().join("fuzz/corpus").join(target));
    step::run(&format!("fuzz {target}"), &mut command)
}
