//! Sandboxes that are ready before anybody asks are as those that are not, and are never in the way.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod scene;

use git::{CommitId, Mirror};
use site::{Site, Sites, Wanted, Warm};
use skep_site as site;
use std::{fs, sync::Arc, time::Duration};
use testkit::Repo;

const ONE: Warm = Warm { all: 1, each: 1 };

struct Place {
    repo: Repo,
    data: tempfile::TempDir,
    sites: Sites,
    mirror: Mirror,
}

impl Place {
    async fn new(warm: Warm) -> Self {
        let repo = Repo::new();
        repo.file(".gitignore", "deps\n");
        repo.file("source", "one\n");
        repo.commit("A base");
        let data = tempfile::tempdir().unwrap();
        let (sites, _) = scene::warm(data.path(), &repo, warm);
        let mirror = sites.mirror("r").await.unwrap();
        Self {
            repo,
            data,
            sites,
            mirror,
        }
    }

    fn head(&self) -> CommitId {
        let path = std::env::var_os("PATH").unwrap();
        let git = git::Program::find(&path).unwrap();
        let source = git::Source::discover(self.repo.path(), git).unwrap();
        let commit = source.head().commit;
        self.mirror.fetch(&source, commit).unwrap();
        commit
    }

    fn wanted(&self, id: &str) -> Wanted {
        Wanted {
            id: id.into(),
            repository: "r".into(),
            base: self.head(),
            tree: None,
            setup: Some(domain::policy::Setup {
                command: "mkdir deps && echo ready > deps/it && echo home > ~/it".into(),
                timeout: Duration::from_secs(60),
                inputs: None,
            }),
            include: Arc::default(),
            extra_roots: Vec::new(),
            programs: Vec::new(),
            channel: true,
            part: domain::egress::Part::Agent,
            outlet: None,
            also: Vec::new(),
            beside: Vec::new(),
        }
    }

    async fn site(&self, id: &str) -> Site {
        self.sites
            .site(&self.mirror, self.wanted(id))
            .await
            .unwrap()
    }

    /// Waits until so many are ready.
    async fn until_ready(&self, count: usize) {
        let ready = async {
            while self.sites.ready() != count {
                tokio::task::yield_now().await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(60), ready).await;
        assert!(waited.is_ok(), "they are not made ready");
    }

    fn names(&self, part: &str) -> Vec<String> {
        let list = fs::read_dir(self.data.path().join(part)).unwrap();
        list.map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.starts_with('.'))
            .collect()
    }
}

async fn says(site: &Site, script: &str) -> String {
    let ran = site.run(script, Duration::from_secs(60)).await.unwrap();
    assert!(ran.exit.success(), "{script}: {}", ran.tail(500));
    ran.tail(100_000)
}

/// What a command can tell of where it is.
const LOOK: &str = "pwd; find . ~ /tmp -not -path './.git/*' -printf '%p %M %s\n' | sort; env | sort; \
     cat source deps/it ~/it; git status --short; running=$(ps -e -o pid,comm) && echo \"$running\"; \
     awk '{print $2, $3}' /proc/mounts; cat /proc/self/status | grep -E 'Cap|NoNewPrivs|Seccomp'; ulimit -a";

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_was_ready_is_as_a_cold_one_and_nothing_ran_in_it() {
    let place = Place::new(ONE).await;
    let first = place.site("a").await;
    assert_eq!(place.sites.ready(), 0, "nobody is expected yet");
    let second = place.site("b").await;
    assert!(!first.was_ready() && !second.was_ready());
    says(
        &first,
        "echo mine > source; echo mine > ~/it; echo mine > /tmp/it",
    )
    .await;
    place.until_ready(1).await;
    let warm = place.site("c").await;
    assert!(warm.was_ready() && warm.take_channel().is_some());
    assert!(warm.set_up().unwrap().cached);
    assert_eq!(says(&warm, LOOK).await, says(&second, LOOK).await);
    assert!(place.names("workspaces").contains(&"c".to_owned()));
    // It is a site like any other.
    says(&warm, "echo changed > source").await;
    warm.snapshot("one").await.unwrap();
    says(&warm, "echo again > source").await;
    warm.undo(Some("one")).await.unwrap();
    assert_eq!(says(&warm, "cat source").await, "changed\n");
    let tree = warm.extract().await.unwrap().tree;
    let entry = place
        .mirror
        .entry_in(tree, "source".into())
        .unwrap()
        .unwrap();
    assert_eq!(place.mirror.read_blob(entry.id, 100).unwrap(), b"changed\n");
    warm.leave().await.unwrap();
    let again = place
        .sites
        .reopen(&place.mirror, place.wanted("c"))
        .await
        .unwrap();
    assert_eq!(says(&again, "cat source").await, "changed\n");
    for site in [first, second, again] {
        site.close().await.unwrap();
    }
    place.until_ready(1).await;
    place.sites.close(false).await;
    assert_eq!(place.sites.ready(), 0);
    assert_eq!(place.names("workspaces"), Vec::<String>::new());
    assert_eq!(place.names("trash"), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_ready_for_one_commit_serves_no_other_and_makes_room() {
    let place = Place::new(ONE).await;
    let mut open = vec![place.site("a").await, place.site("b").await];
    place.until_ready(1).await;
    place.repo.file("source", "two\n");
    place.repo.commit("Another");
    for id in ["c", "d"] {
        let site = place.site(id).await;
        assert!(!site.was_ready());
        assert_eq!(says(&site, "cat source").await, "two\n");
        open.push(site);
    }
    // The one that was ready went, and another came.
    let ready = async {
        loop {
            let site = place.site(&format!("x-{}", open.len())).await;
            assert_eq!(says(&site, "cat source").await, "two\n");
            let was_ready = site.was_ready();
            open.push(site);
            if was_ready {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), ready)
        .await
        .unwrap();
    let warm = |name: &String| name.starts_with("warm-");
    assert!(
        place
            .names("workspaces")
            .iter()
            .filter(|name| warm(name))
            .count()
            <= 2
    );
    for site in open {
        site.close().await.unwrap();
    }
    place.sites.close(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn checks_are_never_run_in_what_was_ready_and_none_is_made_where_that_is_turned_off() {
    let place = Place::new(ONE).await;
    let sites = [place.site("a").await, place.site("b").await];
    place.until_ready(1).await;
    let tree = place.mirror.tree_of(place.head()).unwrap();
    let wanted = Wanted {
        tree: Some(tree),
        ..place.wanted("check")
    };
    let check = place.sites.site(&place.mirror, wanted).await.unwrap();
    assert!(!check.was_ready());
    check.close().await.unwrap();
    for site in sites {
        site.close().await.unwrap();
    }
    place.sites.close(true).await;
    let place = Place::new(Warm::OFF).await;
    for id in ["a", "b", "c"] {
        let site = place.site(id).await;
        assert!(!site.was_ready());
        site.close().await.unwrap();
    }
    assert_eq!(place.sites.ready(), 0);
    place.sites.close(true).await;
}
