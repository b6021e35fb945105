//! Whatever an agent leaves in its workspace to mislead git and Skep is data for the trusted side: its files come out
//! byte for byte, and nothing of it runs, is followed or configures anything.
//!
//! That what an agent configures can run is seen in the test of it: git that is started in the workspace, as nobody on
//! the trusted side does, runs it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod scene;

use bstr::ByteSlice;
use skep_site::{Extracted, Site, Sites, Wanted};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use testkit::Repo;
use workspace::Layering;

const DEADLINE: Duration = Duration::from_secs(60);

struct Attempt {
    data: tempfile::TempDir,
    sites: Sites,
    mirror: git::Mirror,
    base: git::CommitId,
    site: Site,
    repo: Repo,
}

/// An attempt on a repository with some of everything, in a workspace that the kind `host` gives: a copy, so that the
/// traps that an agent set are where git on the host would find them.
async fn attempt() -> Attempt {
    let repo = Repo::new();
    repo.file("README.md", "read me\n")
        .file("src/lib.rs", "fn one() {}\n")
        .file("caf\u{e9}", "composed\n")
        .file("Case", "one\n")
        .file("case", "two\n");
    repo.commit("A base");
    let pin = "1111111111111111111111111111111111111111";
    repo.git(&[
        "update-index",
        "--add",
        "--cacheinfo",
        &format!("160000,{pin},sub"),
    ]);
    repo.git(&["commit", "--quiet", "-m", "A submodule"]);
    let base = repo.head().parse().unwrap();
    let data = tempfile::tempdir().unwrap();
    let (sites, source) = scene::open_as(data.path(), &repo, Layering::Copy);
    let mirror = sites.mirror("r").await.unwrap();
    mirror.fetch(&source, base).unwrap();
    let wanted = Wanted::plain("hostile", "r", base);
    let site = sites.site(&mirror, wanted).await.unwrap();
    Attempt {
        data,
        sites,
        mirror,
        base,
        site,
        repo,
    }
}

impl Attempt {
    async fn does(&self, script: &str) {
        let ran = self.site.run(script, DEADLINE).await.unwrap();
        assert!(ran.exit.success(), "{}", ran.tail(4_000));
    }

    fn files(&self) -> PathBuf {
        self.data.path().join("workspaces/hostile/tree")
    }

    /// What the trap writes when it springs.
    fn sprung(&self) -> PathBuf {
        self.data.path().join("sprung")
    }

    async fn comes_out(&self) -> (Extracted, BTreeMap<String, Vec<u8>>) {
        let extracted = self.site.extract().await.unwrap();
        let mut files = BTreeMap::new();
        for (path, entry) in self.mirror.files(extracted.tree, 1_000).unwrap() {
            let content = match entry.kind {
                git::FileKind::Submodule => b"a submodule".to_vec(),
                _ => self.mirror.read_blob(entry.id, 1 << 20).unwrap(),
            };
            files.insert(path.to_str_lossy().into_owned(), content);
        }
        (extracted, files)
    }

    /// What differs from the base, by path.
    async fn changed(&self) -> (Vec<String>, BTreeMap<String, Vec<u8>>) {
        let (extracted, files) = self.comes_out().await;
        let before = self.mirror.tree_of(self.base).unwrap();
        let changes = self.mirror.changed_paths(before, extracted.tree).unwrap();
        let paths: Vec<_> = changes
            .iter()
            .map(|change| change.path.to_str_lossy().into_owned())
            .collect();
        let mut left = files;
        left.retain(|path, _| paths.contains(path));
        let gone = paths.iter().filter(|path| !left.contains_key(*path));
        assert_eq!(gone.count(), 0, "{paths:?}");
        (extracted.not_taken, left)
    }

    async fn ends(self) {
        self.site.close().await.unwrap();
        self.sites.close(true).await;
    }
}

/// Git on the host, as somebody careless would run it in a workspace.
fn careless(directory: &Path, arguments: &[&str]) {
    let mut git = Command::new("git");
    git.current_dir(directory)
        .args(arguments)
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("HOME", "/nonexistent");
    git.output().unwrap();
}

