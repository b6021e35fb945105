//! A base is a layer over one of a commit nearby, and made again when its history was damaged.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod scene;

use skep_site::Wanted;
use std::{fs, path::Path, process::Command};
use testkit::Repo;
use workspace::Layering;

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

#[tokio::test(flavor = "multi_thread")]
async fn the_base_of_a_commit_nearby_is_a_layer_that_many_ask_for_and_one_builds() {
    let (repo, commits) = scene::grown(2);
    let data = tempfile::tempdir().unwrap();
    let (sites, source) = scene::open_as(data.path(), &repo, Layering::Overlay);
    let mirror = sites.mirror("r").await.unwrap();
    for commit in &commits {
        mirror.fetch(&source, *commit).unwrap();
    }
    let whole = sites.base("r", &mirror, commits[0], None).await.unwrap();
    assert_eq!(whole.trees().len(), 1);
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let (sites, mirror, commit) = (sites.clone(), mirror.clone(), commits[1]);
        asking.spawn(async move { sites.base("r", &mirror, commit, None).await.unwrap() });
    }
    let bases = asking.join_all().await;
    for base in &bases {
        assert_eq!(base.trees()[1..], *whole.trees());
    }
    let top = &bases[0].trees()[0];
    assert!(top.join("counter").exists() && !top.join("d1").exists());
    sites.close(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_git_status_in_a_workspace_reads_no_file_over_a_whole_base_and_over_a_layer() {
    let (repo, commits) = scene::grown(2);
    let data = tempfile::tempdir().unwrap();
    let (sites, source) = scene::sealed(data.path(), &repo);
    let mirror = sites.mirror("r").await.unwrap();
    for (number, commit) in commits.into_iter().enumerate() {
        mirror.fetch(&source, commit).unwrap();
        let wanted = Wanted::plain(format!("s-{number}"), "r", commit);
        let site = sites.site(&mirror, wanted).await.unwrap();
        let base = sites.base("r", &mirror, commit, None).await.unwrap();
        assert_eq!(base.trees().len(), number + 1, "whole, then a layer");
        // Names what is not known to be as it was without a look into it. A status, which may
        // look, writes the index anew when it had to.
        let script = "git diff-files --raw; git ls-files | wc -l; index=$(stat -c '%i %y' .git/index); \
                      git status --short; test \"$index\" = \"$(stat -c '%i %y' .git/index)\"";
        assert_eq!(scene::says(&site, script).await, "101\n");
        site.close().await.unwrap();
    }
    sites.close(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn however_long_a_repository_lives_its_bases_are_stacks_of_bounded_height() {
    let (repo, commits) = scene::grown(20);
    let data = tempfile::tempdir().unwrap();
    let (sites, source) = scene::open_as(data.path(), &repo, Layering::Overlay);
    let mirror = sites.mirror("r").await.unwrap();
    let mut heights = Vec::new();
    for commit in commits {
        mirror.fetch(&source, commit).unwrap();
        let base = sites.base("r", &mirror, commit, None).await.unwrap();
        heights.push(base.trees().len());
    }
    assert!(heights[1..].iter().all(|height| *height > 1), "{heights:?}");
    assert!(
        heights
            .iter()
            .all(|height| *height <= workspace::MAX_LAYERS)
    );
    sites.close(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_hides_a_part_of_the_history_below_is_found_again() {
    let (repo, commits) = scene::grown(2);
    let data = tempfile::tempdir().unwrap();
    let (sites, source) = scene::open_as(data.path(), &repo, Layering::Overlay);
    let mirror = sites.mirror("r").await.unwrap();
    for commit in &commits {
        mirror.fetch(&source, *commit).unwrap();
    }
    sites.base("r", &mirror, commits[1], None).await.unwrap();
    let place = {
        use std::os::unix::fs::MetadataExt;
        |base: &workspace::Base| fs::metadata(&base.trees()[0]).unwrap().ino()
    };
    let older = sites.base("r", &mirror, commits[0], None).await.unwrap();
    assert_eq!(older.trees().len(), 2);
    let again = sites.base("r", &mirror, commits[0], None).await.unwrap();
    assert_eq!(place(&again), place(&older));
    sites.close(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_of_other_files_is_a_whole_checkout() {
    let (repo, commits) = scene::grown(1);
    for number in 0..100 {
        repo.file(&format!("d{}/f{number}", number % 7), "other\n");
    }
    let other = repo.commit("All of it").parse().unwrap();
    let data = tempfile::tempdir().unwrap();
    let (sites, source) = scene::open_as(data.path(), &repo, Layering::Overlay);
    let mirror = sites.mirror("r").await.unwrap();
    mirror.fetch(&source, other).unwrap();
    mirror.fetch(&source, commits[0]).unwrap();
    sites.base("r", &mirror, commits[0], None).await.unwrap();
    let base = sites.base("r", &mirror, other, None).await.unwrap();
    assert_eq!(base.trees().len(), 1);
    sites.close(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_laid_over_a_base_whose_packs_were_damaged() {
    let (repo, commits) = scene::grown(2);
    let data = tempfile::tempdir().unwrap();
    let (sites, source) = scene::open_as(data.path(), &repo, Layering::Overlay);
    let mirror = sites.mirror("r").await.unwrap();
    mirror.fetch(&source, commits[0]).unwrap();
    let first = sites.base("r", &mirror, commits[0], None).await.unwrap();
    mirror.fetch(&source, commits[1]).unwrap();
    let second = sites.base("r", &mirror, commits[1], None).await.unwrap();
    assert_eq!(second.trees().len(), 2);
    damage(&first.trees()[0]);
    drop((first, second, mirror));
    sites.close(true).await;
    // What a later process does.
    let (sites, source) = scene::open_as(data.path(), &repo, Layering::Overlay);
    let mirror = sites.mirror("r").await.unwrap();
    for commit in commits {
        mirror.fetch(&source, commit).unwrap();
        let base = sites.base("r", &mirror, commit, None).await.unwrap();
        let mut packs_are_whole = base
            .trees()
            .iter()
            .map(|tree| mirror.is_whole_checkout(tree));
        assert!(packs_are_whole.all(Result::unwrap));
    }
    sites.close(true).await;
}
