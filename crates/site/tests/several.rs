//! A site that writes several repositories: each has changes of its own, and moments are of all.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod scene;

use git::{CommitId, Mirror, TreeId};
use site::{Also, Error, Extracted, Site, Sites, Wanted, Warm};
use skep_site as site;
use std::{fs, path::Path, sync::Arc, time::Duration};
use testkit::Repo;
use workspace::Layering;

struct Place {
    repo: Repo,
    lib: Repo,
    data: tempfile::TempDir,
    sites: Sites,
    base: CommitId,
    lib_base: CommitId,
}

impl Place {
    async fn new() -> Self {
        Self::with(scene::sealed).await
    }

    async fn with(open: impl FnOnce(&Path, &Repo) -> (Sites, git::Source)) -> Self {
        let (repo, lib) = (Repo::new(), Repo::new());
        repo.file("app", "1\n").file(".gitignore", "set-up\n");
        repo.commit("An application");
        lib.file("lib.txt", "1\n").file(".gitignore", "junk\n");
        lib.commit("A library");
        let data = tempfile::tempdir().unwrap();
        let (sites, source) = open(data.path(), &repo);
        let base = source.head().commit;
        let mirror = sites.mirror("r").await.unwrap();
        mirror.fetch(&source, base).unwrap();
        let lib_base = lib.git(&["rev-parse", "HEAD"]).trim().parse().unwrap();
        Self {
            repo,
            lib,
            data,
            sites,
            base,
            lib_base,
        }
    }

    fn wanted(&self, id: &str, setup: Option<&str>) -> Wanted {
        Wanted {
            id: id.into(),
            repository: "r".into(),
            base: self.base,
            tree: None,
            setup: setup.map(|command| domain::policy::Setup {
                command: command.into(),
                timeout: Duration::from_secs(20),
                inputs: None,
            }),
            include: Arc::default(),
            extra_roots: Vec::new(),
            programs: Vec::new(),
            channel: false,
            part: domain::egress::Part::Agent,
            outlet: None,
            // Nothing was fetched from it yet.
            also: vec![Also {
                name: "lib".into(),
                repository: "l".into(),
                commit: self.lib_base,
                tree: None,
                place: self.lib.path().to_owned(),
            }],
            beside: Vec::new(),
            extras: sandbox::Extras::default(),
        }
    }

    async fn site(&self, wanted: Wanted) -> Site {
        let mirror = self.mirror("r").await;
        self.sites.site(&mirror, wanted).await.unwrap()
    }

    async fn mirror(&self, repository: &str) -> Mirror {
        self.sites.mirror(repository).await.unwrap()
    }

    /// The files of a tree.
    async fn files(&self, repository: &str, tree: TreeId) -> Vec<String> {
        let files = self.mirror(repository).await.files(tree, 1_000).unwrap();
        files.iter().map(|(path, _)| path.to_string()).collect()
    }

    async fn left(self, parts: &[&str]) {
        self.sites.close(false).await;
        for part in parts {
            let left = fs::read_dir(self.data.path().join(part)).unwrap();
            let names = left.map(|entry| entry.unwrap().file_name());
            let names: Vec<_> = names
                .filter(|name| name != ".new" && name != ".lock")
                .collect();
            assert!(names.is_empty(), "{part}: {names:?}");
        }
    }
}

async fn says(site: &Site, script: &str) -> String {
    let ran = site.run(script, Duration::from_secs(60)).await.unwrap();
    assert!(ran.exit.success(), "{script}: {}", ran.tail(500));
    ran.tail(10_000)
}

