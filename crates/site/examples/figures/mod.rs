//! What the measuring programs have in common: how a figure is printed, and a directory of sites that
//! takes nothing of the person's home.
#![allow(dead_code, reason = "no program uses all of it")]

use std::{
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use git::Program;
use sandbox::Backend;
use skep_site::{DiskBounds, Host, Options, Warm};
use workspace::Layering;

/// What is put behind the names of figures, to say whose they are.
pub(crate) const WHOSE: &str = "SKEP_BENCH_WHOSE";
/// Takes another number of files of the repository, to try a benchmark itself.
pub(crate) const FILES: &str = "SKEP_BENCH_FILES";

pub(crate) type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Prints a figure.
pub(crate) fn figure(name: &str, unit: &str, samples: &[f64]) -> Result<(), Failed> {
    let whose = std::env::var(WHOSE).unwrap_or_default();
    let samples: Vec<String> = samples.iter().map(f64::to_string).collect();
    let mut out = std::io::stdout().lock();
    writeln!(out, "figure {name}{whose} {unit} {}", samples.join(" "))?;
    out.flush()?;
    Ok(())
}

pub(crate) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// How many files the repository has.
pub(crate) fn files(usual: usize) -> Result<usize, Failed> {
    Ok(std::env::var(FILES).map_or(Ok(usual), |text| text.parse())?)
}

/// How sites in a directory are made.
pub(crate) fn options(
    directory: &Path,
    backend: impl Backend + 'static,
    warm: Warm,
) -> Result<Options, Failed> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    Ok(Options {
        directory: directory.to_owned(),
        backend: Arc::new(backend),
        layering: Layering::Overlay,
        git: Program::find(&path)?,
        host: Host {
            path,
            home: PathBuf::from("/nonexistent"),
            env: Arc::new(|_| None),
        },
        limits: sandbox::Limits::default(),
        disk: DiskBounds::default(),
        warm,
    })
}
