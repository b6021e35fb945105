//! What workspaces cost: the measuring half of `cargo xtask bench workspace`, which builds it with
//! optimisation, knows the marks and shows the figures.
//!
//! Each line that it prints is a figure: its name, its unit and its samples. Arguments are the
//! names of groups; without any, all are measured. What the figures mean is in
//! `docs/benchmarks.md`.

#[path = "figures/mod.rs"]
mod figures;

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use figures::{Failed, figure, ms};
use git::{CommitId, Mirror, Source};
use skep_site::{Site, Sites, Wanted, Warm};
use testkit::Repo;
use workspace::{Layering, Store};

/// Files of the repository.
const FILES: usize = 90_000;
/// How often each is measured.
const RUNS: usize = 9;
/// Files that differ between a commit and the one whose base is present.
const NEAR: usize = 10;
/// Files that are changed before a workspace is deleted.
const CHANGED: usize = 20_000;
/// How long a command may take.
const DEADLINE: Duration = Duration::from_secs(600);
/// The name of the repository.
const NAME: &str = "bench";

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failed> {
    let groups: Vec<String> = std::env::args().skip(1).collect();
    let wants = |group: &str| groups.is_empty() || groups.iter().any(|it| it == group);
    let mut stage = Stage::new().await?;
    if wants("delta") {
        stage.delta().await?;
    }
    if wants("status") {
        stage.status().await?;
    }
    if wants("extract") {
        stage.extract().await?;
    }
    if wants("disk") {
        stage.disk().await?;
    }
    // Last: for a while after many files were deleted, new ones take longer.
    if wants("delete") {
        stage.delete().await?;
    }
    stage.sites.close(true).await;
    Ok(())
}

/// A repository with its mirror, and the base of its commit.
struct Stage {
    data: tempfile::TempDir,
    repo: Repo,
    files: usize,
    sites: Sites,
    source: Source,
    mirror: Mirror,
    main: CommitId,
    /// The number of the next workspace.
    next: usize,
}

impl Stage {
    async fn new() -> Result<Stage, Failed> {
        let files = figures::files(FILES)?;
        let repo = Repo::generated(files);
        let data = tempfile::tempdir()?;
        let options = figures::options(data.path(), sandbox::Namespace::new(), Warm::OFF)?;
        let source = Source::discover(repo.path(), options.git.clone())?;
        let sites = Sites::open(options)?;
        let mirror = sites.mirror(NAME).await?;
        let main = repo.head().parse()?;
        mirror.fetch(&source, main)?;
        let began = Instant::now();
        sites.base(NAME, &mirror, main, None).await?;
        figure("whole_base_ms", "ms", &[ms(began.elapsed())])?;
        Ok(Stage {
            data,
            repo,
            files,
            sites,
            source,
            mirror,
            main,
            next: 0,
        })
    }

    /// A base for a commit near the one whose base is present, beside a worktree of git's.
    async fn delta(&mut self) -> Result<(), Failed> {
        let commits: Vec<CommitId> = (0..RUNS)
            .map(|number| self.near(number))
            .collect::<Result<_, Failed>>()?;
        self.repo.git(&["checkout", "--quiet", "--force", "main"]);
        rustix::fs::sync();
        let (mut fetched, mut made) = (Vec::new(), Vec::new());
        for commit in &commits {
            let began = Instant::now();
            self.mirror.fetch(&self.source, *commit)?;
            fetched.push(ms(began.elapsed()));
            let began = Instant::now();
            let base = self.sites.base(NAME, &self.mirror, *commit, None).await?;
            made.push(ms(began.elapsed()));
            if base.trees().len() < 2 {
                return Err("the base is no layer over another one".into());
            }
        }
        figure("delta_base_ms", "ms", &made)?;
        figure("delta_fetch_ms", "ms", &fetched)?;
        if let Some(commit) = commits.first() {
            self.first_status("git_status_first_delta_ms", *commit)
                .await?;
        }
        let tree = self.data.path().join("worktree");
        let place = tree.display().to_string();
        let commit = self.main.to_string();
        let began = Instant::now();
        self.repo
            .git(&["worktree", "add", "--quiet", "--detach", &place, &commit]);
        figure("git_worktree_add_ms", "ms", &[ms(began.elapsed())])?;
        Ok(())
    }

    /// A commit in which ten files are others than on `main`.
    fn near(&self, number: usize) -> Result<CommitId, Failed> {
        let branch = format!("near{number}");
        let git = |args: &[&str]| self.repo.git(args);
        git(&["checkout", "--quiet", "--force", "-B", &branch, "main"]);
        let step = self.files / NEAR;
        for n in 0..NEAR {
            self.repo
                .file(&path(n * step + number), format!("changed {number}\n"));
        }
        Ok(self.repo.commit("Ten files").parse()?)
    }

    /// The first `git status` in a workspace, beside one in a plain checkout.
    async fn status(&mut self) -> Result<(), Failed> {
        self.first_status("git_status_first_ms", self.main).await?;
        let mut plain = Vec::new();
        for _ in 0..=RUNS {
            let began = Instant::now();
            self.repo.git(&["status", "--porcelain"]);
            plain.push(ms(began.elapsed()));
        }
        plain.remove(0);
        figure("git_status_plain_ms", "ms", &plain)
    }

