//! What sandboxes cost: the measuring half of `cargo xtask bench sandbox`, which builds it with
//! optimisation, knows the marks and shows the figures.
//!
//! Each line that it prints is a figure: its name, its unit and its samples. Arguments are the
//! names of groups; without any, all are measured. What the figures mean is in
//! `docs/benchmarks.md`.
#![allow(
    clippy::print_stderr,
    reason = "what cannot be measured here is said to the person who measures"
)]

#[path = "../figures/mod.rs"]
mod figures;
mod measure;
mod peers;
mod stage;

use std::{fs, io::Write, os::unix::fs::PermissionsExt, time::Duration};

use figures::Failed;
use measure::{cycle, exec, idle, rate};
use stage::Stage;
use testkit::Home;

/// An ordinary user.
const ORDINARY: u32 = 65_534;
/// How long all of an ordinary user's figures may take.
const PATIENCE: Duration = Duration::from_secs(600);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failed> {
    // Skep's own tasks run on the runtime's workers too. What is awaited here instead would be woken
    // by a worker, one change of threads more for each answer.
    tokio::spawn(measure()).await?
}

async fn measure() -> Result<(), Failed> {
    let groups: Vec<String> = std::env::args().skip(1).collect();
    let wants = |group: &str| groups.is_empty() || groups.iter().any(|it| it == group);
    let own = ["cycle", "exec", "rate", "idle"];
    let mut stage = None;
    if own.iter().any(|group| wants(group)) {
        let stage = stage.insert(Stage::new().await?);
        if wants("cycle") {
            cycle(stage).await?;
        }
        if wants("exec") {
            exec(stage).await?;
        }
        if wants("rate") {
            rate(stage).await?;
        }
        if wants("idle") {
            idle(stage).await?;
        }
    }
    if wants("user") {
        as_ordinary_user()?;
    }
    // Not earlier: see `stage::settle`.
    drop(stage);
    Ok(())
}

/// The same once more by an ordinary user, in a home of its own. What is idle is not measured: the
/// list of a sealed process's memory is open to root only.
fn as_ordinary_user() -> Result<(), Failed> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let mut home = Home::new().as_user(ORDINARY).env(figures::WHOSE, "_user");
    if let Ok(files) = std::env::var(figures::FILES) {
        home = home.env(figures::FILES, files);
    }
    // Where another user can reach it.
    let program = home.root().join("sandboxes");
    fs::copy(std::env::current_exe()?, &program)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    let ran = home.run(&program, ["cycle", "exec", "rate"], &home.home(), PATIENCE);
    if !ran.status.success() {
        return Err(format!("as an ordinary user: {}\n{}", ran.status, ran.stderr).into());
    }
    let mut out = std::io::stdout().lock();
    out.write_all(ran.stdout.as_bytes())?;
    out.flush()?;
    Ok(())
}
