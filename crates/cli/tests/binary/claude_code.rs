//! Claude Code as it comes from npm, headless in a sandbox, at `skep run`: a second round, and what
//! is said without it. That it mends repositories is seen beside the built-in agent in `lands`.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use testkit::Home;
use testkit::models::{Dialect, Hold, Job, Script, Step};

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
    if home.user().is_none() {
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

/// Puts Claude Code first among the programs of this user.
pub fn with_claude(world: World) -> World {
    let mut path = readable(&installed(), &world.home).into_os_string();
    path.push(":");
    path.push(world.home.variable("PATH").unwrap());
    world.env("PATH", path)
}

fn world(is_ordinary: bool, script: Script) -> World {
    let repo = world::wrong_answer();
    with_claude(if is_ordinary {
        World::of_ordinary_user(Dialect::Messages, repo, script)
    } else {
        World::new(Dialect::Messages, repo, script)
    })
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

#[test]
fn killed_in_the_middle_it_continues_its_own_conversation() {
    let hold = Hold::new();
    let script = Script::new().job(
        Job::on(PROMPT)
            .with_tools()
            // What it makes of an answer that never came is its own affair.
            .in_order()
            .step(Step::shell("echo one >> log.txt"))
            .step(Step::say("Nobody hears this.").held_by(&hold))
            .step(Step::shell("echo 42 > answer.txt"))
            .step(Step::say("The answer is 42.")),
    );
    let world = world(false, script);
    let mut running = world.start(&RUN);
    world.model.wait_for(DEADLINE, |it| it.step == 1);
    running.kill();
    hold.release();
    let ran = world.skep(&["retry", "--json"]).expect_code(0);
    world.assert_nothing_left();
    let events = ran.json_lines();
    let began = events.iter().filter(|it| it["type"] == "attempt_started");
    assert_eq!(began.count(), 1);
    assert_eq!(world.integrated("log.txt"), "one\n");
    assert_eq!(world.integrated("answer.txt"), "42\n");
    let told = world.model.conversations();
    assert!(told.last().unwrap().text().contains("was interrupted"));
}
