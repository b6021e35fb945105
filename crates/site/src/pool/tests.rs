//! What is kept ready is decided by what was asked for, how often, when, and how many there may be.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;
use sandbox::{Backend as _, Spec};
use std::collections::BTreeMap;
use workspace::{Layering, Store};

/// As it is where nothing is said.
const USUAL: Warm = Warm { all: 4, each: 2 };

struct Scene {
    _dir: tempfile::TempDir,
    store: Store,
    pool: Pool,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Layering::Copy).unwrap();
        Self {
            _dir: dir,
            store,
            pool: Pool::default(),
        }
    }

    fn base(&self, key: &str) -> Base {
        let empty = |_: &std::path::Path| Ok::<(), workspace::Error>(());
        self.store.base(key, empty).unwrap()
    }

    /// What an agent of this profile asks for on a commit of a repository.
    fn recipe(&self, base: &str, profile: &str) -> Recipe {
        let commit = "1".repeat(40).parse().unwrap();
        Recipe {
            base: self.base(base),
            also: Vec::new(),
            layer: None,
            toolchains: Toolchains::default(),
            shown: Vec::new(),
            wanted: Wanted {
                programs: vec![profile.into()],
                ..Wanted::plain("a", "r", commit)
            },
            channel: true,
        }
    }

    /// Asks for it twice, as often as it takes.
    fn ask_twice(&self, recipe: &Recipe) {
        for _ in 0..ASKED {
            assert!(self.pool.ask(recipe, USUAL.all).is_none());
        }
    }

    /// Does what is planned until nothing is; how many were made, and how many ended.
    async fn keep(&self, now: Instant) -> (usize, usize) {
        let (mut made, mut ended) = (0, 0);
        loop {
            let (next, gone) = self.pool.plan(USUAL, now);
            ended += gone.len();
            let Some((key, _)) = next else {
                return (made, ended);
            };
            made += 1;
            assert!(made <= 2 * USUAL.all, "they take each other's places");
            self.put(key).await;
            assert!(self.ready().values().sum::<usize>() <= USUAL.all);
        }
    }

    async fn put(&self, key: String) {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = format!("w{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let base = self.base("any");
        let workspace = self.store.create(&id, &base).unwrap();
        let place = workspace.home().to_owned();
        let spec = Spec::new(sandbox::Workspace::Directory(place.clone()));
        let spec = Spec {
            home: Some(place),
            ..spec
        };
        let sandbox = sandbox::Host.create(spec).await.unwrap();
        self.pool.put(Ready {
            key,
            since: Instant::now(),
            workspace,
            sandbox,
        });
    }

    /// How many are ready for what.
    fn ready(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for ready in &lock(&self.pool.state).ready {
            *counts.entry(ready.key.clone()).or_default() += 1;
        }
        counts
    }

    fn ready_for(&self, recipe: &Recipe) -> usize {
        self.ready().remove(&recipe.key()).unwrap_or(0)
    }
}

#[tokio::test]
async fn one_is_kept_for_what_was_asked_twice_and_refilled_when_it_is_taken() {
    let scene = Scene::new();
    let recipe = scene.recipe("a", "claude");
    scene.pool.ask(&recipe, USUAL.all);
    assert_eq!(
        scene.keep(Instant::now()).await,
        (0, 0),
        "it may be the only time"
    );
    scene.pool.ask(&recipe, USUAL.all);
    assert_eq!(scene.keep(Instant::now()).await, (USUAL.each, 0));
    assert!(scene.pool.ask(&recipe, USUAL.all).is_some());
    assert_eq!(scene.keep(Instant::now()).await, (1, 0));
    assert_eq!(scene.ready_for(&recipe), USUAL.each);
}

#[tokio::test]
async fn each_repository_and_each_profile_has_its_own() {
    let scene = Scene::new();
    let one = scene.recipe("a", "claude");
    let others = [scene.recipe("a", "codex"), scene.recipe("b", "claude")];
    scene.ask_twice(&one);
    scene.keep(Instant::now()).await;
    for other in &others {
        assert!(scene.pool.ask(other, USUAL.all).is_none());
    }
    let closed = Recipe {
        channel: false,
        ..one.clone()
    };
    assert!(scene.pool.ask(&closed, USUAL.all).is_none());
    assert!(scene.pool.ask(&one, USUAL.all).is_some());
}

#[tokio::test]
async fn however_much_is_asked_for_there_are_four_and_two_of_a_kind_and_they_stay() {
    let scene = Scene::new();
    let recipes: Vec<Recipe> = ["a", "b", "c", "d", "e"]
        .map(|base| scene.recipe(base, "claude"))
        .into();
    for recipe in &recipes {
        scene.ask_twice(recipe);
        scene.keep(Instant::now()).await;
    }
    let counts: Vec<usize> = recipes.iter().map(|it| scene.ready_for(it)).collect();
    assert_eq!(counts, [0, 0, 0, 2, 2], "what was asked for last");
    assert_eq!(scene.keep(Instant::now()).await, (0, 0));
}

#[tokio::test]
async fn what_nobody_took_or_asked_for_in_a_minute_goes() {
    let scene = Scene::new();
    let recipe = scene.recipe("a", "claude");
    scene.ask_twice(&recipe);
    let minute = Duration::from_secs(60);
    scene.keep(Instant::now()).await;
    let soon = Instant::now() + minute / 2;
    assert_eq!(scene.keep(soon).await, (0, 0));
    let later = Instant::now() + minute;
    assert_eq!(scene.keep(later).await, (0, USUAL.each));
    assert!(scene.pool.until().is_none(), "nothing is waited for");
}

#[test]
fn memory_is_short_where_less_than_a_tenth_is_free() {
    let says = |free: u64| is_little(&format!("MemTotal: 1000 kB\nMemAvailable: {free} kB\n"));
    assert!(says(99) && !says(100));
    assert!(!is_little(""), "nobody knows");
}
