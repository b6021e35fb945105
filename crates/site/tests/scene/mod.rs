//! Sites of the kind `host`, which works everywhere, and of the kind `namespace`.
#![allow(clippy::unwrap_used, dead_code)]

use git::{CommitId, Mirror};
use sandbox::Backend;
use skep_site::{DiskBounds, Host, Options, Site, Sites, StoreBounds, Wanted, Warm};
use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
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
    warm_of(data, repo, Arc::new(sandbox::Namespace::new()), warm)
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
        host: host(path),
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

fn host(path: OsString) -> Host {
    Host {
        path,
        home: PathBuf::from("/nonexistent"),
        env: Arc::new(|_| None),
    }
}

/// As [`sealed`], on a machine that has these programs before all others.
pub(crate) fn sealed_with(data: &Path, programs: &Path) -> Sites {
    let path = std::env::var_os("PATH").unwrap();
    let git = git::Program::find(&path).unwrap();
    let all = std::env::split_paths(&path);
    let path = std::env::join_paths([programs.to_owned()].into_iter().chain(all)).unwrap();
    Sites::open(Options {
        directory: data.to_owned(),
        backend: Arc::new(sandbox::Namespace::new()),
        layering: Layering::Overlay,
        host: host(path),
        limits: sandbox::Limits::default(),
        disk: DiskBounds::default(),
        warm: Warm::OFF,
        git,
    })
    .unwrap()
}

/// As [`warm`], in sandboxes of this kind.
pub(crate) fn warm_of(
    data: &Path,
    repo: &Repo,
    backend: Arc<dyn Backend>,
    warm: Warm,
) -> (Sites, git::Source) {
    with(
        data,
        repo,
        backend,
        Layering::Overlay,
        StoreBounds::default(),
        warm,
    )
}

/// A repository, and sites of its commits.
pub(crate) struct Place {
    pub(crate) repo: Repo,
    pub(crate) data: tempfile::TempDir,
    pub(crate) sites: Sites,
    pub(crate) mirror: Mirror,
}

impl Place {
    /// Over a commit with these files.
    pub(crate) async fn over(
        files: &[(&str, &str)],
        open: impl FnOnce(&Path, &Repo) -> (Sites, git::Source),
    ) -> Self {
        let repo = Repo::new();
        for (path, content) in files {
            repo.file(path, content);
        }
        repo.commit("A base");
        let data = tempfile::tempdir().unwrap();
        let (sites, _) = open(data.path(), &repo);
        let mirror = sites.mirror("r").await.unwrap();
        Self {
            repo,
            data,
            sites,
            mirror,
        }
    }

    /// The commit that the repository is at.
    pub(crate) fn head(&self) -> CommitId {
        let path = std::env::var_os("PATH").unwrap();
        let git = git::Program::find(&path).unwrap();
        let source = git::Source::discover(self.repo.path(), git).unwrap();
        let commit = source.head().commit;
        self.mirror.fetch(&source, commit).unwrap();
        commit
    }

    /// A site on that commit, set up like this.
    pub(crate) fn set_up_by(&self, id: &str, command: &str) -> Wanted {
        Wanted {
            setup: Some(domain::policy::Setup {
                command: command.into(),
                timeout: Duration::from_secs(60),
                inputs: None,
            }),
            ..Wanted::plain(id, "r", self.head())
        }
    }

    pub(crate) async fn open(&self, wanted: Wanted) -> Site {
        self.sites.site(&self.mirror, wanted).await.unwrap()
    }

    /// The names in a directory of the store that are not hidden.
    pub(crate) fn names(&self, part: &str) -> Vec<String> {
        let list = fs::read_dir(self.data.path().join(part)).unwrap();
        list.map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.starts_with('.'))
            .collect()
    }

    pub(crate) fn assert_no_workspace_is_left(&self) {
        for part in ["workspaces", "trash"] {
            assert_eq!(self.names(part), Vec::<String>::new(), "{part}");
        }
    }
}

/// What a script prints that succeeds.
pub(crate) async fn says(site: &Site, script: &str) -> String {
    let ran = site.run(script, Duration::from_secs(60)).await.unwrap();
    assert!(ran.exit.success(), "{script}: {}", ran.tail(500));
    ran.tail(100_000)
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
