//! Integrated work is found again after the mirror was lost, or is known to be lost.

use skep_git::{CommitId, Error, IntegrationBranch};

use crate::fetch::damage;
use crate::publish::change;
use crate::repo::{Repo, someone};

const BRANCH: &str = "skep/integration";

/// How a mirror is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    Removed,
    Damaged,
}

/// A repository with two changes that were integrated, one or both of them published, whose mirror
/// is lost then.
struct Scene {
    repo: Repo,
    base: CommitId,
    first: CommitId,
    second: CommitId,
}

impl Scene {
    fn new(is_published: bool, loss: Loss) -> Self {
        let repo = Repo::started();
        let (source, mirror) = repo.fetched();
        let base = repo.head();
        let first = change(&mirror, base, 1, "first");
        let second = change(&mirror, first, 1, "second");
        let branch = IntegrationBranch::new(mirror.clone(), BRANCH);
        branch.advance(None, first).unwrap();
        branch.publish(&source, None, first, &someone()).unwrap();
        branch.advance(Some(first), second).unwrap();
        if is_published {
            let seen = Some(first);
            branch.publish(&source, seen, second, &someone()).unwrap();
        }
        match loss {
            Loss::Damaged => damage(&mirror, false),
            Loss::Removed => std::fs::remove_dir_all(mirror.directory()).unwrap(),
        }
        Self {
            repo,
            base,
            first,
            second,
        }
    }

    fn start(&self, needed: &[CommitId]) -> Result<Option<CommitId>, Error> {
        let (source, branch) = (self.repo.source(), self.branch());
        let users = branch.stock(&source, self.base).unwrap();
        branch.start(Some(&source), users, needed)
    }

    fn branch(&self) -> IntegrationBranch {
        IntegrationBranch::new(self.repo.mirror(), BRANCH)
    }
}

#[test]
fn work_that_was_published_is_built_on_after_the_mirror_was_lost() {
    for loss in [Loss::Removed, Loss::Damaged] {
        let scene = Scene::new(true, loss);
        let start = scene.start(&[scene.first, scene.second]).unwrap();
        assert_eq!(start, Some(scene.second), "{loss:?}");
        assert!(scene.branch().keeps(scene.second), "{loss:?}");
    }
}

#[test]
fn nothing_is_built_on_work_that_was_lost_and_it_is_named() {
    for loss in [Loss::Removed, Loss::Damaged] {
        let scene = Scene::new(false, loss);
        let lost = scene.start(&[scene.first, scene.second]).unwrap_err();
        let Error::WorkLost { commit, branch } = &lost else {
            panic!("{loss:?}: {lost}");
        };
        assert_eq!((*commit, branch.as_str()), (scene.second, BRANCH));
        // What needs only what was published goes on with that.
        assert_eq!(scene.start(&[scene.first]).unwrap(), Some(scene.first));
        let (source, branch) = (scene.repo.source(), scene.branch());
        let standing = branch.standing(&source, scene.base, &someone()).unwrap();
        assert_eq!(standing.tip, scene.first, "{loss:?}");
        branch.advance(standing.recorded, standing.tip).unwrap();
    }
}

#[test]
fn what_a_person_took_off_the_branch_is_not_lost() {
    let repo = Repo::started();
    let (source, mirror) = repo.fetched();
    let taken = change(&mirror, repo.head(), 1, "taken");
    let branch = IntegrationBranch::new(mirror, BRANCH);
    branch.advance(None, taken).unwrap();
    branch.forget(Some(taken)).unwrap();
    let users = branch.stock(&source, repo.head()).unwrap();
    assert_eq!(branch.start(Some(&source), users, &[taken]).unwrap(), None);
}

#[test]
fn work_that_a_person_has_merged_is_not_lost_with_the_mirror_and_its_branch() {
    for loss in [Loss::Removed, Loss::Damaged] {
        let scene = Scene::new(true, loss);
        scene.repo.git(&["merge", "--quiet", "--ff-only", BRANCH]);
        scene.repo.git(&["branch", "--quiet", "-D", BRANCH]);
        let needed = [scene.first, scene.second];
        // What builds on it finds it; asked again, when the mirror has it, the answer is the same.
        for time in ["first", "second"] {
            let start = scene.start(&needed).unwrap();
            assert_eq!(start, Some(scene.second), "{loss:?}, the {time} time");
        }
    }
}

#[test]
fn work_that_was_merged_on_another_branch_than_head_is_not_lost() {
    let scene = Scene::new(true, Loss::Removed);
    scene.repo.git(&["branch", "--quiet", "-m", BRANCH, "mine"]);
    assert_eq!(scene.start(&[scene.first]).unwrap(), Some(scene.first));
    scene.repo.git(&["branch", "--quiet", "-D", "mine"]);
    // Its object is in the repository, and no branch holds it.
    let lost = scene.start(&[scene.second]).unwrap_err();
    assert!(matches!(lost, Error::WorkLost { .. }), "{lost}");
    let again = scene.start(&[scene.second]).unwrap_err();
    assert!(matches!(again, Error::WorkLost { .. }), "{again}");
    let text = again.to_string();
    assert!(text.contains("or it was taken as another commit"), "{text}");
}

#[test]
fn a_repository_that_is_not_there_is_not_said_to_lack_what_the_mirror_has_lost() {
    let scene = Scene::new(true, Loss::Removed);
    let error = scene.branch().start(None, None, &[scene.first]);
    let error = error.unwrap_err();
    assert!(matches!(error, Error::WorkOutOfReach { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("move it back") && !text.contains("holds it"),
        "{text}"
    );
}
