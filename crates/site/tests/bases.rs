//! A base whose history was damaged is made again.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod scene;

use std::{fs, path::Path, process::Command};
use testkit::Repo;

/// Cuts the packs of a base to a half, in the place where they are: the mirror has the same files.
fn damage(base: &Path) {
    for entry in fs::read_dir(base.join(".git/objects/pack")).unwrap() {
        let path = entry.unwrap().path();
        let mut permissions = fs::metadata(&path).unwrap().permissions();
        #[allow(clippy::permissions_set_readonly_false)]
        permissions.set_readonly(false);
        fs::set_permissions(&path, permissions).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    }
}

fn is_sound(base: &Path) -> bool {
    let mut git = Command::new("git");
    git.current_dir(base).args(["fsck", "--full", "--strict"]);
    git.output().unwrap().status.success()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_whose_packs_were_damaged_with_those_of_the_mirror_is_made_again() {
    let repo = Repo::new();
    repo.file("a", "content\n");
    let commit = repo.commit("A base").parse().unwrap();
    let data = tempfile::tempdir().unwrap();
    let (sites, source) = scene::open(data.path(), &repo);
    let mirror = sites.mirror("r").await.unwrap();
    mirror.fetch(&source, commit).unwrap();
    let base = sites.base("r", &mirror, commit, None).await.unwrap();
    assert!(is_sound(&base.trees()[0]));
    damage(&base.trees()[0]);
    assert!(!is_sound(&base.trees()[0]));
    drop((base, mirror));
    sites.close(true).await;
    // What a later process does.
    let (sites, source) = scene::open(data.path(), &repo);
    let mirror = sites.mirror("r").await.unwrap();
    mirror.fetch(&source, commit).unwrap();
    let base = sites.base("r", &mirror, commit, None).await.unwrap();
    assert!(is_sound(&base.trees()[0]));
    assert!(is_sound(mirror.directory()));
    drop(base);
    sites.close(true).await;
}
