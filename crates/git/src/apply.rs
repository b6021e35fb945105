//! `skep apply`: integrated work onto the user's current branch.
//!
//! What would happen is worked out in the mirror first; the user's repository is touched only when there is no conflict
//! and no uncommitted work in the way. Then git runs as the user, with their settings, hooks and signature: it is
//! their branch.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use bstr::{BStr, BString, ByteSlice};

use crate::error::Error;
use crate::ids::{CommitId, TreeId};
use crate::merge::Merged;
use crate::mirror::Mirror;
use crate::program::Call;
use crate::source::Source;
use crate::status::StatusKind;

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

impl Source {
    /// Takes the commits from `base` (which is not taken) to `tip` onto the current branch. `message` is that of a
    /// merge or of a squashed commit.
    ///
    /// # Errors
    /// [`Error::InProgress`], [`Error::Uncommitted`] and [`Error::Conflicts`]: nothing was changed then. When git
    /// itself refuses (a hook, say), [`Error::Failed`] with what it said, and the branch is as it was.
    pub fn apply(
        &self,
        mirror: &Mirror,
        base: CommitId,
        tip: CommitId,
        mode: ApplyMode,
        message: &str,
    ) -> Result<Applied, Error> {
        let now = self.reopen()?;
        now.refuse_in_progress()?;
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
        now.refuse_uncommitted(mirror, before, after)?;
        now.refuse_hooks(mirror, before, after)?;
        now.receive(mirror, tip)?;
        if let Err(error) = now.run_apply(mode, tip, &picks, message) {
            now.restore(mode, head);
            return Err(error);
        }
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
        let output = self.program().execute(call)?;
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
    fn restore(&self, mode: ApplyMode, head: CommitId) {
        let git_dir = self.git_dir();
        let head = head.to_string();
        let abort: &[&str] = match mode {
            ApplyMode::Merge if git_dir.join("MERGE_HEAD").exists() => &["merge", "--abort"],
            ApplyMode::CherryPick
                if git_dir.join("CHERRY_PICK_HEAD").exists()
                    || git_dir.join("sequencer").exists() =>
            {
                &["cherry-pick", "--abort"]
            }
            ApplyMode::Squash => &["reset", "--quiet", "--merge", &head],
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

    /// Refuses when a file that would change is a hook that git would run as the user: where
    /// `core.hooksPath` leads into the working tree, what an agent wrote there would be run.
    fn refuse_hooks(&self, mirror: &Mirror, before: TreeId, after: TreeId) -> Result<(), Error> {
        let Some(directory) = self.hooks()? else {
            return Ok(());
        };
        let within = |directory: &BStr| {
            let mut below = directory.to_vec();
            below.push(b'/');
            move |path: &BStr| {
                below == b"/"
                    || path.starts_with(&below)
                    || below
                        .strip_suffix(b"/")
                        .is_some_and(|one| one == path.as_bytes())
            }
        };
        let top = fs::canonicalize(self.top()).unwrap_or_else(|_| self.top().to_owned());
        // The directory by its name, and where links lead from there.
        let real = fs::canonicalize(&directory).ok();
        let mut places = Vec::new();
        for place in [Some(lexical(&directory)), real].into_iter().flatten() {
            let inside = place
                .strip_prefix(&top)
                .or_else(|_| place.strip_prefix(self.top()));
            if let Ok(inside) = inside {
                places.push(within(BStr::new(inside.as_os_str().as_bytes())));
            }
        }
        let changes = mirror.changed_paths(before, after)?;
        let hook = changes
            .iter()
            .find(|change| places.iter().any(|holds| holds(change.path.as_ref())));
        match hook {
            Some(change) => Err(Error::Failed {
                doing: "taking the work onto your branch",
                status: "refused".into(),
                message: format!(
                    "`core.hooksPath` leads to {}, and the work changes {} there, which git would \
                     run; look at it, then merge it yourself with `git -c core.hooksPath=/dev/null \
                     merge`",
                    directory.display(),
                    change.path
                ),
            }),
            None => Ok(()),
        }
    }

    /// Where git looks for hooks, if the configuration says so, as an absolute path.
    fn hooks(&self) -> Result<Option<PathBuf>, Error> {
        let doing = "asking where hooks are";
        let mut command = self.program().as_user(self.top())?;
        command.args(["config", "--type=path", "--get", "core.hooksPath"]);
        let output = self
            .program()
            .execute(Call::new(doing, command).limit(64 * 1024))?;
        match output.code {
            Some(0) => {
                let place = output.stdout.trim_end_with(|c| c == '\n' || c == '\r');
                let place = place.to_path().map_err(|_| Error::Failed {
                    doing,
                    status: "unreadable".into(),
                    message: "`core.hooksPath` is not a path".into(),
                })?;
                Ok(Some(self.top().join(place)))
            }
            // It is not set.
            Some(1) => Ok(None),
            _ => Err(output.failure(doing)),
        }
    }

    /// Refuses when a file that would change has uncommitted changes, or is there and ignored; and when anything is
    /// staged, because git would make it part of the commit or refuse.
    fn refuse_uncommitted(
        &self,
        mirror: &Mirror,
        before: TreeId,
        after: TreeId,
    ) -> Result<(), Error> {
        let changes = mirror.changed_paths(before, after)?;
        let touched: BTreeSet<&BStr> = changes.iter().map(|change| change.path.as_ref()).collect();
        let mut files = BTreeSet::new();
        for entry in self.uncommitted()? {
            let path = entry.path.as_ref();
            if entry.staged || entry.kind == StatusKind::Conflicted || overlaps(&touched, path) {
                files.insert(entry.path);
            }
        }
        for change in changes.iter().filter(|change| change.before.is_none()) {
            if let Some(path) = in_the_way(self.top(), change.path.as_ref(), &touched) {
                files.insert(path);
            }
        }
        if files.is_empty() {
            Ok(())
        } else {
            Err(Error::Uncommitted {
                files: files.into_iter().collect(),
            })
        }
    }
}

impl Mirror {
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

/// A path without `.` and `..`, links not looked at.
fn lexical(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}

/// Whether a path is touched, or is a directory above or a file below one that is.
fn overlaps(touched: &BTreeSet<&BStr>, path: &BStr) -> bool {
    if touched.contains(path) || parents(path).any(|parent| touched.contains(parent)) {
        return true;
    }
    let mut below = path.trim_end_with(|c| c == '/').to_vec();
    below.push(b'/');
    touched
        .range(BStr::new(&below)..)
        .next()
        .is_some_and(|next| next.starts_with(&below))
}

/// The directories above a path.
fn parents(path: &BStr) -> impl Iterator<Item = &BStr> {
    path.find_iter(b"/")
        .map(move |at| BStr::new(path.get(..at).unwrap_or_default()))
}

/// A file that is where a new file, or a directory above it, has to be, and is not tracked.
fn in_the_way(top: &Path, path: &BStr, touched: &BTreeSet<&BStr>) -> Option<BString> {
    let is_file = |path: &BStr| {
        let path = path.to_path().ok()?;
        Some(fs::symlink_metadata(top.join(path)).ok()?.is_dir()).filter(|is_dir| !is_dir)
    };
    parents(path)
        .filter(|parent| !touched.contains(parent))
        .chain(std::iter::once(path))
        .find(|path| is_file(path).is_some())
        .map(BStr::to_owned)
}
