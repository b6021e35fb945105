//! The release binary: how long it takes to build, and how large it is.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Instant,
};

use serde_json::Value;

use super::figure::{Figure, Report};
use crate::step;

const BUILD: [&str; 5] = ["build", "--release", "--locked", "--package", "skep-cli"];

/// Builds the release binary where cargo puts it, and says where that is.
pub(crate) fn release() -> Result<PathBuf, String> {
    built(&BUILD, "skep")
}

/// Builds an example of a crate, and says where it is.
pub(crate) fn example(package: &str, name: &str) -> Result<PathBuf, String> {
    let build = ["build", "--release", "--locked", "--package", package];
    built(&[&build[..], &["--example", name]].concat(), name)
}

fn built(arguments: &[&str], name: &str) -> Result<PathBuf, String> {
    let output = step::command("cargo", arguments)
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cannot start cargo: {error}"))?;
    if !output.status.success() {
        return Err(format!("building `{name}` failed: {}", output.status));
    }
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|message| Some(PathBuf::from(message.get("executable")?.as_str()?)))
        .find(|path| path.file_name().is_some_and(|file| file == name))
        .ok_or_else(|| format!("cargo built no `{name}`"))
}

/// Measures the binary's file.
pub(crate) fn size(binary: &Path, report: &mut Report) -> Result<(), String> {
    let bytes = fs::metadata(binary)
        .map_err(|error| format!("cannot read {}: {error}", binary.display()))?
        .len();
    report.add(Figure::once("binary_mb", "MB", bytes as f64 / 1e6).mark(Some(25.0)));
    Ok(())
}

/// Measures a build of everything, with no artefact there, all sources downloaded.
pub(crate) fn clean(report: &mut Report) -> Result<(), String> {
    let run = |mut command: std::process::Command| {
        command
            .stdout(Stdio::null())
            .status()
            .map_err(|error| format!("cannot start cargo: {error}"))
            .and_then(|status| match status.success() {
                true => Ok(()),
                false => Err(format!("cargo failed: {status}")),
            })
    };
    report.doing("a clean release build: minutes");
    run(step::command("cargo", &["fetch", "--locked", "--quiet"]))?;
    let target = tempfile::tempdir()
        .map_err(|error| format!("cannot make a directory to build in: {error}"))?;
    let mut command = step::command("cargo", &BUILD);
    command
        .arg("--quiet")
        .env("CARGO_TARGET_DIR", target.path());
    let began = Instant::now();
    run(command)?;
    let seconds = began.elapsed().as_secs_f64();
    report.add(Figure::once("build_s", "s", seconds).mark(Some(360.0)));
    Ok(())
}