fn lib(extracted: &Extracted) -> TreeId {
    assert_eq!(extracted.also.len(), 1);
    assert_eq!(extracted.also[0].0, "lib");
    extracted.also[0].1
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_changed_in_each_repository_becomes_a_tree_in_its_own_mirror() {
    let place = Place::new().await;
    let site = place.site(place.wanted("one", None)).await;
    let script = "pwd; ls ..; cat ../lib/lib.txt; git -C ../lib log --format=%s; \
         echo 2 > app; echo 2 > ../lib/lib.txt; echo x > ../lib/more; echo x > ../lib/junk; \
         git -C ../lib status --short";
    assert_eq!(
        says(&site, script).await,
        "/workspace/repo\nlib\nrepo\n1\nA library\n M lib.txt\n?? more\n"
    );
    // A device, and a pipe, are no change.
    says(&site, "mkfifo ../lib/pipe").await;
    let extracted = site.extract().await.unwrap();
    assert_eq!(
        place.files("r", extracted.tree).await,
        [".gitignore", "app"]
    );
    let tree = lib(&extracted);
    assert_eq!(
        place.files("l", tree).await,
        [".gitignore", "lib.txt", "more"]
    );
    assert_eq!(extracted.not_taken.len(), 1);
    assert!(
        extracted.not_taken[0].starts_with("in lib: pipe: "),
        "{:?}",
        extracted.not_taken
    );
    site.close().await.unwrap();
    assert_eq!(place.repo.git(&["status", "--short"]), "");
    assert_eq!(place.lib.git(&["status", "--short"]), "");
    place.left(&["workspaces", "trash", "layers"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_leads_from_one_repository_into_another_or_out_of_them() {
    let place = Place::new().await;
    let site = place.site(place.wanted("one", None)).await;
    let script = "echo secret > private; rm -rf ../lib/.git; echo gitdir: ../repo/.git > ../lib/.git; \
         ln -s ../repo ../lib/inside; rm ../lib/lib.txt; ln -s ../repo/private ../lib/lib.txt; \
         for it in 'ln private ../lib/hard' 'mv ../lib ../elsewhere' 'rm -rf ../lib' 'mkdir ../more'; \
         do if $it; then exit 1; fi; done";
    says(&site, script).await;
    // All that was in the library is gone, and its directory withstood.
    says(
        &site,
        "ln -s ../repo ../lib/inside; ln -s /etc/passwd ../lib/lib.txt",
    )
    .await;
    let extracted = site.extract().await.unwrap();
    let mirror = place.mirror("l").await;
    let tree = lib(&extracted);
    assert_eq!(place.files("l", tree).await, ["inside", "lib.txt"]);
    for (path, target) in [("inside", "../repo"), ("lib.txt", "/etc/passwd")] {
        let entry = mirror.entry_in(tree, path.into()).unwrap().unwrap();
        assert_eq!(entry.kind, git::FileKind::Link, "{path}");
        assert_eq!(mirror.read_blob(entry.id, 100).unwrap(), target.as_bytes());
    }
    site.close().await.unwrap();
    place.left(&["workspaces", "trash"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_the_way_back_and_forks_are_of_all_repositories() {
    let place = Place::new().await;
    let site = place.site(place.wanted("source", None)).await;
    says(&site, "echo 2 > app; echo 2 > ../lib/lib.txt").await;
    site.snapshot("two").await.unwrap();
    says(&site, "echo 3 > app; rm ../lib/lib.txt; echo x > ../lib/x").await;
    site.snapshot("three").await.unwrap();
    assert_eq!(says(&site, "cat app; ls ../lib").await, "3\nx\n");
    let fork = site
        .fork(Some("two"), place.wanted("fork", None))
        .await
        .unwrap();
    let seen = "cat app ../lib/lib.txt; ls ../lib; git -C ../lib status --short";
    assert_eq!(says(&fork, seen).await, "2\n2\nlib.txt\n M lib.txt\n");
    says(&fork, "echo fork > ../lib/fork").await;
    site.undo(Some("two")).await.unwrap();
    assert_eq!(says(&site, seen).await, "2\n2\nlib.txt\n M lib.txt\n");
    site.undo(None).await.unwrap();
    assert_eq!(says(&site, seen).await, "1\n1\nlib.txt\n");
    let extracted = site.extract().await.unwrap();
    let base = place.mirror("l").await.tree_of(place.lib_base).unwrap();
    assert_eq!(lib(&extracted), base, "nothing is changed any more");
    let extracted = fork.extract().await.unwrap();
    assert_eq!(
        place.files("l", lib(&extracted)).await,
        [".gitignore", "fork", "lib.txt"]
    );
    // Where something runs in any of them, none is changed.
    let busy = site
        .sandbox()
        .unwrap()
        .exec(sandbox::Command::new(["sleep", "1000"], "/workspace/lib"));
    let running = busy.await.unwrap();
    assert!(site.snapshot("busy").await.is_err());
    drop(running);
    site.close().await.unwrap();
    fork.close().await.unwrap();
    place.left(&["workspaces", "trash", "layers"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn checks_get_the_trees_of_all_repositories_and_a_setup_only_sees_the_others() {
    let place = Place::new().await;
    let setup = "cat ../lib/lib.txt > set-up; ! echo no > ../lib/lib.txt";
    let site = place.site(place.wanted("agent", Some(setup))).await;
    assert!(!site.set_up().unwrap().cached);
    assert_eq!(says(&site, "cat set-up ../lib/lib.txt").await, "1\n1\n");
    says(
        &site,
        "echo 2 > app; echo 2 > ../lib/lib.txt; rm ../lib/.gitignore",
    )
    .await;
    let made = site.extract().await.unwrap();
    site.close().await.unwrap();

    let mut wanted = place.wanted("checks", Some(setup));
    wanted.tree = Some(made.tree);
    wanted.also[0].tree = Some(lib(&made));
    let checks = place.site(wanted).await;
    assert!(checks.set_up().unwrap().cached);
    assert_eq!(
        says(&checks, "cat set-up app ../lib/lib.txt; ls -A ../lib").await,
        "1\n2\n2\n.git\nlib.txt\n"
    );
    assert_eq!(checks.extract().await.unwrap().also, made.also);
    checks.close().await.unwrap();

    // Of another commit of the library, it is another setup.
    place.lib.file("lib.txt", "9\n").commit("More");
    let mut wanted = place.wanted("other", Some(setup));
    let head = place.lib.git(&["rev-parse", "HEAD"]);
    wanted.also[0].commit = head.trim().parse().unwrap();
    let other = place.site(wanted).await;
    assert!(!other.set_up().unwrap().cached);
    assert_eq!(says(&other, "cat set-up").await, "9\n");
    other.close().await.unwrap();
    place.left(&["workspaces", "trash", "layers"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_is_gone_on_with_in_all_repositories_and_only_over_the_same_commits() {
    let place = Place::new().await;
    let site = place.site(place.wanted("attempt", None)).await;
    says(&site, "echo 2 > ../lib/lib.txt").await;
    site.snapshot("two").await.unwrap();
    says(&site, "echo 3 >> ../lib/lib.txt").await;
    site.leave().await.unwrap();
    let mirror = place.mirror("r").await;
    let mut fewer = place.wanted("attempt", None);
    fewer.also.clear();
    let refused = place.sites.reopen(&mirror, fewer).await.err();
    assert!(
        matches!(refused, Some(Error::OtherBase { .. })),
        "{refused:?}"
    );

    let site = place.site(place.wanted("again", None)).await;
    says(&site, "echo 2 > ../lib/lib.txt").await;
    site.snapshot("two").await.unwrap();
    says(&site, "echo 3 >> ../lib/lib.txt").await;
    site.leave().await.unwrap();
    let again = place.wanted("again", None);
    let site = place.sites.reopen(&mirror, again).await.unwrap();
    assert_eq!(says(&site, "cat app ../lib/lib.txt").await, "1\n2\n3\n");
    site.undo(Some("two")).await.unwrap();
    assert_eq!(says(&site, "cat ../lib/lib.txt").await, "2\n");
    site.close().await.unwrap();
    place.left(&["trash", "layers"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_ready_serves_only_who_wants_the_same_repositories() {
    let one = Warm { all: 1, each: 1 };
    let place = Place::with(|data, repo| scene::warm(data, repo, one)).await;
    for id in ["a", "b"] {
        let site = place.site(place.wanted(id, None)).await;
        site.close().await.unwrap();
    }
    let ready = async {
        while place.sites.ready() != 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), ready)
        .await
        .unwrap();
    let mut alone = place.wanted("alone", None);
    alone.also.clear();
    let alone = place.site(alone).await;
    assert!(!alone.was_ready());
    assert_eq!(says(&alone, "ls ..").await, "repo\n");
    let site = place.site(place.wanted("c", None)).await;
    assert!(site.was_ready());
    says(&site, "echo 2 > ../lib/lib.txt").await;
    assert_eq!(site.extract().await.unwrap().also.len(), 1);
    site.snapshot("one").await.unwrap();
    site.close().await.unwrap();
    alone.close().await.unwrap();
    place.left(&["workspaces", "trash"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_workspaces_are_copies_several_are_written_too() {
    let place = Place::with(|data, repo| {
        let backend = Arc::new(sandbox::Namespace::new());
        scene::of(data, repo, backend, Layering::Copy, Default::default())
    })
    .await;
    let site = place
        .site(place.wanted("copy", Some("echo 1 > set-up")))
        .await;
    assert_eq!(says(&site, "cat set-up ../lib/lib.txt").await, "1\n1\n");
    says(&site, "echo 2 > ../lib/lib.txt").await;
    let extracted = site.extract().await.unwrap();
    let base = place.mirror("r").await.tree_of(place.base).unwrap();
    assert_eq!(extracted.tree, base);
    let before = place.mirror("l").await.tree_of(place.lib_base).unwrap();
    assert_ne!(lib(&extracted), before);
    site.close().await.unwrap();
    place.left(&["workspaces", "trash"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kind_that_seals_nothing_refuses_several() {
    let place = Place::with(scene::open).await;
    let mirror = place.mirror("r").await;
    let wanted = place.wanted("host", None);
    let refused = place.sites.site(&mirror, wanted).await.err();
    assert!(matches!(refused, Some(Error::Sandbox(_))), "{refused:?}");
    place.left(&["workspaces", "trash"]).await;
}