fn text(content: &str) -> Vec<u8> {
    content.as_bytes().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_filters_monitors_and_commands_that_an_agent_configures_never_run() {
    let attempt = attempt().await;
    let trap = attempt.data.path().join("trap");
    let script = format!(
        "#!/bin/sh\necho \"$0 $*\" >> '{}'\ncat\n",
        attempt.sprung().display()
    );
    std::fs::write(&trap, script).unwrap();
    let trap = trap.display();
    attempt
        .does(&format!(
            r#"set -e
            chmod +x '{trap}'
            for hook in pre-commit post-checkout post-index-change reference-transaction post-commit \
                        prepare-commit-msg commit-msg pre-auto-gc fsmonitor-watchman; do
                mkdir -p .git/hooks && cp '{trap}' .git/hooks/$hook
            done
            for key in core.fsmonitor core.sshCommand core.pager core.editor core.askPass diff.external \
                       filter.x.clean filter.x.smudge filter.x.process diff.x.command diff.x.textconv \
                       merge.x.driver gpg.program uploadpack.packObjectsHook credential.helper; do
                git config "$key" '{trap}'
            done
            git config filter.x.required true
            git config include.path ../more.config
            printf '[core]\n\thooksPath = %s\n' "$PWD/.git/hooks" > more.config
            printf '* filter=x diff=x merge=x text eol=crlf ident\n' > .gitattributes
            mkdir -p .git/info && cp .gitattributes .git/info/attributes
            printf 'one\r\ntwo $Id$\n' > new.txt
            echo changed >> README.md"#
        ))
        .await;
    // Setting them ran none of them; what it touched is forgotten.
    std::fs::remove_file(attempt.sprung()).ok();
    let (not_taken, changed) = attempt.changed().await;
    assert!(not_taken.is_empty(), "{not_taken:?}");
    let attributes = "* filter=x diff=x merge=x text eol=crlf ident\n";
    assert_eq!(changed["new.txt"], text("one\r\ntwo $Id$\n"));
    assert_eq!(changed["README.md"], text("read me\nchanged\n"));
    assert_eq!(changed[".gitattributes"], text(attributes));
    assert!(
        changed.contains_key("more.config") && changed.len() == 4,
        "{changed:?}"
    );
    assert!(!attempt.sprung().exists());
    careless(&attempt.files(), &["add", "--all"]);
    assert!(attempt.sprung().exists(), "the traps are real");
    attempt.ends().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_references_and_the_index_of_an_agent_mean_nothing() {
    let attempt = attempt().await;
    let theirs = attempt.repo.path().join(".git/objects");
    attempt
        .does(&format!(
            r#"set -e
            echo mine > mine.txt
            git add mine.txt && git commit --quiet -m mine
            git update-index --add --cacheinfo 160000,2222222222222222222222222222222222222222,linked
            git update-index --assume-unchanged README.md && git update-index --skip-worktree src/lib.rs
            echo changed >> README.md && echo changed >> src/lib.rs
            mkdir -p .git/objects/info && echo '{}' > .git/objects/info/alternates
            git replace HEAD HEAD~1 || true
            echo garbage > .git/index && echo garbage > .git/HEAD && echo garbage > .git/packed-refs"#,
            theirs.display()
        ))
        .await;
    let (not_taken, changed) = attempt.changed().await;
    assert!(not_taken.is_empty(), "{not_taken:?}");
    let paths: Vec<_> = changed.keys().map(String::as_str).collect();
    assert_eq!(paths, ["README.md", "mine.txt", "src/lib.rs"]);
    attempt.ends().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_submodule_is_made_or_moved_and_no_repository_inside_is_taken_for_one() {
    let attempt = attempt().await;
    attempt
        .does(
            r#"set -e
            git init --quiet nested && echo inside > nested/file
            git -C nested -c user.name=u -c user.email=u@e.invalid commit --quiet --allow-empty -m x
            mkdir -p filed linked caught sub/deep
            echo 'gitdir: ../.git' > filed/.git && echo f > filed/file
            ln -s ../.git linked/.git && echo l > linked/file
            mkdir caught/.GIT && echo c > caught/.GIT/config && echo c > caught/file
            echo below > sub/deep/file
            printf '[submodule "sub"]\n\tpath = sub\n\turl = ext::sh -c touch%% /tmp/x\n\tupdate = !touch x\n' > .gitmodules"#,
        )
        .await;
    let (not_taken, changed) = attempt.changed().await;
    let paths: Vec<_> = changed.keys().map(String::as_str).collect();
    // Files beside a `.git` are files.
    let expected = [
        ".gitmodules",
        "caught/file",
        "filed/file",
        "linked/file",
        "nested/file",
    ];
    assert_eq!(paths, expected);
    let all = not_taken.join("\n");
    for named in [
        "nested/.git",
        "filed/.git",
        "linked/.git",
        "caught/.GIT",
        "sub/deep/file",
    ] {
        assert!(all.contains(named), "{named} in {all}");
    }
    attempt.ends().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_of_the_agent_that_is_a_link_or_a_file_is_not_followed() {
    for made in [
        "ln -s /etc .git".to_owned(),
        "echo 'gitdir: /etc' > .git".to_owned(),
        "mkfifo .git".to_owned(),
        "mkdir .git && ln -s /etc/passwd .git/HEAD".to_owned(),
    ] {
        let attempt = attempt().await;
        attempt
            .does(&format!("rm -rf .git && {made} && echo mine > mine.txt"))
            .await;
        let (not_taken, changed) = attempt.changed().await;
        assert!(not_taken.is_empty(), "{not_taken:?}");
        assert_eq!(
            changed.into_iter().collect::<Vec<_>>(),
            [("mine.txt".into(), text("mine\n"))]
        );
        attempt.ends().await;
    }
}

// docs/bad-input.md: Names that differ only in case
#[tokio::test(flavor = "multi_thread")]
async fn names_that_some_system_takes_for_one_are_refused_unless_the_base_had_them() {
    let attempt = attempt().await;
    attempt
        .does(
            r#"set -e
            echo edited > Case
            echo new > readme.MD
            echo new > "$(printf 'cafe\314\201')"
            mkdir -p SRC && echo new > SRC/new.rs && echo new > src/new.rs
            echo 1 > Twin && echo 2 > twin
            mv src/lib.rs src/LIB.rs"#,
        )
        .await;
    let (extracted, files) = attempt.comes_out().await;
    let paths: Vec<_> = files.keys().map(String::as_str).collect();
    let expected = [
        "Case",
        "README.md",
        "Twin",
        "caf\u{e9}",
        "case",
        "src/LIB.rs",
        "src/new.rs",
        "sub",
    ];
    assert_eq!(paths, expected, "what was renamed has no other beside it");
    assert_eq!(files["Case"], text("edited\n"));
    assert_eq!(files["caf\u{e9}"], text("composed\n"));
    let told = extracted.not_taken;
    assert_eq!(told.len(), 4, "{told:?}");
    for refused in ["readme.MD", "cafe\u{301}", "SRC", "twin"] {
        let beginning = format!("{refused}: ");
        assert!(
            told.iter().any(|it| it.starts_with(&beginning)),
            "{refused}: {told:?}"
        );
    }
    attempt.ends().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_with_escape_sequences_are_names_and_messages_show_them_escaped() {
    let attempt = attempt().await;
    attempt
        .does(
            r#"set -e
            name=$(printf 'a\033[2J\033]0;title\007b\r\n.x')
            echo new > "$name"
            mkfifo "$(printf 'p\033[31m')""#,
        )
        .await;
    let (not_taken, changed) = attempt.changed().await;
    let paths: Vec<_> = changed.keys().map(String::as_str).collect();
    assert_eq!(paths, ["a\u{1b}[2J\u{1b}]0;title\u{7}b\r\n.x"]);
    assert_eq!(not_taken.len(), 1);
    assert!(
        not_taken[0].contains("pipe") && !not_taken[0].contains(char::is_control),
        "{not_taken:?}"
    );
    attempt.ends().await;
}
