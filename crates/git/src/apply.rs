//! `skep apply`: integrated work onto the user's current branch.
//!
//! What would happen is worked out in the mirror first; the user's repository is touched only when there is no conflict
//! and no uncommitted work in the way, but for what the work took along and brings back. Then git runs as the user,
//! with their settings, hooks and signature: it is their branch.

mod aside;
mod hooks;
mod in_the_way;

use std::collections::BTreeSet;
use std::fs;

use bstr::{BString, ByteSlice};

use crate::error::Error;
use crate::ids::{CommitId, TreeId};
use crate::merge::Merged;
use crate::mirror::Mirror;
use crate::process::Call;
use crate::source::Source;

/// How the work is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApplyMode {
    /// `git merge`: a fast-forward where that is possible.
    Merge,
    /// One new commit with all of it.
    Squash,
    /// Each commit anew.
    CherryPick,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Where `HEAD` was.
    pub before: CommitId,
    /// Where it is; the same when there was nothing to take.
    pub after: CommitId,
    /// The branch, or nothing when `HEAD` is detached.
    pub branch: Option<BString>,
}

/// Files in the git directory that say that something is in progress.
const IN_PROGRESS: &[(&str, &str)] = &[
    ("MERGE_HEAD", "merge"),
    ("rebase-merge", "rebase"),
    ("rebase-apply", "rebase"),
    ("CHERRY_PICK_HEAD", "cherry-pick"),
    ("REVERT_HEAD", "revert"),
    ("sequencer", "cherry-pick or revert"),
    ("BISECT_LOG", "bisect"),
];

/// Commits that are picked one by one.
const PICK_LIMIT: usize = 1_000;
/// The list of commits that are taken, in bytes.
const TAKEN_LIMIT: usize = 64 * 1024 * 1024;

impl Source {
    /// Takes the commits from `base` (which is not taken) to `tip` onto the current branch. `message` is that of a
    /// merge or of a squashed commit.
    ///
    /// `starts` are commits that requests started from. Where one of them is taken too, because it held uncommitted
    /// work, an uncommitted file that is still as it is there makes way for the result. It is put back when git
    /// refuses.
    ///
    /// # Errors
    /// [`Error::InProgress`], [`Error::Interrupted`], [`Error::Uncommitted`], [`Error::ChangesHook`] and
    /// [`Error::Conflicts`]: nothing was changed then. When git
    /// itself refuses (a hook, say), [`Error::Failed`] with what it said, and the branch is as it was.
    pub fn apply(
        &self,
        mirror: &Mirror,
        base: CommitId,
        tip: CommitId,
        mode: ApplyMode,
        message: &str,
        starts: &[CommitId],
    ) -> Result<Applied, Error> {
        if let Some(url) = self.copy_of() {
            return Err(Error::NoWorkingTree {
                url: url.to_owned(),
                copy: self.common_dir().to_owned(),
            });
        }
        let now = self.reopen()?;
        now.refuse_in_progress()?;
        now.refuse_interrupted()?;
        let head = now.head().commit;
        mirror.fetch(&now, head)?;
        let before = mirror.tree_of(head)?;
        let (after, picks) = match mode {
            ApplyMode::Merge | ApplyMode::Squash => {
                (clean(mirror.merge(head, tip, None)?)?, Vec::new())
            }
            ApplyMode::CherryPick => mirror.plan_picks(before, base, tip)?,
        };
        let done = |after| Applied {
            before: head,
            after,
            branch: now.head().branch.clone(),
        };
        let nothing_to_take = match mode {
            ApplyMode::Merge => tip == head || mirror.is_ancestor(tip, head, usize::MAX)?,
            ApplyMode::Squash => after == before,
            ApplyMode::CherryPick => picks.is_empty(),
        };
        if nothing_to_take {
            return Ok(done(head));
        }
        let starts = mirror.taken(starts, head, base, tip)?;
        let brought = now.brought(mirror, before, after, &starts)?;
        now.refuse_hooks(mirror, before, after)?;
        now.receive(mirror, tip)?;
        let aside = now.set_aside(brought)?;
        if let Err(error) = now.run_apply(mode, tip, &picks, message) {
            now.restore(mode, head, tip);
            aside.put_back(&now);
            return Err(error);
        }
        aside.leave();
        Ok(done(now.reopen()?.head().commit))
    }

    fn run_apply(
        &self,
        mode: ApplyMode,
        tip: CommitId,
        picks: &[CommitId],
        message: &str,
    ) -> Result<(), Error> {
        let tip = tip.to_string();
        match mode {
            ApplyMode::Merge => self.git(
                "merging into your branch",
                &["merge", "--no-edit", "--no-stat", "-m", message, &tip],
                None,
            ),
            ApplyMode::Squash => {
                self.git(
                    "squashing onto your branch",
                    &["merge", "--squash", "--no-stat", &tip],
                    None,
                )?;
                self.git(
                    "committing on your branch",
                    &["commit", "--quiet", "--file=-"],
                    Some(message),
                )
            }
            ApplyMode::CherryPick => {
                let picks: Vec<String> = picks.iter().map(CommitId::to_string).collect();
                let mut args = vec!["cherry-pick", "--allow-empty", "--allow-empty-message"];
                args.extend(picks.iter().map(String::as_str));
                self.git("picking commits onto your branch", &args, None)
            }
        }
    }

