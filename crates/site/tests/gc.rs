//! What bases and workspaces take is bounded, and given back when somebody asks.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod scene;

use ledger::Ledger;
use skep_site::{Collect, Collection, Error, Sites, Step, StoreBounds, collect};
use std::{
    path::Path,
    sync::{Arc, Mutex, atomic::AtomicBool},
    time::{Duration, SystemTime},
};
use testkit::Repo;
use workspace::Layering;

struct World {
    data: tempfile::TempDir,
    ledger: Ledger,
    sites: Sites,
    mirror: git::Mirror,
    commits: Vec<git::CommitId>,
    _repo: Repo,
}

async fn world(commits: usize) -> World {
    let (repo, commits) = scene::grown(commits);
    let data = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(ledger::Options::new(data.path()))
        .await
        .unwrap();
    let (sites, source) = scene::open_as(data.path(), &repo, Layering::Overlay);
    let mirror = sites.mirror("r").await.unwrap();
    for commit in &commits {
        mirror.fetch(&source, *commit).unwrap();
    }
    World {
        data,
        ledger,
        sites,
        mirror,
        commits,
        _repo: repo,
    }
}

impl World {
    async fn base(&self, number: usize) -> workspace::Base {
        let commit = self.commits[number];
        let made = self.sites.base("r", &self.mirror, commit, None).await;
        made.unwrap()
    }

    fn key(&self, number: usize) -> String {
        format!("r-{}", self.commits[number])
    }

    fn bases(&self) -> usize {
        let listed = std::fs::read_dir(self.data.path().join("bases")).unwrap();
        let names = listed.map(|entry| entry.unwrap().file_name());
        names
            .filter(|name| !name.to_str().unwrap().starts_with('.'))
            .count()
    }

    async fn collect(&self, how: Collect) -> Collection {
        let stop = Arc::new(AtomicBool::new(false));
        let data = self.data.path();
        collect(&self.ledger, data, how, stop, |_| {})
            .await
            .unwrap()
    }
}

/// Directories and records around what was measured are not foreseen.
fn about(one: u64, other: u64) -> bool {
    one.abs_diff(other) <= 32 * 1024
}

