//! Two queues of others, in a directory with its own lock file, fetched only here.

use std::path::PathBuf;

use super::{
    example::parse,
    figure::{Figure, Report},
};
use crate::step;

/// Fetches them where they are not there, and measures them.
pub(crate) fn measure(report: &mut Report) -> Result<(), String> {
    let directory: PathBuf = step::root().join("xtask").join("peers");
    let run = |program: &str, arguments: &[&str]| {
        let output = step::command(program, arguments)
            .current_dir(&directory)
            .stderr(std::process::Stdio::inherit())
            .output()
            .map_err(|error| format!("cannot start {program} (it comes with Node.js): {error}"))?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(format!("{program} failed: {}", output.status)),
        }
    };
    if !directory.join("node_modules").exists() {
        run("npm", &["ci", "--no-audit", "--no-fund"])?;
    }
    for line in run("node", &["measure.mjs"])?.lines() {
        let (name, unit, samples) = parse(line)?;
        report.add(Figure::median(name, unit, &samples));
    }
    Ok(())
}