    /// Git as the user. No editor is opened: there may be no terminal.
    fn git(&self, doing: &'static str, args: &[&str], input: Option<&str>) -> Result<(), Error> {
        let mut command = self.program().as_user(self.top())?;
        command
            .env("GIT_EDITOR", ":")
            .env("GIT_MERGE_AUTOEDIT", "no")
            .args(args);
        let mut call = Call::new(doing, command);
        if let Some(input) = input {
            call = call.stdin(input.as_bytes());
        }
        let output = self.execute_as_user(call)?;
        if output.code == Some(0) {
            return Ok(());
        }
        // Some refusals (of a hook, of `commit`) are on the standard output.
        match output.failure(doing) {
            Error::Failed {
                doing,
                status,
                message,
            } if message.is_empty() => {
                let end = output.stdout.len().saturating_sub(2_000);
                let message = String::from_utf8_lossy(output.stdout.get(end..).unwrap_or_default())
                    .trim()
                    .to_owned();
                Err(Error::Failed {
                    doing,
                    status,
                    message,
                })
            }
            error => Err(error),
        }
    }

    /// Puts the branch, the index and the files that git touched back. What was uncommitted was not in the way, and
    /// stays.
    fn restore(&self, mode: ApplyMode, head: CommitId, tip: CommitId) {
        let git_dir = self.git_dir();
        let (head, tip) = (head.to_string(), tip.to_string());
        let abort: &[&str] = match mode {
            ApplyMode::Merge if git_dir.join("MERGE_HEAD").exists() => &["merge", "--abort"],
            ApplyMode::CherryPick
                if git_dir.join("CHERRY_PICK_HEAD").exists()
                    || git_dir.join("sequencer").exists() =>
            {
                &["cherry-pick", "--abort"]
            }
            ApplyMode::Squash => &["reset", "--quiet", "--merge", &head],
            // The files may be those of a fast-forward already, where git was killed before it moved
            // the branch. Where they are not, this changes nothing.
            ApplyMode::Merge => &["read-tree", "-m", "-u", &tip, &head],
            _ => &[],
        };
        // A cancelled apply must still be put back.
        let program = self
            .program()
            .clone()
            .with_cancel(crate::program::Cancel::new());
        let again = Source::discover(self.top(), program);
        let outcome = again.and_then(|source| {
            if !abort.is_empty() {
                source.git("putting your branch back", abort, None)?;
            }
            if source.reopen()?.head().commit.to_string() != head {
                source.git(
                    "putting your branch back",
                    &["reset", "--quiet", "--merge", &head],
                    None,
                )?;
            }
            Ok(())
        });
        if mode == ApplyMode::Squash
            && let Err(error) = fs::remove_file(git_dir.join("SQUASH_MSG"))
        {
            tracing::debug!(%error, "there was no message of a squash");
        }
        if let Err(error) = outcome {
            tracing::error!(%error, "the branch could not be put back; run `git reset --merge {head}`");
        }
    }

    fn refuse_in_progress(&self) -> Result<(), Error> {
        match IN_PROGRESS
            .iter()
            .find(|(file, _)| self.git_dir().join(file).exists())
        {
            Some((_, what)) => Err(Error::InProgress { what }),
            None => Ok(()),
        }
    }
}

impl Mirror {
    /// Which of the commits are taken with those from `base` to `tip`, and are not in `head` already.
    fn taken(
        &self,
        starts: &[CommitId],
        head: CommitId,
        base: CommitId,
        tip: CommitId,
    ) -> Result<Vec<CommitId>, Error> {
        if starts.is_empty() {
            return Ok(Vec::new());
        }
        let doing = "listing the commits to take";
        let mut command = self.program().trusted(self.directory())?;
        command.arg("rev-list").arg(tip.to_string());
        command.arg(format!("^{base}")).arg(format!("^{head}"));
        let output = self
            .program()
            .execute(Call::new(doing, command).limit(TAKEN_LIMIT))?
            .success(doing)?;
        let taken: BTreeSet<CommitId> = output
            .stdout
            .lines()
            .filter_map(|line| line.to_str().ok()?.parse().ok())
            .collect();
        let starts = starts.iter().filter(|start| taken.contains(start));
        Ok(starts.copied().collect())
    }

    /// The commits to pick, without those that change nothing any more, and the tree at the end.
    fn plan_picks(
        &self,
        onto: TreeId,
        base: CommitId,
        tip: CommitId,
    ) -> Result<(TreeId, Vec<CommitId>), Error> {
        let doing = "listing the commits to pick";
        let mut command = self.program().trusted(self.directory())?;
        command
            .args(["rev-list", "--reverse", "--topo-order", "--no-merges"])
            .arg(format!("--max-count={}", PICK_LIMIT + 1));
        command.arg(tip.to_string()).arg(format!("^{base}"));
        let output = self
            .program()
            .execute(Call::new(doing, command))?
            .success(doing)?;
        let commits: Vec<CommitId> = output
            .stdout
            .lines()
            .filter_map(|line| line.to_str().ok()?.parse().ok())
            .collect();
        if commits.len() > PICK_LIMIT {
            return Err(Error::TooLarge {
                what: "the list of commits to pick (merge or squash them)".into(),
                limit: PICK_LIMIT as u64,
            });
        }
        let mut tree = onto;
        let mut picks = Vec::new();
        for commit in commits {
            let info = self.commit_info(commit)?;
            let parent = match info.parents.first() {
                Some(parent) => self.tree_of(*parent)?,
                None => TreeId::empty(),
            };
            let next = clean(self.merge_trees(parent, tree, info.tree)?)?;
            if next != tree {
                picks.push(commit);
                tree = next;
            }
        }
        Ok((tree, picks))
    }
}

fn clean(merged: Merged) -> Result<TreeId, Error> {
    match merged {
        Merged::Clean { tree } => Ok(tree),
        Merged::Conflicted { files, .. } => Err(Error::Conflicts { files }),
    }
}
