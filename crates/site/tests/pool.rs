//! Sandboxes that are ready before anybody asks are as those that are not, and are never in the way.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod scene;

use sandbox::{Abilities, Backend, Finding, Kind, Namespace, Sandbox, Spec};
use scene::{Place, says};
use site::{Site, Wanted, Warm};
use skep_site as site;
use std::{path::Path, sync::Arc, time::Duration};
use tokio::sync::Semaphore;

const ONE: Warm = Warm { all: 1, each: 1 };

const FILES: [(&str, &str); 2] = [(".gitignore", "deps\n"), ("source", "one\n")];

impl Place {
    async fn new(warm: Warm) -> Self {
        Self::over(&FILES, |data, repo| scene::warm(data, repo, warm)).await
    }

    fn wanted(&self, id: &str) -> Wanted {
        let command = "mkdir deps && echo ready > deps/it && echo home > ~/it";
        Wanted {
            channel: true,
            ..self.set_up_by(id, command)
        }
    }

    async fn site(&self, id: &str) -> Site {
        self.open(self.wanted(id)).await
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
    place.assert_no_workspace_is_left();
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

/// Makes a sandbox for each permit.
struct Gated {
    kind: Namespace,
    permits: Arc<Semaphore>,
    /// One for each that is prepared.
    asked: Arc<Semaphore>,
}

#[async_trait::async_trait]
impl Backend for Gated {
    fn kind(&self) -> Kind {
        self.kind.kind()
    }

    fn abilities(&self) -> Abilities {
        self.kind.abilities()
    }

    async fn probe(&self, place: &Path) -> Vec<Finding> {
        self.kind.probe(place).await
    }

    async fn create(&self, spec: Spec) -> Result<Box<dyn Sandbox>, sandbox::Error> {
        // Those that somebody waits for are made at once, whoever comes first.
        let home = spec.home.as_deref().unwrap().to_str().unwrap();
        if home.contains("/warm-") {
            self.asked.add_permits(1);
            self.permits.acquire().await.unwrap().forget();
        }
        self.kind.create(spec).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_waits_for_a_sandbox_that_is_being_prepared_and_nothing_of_it_is_left() {
    let (permits, asked) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let backend = Arc::new(Gated {
        kind: Namespace::new(),
        permits: permits.clone(),
        asked: asked.clone(),
    });
    let place = Place::over(&FILES, |data, repo| {
        scene::warm_of(data, repo, backend, ONE)
    })
    .await;
    // Two that are asked for: a third is likely now, and stands at the gate.
    for id in ["a", "b"] {
        place.site(id).await.close().await.unwrap();
    }
    let begun = tokio::time::timeout(Duration::from_secs(60), asked.acquire()).await;
    begun.expect("one is prepared").unwrap().forget();
    let sites = place.sites.clone();
    let mut closing = tokio::spawn(async move { sites.close(false).await });
    let prepared = place.names("workspaces");
    assert!(prepared[0].starts_with("warm-"), "{prepared:?}");
    // However often it is looked at, it is not over before what it waits for.
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    assert!(!closing.is_finished(), "it waits");
    permits.add_permits(1);
    let closed = tokio::time::timeout(Duration::from_secs(60), &mut closing).await;
    closed.expect("it ends").unwrap();
    place.assert_no_workspace_is_left();
    let none = [
        place.sites.ready(),
        permits.available_permits(),
        asked.available_permits(),
    ];
    assert_eq!(none, [0; 3], "nobody asked for another");
}

/// What this process holds: descriptors, threads, and memory in KiB.
fn held() -> (usize, usize, usize) {
    let count = |what: &str| {
        std::fs::read_dir(format!("/proc/self/{what}"))
            .unwrap()
            .count()
    };
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let memory = line.unwrap().trim().trim_end_matches("kB").trim();
    (count("fd"), count("task"), memory.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_sandboxes_in_one_process_leave_its_descriptors_threads_and_memory_as_they_were()
 {
    const ALL: usize = 200;
    /// After so many, all is there that is made once.
    const FIRST: usize = 40;
    const MEMORY_KIB: usize = 8 << 10;
    let place = Place::new(Warm { all: 2, each: 2 }).await;
    let mut before = None;
    for number in 0..ALL {
        let site = place.site(&format!("s-{number}")).await;
        says(&site, "true").await;
        if number % 10 == 0 {
            site.snapshot("one").await.unwrap();
            assert_eq!(
                site.extract().await.unwrap().not_taken,
                Vec::<String>::new()
            );
        }
        site.close().await.unwrap();
        if number == FIRST {
            place.until_ready(2).await;
            before = Some(held());
        }
    }
    place.until_ready(2).await;
    let (before, after) = (before.unwrap(), held());
    // Threads that block come and go; descriptors may just be closed in the background.
    assert!(
        after.0 <= before.0 + 8,
        "descriptors: {before:?}, {after:?}"
    );
    assert!(after.1 <= before.1 + 8, "threads: {before:?}, {after:?}");
    assert!(
        after.2 <= before.2 + MEMORY_KIB,
        "memory: {before:?}, {after:?}"
    );
    place.sites.close(false).await;
    place.assert_no_workspace_is_left();
}
