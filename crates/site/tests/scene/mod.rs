//! Sites of the kind `host`, which works everywhere, and of the kind `namespace`.
#![allow(clippy::unwrap_used, dead_code)]

use sandbox::Backend;
use skep_site::{DiskBounds, Host, Options, Sites, StoreBounds, Warm};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use testkit::Repo;
use workspace::Layering;

/// Sites in this directory, and the repository that they are of.
pub(crate) fn open(data: &Path, repo: &Repo) -> (Sites, git::Source) {
    open_as(data, repo, Layering::Copy)
}

/// Sites whose workspaces lie over their bases like this.
pub(crate) fn open_as(data: &Path, repo: &Repo, layering: Layering) -> (Sites, git::Source) {
    bounded(data, repo, layering, StoreBounds::default())
}

/// Sites that may take so much together.
pub(crate) fn bounded(
    data: &Path,
    repo: &Repo,
    layering: Layering,
    store: StoreBounds,
) -> (Sites, git::Source) {
    of(data, repo, Arc::new(sandbox::Host), layering, store)
}

/// Sites in sandboxes, with overlays.
pub(crate) fn sealed(data: &Path, repo: &Repo) -> (Sites, git::Source) {
    let backend = Arc::new(sandbox::Namespace::new());
    of(
        data,
        repo,
        backend,
        Layering::Overlay,
        StoreBounds::default(),
    )
}

/// As [`sealed`], with so many sandboxes kept ready.
pub(crate) fn warm(data: &Path, repo: &Repo, warm: Warm) -> (Sites, git::Source) {
    let backend = Arc::new(sandbox::Namespace::new());
    with(
        data,
        repo,
        backend,
        Layering::Overlay,
        StoreBounds::default(),
        warm,
    )
}

pub(crate) fn of(
    data: &Path,
    repo: &Repo,
    backend: Arc<dyn Backend>,
    layering: Layering,
    store: StoreBounds,
) -> (Sites, git::Source) {
    with(data, repo, backend, layering, store, Warm::OFF)
}

fn with(
    data: &Path,
    repo: &Repo,
    backend: Arc<dyn Backend>,
    layering: Layering,
    store: StoreBounds,
    warm: Warm,
) -> (Sites, git::Source) {
    let path = std::env::var_os("PATH").unwrap();
    let git = git::Program::find(&path).unwrap();
    let source = git::Source::discover(repo.path(), git.clone()).unwrap();
    let sites = Sites::open(Options {
        directory: data.to_owned(),
        backend,
        layering,
        host: Host {
            path,
            home: PathBuf::from("/nonexistent"),
            env: Arc::new(|_| None),
        },
        limits: sandbox::Limits::default(),
        disk: DiskBounds {
            store,
            ..DiskBounds::default()
        },
        warm,
        git,
    })
    .unwrap();
    (sites, source)
}

/// A repository of a hundred files, and its first commits, each with one more.
pub(crate) fn grown(commits: usize) -> (Repo, Vec<git::CommitId>) {
    let repo = Repo::new();
    for number in 0..100 {
        repo.file(&format!("d{}/f{number}", number % 7), "content\n");
    }
    let commit = |number| {
        repo.file("counter", format!("{number}\n"));
        repo.commit("One more").parse().unwrap()
    };
    let commits = (0..commits).map(commit).collect();
    (repo, commits)
}