fn bounded(max: u64) -> StoreBounds {
    StoreBounds {
        max: Some(max),
        free: Some(0),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_over_the_bound_goes_the_longest_unused_first_and_never_what_is_in_use() {
    let world = world(3).await;
    let held = world.base(0).await;
    drop(world.base(1).await);
    drop(world.base(2).await);
    assert_eq!(world.bases(), 3);
    let within = world
        .collect(Collect {
            bounds: bounded(1 << 40),
            ..Collect::default()
        })
        .await;
    assert!(within.bases.is_empty(), "{within:?}");

    // One byte too much: the longest unused of those that nothing needs.
    let taken = within.before.bytes();
    let how = Collect {
        bounds: bounded(taken - 1),
        dry_run: true,
        ..Collect::default()
    };
    let would = world.collect(how).await;
    assert_eq!(would.bases, [world.key(1)]);
    assert!(would.freed > 0 && world.bases() == 3);
    let did = world
        .collect(Collect {
            dry_run: false,
            ..how
        })
        .await;
    assert_eq!((did.bases, world.bases()), (would.bases, 2));
    assert!(about(did.freed, would.freed));

    // Nothing may stay but what is in use.
    let did = world
        .collect(Collect {
            bounds: bounded(0),
            ..Collect::default()
        })
        .await;
    assert_eq!(
        (did.bases.as_slice(), world.bases()),
        (&[world.key(2)][..], 1)
    );
    drop(held);
    let did = world
        .collect(Collect {
            bounds: bounded(1 << 40),
            all: true,
            ..Collect::default()
        })
        .await;
    assert_eq!(
        (did.bases.as_slice(), world.bases()),
        (&[world.key(0)][..], 0)
    );
    world.sites.close(true).await;
    world.ledger.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_that_nobody_owns_goes_and_with_it_what_it_kept() {
    let world = world(1).await;
    // The kind `host` makes no overlays, so the workspace is made without a sandbox.
    let store = workspace::Store::open(world.data.path(), Layering::Overlay).unwrap();
    let base = world.base(0).await;
    let workspace = store.create("left", &base).unwrap();
    let how = Collect {
        all: true,
        ..Collect::default()
    };
    let did = world.collect(how).await;
    assert!(did.workspaces.is_empty() && did.bases.is_empty(), "{did:?}");
    drop((base, workspace));
    let would = world
        .collect(Collect {
            dry_run: true,
            ..how
        })
        .await;
    let did = world.collect(how).await;
    for collection in [&would, &did] {
        assert_eq!(collection.workspaces, ["left"]);
        assert_eq!(collection.bases, [world.key(0)]);
    }
    assert!(about(did.freed, would.freed));
    assert!(store.list().unwrap().is_empty() && world.bases() == 0);
    world.sites.close(true).await;
    world.ledger.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_that_is_stopped_says_so_and_the_next_one_goes_on() {
    let world = world(2).await;
    drop(world.base(0).await);
    drop(world.base(1).await);
    let how = Collect {
        all: true,
        ..Collect::default()
    };
    let stop = Arc::new(AtomicBool::new(false));
    let steps = Arc::new(Mutex::new(Vec::new()));
    let (stopped, told) = (Arc::clone(&stop), Arc::clone(&steps));
    let data: &Path = world.data.path();
    let ended = collect(&world.ledger, data, how, stop, move |step| {
        if matches!(step, Step::Deleting(..)) {
            stopped.store(true, std::sync::atomic::Ordering::Relaxed);
        }
        told.lock().unwrap().push(step);
    })
    .await;
    let is_stopped = |error| matches!(error, Error::Workspace(workspace::Error::Stopped));
    assert!(ended.is_err_and(is_stopped));
    assert_eq!(
        *steps.lock().unwrap(),
        [Step::Measuring, Step::Deleting(0, 2)]
    );
    assert_eq!(world.bases(), 0, "they are in the trash");
    let did = world.collect(how).await;
    assert!(did.freed > 0 && did.before.space.trash.entries > 0);
    assert_eq!(world.collect(how).await.freed, 0);
    world.sites.close(true).await;
    world.ledger.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_makes_bases_keeps_the_bound_by_itself() {
    let (repo, commits) = scene::grown(3);
    let data = tempfile::tempdir().unwrap();
    let (sites, source) = scene::bounded(data.path(), &repo, Layering::Overlay, bounded(1));
    let mirror = sites.mirror("r").await.unwrap();
    for commit in &commits {
        mirror.fetch(&source, *commit).unwrap();
        sites.base("r", &mirror, *commit, None).await.unwrap();
    }
    sites.close(false).await;
    let store = workspace::Store::open(data.path(), Layering::Overlay).unwrap();
    assert!(store.bases().unwrap().is_empty());
    let space = store.space(&AtomicBool::new(false)).unwrap();
    assert_eq!(space, workspace::Space::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_forks_shared_counts_and_goes_with_the_last_of_them() {
    let world = world(1).await;
    let store = workspace::Store::open(world.data.path(), Layering::Overlay).unwrap();
    let base = world.base(0).await;
    let mut source = store.create("source", &base).unwrap();
    let workspace::Layers::Overlay { upper, .. } = source.layers() else {
        panic!("workspaces are overlays here");
    };
    std::fs::write(upper.join("large"), vec![7; 1 << 20]).unwrap();
    drop(source.snapshot("one").unwrap());
    let fork = source.fork(Some("one"), "fork").unwrap();
    source.delete().unwrap();
    let kept = world.collect(Collect::default()).await;
    assert_eq!(kept.layers, 0);
    assert!(kept.before.space.layers[0].bytes >= 1 << 20);
    assert!(kept.before.bytes() >= 1 << 20, "they count");
    // Its holder is killed: nobody has the workspace any more.
    drop(fork);
    let how = Collect {
        dry_run: true,
        ..Collect::default()
    };
    let would = world.collect(how).await;
    assert_eq!((would.layers, would.workspaces.len()), (1, 1));
    let did = world.collect(Collect::default()).await;
    assert_eq!((did.layers, did.workspaces.len()), (1, 1));
    assert!(
        about(did.freed, would.freed),
        "{} {}",
        did.freed,
        would.freed
    );
    assert!(world.collect(how).await.before.space.layers.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_url_goes_when_it_is_long_unused_and_nothing_of_it_is_needed() {
    let world = world(1).await;
    let copy = |name: &str, days: u64| {
        let directory = world.data.path().join("fetched").join(name);
        let program = git::Program::find(&std::env::var_os("PATH").unwrap()).unwrap();
        let url = format!("https://example.org/{name}");
        git::Remote::open_or_create(&directory, &url, git::Protocol::Https, program).unwrap();
        let time = SystemTime::now() - Duration::from_secs(days * 86_400);
        (directory, time)
    };
    let age = |(directory, time): (std::path::PathBuf, SystemTime)| {
        for place in ["skep/lock", "skep/url", "HEAD", "objects/pack", ""] {
            let file = std::fs::File::open(directory.join(place)).unwrap();
            file.set_modified(time).unwrap();
        }
    };
    age(copy("fresh", 0));
    age(copy("lately", 20));
    age(copy("old", 40));
    let work = copy("work", 40);
    std::fs::write(work.0.join("refs/heads/taken"), "id").unwrap();
    age(work);
    let how = |all: bool, dry_run: bool| Collect {
        all,
        dry_run,
        ..Collect::default()
    };
    let would = world.collect(how(false, true)).await;
    assert_eq!(would.fetched, ["old"]);
    assert_eq!(would.before.fetched.len(), 4);
    assert_eq!(would.before.fetched[3].stays, Some("holds integrated work"));
    let did = world.collect(how(false, false)).await;
    assert_eq!(did.fetched, ["old"]);
    assert!(!world.data.path().join("fetched/old").exists());
    assert!(did.freed > 0);
    assert_eq!(world.collect(how(true, false)).await.fetched, ["lately"]);
    assert!(world.collect(how(true, false)).await.fetched.is_empty());
}
