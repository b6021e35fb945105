//! A repository and a home in which the binary runs.

use std::{
    cell::Cell,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::process::Signal;
use testkit::{Home, Ran, Repo, Started};

use super::model::Model;

/// How long anything may take before the benchmark gives up.
pub(crate) const DEADLINE: Duration = Duration::from_secs(300);
/// How long a program that was asked to end may take.
const ENDING: Duration = Duration::from_secs(60);
/// How many files the agent changes.
pub(crate) const CHANGED: usize = 10;

/// A generated repository, and a home with the data of the runs on it.
pub(crate) struct Stage {
    binary: PathBuf,
    home: Home,
    repo: Repo,
    files: usize,
    runs: Cell<usize>,
}

impl Stage {
    /// A repository of so many files, and an empty home.
    pub(crate) fn new(binary: &Path, files: usize) -> Result<Stage, String> {
        Ok(Stage {
            binary: binary.to_owned(),
            home: Home::new(),
            repo: Repo::generated(files),
            files,
            runs: Cell::new(0),
        })
    }

    /// The directory with the reference that runs move. It is there after the first run.
    pub(crate) fn references(&self) -> PathBuf {
        self.repo.path().join(".git/refs/heads/skep")
    }

    /// Starts a run in this home; also says when, just before.
    pub(crate) fn start(&self, model: &Model) -> (Instant, Started) {
        start(&self.binary, &self.home, self.repo.path(), model)
    }

    /// A command that changes files that no run before it changed, so that all of them merge.
    pub(crate) fn change(&self) -> Result<String, String> {
        let run = self.runs.replace(self.runs.get() + 1);
        if (run + 1) * CHANGED > self.files {
            return Err(format!("{} files are too few for so many runs", self.files));
        }
        let step = self.files / CHANGED;
        let names: Vec<String> = (0..CHANGED).map(|n| path(n * step + run)).collect();
        Ok(format!(
            "for file in {}; do echo changed by the agent >> \"$file\" || exit 1; done",
            names.join(" ")
        ))
    }

    /// Whether the branch holds the changes of every run so far.
    pub(crate) fn holds_all(&self) -> Result<(), String> {
        let expected = self.runs.get() * CHANGED;
        let names = self
            .repo
            .git(&["diff", "--name-only", "main", "skep/integration"]);
        match names.lines().count() {
            count if count == expected => Ok(()),
            count => Err(format!(
                "skep/integration differs from main in {count} files, not {expected}"
            )),
        }
    }
}

/// The path of the n-th file of a generated repository.
fn path(n: usize) -> String {
    format!(
        "src/part{:03}/unit{:02}/file{:02}.txt",
        n / 10_000,
        n / 100 % 100,
        n % 100
    )
}

/// Starts a run on a repository; also says when, just before.
pub(crate) fn start(binary: &Path, home: &Home, repo: &Path, model: &Model) -> (Instant, Started) {
    let mut command = home.command(binary);
    command
        .args(["run", "--plan", "none", "--json"])
        .arg("append a line to ten files")
        .env("OPENAI_API_KEY", "sk-none")
        .env("OPENAI_BASE_URL", model.base_url())
        .current_dir(repo);
    for name in ["SKEP_LOG"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    let began = Instant::now();
    (began, Started::spawn(command))
}

/// The failure of a run, with what it printed.
pub(crate) fn failed(what: &str, ran: &Ran) -> String {
    format!(
        "{what}: {}\n--- stdout\n{}\n--- stderr\n{}",
        ran.status, ran.stdout, ran.stderr
    )
}

/// Ends a run that waits for its model, as Ctrl-C does.
pub(crate) fn interrupt(mut run: Started) -> Result<(), String> {
    run.signal(Signal::INT);
    if run.ends_within(ENDING) {
        return Ok(());
    }
    run.kill();
    Err(format!(
        "the run did not end within {ENDING:?} of an interrupt"
    ))
}
