//! The gate's rules, each on a change that it must refuse and on one beside it that it must let through.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use domain::{entity::Verdict, policy::Policy, scope::Scope};
use git::{CommitId, Mirror, Program, Source, TreeId};
use skep_checks::{Candidate, failed, passed, rules};
use testkit::Repo;

/// A repository with some files, and its mirror.
struct Scene {
    mirror: Mirror,
    base: CommitId,
    _repo: Repo,
    _place: tempfile::TempDir,
}

/// What is done to a file.
enum Write<'a> {
    Put(&'a str),
    Link(&'a str),
    Remove,
}
use Write::{Link, Put, Remove};

impl Scene {
    fn new() -> Self {
        let repo = Repo::new();
        repo.file("src/main.py", "print(1)\n")
            .file("ci/deploy.yml", "deploy\n")
            .file("keys.txt", format!("{}\n", token('b')))
            .file("notes/merge.txt", CONFLICT)
            .file("old.lock", "lock\n")
            .file("skep.toml", "");
        repo.commit("start");
        let place = tempfile::tempdir().unwrap();
        let program = Program::find(&std::env::var_os("PATH").unwrap()).unwrap();
        let source = Source::discover(repo.path(), program.clone()).unwrap();
        let mirror = Mirror::open_or_create(place.path(), program).unwrap();
        let base = source.head().commit;
        mirror.fetch(&source, base).unwrap();
        Self {
            mirror,
            base,
            _repo: repo,
            _place: place,
        }
    }

    fn tree(&self, writes: &[(&str, Write<'_>)]) -> TreeId {
        let mut writer = self
            .mirror
            .tree_writer(self.mirror.tree_of(self.base).unwrap());
        for (path, write) in writes {
            let path = (*path).into();
            match write {
                Put(content) => {
                    let length = content.len() as u64;
                    writer.put_file(path, false, &mut content.as_bytes(), length)
                }
                Link(target) => writer.put_link(path, (*target).into()),
                Remove => writer.remove(path),
            }
            .unwrap();
        }
        writer.finish().unwrap().tree
    }

    /// The names of the rules that refuse these writes, under a scope and a policy.
    fn refusing(&self, scope: &str, policy: &str, writes: &[(&str, Write<'_>)]) -> String {
        let scope: Scope = scope_of(scope);
        let policy = Policy::parse(policy.as_bytes()).unwrap();
        let (found, touched) = rules(&Candidate {
            mirror: &self.mirror,
            base: self.base,
            tree: self.tree(writes),
            scope: &scope,
            policy: &policy,
        })
        .unwrap();
        let evidence: Vec<_> = found.into_iter().map(|found| found.evidence).collect();
        let refused = failed(&evidence);
        assert_eq!(passed(&evidence), refused.is_empty());
        for one in &evidence {
            let says = !one.findings.is_empty();
            assert_eq!(says, one.verdict != Verdict::Passed, "{one:?}");
            assert!(!one.findings.contains(&token('a')), "a secret is not told");
        }
        let names_a_path = evidence.iter().all(|one| {
            one.verdict == Verdict::Passed
                || touched.is_empty()
                || one.findings.contains("files are touched")
                || touched
                    .iter()
                    .any(|path| one.findings.contains(&path.to_string()))
        });
        assert!(names_a_path, "{evidence:?}");
        refused
    }
}

/// A scope in the words of a plan.
fn scope_of(text: &str) -> Scope {
    let job = format!("[[job]]\nname='x'\nprompt='x'\n[job.scope]\n{text}\n");
    domain::plan::Plan::from_toml(&job).unwrap().jobs[0]
        .scope
        .clone()
}

/// What looks like a token of GitHub, and is none.
fn token(letter: char) -> String {
    format!("gh{}_{}", 'p', letter.to_string().repeat(36))
}

const CONFLICT: &str = "<<<<<<< ours\na\n=======\nb\n>>>>>>> theirs\n";

#[test]
fn every_rule_refuses_what_it_is_there_for_and_nothing_beside_it() {
    let scene = Scene::new();
    let secret = format!("token = '{}'\n", token('a'));
    let twice = format!("{}\n{}\n", token('b'), token('b'));
    let known = format!("{}\nand a line\n", token('b'));
    let two = format!("{CONFLICT}{CONFLICT}");
    let protected = "[paths]\nprotected=['ci/**']";
    let forbidden = "[paths]\nforbidden=['**/*.lock','vendor/**']";
    type Case<'a> = (&'a str, &'a str, &'a [(&'a str, Write<'a>)], &'a str);
    let cases: &[Case<'_>] = &[
        ("", "", &[], "not empty"),
        ("", "", &[("src/main.py", Put("print(1)\n"))], "not empty"),
        ("", "", &[("src/main.py", Put("print(2)\n"))], ""),
        // Scope.
        ("write=['src/**']", "", &[("src/new.py", Put("x"))], ""),
        ("write=['src/**']", "", &[("other.py", Put("x"))], "scope"),
        (
            "write=['src/**']",
            "",
            &[("ci/deploy.yml", Remove)],
            "scope",
        ),
        ("forbid=['ci/**']", "", &[("ci/new", Put("x"))], "scope"),
        ("forbid=['ci/**']", "", &[("ci", Link("src"))], "scope"),
        (
            "max_files=1",
            "",
            &[("a", Put("x")), ("b", Put("x"))],
            "scope",
        ),
        ("max_files=2", "", &[("a", Put("x")), ("b", Put("x"))], ""),
        // Protected paths.
        ("", "", &[("skep.toml", Put("# mine\n"))], "protected paths"),
        ("", "", &[("skep.toml", Remove)], "protected paths"),
        ("", protected, &[("ci/new", Put("x"))], "protected paths"),
        (
            "",
            protected,
            &[("ci/deploy.yml", Remove)],
            "protected paths",
        ),
        ("", protected, &[("ci", Link("src"))], "protected paths"),
        ("", protected, &[("cider", Put("x"))], ""),
        // Forbidden paths.
        ("", forbidden, &[("a/b.lock", Put("x"))], "forbidden paths"),
        ("", forbidden, &[("vendor/x", Put("x"))], "forbidden paths"),
        ("", forbidden, &[("vendor", Link("src"))], "forbidden paths"),
        ("", forbidden, &[("old.lock", Remove)], ""),
        // Size.
        (
            "",
            "[paths]\nmax_file_bytes=3",
            &[("a", Put("1234"))],
            "size",
        ),
        ("", "[paths]\nmax_file_bytes=3", &[("a", Put("123"))], ""),
        (
            "",
            "[paths]\nmax_files=1",
            &[("a", Put("x")), ("b", Put("x"))],
            "size",
        ),
        // Conflict markers.
        ("", "", &[("a.py", Put(CONFLICT))], "conflict markers"),
        (
            "",
            "",
            &[("notes/merge.txt", Put(&two))],
            "conflict markers",
        ),
        ("", "", &[("a.md", Put("Title\n=======\n"))], ""),
        // Secrets.
        ("", "", &[("src/main.py", Put(&secret))], "secrets"),
        ("", "", &[("keys.txt", Put(&twice))], "secrets"),
        ("", "", &[("keys.txt", Put(&known))], ""),
        // Several at once are all named.
        (
            "write=['src/**']",
            protected,
            &[("ci/deploy.yml", Put(&secret))],
            "scope, protected paths, secrets",
        ),
    ];
    for (scope, policy, writes, expected) in cases {
        let paths: Vec<_> = writes.iter().map(|(path, _)| path).collect();
        assert_eq!(
            scene.refusing(scope, policy, writes),
            *expected,
            "{scope} {policy} {paths:?}"
        );
    }
}
