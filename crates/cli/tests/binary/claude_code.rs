//! Claude Code as it comes from npm, headless in a sandbox, at `skep run`.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use testkit::models::{Dialect, Hold, Job, Script, Step};
use testkit::{Home, leaks};

use crate::world::{self, DEADLINE, PROMPT, Told, World, before, outside};

/// The version that these tests install; those of the agents' own tests install the same.
const VERSION: &str = "2.1.197";
/// How long npm may take.
const INSTALL: Duration = Duration::from_secs(300);

/// Installs Claude Code once, into the build's own directory, and gives the directory of its
/// program. Other processes may do the same at the same time: each its own, the first wins.
fn installed() -> PathBuf {
    static BIN: OnceLock<PathBuf> = OnceLock::new();
    BIN.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("claude-{VERSION}"));
        let bin = dir.join("node_modules/.bin");
        if bin.join("claude").exists() {
            return bin;
        }
        let own = dir.with_extension(std::process::id().to_string());
        let mut command = std::process::Command::new("npm");
        command
            .args(["install", "--no-fund", "--no-audit", "--prefix"])
            .arg(&own)
            .arg(format!("@anthropic-ai/claude-code@{VERSION}"));
        let ran = testkit::Started::spawn(command).finish(INSTALL);
        assert!(
            ran.status.success() && own.join("node_modules/.bin/claude").exists(),
            "npm install @anthropic-ai/claude-code@{VERSION} failed; it needs npm's registry:\n{}",
            ran.stderr
        );
        if std::fs::rename(&own, &dir).is_err() {
            std::fs::remove_dir_all(&own).unwrap();
        }
        bin
    })
    .clone()
}

/// A directory that every user can read: that of the build, or a copy below the home where the
/// build is closed to others.
fn readable(bin: &Path, home: &Home) -> PathBuf {
    let dir = bin.parent().and_then(Path::parent).unwrap();
    if !rustix::process::geteuid().is_root() {
        return bin.to_owned();
    }
    let (reaches, _) = outside(
        Path::new("/"),
        &[
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "test",
            "-r",
            bin.join("claude").to_str().unwrap(),
        ],
    );
    if reaches {
        return bin.to_owned();
    }
    let own = home.root().join("claude");
    let (copied, said) = outside(
        Path::new("/"),
        &["cp", "-a", dir.to_str().unwrap(), own.to_str().unwrap()],
    );
    assert!(copied, "{said}");
    own.join("node_modules/.bin")
}

fn world(is_ordinary: bool, script: Script) -> World {
    let repo = world::wrong_answer();
    let bin = installed();
    let (world, bin) = if is_ordinary {
        let world = World::of_ordinary_user(Dialect::Messages, repo, script);
        let bin = readable(&bin, &world.home);
        (world, bin)
    } else {
        (World::new(Dialect::Messages, repo, script), bin)
    };
    let mut path = bin.into_os_string();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap());
    world.env("PATH", path)
}

const RUN: [&str; 7] = [
    "run",
    "--json",
    "--plan",
    "none",
    "--agent",
    "claude-code",
    PROMPT,
];

/// What Claude Code's shell can see of its environment and of every process.
const LOOK: &str = "env; tr '\\0' '\\n' < /proc/1/environ; cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline | tr '\\0' '\\n'; echo LOOKED";

/// A first round that succeeds, while the key is nowhere that an agent can see.
fn succeeds(is_ordinary: bool) {
    let hold = Hold::new();
    let script = Script::new().job(
        Job::on(PROMPT)
            .with_tools()
            .step(Step::shell(LOOK))
            .step(Step::shell("echo 42 > answer.txt").held_by(&hold))
            .step(Step::say("The answer is 42.")),
    );
    let world = world(is_ordinary, script);
    let was = world.repo.snapshot();
    let running = world.start(&RUN);
    let asked = world.model.wait_for(DEADLINE, |it| it.step == 1);
    let holders: Vec<_> = leaks::processes_holding(&world.key)
        .into_iter()
        .filter(|it| it.pid != running.pid())
        .collect();
    assert!(holders.is_empty(), "the key is seen by {holders:?}");
    hold.release();
    let told = Told::of(running.finish(DEADLINE).expect_code(0));
    assert!(asked.text().contains("LOOKED"), "{}", asked.text());
    assert_eq!(told.verdicts("answer").first().unwrap(), "passed");
    assert_eq!(world.integrated("answer.txt"), "42\n");
    was.assert_only_integration(&world.repo.snapshot());
    // What stands in for a key inside is no secret, and the real one came from outside.
    for request in world.model.conversations() {
        assert_eq!(request.key(), Some(world.key.as_str()));
    }
    world.assert_no_secret(&[&told.ran]);
    world.assert_nothing_left();
}

/// A first round that fails the check, and a second in the same session that repairs it.
fn repairs(is_ordinary: bool) {
    let script = Script::new().job(
        Job::on(PROMPT)
            .with_tools()
            .step(Step::shell("echo 43 > answer.txt"))
            .step(Step::say("The answer is 43."))
            .step(Step::shell("echo 42 > answer.txt"))
            .step(Step::say("The answer is 42.")),
    );
    let world = world(is_ordinary, script);
    let was = world.repo.snapshot();
    let told = Told::of(world.skep(&RUN).expect_code(0));
    assert_eq!(told.verdicts("answer"), ["failed", "passed"]);
    assert_eq!(world.integrated("answer.txt"), "42\n");
    let second = world.model.wait_for(DEADLINE, |it| it.step == 2);
    assert!(second.text().contains("The answer is 43."));
    was.assert_only_integration(&world.repo.snapshot());
    world.assert_no_secret(&[&told.ran]);
    world.assert_nothing_left();
}

#[test]
fn claude_code_mends_a_repository_and_never_sees_the_key() {
    succeeds(false);
}

#[test]
fn claude_code_mends_a_repository_of_an_ordinary_user() {
    succeeds(true);
}

#[test]
fn claude_code_is_sent_back_with_the_findings_and_repairs_its_change() {
    repairs(false);
}

#[test]
fn claude_code_of_an_ordinary_user_repairs_its_change() {
    repairs(true);
}

#[test]
fn without_claude_code_a_run_says_how_to_install_it() {
    let world = World::new(Dialect::Messages, world::wrong_answer(), world::mending());
    let was = before(&world.repo);
    let path = world.home.root().join("tmp/empty");
    std::fs::create_dir(&path).unwrap();
    let git = outside(&path, &["sh", "-c", "dirname $(command -v git)"]).1;
    let world = world.env("PATH", format!("{}:{}", path.display(), git.trim()));
    let ran = world.skep(&RUN);
    if world::entries(Path::new(git.trim())).contains(&"claude".to_owned()) {
        panic!("claude is installed beside git: this test cannot hide it");
    }
    let ran = ran.expect_code(4);
    assert!(
        ran.stderr.contains("npm install") && ran.stderr.contains("claude"),
        "{}",
        ran.stderr
    );
    was.assert_same(&world.repo.snapshot());
}
