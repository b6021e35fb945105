//! What the ledger can do: the measuring half of `cargo xtask bench ledger`, which builds it with
//! optimisation, knows the marks and shows the figures.
//!
//! Each line that it prints is a figure: its name, its unit and its samples. Arguments are the
//! names of groups; without any, all are measured. What the figures mean is in
//! `docs/benchmarks.md`.

mod fill;
mod floor;
mod load;
mod reading;
mod recovery;
mod waking;

use std::io::Write;

/// Why a measurement failed.
pub(crate) type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Prints a figure.
pub(crate) fn figure(name: &str, unit: &str, samples: &[f64]) -> Result<(), Failed> {
    let samples: Vec<String> = samples.iter().map(f64::to_string).collect();
    let mut out = std::io::stdout().lock();
    writeln!(out, "figure {name} {unit} {}", samples.join(" "))?;
    out.flush()?;
    Ok(())
}

/// The value that this part of the samples, between nought and one, does not exceed.
pub(crate) fn part(mut samples: Vec<f64>, part: f64) -> f64 {
    samples.sort_by(f64::total_cmp);
    let place = (samples.len() as f64 * part) as usize;
    samples
        .get(place.min(samples.len().saturating_sub(1)))
        .copied()
        .unwrap_or(f64::NAN)
}

/// This program again, in another role.
pub(crate) fn again(arguments: &[&str]) -> Result<tokio::process::Command, Failed> {
    let mut command = tokio::process::Command::new(std::env::current_exe()?);
    command
        .arg("--role")
        .args(arguments)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true);
    Ok(command)
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failed> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["--role", "load", directory, name] => return load::other(directory, name).await,
        ["--role", "worker", directory] => return waking::other(directory).await,
        ["--role", "interrupted", directory] => return recovery::other(directory).await,
        _ => {}
    }
    let wants = |group: &str| arguments.is_empty() || arguments.contains(&group);
    if wants("lifecycles") {
        load::lifecycles().await?;
    }
    if wants("verbs") {
        load::verbs().await?;
    }
    if wants("full") {
        load::full().await?;
    }
    if wants("claim") {
        load::claim().await?;
    }
    if wants("processes") {
        load::two_processes().await?;
    }
    if wants("wake") {
        waking::measure().await?;
    }
    if wants("replay") {
        reading::replay().await?;
    }
    if wants("live") {
        reading::live().await?;
    }
    if wants("size") {
        reading::size().await?;
    }
    if wants("resume") {
        recovery::measure().await?;
    }
    Ok(())
}
