//! `cargo xtask bench`: figures with their marks, beside a peer, in one run.
//!
//! What each figure means, and how it is taken, is in `docs/benchmarks.md`.

mod build;
mod cold;
mod example;
mod figure;
mod ledger;
mod memory;
mod model;
mod overhead;
mod peers;
mod reference;
mod sandbox;
mod stage;
mod workspace;

use std::path::PathBuf;

use figure::Report;
use stage::Stage;

const NAMES: &str = "run-overhead ledger workspace sandbox";

/// What is asked of a benchmark.
#[derive(Debug, Default)]
struct Options {
    /// A JSON object a line, instead of a table.
    json: bool,
    /// Clean builds are measured too: minutes.
    build: bool,
    /// Only the groups with these names; all where there are none.
    only: Vec<String>,
    /// This binary is measured, and none is built.
    binary: Option<PathBuf>,
}

impl Options {
    fn parse(arguments: &[String]) -> Result<(Vec<&str>, Options), String> {
        let mut options = Options::default();
        let mut names = Vec::new();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            match argument.as_str() {
                "--json" => options.json = true,
                "--build" => options.build = true,
                "--only" => {
                    let group = rest.next().ok_or_else(|| {
                        format!(
                            "`--only` wants a group: of run-overhead 100, 10k, 90k, cold, waiting, \
                             binary, build; of ledger {}; of workspace {}; of sandbox {}",
                            ledger::GROUPS.join(", "),
                            workspace::GROUPS.join(", "),
                            sandbox::GROUPS.join(", ")
                        )
                    })?;
                    options.only.push(group.clone());
                }
                "--binary" => {
                    let file = rest.next().ok_or("`--binary` wants a file")?;
                    let file = std::fs::canonicalize(file)
                        .map_err(|error| format!("cannot find {file}: {error}"))?;
                    options.binary = Some(file);
                }
                flag if flag.starts_with('-') => {
                    return Err(format!(
                        "there is no flag `{flag}`; there are: --json --build --only GROUP --binary FILE"
                    ));
                }
                name => names.push(name),
            }
        }
        Ok((names, options))
    }

    /// Whether this group of figures is wanted.
    fn wants(&self, group: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|it| it == group)
    }
}

/// Runs a benchmark by its name.
pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    let (names, options) = Options::parse(arguments)?;
    match names.as_slice() {
        ["run-overhead"] => run_overhead(&options),
        ["ledger"] => ledger::run(&options),
        ["workspace"] => workspace::run(&options),
        ["sandbox"] => sandbox::run(&options),
        [] => Err(format!("name a benchmark: {NAMES}")),
        [name, ..] => Err(format!(
            "there is no benchmark `{name}`; there are: {NAMES}"
        )),
    }
}

/// What Skep itself costs around the work of an agent.
fn run_overhead(options: &Options) -> Result<(), String> {
    let mut report = Report::new(options.json);
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => build::release()?,
    };
    // Before anything large is deleted.
    if options.wants("cold") {
        cold::measure(&binary, &mut report)?;
    }
    for size in [&overhead::SMALL, &overhead::MEDIUM, &overhead::LARGE] {
        let wants_waiting = size.name == overhead::MEDIUM.name && options.wants("waiting");
        if !options.wants(size.name) && !wants_waiting {
            continue;
        }
        let stage = Stage::new(&binary, size.files)?;
        overhead::warm(&stage)?;
        if options.wants(size.name) {
            overhead::measure(&stage, size, &mut report)?;
        }
        if wants_waiting {
            memory::measure(&stage, &mut report)?;
        }
    }
    if options.wants("binary") {
        build::size(&binary, &mut report)?;
    }
    if options.build && options.wants("build") {
        build::clean(&mut report)?;
    }
    report.finish();
    Ok(())
}
