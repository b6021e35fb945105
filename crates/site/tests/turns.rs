//! Snapshots, the way back and forks of a site, in running sandboxes: the agent sees the right files,
//! and the right change comes out.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod scene;

use sandbox::Command;
use scene::{Place, says};
use site::{Error, Site, Wanted};
use skep_site as site;
use std::{fs, path::Path};
use testkit::Repo;

impl Place {
    async fn new() -> Self {
        let files = [
            ("kept", "kept\n"),
            ("gone", "gone\n"),
            (".gitignore", "set-up\n"),
        ];
        Self::over(&files, scene::sealed).await
    }

    fn wanted(&self, id: &str) -> Wanted {
        self.set_up_by(id, "echo ready > set-up")
    }

    async fn site(&self, id: &str) -> Site {
        self.open(self.wanted(id)).await
    }

    /// The files of the change, with the base's.
    async fn extracted(&self, site: &Site) -> Vec<String> {
        let extracted = site.extract().await.unwrap();
        let files = self.mirror.files(extracted.tree, 1_000).unwrap();
        files.iter().map(|(path, _)| path.to_string()).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_taken_back_to_any_moment_and_goes_on_from_there() {
    let place = Place::new().await;
    let site = place.site("one").await;
    site.check_snapshots().unwrap();
    site.snapshot("start").await.unwrap();
    says(&site, "echo 1 > one; rm gone; git status --short").await;
    site.snapshot("one").await.unwrap();
    says(&site, "echo 2 > two; echo more >> one").await;
    site.snapshot("two").await.unwrap();
    assert_eq!(
        says(&site, "ls; cat one set-up").await,
        "kept\none\nset-up\ntwo\n1\nmore\nready\n"
    );
    assert_eq!(
        place.extracted(&site).await,
        [".gitignore", "kept", "one", "two"]
    );
    assert!(site.snapshot_bytes("two").await.unwrap() >= 4096);

    site.undo(Some("one")).await.unwrap();
    assert_eq!(site.snapshots().await.unwrap(), ["start", "one"]);
    assert_eq!(says(&site, "ls; cat one").await, "kept\none\nset-up\n1\n");
    says(&site, "echo 3 > three").await;
    assert_eq!(
        place.extracted(&site).await,
        [".gitignore", "kept", "one", "three"]
    );

    site.undo(None).await.unwrap();
    assert_eq!(says(&site, "ls").await, "gone\nkept\nset-up\n");
    assert_eq!(place.extracted(&site).await, [".gitignore", "gone", "kept"]);
    assert_eq!(says(&site, "git status --short").await, "");
    site.close().await.unwrap();
    place.sites.close(false).await;
    assert_eq!(
        fs::read_dir(place.data.path().join("trash"))
            .unwrap()
            .count(),
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_goes_its_own_way_and_outlives_its_source() {
    let place = Place::new().await;
    let site = place.site("source").await;
    says(&site, "echo 1 > one").await;
    site.snapshot("one").await.unwrap();
    says(&site, "echo 2 > two; echo secret > ~/note").await;
    let mut forks = Vec::new();
    for number in 0..3 {
        let wanted = place.wanted(&format!("fork-{number}"));
        forks.push(site.fork(Some("one"), wanted).await.unwrap());
    }
    for (number, fork) in forks.iter().enumerate() {
        assert_eq!(
            says(fork, "ls; ls ~/note || true").await,
            "gone\nkept\none\nset-up\nls: cannot access '/home/agent/note': No such file or directory\n"
        );
        says(
            fork,
            &format!("echo {number} >> one; echo {number} > mine-{number}"),
        )
        .await;
    }
    assert_eq!(
        says(&site, "ls; cat one").await,
        "gone\nkept\none\nset-up\ntwo\n1\n"
    );
    site.close().await.unwrap();
    for (number, fork) in forks.into_iter().enumerate() {
        let own = format!("mine-{number}");
        assert_eq!(says(&fork, "cat one").await, format!("1\n{number}\n"));
        assert_eq!(
            place.extracted(&fork).await,
            [".gitignore", "gone", "kept", &own, "one"]
        );
        fork.snapshot("own").await.unwrap();
        fork.undo(Some("one")).await.unwrap();
        assert_eq!(says(&fork, "cat one").await, "1\n");
        fork.close().await.unwrap();
    }
    place.sites.close(false).await;
    let left = |part: &str| {
        let list = fs::read_dir(place.data.path().join(part)).unwrap();
        let names = list.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names
            .filter(|name| !name.starts_with('.'))
            .collect::<Vec<_>>()
    };
    for part in ["workspaces", "layers", "trash"] {
        assert_eq!(left(part), Vec::<String>::new(), "{part}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forks_that_are_made_while_layers_change_hinder_nothing_and_lose_nothing() {
    let place = Place::new().await;
    let site = place.site("one").await;
    says(&site, "echo 1 > one").await;
    site.snapshot("start").await.unwrap();
    let forks = async {
        for number in 0..8 {
            let id = format!("fork{number}");
            drop(site.fork_for_another("start", &id).await.unwrap());
        }
    };
    let snapshots = async {
        for number in 0..8 {
            site.snapshot(&format!("s{number}")).await.unwrap();
        }
    };
    tokio::join!(forks, snapshots);
    site.undo(Some("start")).await.unwrap();
    assert_eq!(says(&site, "cat one").await, "1\n");
    assert_eq!(
        place.extracted(&site).await,
        [".gitignore", "gone", "kept", "one"]
    );
    site.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn while_something_runs_there_is_no_snapshot_and_nothing_is_lost() {
    let place = Place::new().await;
    let site = place.site("busy").await;
    let sandbox = site.sandbox().unwrap();
    let command = Command::new(
        ["/bin/sh", "-c", "echo up > up; exec sleep 1000"],
        site.inside(),
    );
    let process = sandbox
        .exec(command.with_env(site.environment().to_vec()))
        .await
        .unwrap();
    let busy = |failed: Result<(), Error>| {
        assert!(
            matches!(failed, Err(Error::Sandbox(sandbox::Error::Busy { .. }))),
            "{failed:?}"
        );
    };
    busy(site.snapshot("a").await);
    busy(site.undo(None).await);
    assert_eq!(site.snapshots().await.unwrap(), Vec::<String>::new());
    let mut process = process;
    process.kill();
    process.wait().await.unwrap();
    says(&site, "echo more >> up").await;
    site.snapshot("a").await.unwrap();
    assert!(says(&site, "cat up").await.ends_with("more\n"));
    site.close().await.unwrap();
    place.sites.close(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_is_gone_on_with_on_all_of_its_layers() {
    let place = Place::new().await;
    let site = place.site("again").await;
    for turn in 0..5 {
        says(
            &site,
            &format!("echo {turn} > turn-{turn}; echo {turn} >> all"),
        )
        .await;
        site.snapshot(&format!("turn-{turn}")).await.unwrap();
    }
    says(&site, "echo last >> all").await;
    site.leave().await.unwrap();
    let wanted = place.wanted("again");
    let site = place.sites.reopen(&place.mirror, wanted).await.unwrap();
    assert_eq!(says(&site, "cat all").await, "0\n1\n2\n3\n4\nlast\n");
    assert_eq!(site.snapshots().await.unwrap().len(), 5);
    site.undo(Some("turn-1")).await.unwrap();
    assert_eq!(
        says(&site, "cat all; ls").await,
        "0\n1\nall\ngone\nkept\nset-up\nturn-0\nturn-1\n"
    );
    site.close().await.unwrap();
    place.sites.close(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_turns_are_folded_beside_the_agent_and_stay_within_reach() {
    let place = Place::new().await;
    let site = place.site("long").await;
    for turn in 0..100 {
        says(
            &site,
            &format!(
                "echo {turn} > turn-{turn}; echo {turn} > last; rm -f turn-{}",
                turn - 20
            ),
        )
        .await;
        site.snapshot(&format!("turn-{turn}")).await.unwrap();
    }
    assert_eq!(says(&site, "cat last; ls turn-* | wc -l").await, "99\n20\n");
    let record = fs::read_to_string(record(place.data.path(), "long")).unwrap();
    assert!(record.contains("\nfold "), "{record}");
    for turn in [80, 40, 3] {
        site.undo(Some(&format!("turn-{turn}"))).await.unwrap();
        let count = 20.min(turn + 1);
        assert_eq!(
            says(&site, "cat last; ls turn-* | wc -l").await,
            format!("{turn}\n{count}\n")
        );
        assert_eq!(place.extracted(&site).await.len(), 4 + count);
    }
    site.close().await.unwrap();
    place.sites.close(true).await;
}

fn record(data: &Path, id: &str) -> std::path::PathBuf {
    data.join("workspaces").join(id).join("record")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_for_another_process_is_taken_by_it_or_gone() {
    let place = Place::new().await;
    let site = place.site("source").await;
    says(&site, "echo 1 > one").await;
    site.snapshot("one").await.unwrap();
    says(&site, "echo 2 > one").await;
    let is_there = |id: &str| place.data.path().join("workspaces").join(id).exists();
    // Another process opens the store anew.
    let other = scene::sealed(place.data.path(), &place.repo).0;

    let parting = site.fork_for_another("one", "untaken").await.unwrap();
    let sweep = || {
        let store = workspace::Store::open(place.data.path(), workspace::Layering::Overlay);
        store.unwrap().sweep(|_| false).unwrap()
    };
    assert_eq!(sweep().held, ["source", "untaken"], "nobody sweeps them");
    drop(parting);
    assert!(!is_there("untaken"));

    let parting = site.fork_for_another("one", "taken").await.unwrap();
    let fork = other.join(&place.mirror, place.wanted("taken")).await;
    let fork = fork.unwrap();
    drop(parting);
    assert!(is_there("taken"));
    site.close().await.unwrap();
    assert_eq!(says(&fork, "cat one set-up").await, "1\nready\n");
    fork.undo(Some("one")).await.unwrap();
    fork.close().await.unwrap();
    let late = other.join(&place.mirror, place.wanted("untaken")).await;
    assert!(late.is_err());
    other.close(false).await;
    place.sites.close(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_without_layers_has_no_snapshots_and_says_so() {
    let repo = Repo::new();
    repo.file("a", "a\n");
    repo.commit("A base");
    let data = tempfile::tempdir().unwrap();
    let (sites, source) = scene::open(data.path(), &repo);
    let mirror = sites.mirror("r").await.unwrap();
    let base = source.head().commit;
    mirror.fetch(&source, base).unwrap();
    let wanted = Wanted::plain("one", "r", base);
    let again = Wanted::plain("two", "r", base);
    let site = sites.site(&mirror, wanted).await.unwrap();
    let is_refused = |result| matches!(result, Err(Error::NoSnapshots { .. }));
    assert!(is_refused(site.check_snapshots()));
    assert!(is_refused(site.snapshot("a").await));
    assert!(is_refused(site.undo(None).await));
    let fork = site.fork(None, again).await;
    assert!(is_refused(fork.map(drop)));
    site.close().await.unwrap();
    sites.close(true).await;
}