    async fn first_status(&mut self, name: &str, commit: CommitId) -> Result<(), Failed> {
        let mut samples = Vec::new();
        for _ in 0..=RUNS {
            let site = self.site(commit).await?;
            let began = Instant::now();
            let ran = said(&site, "git status --porcelain").await?;
            samples.push(ms(began.elapsed()));
            if !ran.is_empty() {
                return Err(format!("a new workspace is not clean: {ran}").into());
            }
            site.close().await?;
        }
        // The first reads from the disk.
        samples.remove(0);
        figure(name, "ms", &samples)
    }

    /// Twelve changes made into a tree, which must be the one that git makes of them.
    async fn extract(&mut self) -> Result<(), Failed> {
        let mut samples = Vec::new();
        for run in 0..=RUNS {
            let site = self.site(self.main).await?;
            let step = self.files / 12;
            let edited: Vec<String> = (0..8).map(|n| path(n * step + run)).collect();
            let [gone, moved] = [8, 9].map(|n| path(n * step + run));
            let script = format!(
                "for file in {}; do echo changed >> $file || exit 1; done; \
                 rm {gone} && mv {moved} renamed-{run} && echo new > new-{run} && ln -s new-{run} link-{run}",
                edited.join(" ")
            );
            said(&site, &script).await?;
            let began = Instant::now();
            let extracted = site.extract().await?;
            samples.push(ms(began.elapsed()));
            let tree = said(&site, "git add --all && git write-tree").await?;
            if tree.trim() != extracted.tree.to_string() {
                return Err(format!("extracted {}, git has {tree}", extracted.tree).into());
            }
            site.close().await?;
        }
        samples.remove(0);
        figure("extract_p50_ms", "ms", &samples)
    }

    /// What an attempt that changes ten small files takes, without the index.
    async fn disk(&mut self) -> Result<(), Failed> {
        let mut samples = Vec::new();
        for run in 0..3 {
            let site = self.site(self.main).await?;
            let step = self.files / NEAR;
            let files: Vec<String> = (0..NEAR).map(|n| path(n * step + run)).collect();
            let script = format!(
                "for file in {}; do echo changed >> $file || exit 1; done",
                files.join(" ")
            );
            said(&site, &script).await?;
            let bytes = self.store()?.open_workspace(&self.id())?.disk_bytes()?;
            samples.push(bytes as f64 / 1024.0);
            site.close().await?;
        }
        figure("disk_kb", "KiB", &samples)
    }

    /// The deletion of a workspace with many changed files, beside that of a worktree of git's.
    async fn delete(&mut self) -> Result<(), Failed> {
        let changed = CHANGED.min(self.files);
        let script = format!(
            "find src -name '*.txt' | sort | head -n {changed} | \
             xargs sh -c 'for file; do echo changed >> \"$file\" || exit 255; done' sh"
        );
        let (mut deleted, mut closed) = (Vec::new(), Vec::new());
        // Kept open, so that nothing empties the trash meanwhile.
        for run in 0..RUNS.min(5) {
            let site = self.site(self.main).await?;
            said(&site, &script).await?;
            if run % 2 == 0 {
                site.leave().await?;
                let workspace = self.store()?.open_workspace(&self.id())?;
                let began = Instant::now();
                workspace.delete()?;
                deleted.push(ms(began.elapsed()));
            } else {
                let began = Instant::now();
                site.close().await?;
                closed.push(ms(began.elapsed()));
            }
        }
        figure("workspace_delete_p50_ms", "ms", &deleted)?;
        figure("site_close_ms", "ms", &closed)?;
        let tree = self.data.path().join("worktree");
        if !tree.exists() {
            let place = tree.display().to_string();
            self.repo
                .git(&["worktree", "add", "--quiet", "--detach", &place, "main"]);
        }
        run(&tree, &script)?;
        let place = tree.display().to_string();
        let began = Instant::now();
        self.repo.git(&["worktree", "remove", "--force", &place]);
        figure("git_worktree_remove_ms", "ms", &[ms(began.elapsed())])
    }

    /// A new site on a commit.
    async fn site(&mut self, commit: CommitId) -> Result<Site, Failed> {
        self.next += 1;
        let wanted = Wanted::plain(self.id(), NAME, commit);
        Ok(self.sites.site(&self.mirror, wanted).await?)
    }

    /// The name of the last workspace.
    fn id(&self) -> String {
        format!("bench-{}", self.next)
    }

    fn store(&self) -> Result<Store, Failed> {
        Ok(Store::open(self.data.path(), Layering::Overlay)?)
    }
}

/// The path of the n-th file of a generated repository.
fn path(n: usize) -> String {
    format!(
        "src/part{:03}/unit{:02}/file{:02}.txt",
        n / 10_000,
        n / 100 % 100,
        n % 100
    )
}

/// Runs a command in a site; what it wrote.
async fn said(site: &Site, command: &str) -> Result<String, Failed> {
    let ran = site.run(command, DEADLINE).await?;
    if !ran.exit.success() {
        return Err(format!("{command}: {}: {}", ran.exit, ran.tail(2_000)).into());
    }
    Ok(ran.tail(usize::MAX))
}

/// Runs a command on the host.
fn run(directory: &Path, script: &str) -> Result<(), Failed> {
    let mut command = Command::new("sh");
    let status = command
        .args(["-c", script])
        .current_dir(directory)
        .status()?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("{script}: {status}").into()),
    }
}
