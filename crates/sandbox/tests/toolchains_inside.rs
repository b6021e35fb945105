//! The host's tools work inside a real sandbox, offline: as the user who runs the tests and, if
//! that is root, as an ordinary user too.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed test says so by a panic"
)]

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use skep_sandbox::toolchains::{Input, Toolchains, discover};
use skep_sandbox::{Backend, Command, Namespace, Output, Sandbox, Spec, Workspace, exec_captured};
use tempfile::TempDir;
use testkit::Home;

/// No command of the tests takes longer, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(300);

/// A sandbox around a workspace, with the host's toolchains.
struct Room {
    _directory: TempDir,
    tools: Toolchains,
    sandbox: Box<dyn Sandbox>,
}

impl Room {
    async fn with(files: &[(&str, &str)]) -> Room {
        let directory = TempDir::new().unwrap();
        let [workspace, home] = ["workspace", "home"].map(|it| directory.path().join(it));
        fs::create_dir(&home).unwrap();
        for (name, contents) in files {
            let path = workspace.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, contents).unwrap();
        }
        let env = |name: &str| std::env::var_os(name);
        let tools = discover(&Input {
            path: env("PATH").unwrap_or_default(),
            home: env("HOME").unwrap_or_default().into(),
            env: &env,
            extra_roots: Vec::new(),
        });
        let mut spec = Spec::new(Workspace::Directory(workspace));
        tools.write_files(&home).unwrap();
        tools.mount_into(&mut spec);
        spec.home = Some(home);
        let sandbox = Namespace::new()
            .create(spec)
            .await
            .unwrap_or_else(|error| panic!("{error}: {:?}", std::error::Error::source(&error)));
        Room {
            _directory: directory,
            tools,
            sandbox,
        }
    }

    async fn run(&self, argv: &[&str]) -> Output {
        let command = Command::new(argv.iter().copied(), self.sandbox.workspace())
            .with_env(self.sandbox.base_env())
            .with_env(self.tools.env.clone())
            .with_env([(OsString::from("PATH"), self.tools.path.clone())])
            .with_timeout(PATIENCE);
        exec_captured(self.sandbox.as_ref(), command, 1 << 18)
            .await
            .unwrap_or_else(|error| panic!("{argv:?}: {error}; install it for these tests"))
    }

    /// Runs a command that must succeed; both its outputs.
    async fn succeeds(&self, argv: &[&str]) -> String {
        let output = self.run(argv).await;
        let text = output.stdout.text() + &output.stderr.text();
        assert!(
            output.exit.success(),
            "{argv:?}: {}\n{text}\nPATH {}\n{:?}",
            output.exit,
            self.tools.path.display(),
            self.tools.notes
        );
        // What they try of the kernel and go on without is not told: it would explain other failures.
        assert!(output.refused.is_empty(), "{argv:?}: {:?}", output.refused);
        text
    }
}

#[tokio::test]
async fn cargo_tests_a_crate_with_a_dependency() {
    let room = Room::with(&[
        (
            "Cargo.toml",
            "[package]\nname = \"small\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[dependencies]\ncfg-if = \"1\"\n",
        ),
        (
            "src/lib.rs",
            "cfg_if::cfg_if! { if #[cfg(unix)] { pub fn n() -> u32 { 3 } } else { pub fn n() -> u32 { 0 } } }\n\
             #[test] fn works() { assert_eq!(n(), 3); }\n",
        ),
    ])
    .await;
    let said = room.succeeds(&["cargo", "test", "--offline"]).await;
    assert!(said.contains("test works ... ok"), "{said}");
    room.succeeds(&["rustc", "--version"]).await;
}

#[tokio::test]
async fn python_runs_its_tests_and_leaves_no_caches_in_the_workspace() {
    let room = Room::with(&[
        ("small.py", "def n():\n    return 3\n"),
        (
            "test_small.py",
            "import sqlite3, ssl, unittest, small\n\nclass T(unittest.TestCase):\n    def test(self):\n        self.assertEqual(small.n(), 3)\n",
        ),
    ])
    .await;
    let said = room.succeeds(&["python3", "-m", "unittest"]).await;
    assert!(said.contains("Ran 1 test"), "{said}");
    assert_eq!(room.succeeds(&["ls"]).await, "small.py\ntest_small.py\n");
    // What is compiled already is not compiled again at every start.
    let said = room
        .succeeds(&["python3", "-v", "-c", "import unittest"])
        .await;
    let reads = |it: &&str| it.contains("unittest") && it.contains(".pyc matches ");
    assert!(said.lines().any(|it| reads(&it)), "{said}");
}

