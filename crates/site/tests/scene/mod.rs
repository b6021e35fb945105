//! Sites of the kind `host`, which works everywhere.

use skep_site::{DiskBounds, Host, Options, Sites};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use testkit::Repo;

/// Sites in this directory, and the repository that they are of.
pub(crate) fn open(data: &Path, repo: &Repo) -> (Sites, git::Source) {
    open_as(data, repo, workspace::Layering::Copy)
}

/// Sites whose workspaces lie over their bases like this.
pub(crate) fn open_as(
    data: &Path,
    repo: &Repo,
    layering: workspace::Layering,
) -> (Sites, git::Source) {
    let path = std::env::var_os("PATH").unwrap();
    let git = git::Program::find(&path).unwrap();
    let source = git::Source::discover(repo.path(), git.clone()).unwrap();
    let sites = Sites::open(Options {
        directory: data.to_owned(),
        backend: Arc::new(sandbox::Host),
        layering,
        host: Host {
            path,
            home: PathBuf::from("/nonexistent"),
            env: Arc::new(|_| None),
        },
        limits: sandbox::Limits::default(),
        disk: DiskBounds::default(),
        git,
    })
    .unwrap();
    (sites, source)
}