#[tokio::test]
async fn node_and_npm_run_their_tests() {
    let room = Room::with(&[
        ("package.json", "{\"name\": \"small\", \"scripts\": {\"test\": \"node --test\"}}\n"),
        (
            "small.test.js",
            "const test = require('node:test');\ntest('works', () => require('node:assert').equal(1 + 2, 3));\n",
        ),
    ])
    .await;
    for argv in [&["node", "--test"][..], &["npm", "test"]] {
        let said = room.succeeds(argv).await;
        assert!(said.contains("pass 1"), "{said}");
    }
}

#[tokio::test]
async fn go_runs_its_tests() {
    let room = Room::with(&[
        ("go.mod", "module example.org/small\n\ngo 1.19\n"),
        ("small.go", "package small\n\nfunc N() int { return 3 }\n"),
        (
            "small_test.go",
            "package small\n\nimport \"testing\"\n\nfunc TestN(t *testing.T) {\n\tif N() != 3 {\n\t\tt.Fatal(N())\n\t}\n}\n",
        ),
    ])
    .await;
    let said = room.succeeds(&["go", "test", "-v", "./..."]).await;
    assert!(said.contains("--- PASS: TestN"), "{said}");
    assert_eq!(
        room.succeeds(&["ls"]).await,
        "go.mod\nsmall.go\nsmall_test.go\n"
    );
}

#[tokio::test]
async fn git_works() {
    let room = Room::with(&[("a.txt", "a\n")]).await;
    assert!(
        room.succeeds(&["git", "--version"])
            .await
            .starts_with("git version")
    );
    let script = "git init -q && git add . && git -c user.name=a -c user.email=b commit -qm x && git log --oneline";
    room.succeeds(&["sh", "-c", script]).await;
}

#[tokio::test]
async fn everything_that_is_said_to_be_found_is_there() {
    let room = Room::with(&[("a", "")]).await;
    assert!(room.tools.found.len() >= 3, "{:?}", room.tools.found);
    for found in &room.tools.found {
        let script = "command -v \"$1\" && test -x \"$(readlink -f \"$(command -v \"$1\")\")\"";
        room.succeeds(&["sh", "-c", script, "sh", &found.name])
            .await;
    }
}

#[tokio::test]
async fn of_the_hosts_home_only_what_is_mounted_is_there() {
    let room = Room::with(&[("a", "")]).await;
    let home = PathBuf::from(std::env::var_os("HOME").unwrap());
    let seen = room
        .succeeds(&[
            "sh",
            "-c",
            "cd \"$1\" 2>/dev/null && ls -A || true",
            "sh",
            home.to_str().unwrap(),
        ])
        .await;
    for name in seen.lines() {
        let path = home.join(name);
        assert!(
            room.tools
                .mounts
                .iter()
                .any(|it| it.inside.starts_with(&path)),
            "{} is inside",
            path.display()
        );
    }
    for name in [
        ".ssh",
        ".npmrc",
        ".gitconfig",
        ".config",
        ".cargo/credentials.toml",
        ".cargo/config.toml",
    ] {
        let path = home.join(name);
        let gone = room.run(&["test", "-e", path.to_str().unwrap()]).await;
        assert_eq!(gone.exit.code, Some(1), "{}", path.display());
    }
}

#[tokio::test]
async fn nothing_of_a_toolchain_can_be_written() {
    let room = Room::with(&[("a", "")]).await;
    for mount in &room.tools.mounts {
        let script = "if test -d \"$1\"; then ! touch \"$1/new\" 2>/dev/null; else ! (: >> \"$1\") 2>/dev/null; fi";
        let inside = mount.inside.to_str().unwrap();
        // What was left out for want of a layer is the sandbox's own.
        if mount.without_layer().is_some() {
            room.succeeds(&["sh", "-c", script, "sh", inside]).await;
        }
    }
}

/// The same in a home of its own, in which the toolchains of whoever runs the tests appear: as an
/// ordinary user where that is root, else as the same one.
#[test]
fn all_of_this_holds_for_an_ordinary_user() {
    let home = Home::new().as_user(65534).with_rust();
    home.file("home/.npmrc", "//registry.npmjs.org/:_authToken=secret\n");
    // Where another user can reach it.
    let program = home.root().join("inside");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let args = [
        "--test-threads=2",
        "--skip",
        "all_of_this_holds_for_an_ordinary_user",
    ];
    let ran = home.run(&program, args, &home.home(), PATIENCE);
    assert!(ran.status.success(), "{}\n{}", ran.stdout, ran.stderr);
}
